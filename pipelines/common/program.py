"""What every program shares: arguments, exit codes, the last line on stderr, progress, and an end on SIGTERM.

Exit 0 done, 2 the request is wrong, 3 BOSS refused or failed, 1 anything else; the last line on stderr says why, in
words for the user. The token is never printed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO
from urllib.parse import urlsplit

DONE, FAILED, WRONG, BOSS_FAILED = 0, 1, 2, 3
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,255}")
_HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_RANGE = re.compile(r"\s*([0-9]{1,10})\s*[,:]\s*([0-9]{1,10})\s*")
_RANGES = ("--z-range", "--y-range", "--x-range")


class Failure(Exception):
    """The program cannot go on. The text is one line for the user, without secrets."""

    code = FAILED


class WrongRequest(Failure):
    """The request cannot work, whatever is tried."""

    code = WRONG


class BossFailure(Failure):
    """BOSS refused, or does not answer."""

    code = BOSS_FAILED


class Stopped(BaseException):
    """SIGTERM came. No Exception, so that nothing takes it for a failure of its own."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for. Ranges are half-open `(start, stop)` in voxels at resolution 0."""

    host: str
    """Host name, and port where it is not the protocol's own."""
    protocol: str
    token: str = field(repr=False)
    collection: str
    experiment: str
    z: tuple[int, int]
    y: tuple[int, int]
    x: tuple[int, int]
    results_uri: str

    @property
    def start(self) -> tuple[int, int, int]:
        """The corner, z, y, x."""
        return self.z[0], self.y[0], self.x[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Extent in voxels, z, y, x."""
        return self.z[1] - self.z[0], self.y[1] - self.y[0], self.x[1] - self.x[0]

    def public(self) -> dict[str, object]:
        """All but the token, for results.json."""
        return {
            "host": f"{self.protocol}://{self.host}",
            "collection": self.collection,
            "experiment": self.experiment,
            "z": list(self.z),
            "y": list(self.y),
            "x": list(self.x),
        }


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongRequest(f"The arguments are wrong: {message}.")


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Request:
    """Read the arguments; the token comes from `--token` or BOSS_TOKEN. Raises WrongRequest."""
    parser = _Parser(prog="pipeline", allow_abbrev=False)
    parser.add_argument("--host", required=True, help="BOSS: a host name (https), or a URL")
    parser.add_argument("--token", help="BOSS token; better in BOSS_TOKEN")
    parser.add_argument("--col", required=True, help="collection")
    parser.add_argument("--exp", required=True, help="experiment")
    for name in _RANGES:
        parser.add_argument(name, required=True, metavar="START,STOP", help="voxels, the stop not included")
    parser.add_argument("--results-uri", default="", help="s3://bucket/key/ or file:///folder/; default: ./results/")
    given, unknown = parser.parse_known_args(_join_ranges(argv))
    if unknown:  # named without their values: one of them may be a token
        names = [word.partition("=")[0] for word in unknown if word.startswith("--")]
        raise WrongRequest(f"The arguments are wrong: {', '.join(names) or 'a stray word'} is not understood.")
    protocol, host = _host(given.host)
    return Request(
        host=host,
        protocol=protocol,
        token=_token(given.token or environ.get("BOSS_TOKEN", "")),
        collection=_name("collection", given.col),
        experiment=_name("experiment", given.exp),
        z=_range("z", given.z_range),
        y=_range("y", given.y_range),
        x=_range("x", given.x_range),
        results_uri=given.results_uri or Path("results").absolute().as_uri() + "/",
    )


def _join_ranges(argv: Sequence[str]) -> list[str]:
    """`--x-range -5,10` as one word: argparse takes the value for an option otherwise, and says something unhelpful."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] in _RANGES:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _host(text: str) -> tuple[str, str]:
    protocol, found, rest = text.partition("://")
    if not found:
        protocol, rest = "https", text
    host = rest.rstrip("/")
    if protocol not in ("http", "https") or not _HOST.fullmatch(host):
        raise WrongRequest(
            "--host is neither a host name, such as api.bossdb.io, nor a URL, such as http://127.0.0.1:9000."
        )
    try:
        urlsplit(f"{protocol}://{host}").port  # noqa: B018  it raises where the port is no port
    except ValueError:
        raise WrongRequest("--host has a port beyond 65535.") from None
    return protocol, host


def _token(text: str) -> str:
    if not text:
        raise WrongRequest("There is no BOSS token: set BOSS_TOKEN or give --token.")
    if not re.fullmatch(r"[!-~]{1,1000}", text):  # anything else would break the header it travels in
        raise WrongRequest("The BOSS token has a space, a line break or another character no token has; copy it again.")
    return text


def _name(what: str, text: str) -> str:
    if not _NAME.fullmatch(text):
        raise WrongRequest(
            f"The {what}'s name is not one BOSS knows; letters, digits, - and _ are allowed, at most 255."
        )
    return text


def _range(axis: str, text: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(text)
    if not found:
        raise WrongRequest(f"The {axis} range is not two whole numbers from 0 up; write start and stop, such as 0,512.")
    start, stop = int(found[1]), int(found[2])
    if start >= stop:
        raise WrongRequest(f"The {axis} range starts at {start}, which must be smaller than its stop, {stop}.")
    return start, stop


class Progress:
    """Lines `progress 0.42 reading` on a stream, at most one a second; the first is told at once."""

    def __init__(self, *, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._last = -1e9

    def __call__(self, part: float, what: str) -> None:
        """`part` of the work is done, from 0 to 1, and `what` is being done."""
        now = self._clock()
        if now - self._last >= 1:
            self._last = now
            print(f"progress {min(max(part, 0), 1):.2f} {what}", file=self._out, flush=True)


class Stopwatch:
    """Seconds spent in each stage, in order."""

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since = clock()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """The time since the last lap was spent in that stage."""
        now = self._clock()
        self.seconds[stage] = round(self.seconds.get(stage, 0) + now - self._since, 3)
        self._since = now


def run(program: Callable[[Request], None], *, argv: Sequence[str], environ: Mapping[str, str], err: TextIO) -> int:
    """Run a program and return its exit code, having said on `err` in its last line why it failed, if it did.

    The token, if it occurs anywhere in what is said, is left out.
    """
    token = environ.get("BOSS_TOKEN", "")
    try:
        request = parse(argv, environ)
        token = request.token
        program(request)
    except Failure as failure:
        print(_without(token, " ".join(str(failure).split())), file=err, flush=True)
        return failure.code
    except Stopped:
        print("The run was stopped before it was done.", file=err, flush=True)
        return FAILED
    except MemoryError:
        print("The box is too large for the memory of this machine; ask for a smaller one.", file=err, flush=True)
        return FAILED
    except Exception as error:
        print(_without(token, traceback.format_exc()), file=err)
        said = f"The program failed unexpectedly: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(_without(token, said), file=err, flush=True)
        return FAILED
    return DONE


def main(program: Callable[[Request], None]) -> NoReturn:
    """The program's entry: argv and the environment, exit codes, and an end within seconds of SIGTERM.

    A handler is needed because a container's first process is not ended by SIGTERM without one.
    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped

    signal.signal(signal.SIGTERM, stop)
    code = run(program, argv=sys.argv[1:], environ=os.environ, err=sys.stderr)
    sys.stdout.flush()
    raise SystemExit(code)


def _without(secret: str, text: str) -> str:
    return text.replace(secret, "…") if secret else text
