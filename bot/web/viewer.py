"""View in 3D: Neuroglancer's own client, its state, and the bytes of the layers, below a signed link.

The client comes from the package `neuroglancer`, of which nothing is imported. Page and layers have one origin: no
answer has a header for other origins, and the page's policy lets nothing be fetched from elsewhere.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from bot.domain.errors import NotFound, Refused, Unavailable
from bot.domain.html import template
from bot.domain.links import LinkEnded, Scene, Shared
from bot.domain.results import MAX_PART, Part
from bot.domain.views import ANNOTATIONS, GREY, colours, limits, neuroglancer

AT_ONCE = 16
"""Parts of files that are read at once, in threads that no other request waits for."""
MOST_WAITING = 256
"""Requests for parts at once, with those that wait for one of these threads. A viewer asks again for any other."""
KEPT_SECONDS = 600
"""Seconds for which a browser may keep a part."""
_OWN = Path(__file__).parent / "static"
_PAGE = Path(__file__).parent / "templates" / "viewer.html"
_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".wasm": "application/wasm"}
_POLICY = (
    # 'unsafe-eval': the client makes functions that read annotations; without it, no point is drawn.
    "default-src 'none'; script-src 'self' 'unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CLIENT = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding"}
_DATA = {
    "Cache-Control": f"private, max-age={KEPT_SECONDS}",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})", re.ASCII)
_LAST = re.compile(r"bytes=-([0-9]{1,15})", re.ASCII)
"""A range of a file's last bytes."""


def client(request: Request) -> Response:
    """A file of the client's or a script of ours. They are the same for everybody. Raises NotFound."""
    name = request.path_params["name"]
    content, packed = _files(name)
    # the client's names change with their content, and an address of ours has the content's hash
    headers = _CLIENT | {"Cache-Control": "public, max-age=31536000, immutable"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        content, headers = packed, headers | {"Content-Encoding": "gzip"}
    return Response(content, headers=headers, media_type=_KINDS[Path(name).suffix])


def script(name: str) -> str:
    """The address of a script of ours, relative to the root of the web."""
    return f"viewer/{name}?{sha256(_files(name)[0]).hexdigest()[:16]}"


def page(scene: Scene, headers: Mapping[str, str]) -> Response:
    """The page in which the client runs."""
    scripts, styles = _parts_of_client()
    html = template(_PAGE).render(title=scene.title, start=script("start.js"), scripts=scripts, styles=styles)
    return HTMLResponse(html, headers={**headers, "Content-Security-Policy": _POLICY})


def state(scene: Scene, headers: Mapping[str, str]) -> Response:
    """The client's state at the beginning, with relative sources."""
    return JSONResponse(neuroglancer(scene.view, scene.layers, title=scene.title), headers=headers)


def sections(scene: Scene, base: str) -> dict[str, Any] | None:
    """What slices.js shows, with addresses below `base`; None without an image."""
    colour = colours(scene.layers)
    if not colour:
        return None
    images = []
    for layer, color in colour.items():
        low, full = limits(scene.view, layer)
        images.append(
            {
                "name": layer.removeprefix("image/"),
                "url": base + layer,
                "color": [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)],
                "low": low,
                "full": full,
                "shown": color != GREY,
            }
        )
    return {
        "layers": images,
        "synapses": f"{base}{ANNOTATIONS}" if ANNOTATIONS in scene.layers else "",
        "table": f"{base}synapses.csv",
        **scene.view.model_dump(include={"start", "shape", "at", "voxel_nm"}),
    }


class Parts:
    """Answers requests for parts of layers' files: one range each, at most MAX_PART bytes."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._limiter: CapacityLimiter | None = None
        self._waiting = 0

    async def answer(self, request: Request) -> Response:
        """The part of a file that a request asks for; 503 where too many wait."""
        return await self._limited(self._part_asked_for, request)

    async def chunk(self, request: Request) -> Response:
        """The chunk that a request names, or a layer's description; 503 where too many wait."""
        return await self._limited(self._chunk, request)

    async def _limited(self, answer: Callable[[Request], Response], request: Request) -> Response:
        if self._waiting >= MOST_WAITING:
            return _failure(503, "too many requests at once")
        self._limiter = self._limiter or CapacityLimiter(AT_ONCE)  # within an event loop only
        self._waiting += 1
        try:
            return await to_thread.run_sync(answer, request, limiter=self._limiter)
        except LinkEnded:
            return _failure(410, "this link has ended")
        except Refused:  # NotFound among them
            return _failure(404, "there is nothing here")
        except Unavailable:
            return _failure(503, "not just now")
        finally:
            self._waiting -= 1

    def _chunk(self, request: Request) -> Response:
        chunk = self._shared.chunk(request.path_params["signed"], request.path_params["name"])
        headers = _DATA | {"Vary": "Accept-Encoding"}
        if chunk.gzipped:
            if "gzip" not in request.headers.get("accept-encoding", ""):
                return _failure(406, "this is gzipped")
            headers |= {"Content-Encoding": "gzip"}
        return Response(chunk.content, headers=headers, media_type=_BYTES)

    def _part_asked_for(self, request: Request) -> Response:
        headers = _DATA | {"Accept-Ranges": "bytes"}
        said = request.headers.get("range", "")
        if request.method == "GET" and (last := _LAST.fullmatch(said)):
            size = self._part(request, 0, 1).size
            said = f"bytes={max(0, size - int(last[1]))}-"
        asked = _RANGE.fullmatch(said)
        start = int(asked[1]) if asked else 0
        length = min(int(asked[2]) + 1 - start, MAX_PART) if asked and asked[2] else MAX_PART
        if request.method == "HEAD":
            part = self._part(request, 0, 1)
            return Response(headers=headers | {"Content-Length": str(part.size)}, media_type=_BYTES)
        part = self._part(request, start, max(1, length))
        said = f"bytes {start}-{start + len(part.content) - 1}/{part.size}"
        if not asked and len(part.content) == part.size:
            return Response(part.content, headers=headers, media_type=_BYTES)
        if not asked or length < 1 or not part.content:  # too long to be given whole, or nothing of it
            return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{part.size}"})
        return Response(part.content, 206, headers=headers | {"Content-Range": said}, media_type=_BYTES)

    def _part(self, request: Request, start: int, length: int) -> Part:
        return self._shared.part(request.path_params["signed"], request.path_params["name"], start, length)


_BYTES = "application/octet-stream"


def _failure(status: int, text: str) -> Response:
    headers = {"Cache-Control": "no-store"} | ({"Retry-After": "1"} if status == 503 else {})
    return Response(f"{text}\n", status, headers=headers, media_type="text/plain")


@cache
def _files(name: str) -> tuple[bytes, bytes]:
    """Content of a file of the client's or a script of ours, and the same gzipped. Raises NotFound for all else."""
    found = next((folder / name for folder in (_OWN, _package()) if name in _names(folder)), None)
    if found is None:
        raise NotFound("There is no such file of the viewer.")
    content = found.read_bytes()
    return content, gzip.compress(content, 6, mtime=0)


@cache
def _names(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir() if path.suffix in _KINDS)


@cache
def _package() -> Path:
    """The folder of the built client."""
    spec = find_spec("neuroglancer")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "static" / "client"


@cache
def _parts_of_client() -> tuple[list[str], list[str]]:
    """Names of the client's scripts, in their order, and of its styles."""
    html = (_package() / "index.html").read_text(encoding="utf-8")
    return re.findall(r'<script[^>]* src="([^"]+)"', html), re.findall(r'<link href="([^"]+)"', html)
