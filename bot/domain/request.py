"""What may be asked for, and how it is read from what a person typed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from bot.domain.errors import InvalidRequest
from bot.domain.volume import Box, Range
from contract import names
from contract.names import MAX_NAME, short
from volumes.address import Address as VolumeAddress
from volumes.address import is_address, parse
from volumes.errors import WrongVolume

LONGEST_PLACE = 200
"""Characters of an address that people are shown, at most."""
MAX_EMAIL = 254
"""The longest address SMTP carries (RFC 5321, 4.5.3.1.3, less the angle brackets)."""
ALL = "all"
"""What may be typed in place of a range: all of the experiment along this axis. An empty range means the same."""
DIGEST = 12
"""Hexadecimal digits that tell requests apart that differ in their options alone."""
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


def _range(value: Any) -> Any:
    return Range.parse(value) if isinstance(value, str) else value


def _name(what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not value:
            raise ValueError(f"Write the {what}'s name, as BOSS spells it.")
        if not names.is_name(value, longest=None):
            raise ValueError(
                f"“{short(value)}” is not a name BOSS knows; letters, digits, - and _ are allowed, without spaces."
            )
        if len(value) > MAX_NAME:
            raise ValueError(f"This has {len(value)} characters; BOSS's names have at most {MAX_NAME}.")
        return value

    return AfterValidator(check)


def _pipeline(value: str) -> str:
    if not value:
        raise ValueError("Choose a pipeline.")
    if not names.is_name(value):
        raise ValueError(f"“{short(value)}” is not the name of a pipeline.")
    return value


def _email(value: str) -> str:
    if not value:  # whether one is needed, is not known here
        return value
    if not value.isprintable():
        raise ValueError("The address has a line break or another invisible character in it; write one plain address.")
    if value.count("@") != 1 or any(c in value for c in ",; "):
        raise ValueError(f"“{short(value)}” is not one mail address; write a single one, such as name@example.org.")
    if len(value) > MAX_EMAIL or not _EMAIL.fullmatch(value) or not _is_address(value):
        raise ValueError(f"“{short(value)}” is not a mail address; write one such as name@example.org.")
    return value


@lru_cache(maxsize=1024)  # a job is made of its row many times
def _is_address(value: str) -> bool:
    """Whether the library that will write the mail takes the address; it refuses misplaced dots, for one."""
    try:
        return bool(Address(addr_spec=value).domain)
    except (ValueError, IndexError, MessageError):
        return False


def _trim(value: Any) -> Any:
    """The value without spaces and tabs round it; line breaks are left for the checks to refuse."""
    return value.strip(" \t") if isinstance(value, str) else value


Trim = BeforeValidator(_trim)


def _note(value: Range, info: ValidationInfo) -> Range:
    """Record the range in the validation context, where `read` finds it also if another field is wrong."""
    if info.context is not None and info.field_name:
        info.context[info.field_name] = value
    return value


RangeField = Annotated[Range, BeforeValidator(_range), AfterValidator(_note)]


class JobRequest(BaseModel):
    """What a person asks for: a pipeline on a box of an experiment, and where the results should go.

    `channel` is the Slack channel id that hears of it, or None where nobody listens in Slack.
    The BOSS token is deliberately not part of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: Annotated[str, AfterValidator(_pipeline), Trim]
    collection: Annotated[str, _name("collection"), Trim]
    experiment: Annotated[str, _name("experiment"), Trim]
    x: RangeField
    y: RangeField
    z: RangeField
    email: Annotated[str, AfterValidator(_email), Trim] = ""
    """Empty: no mail is sent."""
    channel: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,32}$")] | None = None
    options: Annotated[dict[str, str], Field(exclude_if=lambda options: not options)] = {}
    """The pipeline's options that differ from their defaults, as `Option.read` returns them. None: not even stored."""
    volume: Annotated[str, Field(exclude_if=lambda volume: not volume)] = ""
    """The address, in its one form, of a volume that is not BOSS's: collection and experiment are names made of it."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> JobRequest:
        """Read what a person typed. Raises InvalidRequest with every mistake, by field, at once."""
        reading = read(values)
        if reading.request is None:
            raise InvalidRequest(reading.errors)
        return reading.request

    @property
    def typed(self) -> dict[str, Any]:
        """The request as a person types it: a text for each field, and `options`, a text for each option."""
        texts = {name: str(value) for name in TEXTS if (value := getattr(self, name)) is not None}
        if self.volume:
            texts |= {"collection": self.volume, "experiment": ""}
        return {**texts, "options": dict(self.options)} if self.options else texts

    @property
    def place(self) -> str:
        """The volume, for people: `collection/experiment`, or the address, cut where it is long."""
        return short(self.volume, LONGEST_PLACE) or f"{self.collection}/{self.experiment}"

    @property
    def asked(self) -> tuple[str, str]:
        """The volume as the port Volumes takes it: collection and experiment, or an address and nothing."""
        return (self.volume, "") if self.volume else (self.collection, self.experiment)

    @property
    def box(self) -> Box:
        """The box asked for, in voxels at resolution 0."""
        return Box(self.z, self.y, self.x)

    @property
    def results_key(self) -> str:
        """The name of the results, formed as the 2018 service did; with options, and a digest of these at its end.

        Requests with equal keys ask for the same.
        """
        z, y, x = ((side.start, side.stop) for side in (self.z, self.y, self.x))
        key = names.results_key(self.pipeline, self.collection, self.experiment, z=z, y=y, x=x)
        if not self.options:
            return key
        said = json.dumps(self.options, sort_keys=True)
        return f"{key}_options_{hashlib.sha256(said.encode()).hexdigest()[:DIGEST]}"


TEXTS = tuple(name for name in JobRequest.model_fields if name not in ("options", "volume"))
"""The fields that a person types as one text each. An address is typed in place of the collection."""


@dataclass(frozen=True)
class Reading:
    """What was understood of what a person typed."""

    request: JobRequest | None
    """None where something is wrong."""
    errors: Mapping[str, str]
    """Every mistake, by field."""
    sides: Mapping[str, Range]
    """The ranges that are right, by axis."""

    @property
    def box(self) -> Box | None:
        """None where one of the three ranges is wrong."""
        return Box(**self.sides) if self.sides.keys() == set("zyx") else None


def left_open(values: Mapping[str, Any]) -> list[str]:
    """The axes along which all of the experiment is asked for: their ranges are empty, or ALL."""
    return [axis for axis in "zyx" if str(values.get(axis) or "").strip().lower() in ("", ALL)]


def read(values: Mapping[str, Any]) -> Reading:
    """Read what a person typed, each field once. `values` has JobRequest's fields."""
    ranges: dict[str, Range] = {}
    wrong = {}
    values = dict(values)
    if is_address(typed := str(values.get("collection") or "").strip()):
        try:
            values |= _located(typed)
        except WrongVolume as error:
            wrong["collection"] = str(error)
            values |= {"collection": "unknown", "experiment": "unknown"}  # so that every other mistake is found too
    try:
        request = JobRequest.model_validate(values, context=ranges)
    except ValidationError as error:
        return Reading(None, {**_by_field(error), **wrong}, ranges)
    return Reading(None if wrong else request, wrong, ranges)


def _located(typed: str) -> dict[str, str]:
    """The fields that an address stands for. Raises WrongVolume."""
    address = parse(typed)
    if isinstance(address, VolumeAddress):
        return {"volume": str(address), "collection": address.stem, "experiment": address.digest}
    return {"collection": address.collection, "experiment": address.experiment}


def _by_field(error: ValidationError) -> dict[str, str]:
    """The first mistake of every field, in words for a person (pydantic's own wording is for programmers)."""
    errors: dict[str, str] = {}
    for found in error.errors(include_url=False, include_input=False):
        field = str(found["loc"][0]) if found["loc"] else "request"
        if found["type"] == "value_error":
            text = str(found["ctx"]["error"])
        elif found["type"] == "missing":
            text = "This is needed."
        elif found["type"] == "extra_forbidden":
            text = "There is no such field."
        elif field == "channel":
            text = "Choose a channel from the list."
        else:
            text = "This cannot be understood; write it as in the example."
        errors.setdefault(field, text)
    return errors
