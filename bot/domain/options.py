"""Options of a pipeline: how its entry declares them, and how they are read from what a person typed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from bot.domain import words
from bot.domain.request import JobRequest
from contract import names, ranges
from contract.names import short
from contract.program import ARGUMENTS

MAX_OPTIONS = 20
"""Options of one pipeline, at most: all of them stand in one form."""
MAX_CHOICES = 30
"""Choices of one option, at most: Slack takes a form of 250 kB."""
MAX_CHANNELS = 10
"""Channels of one option, at most: Slack takes 3,000 characters in a field."""
LARGEST = 10**9
"""The largest number that an option takes."""
CHANNELS = 4
"""Channels that an option of that kind takes, unless its entry says otherwise."""
_LONGEST_NUMBER = 40
"""Characters of a number that is read."""
_Value = TypeVar("_Value")
_NAME = "lower-case letters, digits and dashes, 30 at most, that begin with a letter"
_BOUND = f"a number from 0 to {LARGEST}"
_Choices = Annotated[tuple[str, ...] | None, Field(validate_default=True, description='a list, such as ["a", "b"]')]
_Bound = Annotated[
    float | None,
    Field(strict=True, ge=0, le=LARGEST, allow_inf_nan=False, validate_default=True, description=_BOUND),
]
_Roles = Annotated[tuple[str, ...], Field(description='a list of roles, such as ["postsynaptic"]')]
_Settings = Annotated[tuple[str, ...], Field(description='a list of choices, such as ["method=paired"]')]
_NUMBER = re.compile(r"([-+]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:e[-+]?[0-9]{1,2})?) ?(%?)", re.IGNORECASE)
_WHOLE = re.compile(r"[-+]?[0-9]+")
_GROUPED = re.compile(r"[-+]?[1-9][0-9]{0,2},[0-9]{3}")
"""A number whose comma may be a decimal point or separate thousands."""
_CHOICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_BETWEEN = re.compile(r"[\s,;、]+")
"""What stands between two channels."""


class Option(BaseModel):
    """An option as a pipeline's entry declares it.

    A number or a whole number lies from `least` to `most`, both included, and never below 0; a choice is one of
    `choices`; channels are names of channels of the experiment, `most` of them at most. So no value begins with a dash.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,29}$", description=_NAME)]
    """The program's argument, without its dashes."""
    title: Annotated[str, Field(min_length=1, max_length=40, description="text of 1 to 40 characters")]
    about: Annotated[str, Field(min_length=1, max_length=300, description="a sentence of 300 characters at most")]
    kind: Literal["number", "whole", "choice", "channels"]
    choices: _Choices = None
    least: _Bound = None
    most: _Bound = None
    default: Annotated[Any, Field(validate_default=True)] = None
    """As the entry has it; `initial` is the same as text."""
    not_roles: _Roles = ()
    """Roles of the pipeline whose channels are none for this option."""
    only_with: _Settings = ()
    """Choices of the pipeline's other options, as in a command, with any of which it has an effect; empty: always."""

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in ARGUMENTS or name in JobRequest.model_fields:
            raise ValueError(f"{name} is a word of the request itself; choose another name")
        return name

    @field_validator("choices")
    @classmethod
    def _choices(cls, choices: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        kind = info.data.get("kind")
        if kind != "choice":
            return _absent(choices, kind, "choices")
        if not choices or len(choices) > MAX_CHOICES:
            raise ValueError(f"a choice needs a list of 1 to {MAX_CHOICES} choices")
        if wrong := next((choice for choice in choices if not _CHOICE.fullmatch(choice)), None):
            raise ValueError(
                f"{names.quoted(wrong)} cannot be a choice; one has letters, digits, dots, dashes and underscores, "
                "63 at most, and begins with a letter or digit"
            )
        if len({choice.lower() for choice in choices}) < len(choices):
            raise ValueError("two choices are the same")
        return choices

    @field_validator("least")
    @classmethod
    def _least(cls, least: float | None, info: ValidationInfo) -> float | None:
        kind = info.data.get("kind")
        return _bound(least, kind, "least") if kind in ("number", "whole") else _absent(least, kind, "least")

    @field_validator("most")
    @classmethod
    def _most(cls, most: float | None, info: ValidationInfo) -> float | None:
        kind, least = info.data.get("kind"), info.data.get("least")
        if kind == "channels":
            most = CHANNELS if most is None else _bound(most, "whole", "most")
            if not 1 <= most <= MAX_CHANNELS:
                raise ValueError(f"an option takes 1 to {MAX_CHANNELS} channels")
            return most
        if kind not in ("number", "whole"):
            return _absent(most, kind, "most")
        most = _bound(most, kind, "most")
        if least is not None and most <= least:
            raise ValueError("it has to be above least")
        return most

    @field_validator("default")
    @classmethod
    def _default(cls, default: Any, info: ValidationInfo) -> Any:
        """Checked by the rules of what people type; nothing is checked where another field is wrong."""
        if {"kind", "choices", "least", "most"} - info.data.keys():
            return default
        option = cls.model_construct(**info.data, default=default)
        if option.kind == "channels":
            if default not in (None, ""):
                raise ValueError('it has to be "", since no experiment is known here')
            return ""
        if option.kind == "choice":
            right = default in (option.choices or ())
        else:
            right = isinstance(default, int | float) and not isinstance(default, bool) and option.takes(str(default))
        if not right:
            raise ValueError(f"it has to be {option.allowed}")
        return default

    @property
    def initial(self) -> str:
        """The default as a person types it; empty for channels."""
        return _plain(Decimal(str(self.default))) if self.kind in ("number", "whole") else str(self.default)

    @property
    def allowed(self) -> str:
        """What may be typed, for the middle of a sentence: `a number from 0.01 to 0.9`."""
        match self.kind:
            case "choice":
                return _either(self.choices or ())
            case "channels":
                return f"names of channels of the experiment, {self.most:.0f} at most, with commas between"
        return f"{'a number' if self.kind == 'number' else 'a whole number'} from {self._span}"

    @property
    def hint(self) -> str:
        """What the field under which it stands is for, and what may be typed there."""
        match self.kind:
            case "choice":
                return self.about
            case "channels":
                return f"{self.about} {self.most:.0f} at most, with commas between."
        return f"{self.about} {self._span}; empty: {self.initial}."

    @property
    def _span(self) -> str:
        return f"{_plain(Decimal(str(self.least)))} to {_plain(Decimal(str(self.most)))}"

    def read(self, typed: str) -> str:
        """The value as programs get it, in the one way in which it is stored; of an empty text, the default.

        Raises ValueError in words for the person who typed it.
        """
        text = typed.translate(ranges.PLAIN).strip()
        if not text:
            return self.initial
        read: Callable[[str], str] = {"choice": self._chosen, "channels": self._channels}.get(self.kind, self._number)
        return read(text)

    def takes(self, typed: str) -> bool:
        """Whether that can be typed."""
        try:
            self.read(typed)
        except ValueError:
            return False
        return True

    def channels(self, value: str) -> Sequence[str]:
        """The channels that a value as `read` returns it names; none unless the option is one of channels."""
        return value.split(",") if value and self.kind == "channels" else ()

    def idle(self, options: Mapping[str, Option], values: Mapping[str, str]) -> str:
        """Why it has no effect with the values of the other options, for whoever set it; empty where it has one.

        `values` are as `read` returns them; an option that is not among them has its default.
        """
        settings = [setting.partition("=")[::2] for setting in self.only_with]
        now = {name: values.get(name, options[name].initial) for name, _ in settings}
        if not settings or any(now[name] == choice for name, choice in settings):
            return ""
        others = _either([f"{name} {choice}" for name, choice in settings])
        given = words.listed([f"{name} {choice}" for name, choice in now.items()])
        leave = f"leave it at {self.initial}" if self.initial else "leave it empty"
        return f"This has no effect with {given}; {leave}, or choose {others}."

    def misplaced(self, options: Sequence[Option], roles: Collection[str]) -> str:
        """What is wrong with what it says of the pipeline's roles and other options; empty where that is right."""
        if self.not_roles and self.kind != "channels":
            return f"not_roles of {self.name}: an option of the kind {self.kind} has none"
        if strange := next((role for role in self.not_roles if role not in roles), None):
            return f"not_roles of {self.name}: {names.quoted(strange)} is no role of this pipeline"
        choices = {f"{option.name}={choice}" for option in options for choice in option.choices or ()}
        if strange := next((setting for setting in self.only_with if setting not in choices), None):
            return f"only_with of {self.name}: {names.quoted(strange)} is no choice of another option"
        return ""

    def _number(self, text: str) -> str:
        write = f"write {self.allowed}, such as {self.initial}."
        whole = self.kind == "whole"
        found = _NUMBER.fullmatch(text) if len(text) <= _LONGEST_NUMBER else None
        if not found or (whole and not _WHOLE.fullmatch(text)):
            raise ValueError(f"“{short(text)}” is not a {'whole ' if whole else ''}number; {write}")
        if _GROUPED.fullmatch(text):
            plain = text.replace(",", "")
            raise ValueError(f"{text} may be {plain} or {text.replace(',', '.')}; write it without the comma.")
        value = Decimal(found[1].replace(",", ".")) / (100 if found[2] else 1)
        if value < Decimal(str(self.least)):
            raise ValueError(f"{text} is too small; {write}")
        if value > Decimal(str(self.most)):
            raise ValueError(f"{text} is too large; {write}")
        return _plain(value)

    def _chosen(self, text: str) -> str:
        choices = self.choices or ()
        if found := next((choice for choice in choices if choice.lower() == text.lower()), None):
            return found
        raise ValueError(f"There is no “{short(text)}” here; {_meant(text, choices) or f'write {self.allowed}.'}")

    def _channels(self, text: str) -> str:
        chosen = sorted({name for name in _BETWEEN.split(text) if name})
        if wrong := next((name for name in chosen if not names.is_name(name) or name.startswith("-")), None):
            raise ValueError(
                f"“{short(wrong)}” cannot be a channel here; a name has letters, digits, - and _, begins with no dash, "
                "and stands between commas."
            )
        if self.most is not None and len(chosen) > self.most:
            raise ValueError(f"These are {len(chosen)} channels; name {self.most:.0f} at most.")
        return ",".join(chosen)


def no_such_option(name: str, options: Sequence[Option], pipeline: str) -> str:
    """That the pipeline has no option of that name, and which it has."""
    there = words.listed([option.name for option in options])
    if not options:
        return f"{pipeline} has no options."
    return f"{pipeline} has no option “{short(name)}”; it has {there}."


def _plain(value: Decimal) -> str:
    """The number in digits, as the program that reads it as a double has it: 0.1 also for 0.10 and 1e-1."""
    return f"{Decimal(repr(abs(float(value)))).normalize():f}"  # none is below 0, but -0 may be typed


def _absent(value: _Value | None, kind: str | None, field: str) -> _Value | None:
    """None. Raises ValueError where an option of this kind has that field all the same."""
    if value is not None and kind is not None:
        raise ValueError(f"an option of the kind {kind} has no {field}")
    return value


def _bound(value: float | None, kind: str, field: str) -> float:
    if value is None:
        raise ValueError(f"this is needed; it has to be the {_ENDS[field]} number that the option takes")
    if kind == "whole" and value != int(value):
        raise ValueError("it has to be a whole number, as the option's values are")
    return value


_ENDS = {"least": "smallest", "most": "largest"}


def _either(choices: Sequence[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last


def _meant(text: str, choices: Sequence[str]) -> str:
    alike = words.alike(text, choices)
    return f"did you mean {_either(alike)}?" if alike else ""
