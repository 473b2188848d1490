"""`python -m deploy.bases`: pin the base images again, to what their tags name in the registry today.

deploy/bases.env is the one place where their digests stand. It is read by deploy/images.py and by compose.yaml.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPResponse
from pathlib import Path

FILE = Path(__file__).parent / "bases.env"
REGISTRY = "https://registry-1.docker.io"
"""Where an image is asked for whose name has no host."""
SECONDS = 30
"""How long one answer of the registry may take."""
_PINNED = re.compile(r"(?P<name>[a-z0-9./_-]+):(?P<tag>[\w.-]+)@(?P<digest>sha256:[0-9a-f]{64})")
_LINE = re.compile(r"^([A-Z_]+)=(\S+)$", re.MULTILINE)
_ACCEPT = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
"""Indexes alone: they name the image of each kind of processor."""


class NotPinned(Exception):
    """What is wrong with the file or the registry's answer, in words for whoever renews the pins."""


def read(text: str) -> dict[str, str]:
    """Variable to reference, `name:tag@sha256:…`. Raises NotPinned where one has no tag or no digest."""
    found = dict(_LINE.findall(text))
    for variable, reference in found.items():
        if not _PINNED.fullmatch(reference):
            raise NotPinned(f"{variable}: write name:tag@sha256:… rather than {reference}.")
    return found


def unpinned(reference: str) -> str:
    """The reference without its digest."""
    return reference.partition("@")[0]


def renewed(text: str, registry: str = REGISTRY) -> str:
    """The file's text with the digests that the tags have now. Raises NotPinned where the registry does not say."""
    for reference in read(text).values():
        text = text.replace(reference, f"{unpinned(reference)}@{digest(reference, registry)}")
    return text


def digest(reference: str, registry: str) -> str:
    """The digest of the index that the reference's tag names. Raises NotPinned where the registry does not say."""
    name, _, tag = unpinned(reference).rpartition(":")
    repository = name if "/" in name else f"library/{name}"
    url = f"{registry}/v2/{repository}/manifests/{tag}"
    try:
        try:
            body = _get(url, {"Accept": _ACCEPT})
        except urllib.error.HTTPError as refusal:
            if refusal.code != 401:
                raise
            token = _token(refusal.headers.get("WWW-Authenticate", ""))
            body = _get(url, {"Accept": _ACCEPT, "Authorization": f"Bearer {token}"})
        if not json.loads(body).get("manifests"):
            raise NotPinned(f"{unpinned(reference)} is not an index of images for several kinds of processor.")
    except (OSError, ValueError, AttributeError) as error:
        raise NotPinned(f"The registry did not tell the digest of {unpinned(reference)}: {error}") from None
    return f"sha256:{hashlib.sha256(body).hexdigest()}"  # of what was read, not as a header says


def _token(challenge: str) -> str:
    """What the registry's login service gives anybody for the scope that the challenge names."""
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = asked.pop("realm", "")
    if not realm.startswith(("https://", "http://127.0.0.1:")):
        raise ValueError("it asks for a login that cannot be made")
    token = json.loads(_get(f"{realm}?{urllib.parse.urlencode(asked)}", {})).get("token")
    if not isinstance(token, str):
        raise ValueError("its login service gave no token")
    return token


def _get(url: str, headers: Mapping[str, str]) -> bytes:
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 (https, or a test's server)
    answer: HTTPResponse
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        return answer.read()


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file again and say what changed. Returns the exit code: 1 where nothing could be renewed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bases", description="Renew the digests of base images.")
    parser.add_argument("--registry", default=REGISTRY, help="instead of Docker Hub, such as a mirror of yours")
    parser.add_argument("--file", type=Path, default=FILE, help="instead of deploy/bases.env")
    arguments = parser.parse_args(argv)
    before = arguments.file.read_text(encoding="utf-8")
    try:
        after = renewed(before, arguments.registry.rstrip("/"))
    except NotPinned as problem:
        print(problem, file=sys.stderr)
        return 1
    arguments.file.write_text(after, encoding="utf-8")
    for variable, reference in read(after).items():
        print(f"{variable}: {reference}{'' if reference in before else ' (new)'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
