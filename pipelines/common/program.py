"""What every program shares: arguments, exit codes, the last line on stderr, progress, and an end on SIGTERM.

    def program(request: Request) -> None: ...

    if __name__ == "__main__":
        main(program, options={"--weights": "a file"})

Exit codes: 0 done, 2 the request is wrong, 3 BOSS refused or failed, 1 any other failure. The last line on stderr says
why, in words for the user. Where BOSS refused for good, a line of stdout is `failure refused`. The token is never
printed.
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
from typing import Any, NoReturn, TextIO
from urllib.parse import urlsplit

from contract import masking, names, ranges
from contract.program import (
    BLOCK_VOXELS,
    BLOCKS,
    BOSS_FAILED,
    DONE,
    FAILED,
    FIRST,
    IMAGE_BYTES,
    REFUSED,
    STAGES,
    TOKEN_VARIABLE,
    WRONG,
    WrongIndex,
    dies_with,
    progress_line,
    read_index,
)
from volumes.address import Address
from volumes.address import parse as address_of
from volumes.errors import WrongVolume
from volumes.roots import BOSSDB, SETTING, Roots

MAX_KEY = 1000
"""Characters of the longest results key taken; the longest names make about 700."""
_HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_RANGES = ("--z-range", "--y-range", "--x-range")
PATIENCE = 3
"""Seconds from SIGTERM until a computation that does not react is killed."""
_ENDS = frozenset({signal.SIGTERM, signal.SIGINT})


class Failure(Exception):
    """The program cannot go on. The text is one line for the user, without secrets."""

    code = FAILED


class WrongRequest(Failure):
    """The request cannot work, however often it is tried."""

    code = WRONG


class BossFailure(Failure):
    """BOSS, or whatever else holds the volume, refused, does not answer, or has damaged data."""

    code = BOSS_FAILED


class BossRefusal(BossFailure):
    """BOSS refused what this token asks for, and would refuse it again."""


class Stopped(BaseException):
    """SIGTERM came. A BaseException, so that no `except Exception` catches it."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the program is asked to do. Ranges are half-open `(start, stop)` in voxels at resolution 0."""

    host: str
    """BOSS's host name, with a port where it is not the protocol's default; empty for a volume by address."""
    protocol: str
    token: str = field(repr=False)
    collection: str
    """For a volume by address: a name made of it."""
    experiment: str
    """For a volume by address: its digest."""
    z: tuple[int, int]
    y: tuple[int, int]
    x: tuple[int, int]
    results_uri: str
    results_key: str = ""
    """Name of the detections' channel in BOSS; empty: made of pipeline and box, as the bot does."""
    predictions: tuple[str, str] | None = None
    """Collection and experiment to which detections are written back; None: they are not."""
    viewer: str = ""
    """A Neuroglancer to link to, also for volumes of a private host; empty: the public one, for public hosts only."""
    image_bytes: int = IMAGE_BYTES
    """The channels are written beside the results where they have no more bytes than that; 0: never."""
    channels: Mapping[str, str] = field(default_factory=dict)
    """Role to channel, where the person chose the channel."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The program's own options that were given, by name without leading dashes."""
    address: Address | None = None
    """A volume that is not BOSS's."""
    roots: Roots = field(default_factory=Roots)
    """Where volumes, and BOSS's bulk data, may lie."""
    stage: Stage | None = None
    """The stage of a job in blocks; None: the job is this run."""

    @property
    def place(self) -> str:
        """The volume, for people: `collection/experiment`, or the address."""
        return str(self.address) if self.address else f"{self.collection}/{self.experiment}"

    @property
    def start(self) -> tuple[int, int, int]:
        """The box's first voxel, (z, y, x)."""
        return self.z[0], self.y[0], self.x[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The box's extent in voxels, (z, y, x)."""
        return self.z[1] - self.z[0], self.y[1] - self.y[0], self.x[1] - self.x[0]

    def public(self) -> dict[str, object]:
        """The request for results.json: without the token and without the places results go to."""
        boss = {
            "host": f"{self.protocol}://{self.host}",
            "collection": self.collection,
            "experiment": self.experiment,
        }
        return {
            **({"volume": str(self.address)} if self.address else boss),
            "z": list(self.z),
            "y": list(self.y),
            "x": list(self.x),
            "channels": dict(self.channels),
            "options": dict(self.options),
        }


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a job in blocks, as docs/adding-a-pipeline.md has it."""

    name: str
    """One of STAGES."""
    job_uri: str
    """Where the files of the job lie, and in `blocks/` those of its stages."""
    voxels: int
    """Of a block's core, about."""
    rounds: tuple[int, ...]
    """How many programs each round over the blocks has; the last one is the present one."""
    index: int
    """The number of this program in its round."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongRequest(f"The arguments are wrong: {message}.")


def parse(argv: Sequence[str], environ: Mapping[str, str], *, options: Mapping[str, str] | None = None) -> Request:
    """Read the arguments; the token comes from `--token` or BOSS_TOKEN. Raises WrongRequest.

    The volume is BOSS's (`--host`, `--col`, `--exp`), or has an address (`--volume`), which needs no token.

    `options` are the program's own options, `--name` to a line of help; each takes a value and may be left out.
    """
    own = options or {}
    parser = _Parser(prog="pipeline", allow_abbrev=False)
    of_boss = not any(word == "--volume" or word.startswith("--volume=") for word in argv)
    parser.add_argument("--host", required=of_boss, help="BOSS: a host name (https), or a URL")
    parser.add_argument("--token", help="BOSS token; better in BOSS_TOKEN")
    parser.add_argument("--col", required=of_boss, help="collection")
    parser.add_argument("--exp", required=of_boss, help="experiment")
    parser.add_argument("--volume", help="an address, in place of --host, --col and --exp")
    parser.add_argument("--volume-roots", help=f"where volumes may lie; default: {SETTING}, or BossDB's public bucket")
    for name in _RANGES:
        parser.add_argument(name, required=True, metavar="START,STOP", help="voxels, the stop not included")
    parser.add_argument("--results-uri", default="", help="s3://bucket/key/ or file:///folder/; default: ./results/")
    parser.add_argument("--results-key", default="", help="the name of the detections' channel in BOSS")
    parser.add_argument("--predictions", default="", help="collection/experiment the detections are written back to")
    parser.add_argument("--viewer", default="", help="URL of a Neuroglancer to link to")
    parser.add_argument("--channel", action="append", default=[], metavar="ROLE=NAME", help="the channel of a role")
    parser.add_argument("--image-bytes", default=str(IMAGE_BYTES), help="the largest image to be written; 0: none")
    parser.add_argument("--stage", choices=STAGES, help="of a job in blocks")
    parser.add_argument("--job-uri", default="", help="where the files of a job in blocks lie")
    parser.add_argument("--block-voxels", default=str(BLOCK_VOXELS), help="voxels of a block, about")
    parser.add_argument("--rounds", default="", metavar="N,N", help="how many programs each round over the blocks has")
    for name, said in own.items():
        parser.add_argument(name, default="", help=said)
    given, unknown = parser.parse_known_args(_join_ranges(argv))
    if unknown:  # without their values: a value may be a token
        names = [word.partition("=")[0] for word in unknown if word.startswith("--")]
        raise WrongRequest(f"The arguments are wrong: {', '.join(names) or 'a stray word'} is not understood.")
    token = given.token or environ.get(TOKEN_VARIABLE, "")
    try:
        place = _volume(given, token)
        roots = Roots.read(given.volume_roots or environ.get(SETTING) or BOSSDB)
    except WrongVolume as error:
        raise WrongRequest(str(error)) from None
    return Request(
        **place,
        roots=roots,
        z=_range("z", given.z_range),
        y=_range("y", given.y_range),
        x=_range("x", given.x_range),
        results_uri=given.results_uri or Path("results").absolute().as_uri() + "/",
        results_key=_name("results key", given.results_key, MAX_KEY) if given.results_key else "",
        predictions=_place(given.predictions) if given.predictions else None,
        viewer=_viewer(given.viewer),
        image_bytes=_bytes(given.image_bytes),
        channels=_channels(given.channel),
        stage=_stage(given, environ) if given.stage else None,
        options={key: value for name in own if (value := getattr(given, (key := name[2:]).replace("-", "_")))},
    )


def _stage(given: argparse.Namespace, environ: Mapping[str, str]) -> Stage:
    if not re.fullmatch(r"[1-9][0-9]{0,14}", given.block_voxels):
        raise WrongRequest("--block-voxels is not a whole number of voxels, such as 268435456.")
    if not re.fullmatch(r"([1-9][0-9]{0,6}(,[1-9][0-9]{0,6}){0,99})?", given.rounds):
        raise WrongRequest("--rounds is not a list of numbers with commas between, such as 64,3.")
    if not given.job_uri:
        raise WrongRequest("--job-uri is needed for a stage of a job in blocks.")
    rounds = tuple(int(number) for number in given.rounds.split(",") if number)
    try:
        index = read_index(environ) or 0
    except WrongIndex as error:
        raise WrongRequest(str(error)) from None
    if (given.stage != FIRST and not rounds) or (given.stage == BLOCKS and index >= rounds[-1]):
        raise WrongRequest(f"--rounds {given.rounds or 'is empty, and'} has no program number {index}.")
    return Stage(name=given.stage, job_uri=given.job_uri, voxels=int(given.block_voxels), rounds=rounds, index=index)


def _volume(given: argparse.Namespace, token: str) -> dict[str, Any]:
    """The fields of a Request that say which volume is read. Raises WrongRequest and WrongVolume."""
    named = [f"--{name}" for name in ("host", "col", "exp") if getattr(given, name) is not None]
    address = None if given.volume is None else address_of(given.volume)
    if address and named:
        raise WrongRequest(f"The arguments are wrong: --volume takes the place of {', '.join(named)}.")
    if isinstance(address, Address):
        # a token that was given is hidden in what is printed, and sent nowhere
        return {
            "host": "",
            "protocol": "",
            "token": token,
            "collection": address.stem,
            "experiment": address.digest,
            "address": address,
        }
    if address is None:
        protocol, host = _host(given.host)
        collection, experiment = given.col, given.exp
    else:
        protocol, host = _host(f"{address.protocol}://{address.host}")
        collection, experiment = address.collection, address.experiment
    return {
        "host": host,
        "protocol": protocol,
        "token": _token(token),
        "collection": _name("collection", collection),
        "experiment": _name("experiment", experiment),
    }


def _join_ranges(argv: Sequence[str]) -> list[str]:
    """The arguments with `--x-range -5,10` as one word: argparse would take the value for an option."""
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
        urlsplit(f"{protocol}://{host}").port  # noqa: B018  raises for a wrong port
    except ValueError:
        raise WrongRequest("--host has a port beyond 65535.") from None
    return protocol, host


def _token(text: str) -> str:
    if not text:
        raise WrongRequest("There is no BOSS token: set BOSS_TOKEN or give --token.")
    if not masking.is_token(text):
        raise WrongRequest("The BOSS token has a space, a line break or another character no token has; copy it again.")
    return text


def _name(what: str, text: str, longest: int = names.MAX_NAME) -> str:
    if not names.is_name(text, longest=longest):
        raise WrongRequest(
            f"The {what}'s name is not one BOSS knows; letters, digits, - and _ are allowed, at most {longest}."
        )
    return text


def _place(text: str) -> tuple[str, str]:
    collection, slash, experiment = text.partition("/")
    if not slash:
        raise WrongRequest("--predictions is a collection and an experiment, such as lab/predictions.")
    return _name("predictions' collection", collection), _name("predictions' experiment", experiment)


def _viewer(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^\s#\"'<>]+(#!?)?", text):
        raise WrongRequest("--viewer is no URL of a Neuroglancer, such as https://neuroglancer.example.org/.")
    return text.rstrip("#!")


def _bytes(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise WrongRequest("--image-bytes is not a whole number of bytes, such as 268435456; 0 writes no image.")
    return int(text)


def _channels(given: Sequence[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for word in given:
        role, equals, name = word.partition("=")
        if not equals or not role:
            raise WrongRequest("--channel is a role and a channel, such as --channel postsynaptic=PSD95.")
        chosen[role] = _name(f"{'channel' if len(role) > 40 else role} channel", name)
    return chosen


def _range(axis: str, text: str) -> tuple[int, int]:
    try:
        return ranges.parse(text)
    except ranges.NotAscending as error:
        raise WrongRequest(
            f"The {axis} range starts at {error.start}, which must be smaller than its stop, {error.stop}."
        ) from None
    except ValueError as error:
        most = f"to {ranges.MAX_COORDINATE}" if isinstance(error, ranges.TooLarge) else "up"
        raise WrongRequest(
            f"The {axis} range is not two whole numbers from 0 {most}; write start and stop, such as 0,512."
        ) from None


class Progress:
    """Prints lines `progress 0.42 reading` on a stream, the first at once, then at most one a second."""

    def __init__(self, *, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._last = -1e9

    def __call__(self, part: float, what: str) -> None:
        """Print that `part` of the work, from 0 to 1, is done, and that `what` is being done."""
        now = self._clock()
        if now - self._last >= 1:
            self._last = now
            print(progress_line(part, what), file=self._out, flush=True)


class Stopwatch:
    """Measures the seconds spent in each stage, in order."""

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since = clock()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to that stage."""
        now = self._clock()
        self.seconds[stage] = round(self.seconds.get(stage, 0) + now - self._since, 3)
        self._since = now


def run(
    program: Callable[[Request], None],
    *,
    argv: Sequence[str],
    environ: Mapping[str, str],
    err: TextIO,
    options: Mapping[str, str] | None = None,
) -> int:
    """Run a program and return its exit code; the last line on `err` says why it failed, if it did.

    The token is hidden in everything that is printed on `err`.
    """
    token = environ.get(TOKEN_VARIABLE, "")

    def say(text: str) -> None:
        print(masking.hidden(text, token, mask=masking.SHORT_MASK), file=err, flush=True)

    try:
        request = parse(argv, environ, options=options)
        token = request.token
        program(request)
    except Failure as failure:
        if isinstance(failure, BossRefusal):
            print(REFUSED, flush=True)  # on stdout, as progress is: stderr has words for people alone
        say(" ".join(str(failure).split()))
        return failure.code
    except Stopped:
        say(_STOPPED)
        return FAILED
    except MemoryError:
        say("The box is too large for the memory of this machine; ask for a smaller one.")
        return FAILED
    except Exception as error:
        say(traceback.format_exc())
        say(f"The program failed unexpectedly: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        return FAILED
    return DONE


_STOPPED = "The run was stopped before it was done."


def main(program: Callable[[Request], None], *, options: Mapping[str, str] | None = None) -> NoReturn:
    """Run the program as a process, with argv and the environment; it ends within seconds of SIGTERM.

    A child does the work: Python handles a signal only between two of its own instructions, and one call of a library
    may compute for minutes. The parent stays free to end the child, and to say so where the child no longer can.
    """
    # forking is safe: there are no threads until the child imports NumPy
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # until both processes have their handlers
    end_with_parent = dies_with(os.getpid())
    child = os.fork()
    if child:
        raise SystemExit(_watch(child))
    end_with_parent()
    for number in _ENDS:
        signal.signal(number, _stop)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
        code = run(program, argv=sys.argv[1:], environ=os.environ, err=sys.stderr, options=options)
    except Stopped:  # before or after the program itself
        print(_STOPPED, file=sys.stderr)
        code = FAILED
    sys.stdout.flush()
    raise SystemExit(code)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for each in _ENDS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped


def _watch(child: int) -> int:
    """Wait for the child and return its exit code. SIGTERM is passed on; PATIENCE later the child is killed."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            signal.alarm(PATIENCE)
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    for number in _ENDS:
        signal.signal(number, ask)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # the child is dead, but its id stays reserved for the handlers
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDS, signal.SIGALRM})
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code >= 0:
        return code
    name = signal.Signals(-code).name
    said = f"The program was ended by {name}; the box may be too large for the memory of this machine."
    print(_STOPPED if asked else said, file=sys.stderr, flush=True)
    return FAILED
