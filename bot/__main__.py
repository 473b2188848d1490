"""The command line. Heavy imports wait until a command needs them: `--help` answers at once."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

    from bot.settings import Settings


MOST = 1_000_000
"""Jobs or lines that may be asked for at once."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 failed, 2 the request or the settings are wrong."""
    parser = argparse.ArgumentParser(prog="nomads", description="NOMADS: synapse detection on BOSS volumes.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="serve Slack and carry out jobs, until stopped")
    commands.add_parser("work", help="carry out jobs only, beside processes that serve Slack")
    _add_deploy(commands)
    commands.add_parser("doctor", help="check settings, database, pipelines, Slack and AWS, and say what is wrong")
    replay = commands.add_parser("replay", help="try again what was given up, such as a card that Slack refused")
    which = replay.add_mutually_exclusive_group()
    which.add_argument("job", nargs="?", metavar="JOB", help="what was given up of this job")
    which.add_argument("--all", action="store_true", help="what was given up of all jobs")
    submit = commands.add_parser(
        "submit", help="submit a job without Slack; the token comes from BOSS_TOKEN or a prompt"
    )
    for name, example in (
        ("pipeline", "nomads-unsupervised"),
        ("collection", "demo"),
        ("experiment", "cortex"),
        ("x", "0,512"),
        ("y", "0,512"),
        ("z", "0,16"),
        ("email", "name@example.org"),
    ):
        whole = "; left out: all of the volume" if name in ("x", "y", "z") else ""
        submit.add_argument(f"--{name}", default="", metavar=name.upper(), help=f"such as {example}{whole}")
    submit.add_argument(
        "--volume",
        default="",
        metavar="ADDRESS",
        help="in place of collection and experiment: an address, such as zarr://s3://bucket/volume.zarr, or a name "
        "from the admin's list; needs no token",
    )
    submit.add_argument(
        "--option",
        action="append",
        default=[],
        type=_option,
        metavar="NAME=VALUE",
        help="an option of the pipeline, such as false-discovery=0.1; may be given for each option once",
    )
    submit.add_argument("--again", action="store_true", help="run it even if a job does the same, or has done it")
    submit.add_argument("--wait", action="store_true", help="stay until the job ends")
    submit.add_argument("--json", action="store_true", help="print one JSON object a line for each transition")
    _add_following(commands)
    arguments = parser.parse_args(_joined(sys.argv[1:] if argv is None else argv))
    return _guarded(arguments.command, arguments)


def _add_deploy(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command that makes an AWS account ready."""
    deploy = commands.add_parser("deploy", help="make in AWS what NOMADS needs, or bring it up to date: one command")
    deploy.add_argument("--name", default="nomads", help="of the stack, and of all it makes (nomads)")
    deploy.add_argument(
        "--bot",
        choices=("fargate", "instance", "elsewhere"),
        help="where the bot runs; at first fargate, then as it was",
    )
    deploy.add_argument(
        "--set",
        action="append",
        default=[],
        type=_option,
        metavar="PARAMETER=VALUE",
        help="a parameter of deploy/nomads.yaml, such as MaxVcpus=256; may be given more than once",
    )
    deploy.add_argument("--yes", action="store_true", help="do it without asking")
    deploy.add_argument("--destroy", action="store_true", help="take all of it away but the results")


def _add_following(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands for existing jobs."""
    jobs = commands.add_parser("jobs", help="list jobs, the newest first")
    jobs.add_argument("--state", default="", metavar="STATE", help="only those in this state, such as running")
    jobs.add_argument("--limit", type=_number, default=20, metavar="N", help="at most so many (20)")
    jobs.add_argument("--before", default="", metavar="JOB", help="only those accepted before this one: the next page")
    status = commands.add_parser("status", help="say everything of a job")
    logs = commands.add_parser("logs", help="print the end of a job's log")
    logs.add_argument("--follow", action="store_true", help="go on printing until the job ends")
    logs.add_argument("--lines", type=_number, default=100, metavar="N", help="how many lines to begin with (100)")
    cancel = commands.add_parser("cancel", help="end a job, wherever it stands")
    retry = commands.add_parser("retry", help="try a job again; the token comes from BOSS_TOKEN or a prompt")
    retry.add_argument("--wait", action="store_true", help="stay until the job ends")
    retry.add_argument("--anyway", action="store_true", help="also where it would fail again with nothing changed")
    for command in (status, logs, cancel, retry):
        command.add_argument("job", metavar="JOB", help="its id, as on its card")
    for command in (jobs, status, retry):
        command.add_argument("--json", action="store_true", help="print JSON, an object a line")


def _number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MOST)) else 0
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"it has to be a number from 1 to {MOST:,}")
    return number


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name.strip() and value.strip()):
        raise argparse.ArgumentTypeError("it has to be a name and a value, such as false-discovery=0.1")
    return name.strip(), value


def _joined(argv: Sequence[str]) -> list[str]:
    """The arguments with `--z -1,4` as `--z=-1,4`: argparse would take the negative range for an option."""
    joined: list[str] = []
    for word in argv:
        if joined[-1:] and joined[-1] in ("--x", "--y", "--z") and word[:1] == "-" and word[1:2].isdigit():
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _guarded(command: str, arguments: argparse.Namespace) -> int:
    from bot.domain.errors import InvalidRequest, NomadsError, Unavailable

    try:
        with _ended_in_order():
            return _COMMANDS[command](arguments)
    except InvalidRequest as error:
        for field, text in error.errors.items():
            print(f"{field}: {text}", file=sys.stderr)
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    except NomadsError as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt as interrupt:
        return 128 + (interrupt.number if isinstance(interrupt, _Ended) else signal.SIGINT)  # as in shells
    except BrokenPipeError:  # the reader of the output has closed it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  or Python complains at exit
        return 141
    return 2


class _Ended(KeyboardInterrupt):
    """A signal that ends the command as Ctrl+C does: what it drew is taken away, and what it began is finished."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Signals that would end the process at once raise `_Ended` during the block; one that is ignored stays so."""

    def end(number: int, _frame: object) -> None:
        raise _Ended(number)

    here = threading.current_thread() is threading.main_thread()
    fatal = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if here and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in fatal:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in fatal:
            signal.signal(number, signal.SIG_DFL)


def _settings(*beside: type[BaseSettings]) -> Settings:
    from bot.settings import read_all
    from bot.terminal import log

    settings = read_all(*beside)
    log.begin(settings.log_level)
    return settings


def _run(_arguments: argparse.Namespace) -> int:
    from bot.terminal.serve import run

    run(_settings())
    return 0


def _work(_arguments: argparse.Namespace) -> int:
    from bot.terminal.serve import work

    work(_settings())
    return 0


def _submit(arguments: argparse.Namespace) -> int:
    from bot.terminal.submit import submit

    return submit(_settings(), arguments)


def _following(arguments: argparse.Namespace) -> int:
    from bot.terminal import following

    command: Callable[[Settings, argparse.Namespace], int] = getattr(following, arguments.command)
    return command(_settings(), arguments)


def _deploy(arguments: argparse.Namespace) -> int:
    from bot.terminal.deploy import deploy

    return deploy(arguments, run=main)


def _replay(arguments: argparse.Namespace) -> int:
    from bot.terminal.admin import list_given_up, replay

    if arguments.job or arguments.all:
        replay(_settings(), arguments.job, say=print)
    else:
        list_given_up(_settings(), say=print)
    return 0


def _doctor(_arguments: argparse.Namespace) -> int:
    from bot.terminal.admin import doctor

    return 0 if doctor(_settings(), say=print) else 1


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "work": _work,
    "submit": _submit,
    **dict.fromkeys(("jobs", "status", "logs", "cancel", "retry"), _following),
    "deploy": _deploy,
    "doctor": _doctor,
    "replay": _replay,
}

if __name__ == "__main__":
    sys.exit(main())
