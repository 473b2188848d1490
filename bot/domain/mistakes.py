"""What is wrong with settings or with a file, in words for whoever wrote them: pydantic's own are for programmers."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from bot.domain import words
from contract.names import quoted, short


def mistakes(error: ValidationError, kind: type[BaseModel], written: Any = None) -> list[tuple[str, str]]:
    """Every mistake as a field and a sentence: the value, unless the field holds secrets, and what is allowed there.

    A field is named as it was written, a nested one as `limits.voxels`. An item of a list is named by its `name`, where
    `written` has one there, and else by its number, from 1. A field that explains itself (`description`) says what is
    allowed in its own words; otherwise its type and bounds do.
    """
    return [
        (_place(found["loc"], written), _sentence(found, _field(kind, found["loc"])))
        for found in error.errors(include_url=False)
    ]


def _place(where: Sequence[int | str], written: Any) -> str:
    steps = []
    for step in where:
        inner: Any = None
        if isinstance(written, Mapping | list):
            inner = written.get(str(step)) if isinstance(written, Mapping) else written[int(step)]
        name = inner.get("name") if isinstance(inner, Mapping) else None
        named = isinstance(step, int) and isinstance(name, str)
        steps.append(short(str(name)) if named else str(step + 1) if isinstance(step, int) else step)
        written = inner
    return ".".join(steps)


def _sentence(found: Any, field: FieldInfo | None) -> str:
    if found["type"] == "extra_forbidden":
        return "there is no such field."
    if found["type"] == "value_error":
        return f"{found['ctx']['error']}."
    allowed = "it cannot be read."
    if field:
        each = _each(field, found["loc"])
        allowed = f"each has to be {each}." if each else f"it has to be {_allowed(field)}."
    if found["type"] == "missing":
        return f"this is needed; {allowed}"
    if field is None or _kinds(field.annotation) & {SecretStr}:
        return f"this cannot be used; {allowed}"
    value = found["input"]
    return f"{quoted(value if isinstance(value, str) else repr(value))} cannot be used; {allowed}"


def _field(kind: type[BaseModel], where: Sequence[int | str]) -> FieldInfo | None:
    """The field at that place, or the nearest one round it; None where there is none."""
    first, *rest = where or ("",)
    named = dict(kind.model_fields) | {
        str(alias): field for field in kind.model_fields.values() for alias in _aliases(field)
    }
    field = named.get(str(first))
    for inner in _kinds(field.annotation) if field and rest else ():
        if get_origin(inner) is tuple and rest[1:]:  # a list: its items are numbered
            inner, *_ = get_args(inner)
            rest = rest[1:]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return _field(inner, rest) or field
    return field


def _aliases(field: FieldInfo) -> Sequence[Any]:
    return getattr(field.validation_alias, "choices", ())


def _kinds(annotation: Any) -> set[Any]:
    """The types that a value may have, but for None."""
    if get_origin(annotation) in (Union, types.UnionType):
        return {kind for kind in get_args(annotation) if kind is not type(None)}
    return {annotation}


_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    list: "a list",
    tuple: "a list",
    dict: "a table",
}
"""What people call the types. A type that people need not know is a value."""


def _each(field: FieldInfo, where: Sequence[int | str]) -> str:
    """What an item of a list has to be, where that is the place; empty for other places, or if the field says it."""
    (kind, *_) = _kinds(field.annotation)
    if field.description or not isinstance(where[-1], int) or get_origin(kind) not in (list, tuple):
        return ""
    return _named(get_args(kind)[0])


def _named(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a table"
    return _NAMES.get(get_origin(kind) or kind, "a value")


def _allowed(field: FieldInfo) -> str:
    """What a field takes, such as `a whole number from 0 to 65535`."""
    if field.description:
        return field.description
    (kind, *_) = _kinds(field.annotation)
    if get_origin(kind) is Literal:
        *others, last = map(str, get_args(kind))
        return f"{', '.join(others)} or {last}" if others else last
    names = ("ge", "gt", "le", "min_length", "max_length")
    bounds = {name: getattr(one, name) for one in field.metadata for name in names if hasattr(one, name)}
    name = _named(kind)
    match bounds:
        case {"ge": low, "le": high}:
            return f"{name} from {low} to {high}"
        case {"gt": low, "le": high}:
            return f"{name} above {low}, {high} at most"
        case {"ge": low}:
            return f"{name}, {low} at least"
        case {"gt": low}:
            return f"{name} above {low}"
        case {"min_length": least, "max_length": most}:
            return f"{name} of {least} to {words.count(most)} characters"
        case {"max_length": most}:
            return f"{name} of {words.count(most)} characters at most"
    return name
