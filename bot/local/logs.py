"""Logs on this machine: files in the folders of runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from bot.domain.states import FINAL
from bot.domain.work import LogLine
from bot.local import supervise
from bot.local.runs import NAME, disk, look, moment
from contract import masking


class LocalLogs:
    """Reads the logs of the runs of a LocalCompute."""

    def __init__(self, *, folder: Path) -> None:
        """`folder` is the LocalCompute's."""
        self._folder = folder.absolute()

    def tail(self, compute_id: str, *, log: str | None, lines: int) -> list[LogLine]:
        """The last lines within the last 64 KiB of the output; their times are at most 0.2 s late."""
        if lines < 1 or not NAME.fullmatch(compute_id):
            return []
        run = self._folder / compute_id
        with disk("The folder of runs"):
            last = supervise.tail(run / "log")[-lines:]
            times = supervise.times(run, [end for _, end in last])
        return [LogLine(text, moment(at)) for (text, _), at in zip(last, times, strict=True)]

    def whole(self, compute_id: str, *, log: str | None) -> Iterator[bytes]:
        """The output up to its size when the first piece was asked for."""
        if not NAME.fullmatch(compute_id):
            return
        with disk("The folder of runs"):
            try:
                file = ((self._folder / compute_id) / "log").open("rb", buffering=0)
            except FileNotFoundError:
                return
        with file:
            left = os.fstat(file.fileno()).st_size  # a program that prints all the time must not hold us here
            while left > 0:
                with disk("The folder of runs"):
                    piece = file.read(min(left, masking.PIECE))
                if not piece:
                    return
                left -= len(piece)
                yield piece

    def redact(self, compute_id: str, secret: SecretStr) -> None:
        """Strike the secret out of an ended run's log, in case its supervisor was killed before it could."""
        with disk("The folder of runs"):
            run = self._folder / compute_id
            if NAME.fullmatch(compute_id) and run.is_dir() and look(run).state in FINAL:
                masking.strike_out(run / "log", secret.get_secret_value())
