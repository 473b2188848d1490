"""Ends what a run's supervisor leaves when it is killed: `python -I -S guard.py SUPERVISOR`.

Every supervisor has a guard, which is its parent. A process whose parent dies becomes a child of its nearest ancestor
that adopts orphans: of the supervisor, and of the guard once there is no supervisor, whatever its environment or its
session. The guard holds the locks of run and slot as well, so the run counts as running until nothing of it is alive.
Where the guard is killed, the supervisor ends the run. Only one that kills both at once can leave something alive
(Linux). `supervise.py` uses this module, so it imports the standard library and `contract` alone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))

from bot.local import processes
from contract.program import TOKEN_VARIABLE, dies_with


def begin() -> None:
    """Become the guard of a new process, in which this call returns, and which gets SIGTERM when the guard dies.

    The guard keeps inheritable descriptors open, and ends with the exit code of the new process. Raises OSError where
    there can be no new process.
    """
    processes.adopt_orphans()
    dies = dies_with(os.getpid(), signal.SIGTERM)
    if supervisor := os.fork():
        # A program of its own, so that whoever looks for supervisors by name does not kill both. A signal that comes
        # before `main` can pass it on ends the guard, and so reaches the supervisor too.
        environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
        command = [sys.executable, "-I", "-S", __file__, str(supervisor)]
        os.execve(sys.executable, command, environment)  # noqa: S606  our own file
    dies()


def main(supervisor: int) -> int:
    """Wait for the supervisor, a child of this process, and end what is left. Returns the supervisor's exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.kill(supervisor, signal.SIGTERM))  # not yet reaped: the number is its own
    while (ended := os.wait())[0] != supervisor:
        pass
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    processes.end_children(time.sleep)
    code = os.waitstatus_to_exitcode(ended[1])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
