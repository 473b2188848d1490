"""Logs that are files in the folders of runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import SecretStr

from bot.domain.work import LogLine
from bot.files import records
from bot.files.arrays import Array
from bot.files.runs import disk, folder_of, moment
from contract import masking


class FolderLogs:
    """The port Logs in the folder of runs of one backend."""

    def __init__(self, *, folder: Path, is_over: Callable[[Path], bool]) -> None:
        """`folder` is the one that holds all runs; `is_over` tells of a run's folder whether the run has ended."""
        self._folder = folder.absolute()
        self._is_over = is_over

    def tail(self, compute_id: str, *, log: str | None, lines: int) -> list[LogLine]:
        """The last lines within the last 64 KiB of the output; their times are at most 0.2 s late."""
        run = folder_of(self._folder, compute_id)
        if lines < 1 or run is None:
            return []
        with disk("The folder of runs"):
            last = records.tail(run / "log")[-lines:]
            times = records.times(run, [end for _, end in last])
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
                if self._is_over(run):
                    masking.strike_out(run / "log", secret.get_secret_value())
