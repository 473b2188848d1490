"""Logs on this machine: files in the folders of runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from bot.domain.states import FINAL
from bot.domain.work import LogLine
from bot.local import supervise
from bot.local.arrays import Array
from bot.local.runs import disk, folder_of, look, moment
from contract import masking


class LocalLogs:
    """Reads the logs of the runs of a LocalCompute."""

    def __init__(self, *, folder: Path) -> None:
        """`folder` is the LocalCompute's."""
        self._folder = folder.absolute()

    def tail(self, compute_id: str, *, log: str | None, lines: int) -> list[LogLine]:
        """The last lines within the last 64 KiB of the output; their times are at most 0.2 s late."""
        run = folder_of(self._folder, compute_id)
        if lines < 1 or run is None:
            return []
        with disk("The folder of runs"):
            last = supervise.tail(run / "log")[-lines:]
            times = supervise.times(run, [end for _, end in last])
        return [LogLine(text, moment(at)) for (text, _), at in zip(last, times, strict=True)]

    def whole(self, compute_id: str, *, log: str | None) -> Iterator[bytes]:
        """The output up to its size when the first piece was asked for."""
        if (run := folder_of(self._folder, compute_id)) is None:
            return
        with disk("The folder of runs"):
            try:
                file = (run / "log").open("rb", buffering=0)
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
            if (top := folder_of(self._folder, compute_id)) is None or not top.is_dir():
                return
            array = Array.read(top)
            for run in [top / str(number) for number in range(array.begun())] if array else [top]:
                if look(run).state in FINAL:
                    masking.strike_out(run / "log", secret.get_secret_value())
