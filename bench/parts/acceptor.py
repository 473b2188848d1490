"""The application without a front end, accepting jobs."""

from __future__ import annotations

import statistics
import time

from pydantic import SecretStr

from bench.processes import questions, say
from bot.app import build_core
from bot.domain.request import JobRequest
from bot.settings import Settings

TIMES = 500


def main() -> None:
    """Accept so many jobs for every question; say how long one took, in seconds."""
    core = build_core(Settings(_env_file=None))
    core.store.migrate()
    values = {"pipeline": "nomads-unsupervised", "collection": "demo", "experiment": "cortex", "email": "a@example.org"}
    request = JobRequest.parse({**values, "x": "0,512", "y": "0,512", "z": "0,16", "channel": "C01SYNAPSES"})
    say()
    for round_, _ in enumerate(questions()):
        taken = []
        for number in range(TIMES):
            began = time.perf_counter()
            token, key = SecretStr("demo-token"), f"view:{round_}:{number}"
            core.service.accept(request, actor="U01DEMO", token=token, key=key, again=True)
            taken.append(time.perf_counter() - began)
        say(p50=statistics.median(taken), p99=statistics.quantiles(taken, n=100)[98])
    core.store.close()


if __name__ == "__main__":
    main()
