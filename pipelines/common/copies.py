"""Work on both cores: copies of this process do it, since NumPy's short loops wait for one another within a process."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, TypeVar

from contract.program import dies_with

Part = TypeVar("Part")
Result = TypeVar("Result")
CORES = 2
"""Copies that work at a time, where there is much to do: a program is given two cores."""


def in_copies(work: Callable[[Part], Result], parts: Iterable[Part], *, most: int) -> Iterator[Result]:
    """The results of `work` for the parts, in order; up to `most` parts at a time, each in a copy of this process.

    A copy sees all that is in memory at its beginning, and nothing that it changes is seen outside: only the result,
    which is pickled. The next part is made while the copies work. Where `most` is 1, on other systems than Linux, and
    where no further process is allowed, this process does the work itself. What `work` raises is raised here;
    MemoryError where a copy was killed.
    """
    if most == 1 or sys.platform != "linux":
        yield from map(work, parts)
        return
    waiting: deque[tuple[int, BinaryIO]] = deque()
    try:
        for part in parts:
            try:
                waiting.append(_copy(work, part))
            except OSError:  # a limit on processes
                while waiting:
                    yield _result(waiting)
                yield work(part)
            del part  # may be large, and the copy has it
            if len(waiting) == most:
                yield _result(waiting)
        while waiting:
            yield _result(waiting)
    finally:
        for process, answer in waiting:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            answer.close()


def _copy(work: Callable[[Part], Result], part: Part) -> tuple[int, BinaryIO]:
    """The id of a copy that works on a part, and where it will say the result, or what was raised."""
    reading, writing = os.pipe()
    end_with_parent = dies_with(os.getpid())
    try:
        process = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if process:
        os.close(writing)
        return process, open(reading, "rb")
    try:
        gc.disable()  # what is to be done for garbage is the first process's to do
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the first process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_with_parent()
        os.close(reading)
        with open(writing, "wb") as out:
            try:
                result, raised = work(part), None
            except Exception as error:
                result, raised = None, error
            pickle.dump((result, raised), out, protocol=5)
    finally:
        os._exit(0)


def _result(waiting: deque[tuple[int, BinaryIO]]) -> Any:
    """What the copy that has worked longest says; it is waited for, and is then no longer among those waiting."""
    process, answer = waiting[0]
    try:
        result, raised = pickle.load(answer)  # noqa: S301 - of this program's own making
    except EOFError:
        result, raised = None, MemoryError("a process that searched sections was killed")
    os.waitpid(process, 0)
    waiting.popleft()
    answer.close()
    if raised is not None:
        raise raised
    return result
