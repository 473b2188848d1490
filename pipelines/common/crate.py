"""ro-crate-metadata.json: what a run read, with what, and what it left, as a Process Run Crate 0.5 (RO-Crate 1.1).

The same run gives the same bytes. The program reads its own crate again to run it once more (`pipelines/__main__.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipelines.common.channels import Channel
from pipelines.common.program import Request, WrongRequest
from pipelines.common.results import CRATE as NAME
from pipelines.common.results import File, Written

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
NO_DATE = "1970-01-01"
"""Stands where RO-Crate requires a date: no file of a run holds a time (docs/decisions/0004)."""
LICENCE = "The data keep the terms of the volume that was read."
_DIGESTED = " sha256 is of "
_RUN, _PIPELINE = "#run", "#pipeline"


def crate(
    request: Request,
    *,
    entry: Mapping[str, Any],
    channels: Mapping[str, Channel],
    digests: Mapping[str, str],
    versions: Mapping[str, str],
    files: Sequence[File],
    written: Sequence[Written],
) -> bytes:
    """The crate of a run: `files` are announced, `written` are all; `digests` are the channels' checksums, by role."""
    said = {file.name: file for file in files}
    outputs = [_output(file, said.get(file.name)) for file in written]
    folders = sorted({f"{file.name.rpartition('/')[0]}/" for file in files if file.name.endswith("/info")})
    inputs = [_channel(request, role, channel, digests[role]) for role, channel in channels.items()]
    parameters = [
        {"@id": f"#argument-{number}", "@type": "PropertyValue", "name": name, "value": value}
        for number, (name, value) in enumerate(arguments(request))
    ]
    parts = [*outputs, *(_folder(name, written) for name in folders)]
    packages = [
        {"@id": f"#{name}", "@type": "SoftwareApplication", "name": name, "softwareVersion": number}
        for name, number in versions.items()
        if name != "pipeline"
    ]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": {"@id": PROFILE},
        "name": f"Synapses in {request.place}",
        "description": f"What {entry['name']} found in a box of the volume. It holds no time; the date is none.",
        "datePublished": NO_DATE,
        "license": LICENCE,
        "hasPart": _all(parts),
        "mentions": {"@id": _RUN},
    }
    pipeline = {
        "@id": _PIPELINE,
        "@type": "SoftwareApplication",
        "name": entry["name"],
        "description": entry.get("title", ""),
        "softwareVersion": versions["pipeline"],
        "softwareRequirements": _all(packages),
    }
    run = {
        "@id": _RUN,
        "@type": "CreateAction",
        "name": f"A run of {entry['name']}",
        "instrument": {"@id": _PIPELINE},
        "object": _all([*inputs, *parameters]),
        "result": _all(outputs),
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }
    about = {
        "@id": NAME,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
    }
    profile = {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    graph = [about, root, profile, run, pipeline, *packages, *inputs, *parameters, *parts]
    return (json.dumps({"@context": CONTEXT, "@graph": graph}, indent=1, ensure_ascii=False) + "\n").encode()


def arguments(request: Request) -> Iterator[tuple[str, str]]:
    """Name and value of each argument that says what a run does: all but the token and where results go.

    Where volumes may lie is left out too: that is for whoever runs it again to say.
    """
    if request.address:
        yield "volume", str(request.address)
    else:
        yield "host", f"{request.protocol}://{request.host}"
        yield "col", request.collection
        yield "exp", request.experiment
    for axis in "zyx":
        start, stop = getattr(request, axis)
        yield f"{axis}-range", f"{start},{stop}"
    yield "image-bytes", str(request.image_bytes)
    if request.results_key:
        yield "results-key", request.results_key
    if request.predictions:
        yield "predictions", "/".join(request.predictions)
    if request.viewer:
        yield "viewer", request.viewer
    for role, name in request.channels.items():
        yield "channel", f"{role}={name}"
    for name, value in request.options.items():
        yield name.replace("_", "-"), value


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a crate tells of its run."""

    pipeline: str
    version: str
    arguments: Sequence[tuple[str, str]]
    """Name, without dashes, and value."""
    inputs: Mapping[str, str]
    """Address of each channel to its SHA-256."""
    digested: Mapping[str, str]
    """Address of each channel to what the SHA-256 is of, in words."""
    outputs: Mapping[str, str]
    """Name of each file to its SHA-256."""


def read(content: bytes) -> Told:
    """What a crate that `crate` has written tells. Raises WrongRequest for anything else."""
    try:
        graph = {entity["@id"]: entity for entity in json.loads(content)["@graph"]}
        run = graph[_RUN]
        pipeline = graph[run["instrument"]["@id"]]
        objects = [graph[one["@id"]] for one in run["object"]]
        told = Told(
            pipeline=pipeline["name"],
            version=pipeline["softwareVersion"],
            arguments=[(one["name"], one["value"]) for one in objects if one["@type"] == "PropertyValue"],
            inputs={one["identifier"]: one["sha256"] for one in objects if one["@type"] == "Dataset"},
            digested={
                one["identifier"]: one["description"].partition(_DIGESTED)[2]
                for one in objects
                if one["@type"] == "Dataset"
            },
            outputs={one["@id"]: graph[one["@id"]]["sha256"] for one in run["result"]},
        )
        texts = [told.pipeline, told.version, *sum(told.arguments, ()), *told.inputs.values(), *told.outputs.values()]
        texts += told.digested.values()
        if all(isinstance(text, str) for text in texts) and _plain([name for name, _ in told.arguments]):
            return told
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise WrongRequest(f"This is not the {NAME} of a run of NOMADS's.")


def _plain(names: Sequence[str]) -> bool:
    """Whether arguments of those names can come from `arguments`: each once, and none that only a person gives."""
    once = [name for name in names if name != "channel"]
    plain = all(re.fullmatch(r"[a-z][a-z0-9-]*", name) for name in names)
    return plain and len(set(once)) == len(once) and not {"token", "results-uri", "volume-roots", "help"} & set(names)


def _channel(request: Request, role: str, channel: Channel, digest: str) -> dict[str, Any]:
    """The part of a channel that was read, the box's surroundings with it. The checksum is of its voxels."""
    boss = "" if request.address else f"{request.protocol}://{request.host}/"
    box = ", ".join(f"{axis} {start} to {stop}" for axis, (start, stop) in zip("zyx", channel.near, strict=True))
    return {
        "@id": f"#{role.replace(' ', '-')}",
        "@type": "Dataset",
        "name": f"{channel.name}: {role}",
        "description": f"Voxels {box} at resolution 0, {channel.dtype.name}.{_DIGESTED}{channel.digested}.",
        "identifier": f"{boss}{request.place}/{channel.name}",
        "sha256": digest,
    }


def _output(file: Written, said: File | None) -> dict[str, Any]:
    """A file, as RO-Crate has it."""
    kind = (
        said.media_type if said else "application/json" if file.name.endswith(".json") else "application/octet-stream"
    )
    about = {"name": said.title, "description": said.about} if said else {"name": PurePosixPath(file.name).name}
    size = {"contentSize": str(file.size), "sha256": file.sha256}
    return {"@id": file.name, "@type": "File", **about, "encodingFormat": kind.partition(";")[0], **size}


def _folder(name: str, written: Sequence[Written]) -> dict[str, Any]:
    parts = [{"@id": file.name} for file in written if file.name.startswith(name)]
    return {"@id": name, "@type": "Dataset", "name": name.rstrip("/"), "hasPart": parts}


def _all(entities: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"@id": entity["@id"]} for entity in entities]
