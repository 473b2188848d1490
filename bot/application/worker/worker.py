"""One process's worker: its lanes and its watcher, together."""

from __future__ import annotations

import threading

from bot.application.worker.lanes import LaneRunner
from bot.application.worker.watcher import Watcher


class Worker:
    """Runs lanes and watcher. Any number of workers may share a database."""

    def __init__(self, *, lanes: LaneRunner, watcher: Watcher) -> None:
        self.lanes = lanes
        self.watcher = watcher

    def run(self) -> None:
        """Work until `stop()`; effects under way are finished first."""
        watch = threading.Thread(target=self.watcher.run, name="watch")
        watch.start()
        self.lanes.run()
        watch.join()

    def stop(self) -> None:
        """Let `run()` return."""
        self.watcher.stop()
        self.lanes.stop()
