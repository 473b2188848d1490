"""deploy/nomads.yaml as it is written: what CloudFormation's short forms mean, and the statements of its policies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[2] / "deploy" / "nomads.yaml"
TEXT = FILE.read_text(encoding="utf-8")
BOTS = ("fargate", "instance", "elsewhere")


class _Loader(yaml.SafeLoader):
    """Reads `!Ref X` as `{"Ref": "X"}` and `!Sub X` as `{"Fn::Sub": "X"}`."""


def _short(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise ValueError(f"!{tag} of a mapping: write Fn::{tag}")
    if tag == "GetAtt":
        value = value.split(".", 1)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _short)


@cache
def template() -> dict[str, Any]:
    """The whole template."""
    parsed: dict[str, Any] = yaml.load(TEXT, Loader=_Loader)
    return parsed


def resources(kind: str) -> dict[str, dict[str, Any]]:
    """The properties of the resources of that type, such as `AWS::S3::Bucket`, by their names in the template."""
    return {
        name: resource["Properties"] for name, resource in template()["Resources"].items() if resource["Type"] == kind
    }


def properties(name: str) -> dict[str, Any]:
    """The properties of that resource."""
    found: dict[str, Any] = template()["Resources"][name]["Properties"]
    return found


def statements(name: str) -> list[dict[str, Any]]:
    """The statements of a role's or a managed policy's rights, those under a condition among them."""
    found = properties(name)
    documents = (
        [found["PolicyDocument"]] if "PolicyDocument" in found else [p["PolicyDocument"] for p in found["Policies"]]
    )
    assert {document["Version"] for document in documents} == {"2012-10-17"}
    return [one for document in documents for statement in document["Statement"] for one in branches(statement)]


def whole(value: Any) -> Any:
    """A value that depends on a condition, as it is where the condition holds."""
    return value["Fn::If"][1] if isinstance(value, dict) and "Fn::If" in value else value


def listed(value: Any) -> list[Any]:
    """A list, whether or not it was written as one."""
    return value if isinstance(value, list) else [value]


def text(value: Any) -> str:
    """A value as Fn::Sub would have it within a longer text; what Fn::Sub knows no word for, as JSON."""
    match value:
        case {"Ref": name}:
            return f"${{{name}}}"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"${{{name}.{attribute}}}"
        case {"Fn::Sub": [longer, further]}:
            for name, inner in further.items():
                longer = longer.replace(f"${{{name}}}", text(inner))
            return str(longer)
        case {"Fn::Sub": longer}:
            return str(longer)
        case dict() | list():
            return json.dumps(value)
        case _:
            return str(value)


def branches(value: Any) -> list[Any]:
    """What a value may be: both sides of a condition, without AWS::NoValue."""
    if isinstance(value, dict) and "Fn::If" in value:
        return [inner for side in value["Fn::If"][1:] for inner in branches(side)]
    return [] if value == {"Ref": "AWS::NoValue"} else [value]


def within(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield str(key), inner
        yield from within(inner)


def setting_of(output: str) -> str:
    """The setting that an output is: `NomadsAwsBucket` is NOMADS_AWS_BUCKET."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", output).upper()
