"""The pipelines on offer, read from `pipelines/*/pipeline.toml`. Adding a folder adds a pipeline."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from bot.domain.errors import NomadsError
from bot.domain.mistakes import mistakes
from bot.domain.options import MAX_OPTIONS, Option, no_such_option
from bot.domain.request import JobRequest
from bot.domain.volume import Box
from contract import channels

MIB = 2**20
YEAR = 365 * 24 * 3600
"""Seconds."""
LARGEST_MEMORY = 10**8
"""MiB: more than any machine has, and no more than AWS Batch can be asked for."""
LARGEST_BOX = 10**15
"""Voxels: at a year for each gigavoxel, that is still a time that can be told."""
_NAME = "lower-case letters, digits and dashes, 63 at most, that begin with a letter or digit"


class Limits(BaseModel):
    """Limits of a pipeline's input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    voxels: Annotated[int | None, Field(gt=0, le=LARGEST_BOX)] = None
    """Voxels of the largest box; None: only the installation's limit in bytes holds."""


class InBlocks(BaseModel):
    """Of a pipeline whose program knows the stages of a job in blocks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    voxels: Annotated[int | None, Field(gt=0, le=LARGEST_BOX)] = None
    """Voxels of a block; None: as the installation has it."""
    only_with: Annotated[tuple[str, ...], Field(description='a list of settings, such as ["method=paired"]')] = ()
    """What the options have to be for it, as in a command; an option that has to be left out is `name=`."""


class Pipeline(BaseModel):
    """A pipeline as its entry in the catalogue describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description=_NAME)]
    title: Annotated[str, Field(min_length=1, max_length=75)]
    description: Annotated[str, Field(max_length=300)]
    version: str = "1"
    image: str = ""
    """Container image; empty: this pipeline cannot run on AWS Batch."""
    command: tuple[str, ...] = ()
    """The program, without the request's arguments; empty: the pipeline cannot run at all yet."""
    contract: Literal["2018", "1", "2"] = "1"
    """`2018`: takes `--token` and no `--results-uri`. `2`: reads volumes by address (`--volume`) too."""
    cpu: Annotated[float, Field(gt=0, le=1024)] = 1
    memory: Annotated[int, Field(gt=0, le=LARGEST_MEMORY)] = 2048
    """MiB, whatever the box."""
    memory_per_voxel: Annotated[float, Field(ge=0, le=MIB)] = 0
    """Bytes on top for every voxel of the box."""
    seconds: Annotated[float, Field(ge=0, le=YEAR)] = 0
    """Estimated seconds of any run, used until this installation's own runs give an estimate; 0: unknown."""
    seconds_per_gigavoxel: Annotated[float, Field(ge=0, le=YEAR)] = 0
    """Estimated seconds on top for every 10^9 voxels."""
    timeout: Annotated[int, Field(ge=60, le=YEAR)] = 3600
    """Seconds; AWS Batch takes no less than 60."""
    roles: Annotated[
        dict[str, tuple[str, ...]], Field(description='a table of lists of text, such as postsynaptic = ["psd"]')
    ] = {}
    """Channel role to the parts of channel names that fill it, such as postsynaptic = ["psd"]."""
    options: Annotated[tuple[Option, ...], Field(description="a list of tables, each [[options]]")] = ()
    """What a person may set beside the box, in the order in which it is asked for."""
    limits: Limits = Limits()
    blocks: InBlocks | None = None
    """How a box that is larger than a block is worked on; None: by one program, as any other."""

    @field_validator("options")
    @classmethod
    def _options(cls, declared: tuple[Option, ...], info: ValidationInfo) -> tuple[Option, ...]:
        if declared and info.data.get("contract") == "2018":
            raise ValueError("a program of 2018 takes no options")
        if len(declared) > MAX_OPTIONS:
            raise ValueError(f"there are {len(declared)} options; a form has room for {MAX_OPTIONS}")
        names = [option.name for option in declared]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two options are named {twice}")
        if "roles" in info.data:
            problems = (option.misplaced(declared, info.data["roles"]) for option in declared)
            if problem := next(filter(None, problems), None):
                raise ValueError(problem)
        return declared

    def read_options(self, typed: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """What a person typed, by the option's name: the values that differ from their defaults, and every mistake.

        Values are as `Option.read` returns them, in the order of the options; mistakes are in words for the person.
        """
        values: dict[str, str] = {}
        known = {option.name: option for option in self.options}
        gone = [name for name, text in typed.items() if name not in known and text.strip()]
        errors = {name: no_such_option(name, self.options, self.name) for name in gone}
        for name, option in known.items():
            try:
                value = option.read(typed.get(name, ""))
            except ValueError as error:
                errors[name] = str(error)
            else:
                if value != option.initial:
                    values[name] = value
        idle = {name: known[name].idle(known, values) for name in values}
        return values, {name: text for name, text in idle.items() if text} | errors

    def memory_for(self, voxels: int) -> int:
        """MiB a run on a box of so many voxels needs."""
        return self.memory + -int(-(self.memory_per_voxel * voxels) // MIB)

    def block_for(self, box: Box, options: Mapping[str, str], *, usual: int) -> int | None:
        """Voxels of a block of a job on the box; None: one program takes all of it.

        `options` are those that differ from their defaults, and `usual` is the installation's block.
        """
        if self.blocks is None or box.voxels <= (most := self.blocks.voxels or usual):
            return None
        return None if self.not_in_blocks(options) else most

    def not_in_blocks(self, options: Mapping[str, str]) -> str:
        """The first setting without which no job of the pipeline goes in blocks; empty: it does with these options."""
        initial = {option.name: option.initial for option in self.options}
        for setting in self.blocks.only_with if self.blocks else ():
            name, _, value = setting.partition("=")
            if options.get(name, initial.get(name, "")) != value:
                return setting
        return ""

    def idle_options(self, typed: Mapping[str, str]) -> set[str]:
        """The names of the options that have no effect with the others, as far as what was typed can be read."""
        known = {option.name: option for option in self.options}
        values = {
            name: known[name].read(text) for name, text in typed.items() if name in known and known[name].takes(text)
        }
        return {name for name in values if known[name].idle(known, values)}

    @property
    def release(self) -> str:
        """Identifies the release of the program: the image's digest where there is one, else the version."""
        return self.image.partition("@")[2] or self.version

    @property
    def channels(self) -> int:
        """How many channels a run reads: one for each role, and one at least."""
        return max(1, len(self.roles))

    def choose(self, names: Sequence[str]) -> dict[str, str]:
        """Role to the channel that fills it, among an experiment's channels; a role nobody fills is absent.

        Programs choose alike, by the same `contract.channels.choose`.
        """
        return channels.choose(self.roles, names)

    @property
    def time_limit(self) -> timedelta:
        """How long a run may take."""
        return timedelta(seconds=self.timeout)


class Catalog:
    """The pipelines by name, in the order of their names."""

    def __init__(self, pipelines: Mapping[str, Pipeline]) -> None:
        self._pipelines = dict(sorted(pipelines.items()))

    @classmethod
    def read(cls, folder: Path, *, images: Mapping[str, str] | None = None) -> Catalog:
        """Read every `*/pipeline.toml` under the folder; `images` overrides images by pipeline name.

        Raises NomadsError that names the file, from the folder on, and every mistake in it by field.
        """
        images = images or {}
        found: dict[str, Pipeline] = {}
        try:
            folder.stat()  # glob finds nothing where there is no folder
            paths = sorted(folder.glob("*/pipeline.toml"))
        except OSError as error:
            raise NomadsError(f"The folder of pipelines cannot be read: {error.strerror}.") from None
        for path in paths:
            where = path.relative_to(folder.parent)
            written: dict[str, object] = {}
            try:
                written = tomllib.loads(path.read_text(encoding="utf-8"))
                entry = Pipeline.model_validate(written)
            except ValidationError as error:
                wrong = [f"{where}: {field}: {said}" for field, said in mistakes(error, Pipeline, written)]
                raise NomadsError("\n".join(wrong)) from None
            except tomllib.TOMLDecodeError as error:
                raise NomadsError(f"{where}: this is no TOML: {error}.") from None
            except (OSError, UnicodeDecodeError):
                raise NomadsError(f"{where}: this file cannot be read, or is no text in UTF-8.") from None
            if entry.name in found:
                raise NomadsError(f"{where}: name: there is already a pipeline named {entry.name}.")
            image = images.get(entry.name)
            found[entry.name] = entry.model_copy(update={"image": image}) if image else entry
        return cls(found)

    def __iter__(self) -> Iterator[Pipeline]:
        return iter(self._pipelines.values())

    def get(self, name: str) -> Pipeline | None:
        """The pipeline of that name, if it is on offer."""
        return self._pipelines.get(name)

    def told_options(self, request: JobRequest) -> list[tuple[str, str]]:
        """Title and value of each option that the request sets; an option that is gone has its name for a title."""
        pipeline = self.get(request.pipeline)
        titles = {option.name: option.title for option in pipeline.options} if pipeline else {}
        return [(titles.get(name, name), value.replace(",", ", ")) for name, value in request.options.items()]
