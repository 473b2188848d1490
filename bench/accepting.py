"""`Submission.accept`, one call after the other, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

from bench.figures import Figure
from bench.processes import part, postgresql, workplace


def measure() -> Iterator[Figure]:
    """The time that the database takes for an acceptance, without a goal."""
    with postgresql() as server:
        for name, url in (("SQLite", ""), ("PostgreSQL", server)):
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
