"""The parameters of deploy/nomads.yaml, with what each may be, read from the template itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from bot.domain.errors import NomadsError

_SECTION = re.compile(r"^Parameters:\n((?:(?: .*)?\n)*)", re.MULTILINE)
_NAME = re.compile(r"  (\w+):")
_PROPERTY = re.compile(r"    (\w+): (.+)")
_NUMBER = re.compile(r"0|-?(?=.*[1-9])[0-9]+(\.[0-9]+)?")
"""A number, of which zero is written in one way only, so that the template's conditions may compare it as a text."""


@dataclass(frozen=True)
class Parameter:
    """One parameter, as the template describes it."""

    name: str
    kind: str
    """CloudFormation's type, such as `String`."""
    default: str
    allowed: Sequence[str] = ()
    pattern: str = ""
    shortest: int = 0
    longest: int | None = None
    least: Decimal | None = None
    most: Decimal | None = None
    wish: str = ""
    """The template's own words for what a value has to be."""

    def wrong(self, value: str) -> str:
        """What a value has to be where this one cannot be used; empty where it can."""
        if self.allowed:
            return "" if value in self.allowed else f"it has to be one of {', '.join(self.allowed)}"
        if self.kind == "Number":
            return "" if self._counts(value) else f"it has to be a number{self._range}"
        fits = re.fullmatch(self.pattern, value) is not None if self.pattern else True
        fits = fits and self.shortest <= len(value) and (self.longest is None or len(value) <= self.longest)
        return "" if fits else self.wish or f"it has to match {self.pattern}"

    def _counts(self, value: str) -> bool:
        if not _NUMBER.fullmatch(value):
            return False
        number = Decimal(value)
        return (self.least is None or self.least <= number) and (self.most is None or number <= self.most)

    @property
    def _range(self) -> str:
        low = "" if self.least is None else f" from {self.least:,}"
        return low + ("" if self.most is None else f" to {self.most:,}")


def parameters(body: str) -> Mapping[str, Parameter]:
    """The parameters of a template, by their names.

    Of YAML it reads what deploy/nomads.yaml is written in there: a property a line, in plain words, in double quotes or
    as a list in brackets. Raises ValueError for anything else.
    """
    found: dict[str, dict[str, str]] = {}
    section = _SECTION.search(body)
    for line in section[1].splitlines() if section else ():
        if name := _NAME.fullmatch(line):
            properties = found.setdefault(name[1], {})
        elif stated := _PROPERTY.fullmatch(line):
            properties[stated[1]] = stated[2]
        elif line and not line.lstrip().startswith("#"):
            raise ValueError(f"{line!r} is no line of a parameter")
    return {name: _parameter(name, stated) for name, stated in found.items()}


def _parameter(name: str, stated: Mapping[str, str]) -> Parameter:
    least, most = (Decimal(stated[key]) if key in stated else None for key in ("MinValue", "MaxValue"))
    return Parameter(
        name=name,
        kind=stated["Type"],
        default=_scalar(stated["Default"]),
        allowed=tuple(_scalar(one) for one in stated["AllowedValues"][1:-1].split(", "))
        if "AllowedValues" in stated
        else (),
        pattern=_scalar(stated.get("AllowedPattern", "")),
        shortest=int(stated.get("MinLength", 0)),
        longest=int(stated["MaxLength"]) if "MaxLength" in stated else None,
        least=least,
        most=most,
        wish=stated.get("ConstraintDescription", ""),
    )


def _scalar(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text


def check(known: Mapping[str, Parameter], given: Mapping[str, str]) -> None:
    """Raises NomadsError, which names every parameter that there is not and every value that cannot be used."""
    if unknown := sorted(set(given) - set(known)):
        raise NomadsError(f"The template has no {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
    wrong = {name: said for name, value in given.items() if (said := known[name].wrong(value))}
    if wrong:
        lines = (f"{name}: {said}, not {given[name]!r}." for name, said in wrong.items())
        raise NomadsError("\n".join(["These parameters cannot be used:", *lines]))
