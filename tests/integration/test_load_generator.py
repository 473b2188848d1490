"""The benchmarks' load generator, against a server."""

from __future__ import annotations

import asyncio

import pytest

from bench.parts.load import run, signed


@pytest.mark.parametrize(
    ("answer", "answered", "failed"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 6, 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 6, 6),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", 6, 6),
        (b"", 0, 6),
    ],
    ids=["acknowledged", "errors by field", "broken", "hung up"],
)
def test_the_load_generator_counts_what_was_not_acknowledged(answer: bytes, answered: int, failed: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(answer)
            if not answer:
                break
        writer.close()

    async def measured() -> dict[str, object]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            return await run(url, signed(url=url, body="a=b", count=6, secret="s"), 2)

    said = asyncio.run(measured())
    assert (said["answered"], said["failed"]) == (answered, failed)
