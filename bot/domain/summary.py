"""What a finished job found: the checked part of the results.json that its program left."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bot.domain import words
from bot.domain.errors import NomadsError
from bot.domain.findings import MAX_COUNT, Finding, Line, Reading, ResultName, line
from bot.domain.views import Viewpoint, checked, layers_of
from contract import masking
from contract.chance import about, interval
from contract.program import MAX_MISSING, MAX_NOTE, RESULTS

MOST_MISSING = 5
"""Names that are told of the files that a program announces and does not leave."""
MAX_MISSING_NAME = 60
"""Characters that are told of each such name."""
NOT_THERE = "The program announced files that it did not leave:"
LEFT_OUT = f"Left out of {RESULTS}, since it cannot be used:"
NAMED = "Files whose names hold the BOSS token, or may hold it, are not shown."
UNMASKED = (
    "The BOSS token was erased before this could be read, so texts of the program are not shown, as they may hold it."
)
KNOWN_FILES = {
    "synapses.csv": "One line for each synapse: centre in voxels and nm, volume, score, class.",
    "predictions.npz": "Where the synapses are, voxel by voxel, for numpy: 255 in a synapse, else 0.",
    "classes.npz": "Which class each voxel belongs to, for numpy: 0 is none.",
    "report.html": "Density, sizes, scores and brightness on one page that opens anywhere.",
    "preview.png": "The box from above, with a circle round each synapse.",
    RESULTS: "Counts, parameters and versions, for programs.",
    "ro-crate-metadata.json": "What was read, with what, and every file with its checksum (RO-Crate).",
}
"""What the files are that our pipelines write, in a sentence each. Their names are no program's own text."""
KNOWN_COUNTS = {"synapses": "synapse", "voxels in synapses": "voxel in synapses"}
"""What our pipelines count, and what one of it is called."""


class Unreadable(NomadsError):
    """A results.json cannot be used; the text says why, in words for whoever wrote the program."""


def _density(value: Any) -> float | None:
    """The number, where it can be a density; what a program says besides its counts is no reason to refuse them."""
    fit = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return abs(float(value)) if fit else None  # -0.0 is 0


class Chance(BaseModel):
    """How many of the detections a program holds to be there by chance; without numbers, it cannot tell."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)
    count: Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)] | None
    share: Annotated[float, Field(strict=True, ge=0, le=1)] = 0
    """The part of what was found that the count is, from 0 to 1."""
    low: Annotated[float, Field(strict=True, ge=0, le=1)] = 0
    """The share lies between `low` and `high`."""
    high: Annotated[float, Field(strict=True, ge=0, le=1)] = 1

    @property
    def numbers(self) -> dict[str, float] | None:
        """As results.json has it: None where it cannot be told, and no share of 0 as if it were measured."""
        return None if self.count is None else self.model_dump()

    def __str__(self) -> str:
        if self.count is None:
            return "how many by chance cannot be told"
        if self.count and self.low == 1:
            return "all by chance"
        of_them = " of them" if self.count else ""
        return f"{about(self.count)}{of_them} by chance ({interval(self.share, self.low, self.high)})"


def _chance(value: Any) -> Chance | None:
    """What a program says of chance. None, as if it said nothing, where that makes no sense."""
    if value is None:
        return Chance(count=None)
    try:
        chance = Chance.model_validate(value)
    except ValidationError:
        return None
    told = chance.model_fields_set >= set(Chance.model_fields) and chance.low <= chance.share <= chance.high
    return chance if told or chance.count is None else None


def _channel(value: Any) -> str:
    """The channel's place in BOSS, where it can be one."""
    return value if isinstance(value, str) and _IN_BOSS.fullmatch(value) else ""


_IN_BOSS = re.compile("/".join([r"[a-zA-Z0-9_-]{1,255}"] * 3))


def _version(value: Any) -> str:
    """The pipeline's own version, of the versions that a program names."""
    said = value.get("pipeline") if isinstance(value, dict) else value
    return said if isinstance(said, str) and said.isprintable() and len(said) <= MAX_VERSION else ""


def _lacking(value: Any) -> int:
    """How many blocks a job in blocks says that its results lack."""
    said = value.get("missing") if isinstance(value, dict) else value
    return said if isinstance(said, int) and not isinstance(said, bool) and 0 <= said <= MAX_COUNT else 0


def _numbers(value: Any) -> list[int]:
    """Which blocks a job in blocks says that its results lack; [] where it does not name all of them."""
    if isinstance(value, dict):
        said, all_of_them = value.get("numbers"), _lacking(value)
    else:
        said, all_of_them = value, len(value) if isinstance(value, list) else 0
    if not isinstance(said, list) or len(said) != all_of_them or len(said) > MAX_MISSING:
        return []
    good = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= MAX_COUNT for n in said)
    return said if good and len(set(said)) == len(said) else []


MAX_VERSION = 64
"""Characters of a pipeline's version, at most."""


class Summary(BaseModel):
    """What a finished job found: the bounded, checked part of its results.json (data from outside, never trusted)."""

    model_config = ConfigDict(extra="ignore")
    counts: dict[Line, int] = {}
    files: list[Finding] = []
    preview: ResultName | None = None
    viewer: str | None = None
    """An address of http or https."""
    notes: list[Line] = []
    """The program's, and one each of `read`, `beside` and `without_names`."""
    only_named: Annotated[bool, Field(exclude_if=lambda only: not only)] = False
    """Whether the folder has files whose names hold the token, so that only `names` may be shown of it."""
    density_per_um3: Annotated[float | None, BeforeValidator(_density)] = None
    """Synapses per cubic micrometre."""
    chance: Annotated[Chance | None, BeforeValidator(_chance), Field(exclude_if=lambda chance: chance is None)] = None
    """How much of what was found is there by chance. None: the program says nothing of it, and nothing is stored."""
    written_back: Annotated[str, BeforeValidator(_channel)] = ""
    """`collection/experiment/channel` of BOSS, where the detections were written; empty: nowhere."""
    view: Annotated[Viewpoint | None, BeforeValidator(checked), Field(exclude_if=lambda view: view is None)] = None
    """How the layers are looked at. None: the program says nothing of it, and no viewer is offered."""
    version: Annotated[str, BeforeValidator(_version), Field(validation_alias=AliasChoices("versions", "version"))] = ""
    """The version of the pipeline that ran; in results.json, `pipeline` among its `versions`."""

    missing: Annotated[
        int,
        BeforeValidator(_lacking),
        Field(validation_alias=AliasChoices("blocks", "missing"), exclude_if=lambda missing: not missing),
    ] = 0
    """How many blocks of a job in blocks have failed for good; in results.json, `missing` of its `blocks`."""
    lacking: Annotated[
        list[int],
        BeforeValidator(_numbers),
        Field(validation_alias=AliasChoices("blocks", "lacking"), exclude_if=lambda lacking: not lacking),
    ] = []
    """Which blocks these are, by their places in the order of all blocks; in results.json, `numbers` of its `blocks`.

    Empty where the program does not say all of them.
    """

    @property
    def layers(self) -> list[str]:
        """The folders that a viewer shows, images first; none where the program does not say how."""
        return layers_of([file.folder for file in self.files if file.folder]) if self.view else []

    @property
    def findings(self) -> list[str]:
        """What was found, a count each: the first with its density, and then how many of it are there by chance."""
        said = [
            f"{words.count(number)} {KNOWN_COUNTS.get(what, what) if number == 1 else what}"
            for what, number in self.counts.items()
        ]
        if said and self.density_per_um3 is not None:
            said[0] += f", {self.density_per_um3:.2g} per µm³"
        if self.chance and 0 < next(iter(self.counts.values()), 0) >= (self.chance.count or 0):
            said.insert(1, str(self.chance))
        return said

    @property
    def found(self) -> str:
        """The findings in a line; empty without counts.

        Such as `293 synapses, 0.15 per µm³; about 73 of them by chance (25 %, 20 to 31); 13,158 voxels in synapses`.
        """
        return "; ".join(self.findings)

    @property
    def silent(self) -> bool:
        """Whether it tells nothing of what was found."""
        said = (self.counts, self.files, self.preview, self.notes, self.viewer, self.written_back)
        return not any(said)

    def beside(self, names: Collection[str]) -> tuple[Summary, str]:
        """The summary without the files that it announces and that are not among `names`, those of its folder.

        A sentence about the missing files is returned too, and is a note of the summary, unless nothing else is left to
        tell. Empty: none is missing.
        """
        announced = dict.fromkeys([*(file.name for file in self.files), *([self.preview] if self.preview else [])])
        missing = [words.shortened(name, MAX_MISSING_NAME) for name in announced if name not in names]
        if not missing:
            return self, ""
        more = f" and {len(missing) - MOST_MISSING} more" if len(missing) > MOST_MISSING else ""
        said = line(f"{NOT_THERE} {', '.join(missing[:MOST_MISSING])}{more}.")
        there = self.model_copy(
            update={
                "files": [file for file in self.files if file.name in names],
                "preview": self.preview if self.preview in names else None,
            }
        )
        return (there if there.silent else there.model_copy(update={"notes": [*there.notes, said]})), said

    @property
    def names(self) -> set[str]:
        """The names of the files that it names, and of the file from which it was read."""
        return {RESULTS, *(file.name for file in self.files), *([self.preview] if self.preview else [])}

    def without_names(self) -> Summary:
        """This, for a folder with files whose names hold the token."""
        return self.model_copy(update={"only_named": True, "notes": [*self.notes, NAMED]})

    @classmethod
    def read(cls, content: bytes, *, token: str | None = "") -> Summary:
        """The checked part of a results.json, whatever a program has written there, without the token.

        A field, or a part of one, that cannot be used is left out, and a note says so. A file or an address with the
        token in it is left out; a file's is noted. Where the token is not known (None), no text of the program's is
        believed to be without it: see `_known`. Raises Unreadable where nothing of it can be used.
        """
        if token is None:
            try:
                return cls.read(content)._known()
            except Unreadable:
                raise Unreadable(f"{RESULTS} cannot be used.") from None  # what is wrong may be told in its own texts
        try:
            said = json.loads(content)
            shown = _without(said, token)
        except RecursionError:
            raise Unreadable(f"{RESULTS} is nested too deeply.") from None
        except ValueError:  # no UTF-8, no JSON, a number of thousands of digits
            raise Unreadable(f"{RESULTS} is not JSON.") from None
        if not isinstance(shown, dict):
            raise Unreadable(f"{RESULTS} cannot be used: it is not an object.")
        summary = cls._of(shown)
        return summary if shown == said else summary._without_masked()

    @classmethod
    def _of(cls, said: dict[str, Any]) -> Summary:
        """What can be used of a results.json, with a note of what cannot. Raises Unreadable where nothing can."""
        reading = Reading(said)
        summary = cls.model_validate({name: said[name] for name in _BESIDE if name in said}).model_copy(
            update={
                "counts": reading.counts,
                "files": reading.files,
                "preview": reading.preview,
                "viewer": reading.viewer,
                "notes": reading.notes,
            }
        )
        if reading.left_out and summary.silent:
            raise Unreadable(words.shortened(f"{RESULTS} cannot be used: {reading.left_out}.", MAX_NOTE))
        if reading.left_out:
            summary.notes.append(words.shortened(f"{LEFT_OUT} {reading.left_out}.", MAX_NOTE))
        return summary

    def _known(self) -> Summary:
        """This without any text that a program chose: numbers, and files, counts and a preview of known names."""
        return Summary().model_copy(
            update={
                "counts": {name: self.counts[name] for name in KNOWN_COUNTS if name in self.counts},
                "files": [Finding(name=file.name) for file in self.files if file.name in KNOWN_FILES],
                "preview": self.preview if self.preview in KNOWN_FILES else None,
                "notes": [UNMASKED],
                "only_named": True,
                "density_per_um3": self.density_per_um3,
                "chance": self.chance,
            }
        )

    def _without_masked(self) -> Summary:
        """This without names and addresses in which a token was masked: they lead nowhere."""
        masked = {name for name in self.names if masking.SHORT_MASK in name}
        whole = self.model_copy(
            update={
                "files": [file for file in self.files if file.name not in masked],
                "preview": None if self.preview in masked else self.preview,
                "viewer": None if self.viewer and masking.SHORT_MASK in self.viewer else self.viewer,
            }
        )
        return whole.without_names() if masked else whole


_BESIDE = ("density_per_um3", "chance", "view", "written_back", "versions", "blocks")
"""Fields of a results.json that are as if they were not there, without a note, where they cannot be true."""


def _without(said: Any, token: str) -> Any:
    """What JSON says, with the token replaced in every text of it, names of fields among them."""
    texts = list(_texts(said))
    shown = iter(masking.hidden_in_texts(texts, token))

    def again(value: Any) -> Any:
        if isinstance(value, dict):
            return {next(shown): again(inner) for inner in value.values()}
        if isinstance(value, list):
            return [again(inner) for inner in value]
        return next(shown) if isinstance(value, str) else value

    return again(said)


def _texts(said: Any) -> Iterator[str]:
    """Every text in what JSON says, in its order."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, list):
        for inner in said:
            yield from _texts(inner)
    elif isinstance(said, dict):
        for name, inner in said.items():
            yield name
            yield from _texts(inner)
