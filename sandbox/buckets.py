"""Buckets beside the stand-in BOSS, as S3 has them: folders of this machine, and channels in BossDB's bulk format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from sandbox.volumes import Bricks, Triple

CHUNK: Triple = (16, 256, 256)
"""Extent of the chunks of bulk channels, (z, y, x)."""
KEY = "full"
"""The key of a bulk channel's one scale."""
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_BOX = re.compile(r"(\d+)-(\d+)_(\d+)-(\d+)_(\d+)-(\d+)")


@dataclass(frozen=True)
class _Bulk:
    """A channel that is served as precomputed: its chunks are made of the same bricks as BOSS's cutouts."""

    bricks: Bricks
    start: Triple
    shape: Triple
    voxel_nm: tuple[float, float, float]

    def read(self, name: str) -> bytes | None:
        if name == "info":
            scale = {
                "key": KEY,
                "size": self.shape[::-1],
                "voxel_offset": self.start[::-1],
                "resolution": self.voxel_nm[::-1],
                "chunk_sizes": [CHUNK[::-1]],
                "encoding": "raw",
            }
            about = {"type": "image", "data_type": str(self.bricks.dtype), "num_channels": 1, "scales": [scale]}
            return json.dumps({"@type": "neuroglancer_multiscale_volume", **about}).encode()
        found = _BOX.fullmatch(name.removeprefix(f"{KEY}/"))
        if not found:
            return None
        x0, x1, y0, y1, z0, z1 = map(int, found.groups())
        low, high = (z0, y0, x0), (z1, y1, x1)
        for a, b, start, n, size in zip(low, high, self.start, self.shape, CHUNK, strict=True):
            if (a - start) % size or b != min(a + size, start + n):
                return None
        return self.bricks.read(low, high).tobytes()


@dataclass
class _Bucket:
    folder: Path | None = None
    public: bool = True
    listed: bool = True
    bulk: dict[str, _Bulk] = field(default_factory=dict)

    def read(self, key: str) -> bytes | None:
        for name, channel in self.bulk.items():
            if key.startswith(f"{name}/"):
                return channel.read(key.removeprefix(f"{name}/"))
        if self.folder is None:
            return None
        path = (self.folder / key).resolve()
        return path.read_bytes() if path.is_relative_to(self.folder.resolve()) and path.is_file() else None

    def folders(self, prefix: str) -> list[str]:
        """The folders directly below a prefix that ends with a slash or is empty, each with the prefix and a slash."""
        found = {path[len(prefix) :].partition("/")[0] for path in self.bulk if path.startswith(prefix)}
        if self.folder is not None and (self.folder / prefix).is_dir():
            found |= {path.name for path in (self.folder / prefix).iterdir() if path.is_dir()}
        return [f"{prefix}{name}/" for name in sorted(found) if name]


class Buckets:
    """Buckets by name. Requests with a path of a bucket and a key are answered as S3 answers them."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def add(self, name: str, folder: Path, *, public: bool = True, listed: bool = True) -> None:
        """Serve a folder. Without `public` a request needs a signature; without `listed` what is absent is a 403."""
        self._buckets[name] = _Bucket(folder=folder, public=public, listed=listed)

    def add_channel(
        self,
        name: str,
        path: str,
        bricks: Bricks,
        *,
        start: Triple,
        shape: Triple,
        voxel_nm: tuple[float, float, float],
    ) -> None:
        """Serve a channel, `[start, start + shape)`, as precomputed below `path`. Axes are z, y, x."""
        self._buckets.setdefault(name, _Bucket()).bulk[path] = _Bulk(bricks, start, shape, voxel_nm)

    def answer(self, request: Request) -> Response:
        """The answer to a GET or HEAD of `/{bucket}` or `/{bucket}/{key}`."""
        bucket = self._buckets.get(request.path_params["bucket"])
        if bucket is None:
            return _error(404, "NoSuchBucket")
        signed = request.headers.get("authorization", "").startswith("AWS4-HMAC-SHA256 ")
        if not bucket.public and not signed:
            return _error(403, "AccessDenied")
        key = request.path_params.get("key", "")
        if not key:
            return _listing(bucket, request.query_params) if bucket.listed or signed else _error(403, "AccessDenied")
        content = bucket.read(key)
        if content is None:
            return _error(404, "NoSuchKey") if bucket.listed or signed else _error(403, "AccessDenied")
        return _part(content, request.headers.get("range", ""))


def _part(content: bytes, asked: str) -> Response:
    """The content, or the range of it that was asked for."""
    headers = {"ETag": '"fixed"', "Accept-Ranges": "bytes"}
    found = _RANGE.fullmatch(asked)
    if not found:
        return Response(content, headers=headers, media_type="application/octet-stream")
    first, last = found.groups()
    start = int(first) if first else max(0, len(content) - int(last))
    stop = min(len(content), int(last) + 1) if first and last else len(content)
    if start >= len(content):
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
    return Response(content[start:stop], status_code=206, headers=headers, media_type="application/octet-stream")


def _listing(bucket: _Bucket, query: Mapping[str, str]) -> Response:
    prefixes = "".join(
        f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
        for name in bucket.folders(query.get("prefix", ""))
    )
    body = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{prefixes}</ListBucketResult>'
    return Response(body, media_type="application/xml")


def _error(status: int, code: str) -> Response:
    return PlainTextResponse(f"<Error><Code>{code}</Code></Error>", status_code=status)
