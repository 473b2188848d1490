"""A process with the whole application, which watches its jobs once for each question."""

from __future__ import annotations

import resource
import time

from bench.processes import questions, say
from bot.app import build
from bot.settings import Settings


def main() -> None:
    """Do one round of the watcher for every question; answer with time, processor time and memory."""
    nomads = build(Settings(_env_file=None))
    say()
    for _ in questions():
        began, processor = time.perf_counter(), time.process_time()
        moved = nomads.core.worker.watcher.watch_once()
        taken = {"seconds": time.perf_counter() - began, "processor": time.process_time() - processor}
        if moved:
            raise RuntimeError(f"{moved} jobs moved")
        say(**taken, memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
    nomads.core.database.close()


if __name__ == "__main__":
    main()
