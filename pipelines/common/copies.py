"""Work on both cores: copies of this process do it, since NumPy's short loops wait for one another within a process."""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar

from contract.program import dies_with

Part = TypeVar("Part")
Result = TypeVar("Result")
CORES = 2
"""Copies that work at a time, where there is much to do: a program is given two cores."""
_TRIM, _MAPPED, _HEAPS = -1, -3, -8
"""Of glibc's mallopt: from how many bytes on freed memory is handed back, and a block is mapped on its own; heaps."""
_LAST = 19
"""The least niceness, by which a process takes hardly any time from others."""
_HELD, _USUAL = 2**30, 2**25
"""Bytes that are kept for what needs them next: by copies, and by a process that does not say so, at most."""


def in_copies(work: Callable[[Part], Result], parts: Iterable[Part], *, most: int) -> Iterator[Result]:
    """The results of `work` for the parts, in order, from up to `most` copies of this process at a time.

    A copy sees all that is in memory at its beginning, and nothing that it changes is seen outside: only the results,
    which are pickled. The parts of a sequence are dealt out to `most` copies. Of other parts each has its own copy, and
    the next one is made here while copies work. Where `most` is 1, on other systems than Linux, and where no
    further process is allowed, this process does the work itself. What `work` raises is raised here; MemoryError where
    a copy was killed.
    """
    if most == 1 or sys.platform != "linux":
        yield from map(work, parts)
    elif isinstance(parts, Sequence):
        yield from _dealt(work, parts, most)
    else:
        yield from _each(work, parts, most)


@contextmanager
def beside(work: Callable[[], Result], *, copies: int, idle: bool = False) -> Iterator[Callable[[], Result]]:
    """While the block runs, a copy of this process does the work; what is given waits for it and returns its result.

    A copy that is `idle` takes the time alone that others leave. Where `copies` is 1, and where `in_copies` would do
    the work itself, it is done when the result is asked for. Raises as `in_copies`.
    """

    def done(_: None) -> Result:
        if idle:
            os.nice(_LAST)
        return work()

    copy = _copy(done, [None]) if copies > 1 and sys.platform == "linux" else None
    try:
        yield copy.result if copy else work
    finally:
        if copy:
            copy.end()


def _dealt(work: Callable[[Part], Result], parts: Sequence[Part], most: int) -> Iterator[Result]:
    """Of parts dealt out to that many copies."""
    copies: list[_Copy | None] = []
    try:
        copies.extend(_copy(work, parts[n::most]) for n in range(min(most, len(parts))))
        for n, part in enumerate(parts):
            copy = copies[n % most]
            yield copy.result() if copy else work(part)
    finally:
        for copy in filter(None, copies):
            copy.end()


def _each(work: Callable[[Part], Result], parts: Iterable[Part], most: int) -> Iterator[Result]:
    """Of parts that have a copy each, up to that many at a time."""
    waiting: deque[_Copy] = deque()

    def first() -> Result:
        result: Result = waiting[0].result()
        waiting.popleft().end()
        return result

    try:
        for part in parts:
            copy = _copy(work, [part])
            if copy:
                waiting.append(copy)
            else:
                while waiting:
                    yield first()
                yield work(part)
            del part  # may be large, and the copy has it
            if len(waiting) == most:
                yield first()
        while waiting:
            yield first()
    finally:
        for copy in waiting:
            copy.end()


@contextmanager
def memory_kept() -> Iterator[None]:
    """While the block runs, memory that is freed is kept for what needs it next, since fresh pages take time."""
    _keep(_HELD)
    try:
        yield
    finally:
        _keep(_USUAL)
        hand_back()


def hand_back() -> None:
    """Hand memory that was freed back to the system; glibc keeps what lies between blocks that are in use."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def one_heap() -> None:
    """Have threads that begin from now on share a heap, since glibc hands back hardly any of what others free."""
    _set(_HEAPS, 1)


def _keep(size: int) -> None:
    """Have glibc keep so many bytes that are freed."""
    _set(_TRIM, size)
    _set(_MAPPED, size)


def _set(option: int, value: int) -> None:
    """An option of glibc's; other libraries have it their way."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(option, value)


class _Copy:
    """A copy at work, and the pipe on which it says a result after another."""

    def __init__(self, process: int, answers: BinaryIO) -> None:
        self._process, self._answers = process, answers

    def result(self) -> Any:
        """The next result; raises what was raised instead, or MemoryError where there is none."""
        try:
            result, raised = pickle.load(self._answers)  # noqa: S301 - of this program's own making
        except (EOFError, pickle.UnpicklingError):
            raise MemoryError("a copy of this process was killed") from None
        if raised is not None:
            raise raised
        return result

    def end(self) -> None:
        """End it, whatever it does."""
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._answers.close()


def _copy(work: Callable[[Part], Any], parts: Sequence[Part]) -> _Copy | None:
    """A copy that works on these parts; None where no further process, or no pipe, is to be had."""
    try:
        reading, writing = os.pipe()
    except OSError:
        return None
    end_with_parent = dies_with(os.getpid())
    try:
        process = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        return None
    if process:
        os.close(writing)
        return _Copy(process, open(reading, "rb"))
    try:
        gc.freeze()  # what is garbage already is the first process's to clear away
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the first process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_with_parent()
        if len(parts) > 1:  # fresh pages for each part would take a tenth of the time
            _keep(_HELD)
        os.close(reading)
        with open(writing, "wb") as out:
            for part in parts:
                try:
                    result, raised = work(part), None
                except Exception as error:
                    result, raised = None, error
                pickle.dump((result, raised), out, protocol=5)
                out.flush()
                if raised is not None:
                    break
    finally:
        os._exit(0)
