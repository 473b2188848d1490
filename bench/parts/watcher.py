"""The bot's process as far as watching goes: the whole application is built, and looks at its jobs when asked."""

from __future__ import annotations

import resource
import time

from bench.processes import questions, say
from bot.app import build
from bot.settings import Settings


def main() -> None:
    """Look once for every question; say what it cost."""
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
