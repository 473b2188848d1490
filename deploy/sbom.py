"""`python -m deploy.sbom [FOLDER]`: a bill of materials of each image's Python packages, as CycloneDX JSON.

The source is what the Dockerfile installs: requirements/*.txt, where every version and hash is pinned. No network is
used, and the same requirements give the same bytes.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
IMAGES: Mapping[str, str] = {"bot": "Dockerfile", "pipelines": "pipelines/Dockerfile"}
"""The name of a file in requirements/ to the Dockerfile that installs it."""
_BASE = re.compile(r"^FROM python:(\d+\.\d+)(\.\d+)?-\S+", re.MULTILINE)


def main(argv: Sequence[str] | None = None) -> int:
    """Write FOLDER/NAME.cdx.json for each image. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.sbom", description="Write the images' bills of materials.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "var" / "sbom", metavar="FOLDER")
    parser.add_argument(
        "--unchecked", action="store_true", help="without the check against CycloneDX's schema, quicker"
    )
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, dockerfile in IMAGES.items():
        environment = image_environment((ROOT / dockerfile).read_text(encoding="utf-8"))
        locked = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        bill = folder / f"{name}.cdx.json"
        bill.write_bytes(bill_of_materials(installed(locked, environment), check=not arguments.unchecked))
        print(bill)
    return 0


def image_environment(dockerfile: str) -> dict[str, str]:
    """The values of environment markers in an image built on `FROM python:X.Y.Z-…`."""
    base = _BASE.search(dockerfile)
    if base is None:
        raise ValueError("the Dockerfile does not begin with FROM python:…")
    return {
        "python_version": base[1],
        "python_full_version": base[1] + (base[2] or ".0"),
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
    }


def installed(locked: str, environment: Mapping[str, str]) -> str:
    """The requirements that apply in that environment: a lock for all systems also names what others need."""
    entries = re.sub(r"\\\n", " ", locked).splitlines()
    entries = [entry for entry in entries if entry.strip() and not entry.lstrip().startswith("#")]
    kept = []
    for entry in entries:
        requirement = Requirement(entry.partition("--hash=")[0])
        if requirement.marker is None or requirement.marker.evaluate(dict(environment)):
            hashes = re.findall(r"--hash=\S+", entry)
            kept.append(" ".join([f"{requirement.name}{requirement.specifier}", *hashes]))
    return "\n".join(kept) + "\n"


def bill_of_materials(requirements: str, *, check: bool = True) -> bytes:
    """CycloneDX JSON of pinned requirements; `check` holds it against CycloneDX's schema, which takes some seconds."""
    graph = "ignore:The Component this BOM is describing"  # a list of requirements does not say which needs which
    tool = [sys.executable, "-W", graph, "-m", "cyclonedx_py", "requirements", "--output-reproducible"]
    tool += ["--validate" if check else "--no-validate"]
    tool += ["--pyproject", str(ROOT / "pyproject.toml"), "--output-format", "JSON", "--output-file", "-", "-"]
    return subprocess.run(tool, input=requirements.encode(), stdout=subprocess.PIPE, check=True).stdout  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
