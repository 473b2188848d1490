"""BOSS's metadata for one experiment and 2,000 collections: at once, after a set delay, with an error, or never.

The server is asyncio on bare sockets, since benchmarks share their two cores with it.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from contextlib import suppress
from typing import Any

from bench.processes import say

COLLECTIONS = 2000
HANG = 60.0
FRAME = {
    "name": "frame",
    "voxel_unit": "nanometers",
    **{
        f"{axis}_{what}": value for axis in "xyz" for what, value in (("start", 0), ("stop", 2**31), ("voxel_size", 50))
    },
}
ANSWERS: list[tuple[str, dict[str, Any]]] = [
    (r"/v1/collection//", {"collections": ["demo", *(f"collection_{n:04d}" for n in range(1, COLLECTIONS))]}),
    (r"/v1/collection/\w+", {"name": "demo", "experiments": ["cortex"]}),
    (
        r"/v1/collection/\w+/experiment/\w+",
        {"name": "cortex", "coord_frame": "frame", "channels": ["PSD95", "Synapsin"]},
    ),
    (r"/v1/collection/\w+/experiment/\w+/channel/\w+", {"datatype": "uint8"}),
    (r"/v1/coord/frame", FRAME),
    (r"/v1/permissions/.*", {"permission-sets": []}),
]


def main() -> None:
    """Serve until standard input ends; a question sets `delay` in seconds (below 0: no answer) and `status`."""
    asyncio.run(_serve())


async def _serve() -> None:
    how = {"delay": 0.0, "status": 200}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode("latin-1")
                await asyncio.sleep(how["delay"] if how["delay"] >= 0 else HANG)
                found = next((said for pattern, said in ANSWERS if re.fullmatch(pattern, path.split("?")[0])), {})
                body = json.dumps(found).encode() if how["status"] == 200 else b"<html>no</html>"
                about = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
                writer.write(f"HTTP/1.1 {how['status']} OK\r\n{about}\r\n\r\n".encode() + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    say(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    while line := await asyncio.to_thread(sys.stdin.readline):
        how |= json.loads(line)
        say(**how)


if __name__ == "__main__":
    main()
