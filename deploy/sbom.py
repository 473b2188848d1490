"""An image's bill of materials, as CycloneDX JSON: its Python packages with their hashes, and Debian's.

The Python packages are those that the Dockerfile installs: requirements/*.txt, where every version and hash is pinned.
No network is used, and the same image gives the same bytes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from email.parser import Parser
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def bill_of_materials(locks: Sequence[str], *, python: str, debian: str, check: bool = True) -> bytes:
    """CycloneDX JSON of what those locks install for that version of Python, and of dpkg's status.

    `check` holds it against CycloneDX's schema, which takes some seconds. Raises ValueError where it does not hold.
    """
    environment = image_environment(python)
    requirements = "".join(sorted({line for lock in locks for line in installed(lock, environment)}))
    graph = "ignore:The Component this BOM is describing"  # a list of requirements does not say which needs which
    tool = [sys.executable, "-W", graph, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "--no-validate"]
    tool += ["--pyproject", str(ROOT / "pyproject.toml"), "--output-format", "JSON", "--output-file", "-", "-"]
    made = subprocess.run(tool, input=requirements.encode(), capture_output=True, check=True).stdout  # noqa: S603
    bill = json.loads(made)
    bill["components"] += packages(debian)
    text = json.dumps(bill, indent=2) + "\n"
    if check:
        _check(text)
    return text.encode()


def image_environment(python: str) -> dict[str, str]:
    """The values of environment markers in an image with that version of Python, such as 3.11.14."""
    return {
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
    }


def installed(lock: str, environment: Mapping[str, str]) -> list[str]:
    """The lines of requirements that apply in that environment: a lock for all systems also names what others need."""
    entries = re.sub(r"\\\n", " ", lock).splitlines()
    entries = [entry for entry in entries if entry.strip() and not entry.lstrip().startswith("#")]
    kept = []
    for entry in entries:
        requirement = Requirement(entry.partition("--hash=")[0])
        if requirement.marker is None or requirement.marker.evaluate(dict(environment)):
            hashes = re.findall(r"--hash=\S+", entry)
            kept.append(" ".join([f"{requirement.name}{requirement.specifier}", *hashes]) + "\n")
    return kept


def packages(status: str) -> list[dict[str, Any]]:
    """Debian's installed packages as components, of dpkg's status."""
    found = []
    for paragraph in status.split("\n\n"):
        entry = Parser().parsestr(paragraph, headersonly=True)
        if str(entry["Status"]).endswith(" installed"):
            name, version, architecture = (str(entry[field]) for field in ("Package", "Version", "Architecture"))
            url = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='.+~-')}?arch={architecture}"
            found.append({"bom-ref": url, "type": "library", "name": name, "version": version, "purl": url})
    return sorted(found, key=lambda component: component["bom-ref"])


@lru_cache(maxsize=8)  # takes three seconds, and images of one build may have the same packages
def _check(bill: str) -> None:
    from cyclonedx.schema import SchemaVersion  # they take a second to import
    from cyclonedx.validation.json import JsonStrictValidator

    version = SchemaVersion.from_version(json.loads(bill)["specVersion"])
    if wrong := JsonStrictValidator(version).validate_str(bill):
        raise ValueError(f"the bill of materials is not as CycloneDX has it: {wrong}")
