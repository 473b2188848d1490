"""Runs a crate once more, and compares: `python -m pipelines rerun CRATE --results-uri file:///folder/`.

The crate is a run's ro-crate-metadata.json. The token is in BOSS_TOKEN. The exit code is the program's, or 1 where a
file differs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from contract.masking import PUBLIC_TOKEN
from contract.program import DONE, FAILED, TOKEN_VARIABLE
from pipelines.common import crate
from pipelines.common.program import Failure, WrongRequest
from pipelines.common.results import CRATE
from volumes.address import BossAddress, parse
from volumes.errors import WrongVolume

BOSSDB = "https://api.bossdb.io"


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines", allow_abbrev=False)
    commands = parser.add_subparsers(required=True)
    rerun = commands.add_parser("rerun", help="run a crate once more, and compare")
    rerun.add_argument("crate", type=Path, help=f"a run's {CRATE}, or its folder")
    rerun.add_argument("--results-uri", required=True, help="s3://bucket/key/ or file:///folder/")
    rerun.add_argument("--as-told", action="store_true", help="send the token to the crate's host, write where it says")
    given = parser.parse_args(argv)
    try:
        return _rerun(given.crate, given.results_uri, as_told=given.as_told)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return failure.code


def _rerun(path: Path, uri: str, *, as_told: bool) -> int:
    told = crate.read(_content(path / CRATE if path.is_dir() else path))
    if not as_told:
        _check(dict(told.arguments))
    command, version = _program(told.pipeline)
    if version != told.version:
        print(f"The crate is of version {told.version} of {told.pipeline}; this is version {version}.", file=sys.stderr)
    # one word each: a value that begins with a dash is no argument of its own
    words = [f"--{name}={value}" for name, value in told.arguments]
    done = subprocess.run([*command, *words, f"--results-uri={uri}"], check=False)  # noqa: S603 - of a pipeline's entry
    if done.returncode:
        return done.returncode
    parts = urlsplit(uri)
    if parts.scheme != "file":
        print("The results are on S3: they were not compared with the crate's.")
        return DONE
    found = crate.read(_content(Path(unquote(parts.path)) / CRATE))
    return _compare(told, found)


def _check(arguments: Mapping[str, str]) -> None:
    """Refuse what a crate from elsewhere could do with a person's token. Raises WrongRequest."""
    host, predictions = _boss(arguments), arguments.get("predictions", "")
    trusted = host is None or host == BOSSDB or re.fullmatch(r"http://(127\.0\.0\.1|localhost)(:[0-9]+)?", host)
    if not trusted and os.environ.get(TOKEN_VARIABLE) != PUBLIC_TOKEN:
        raise WrongRequest(f"The crate sends the token to {(host or '')[:100]!r}; where it may, give --as-told.")
    if predictions:
        raise WrongRequest(f"The crate writes to {predictions[:100]!r} in BOSS; where it may, give --as-told.")


def _boss(arguments: Mapping[str, str]) -> str | None:
    """The BOSS that the program would send the token to; None where it reads a volume that is not BOSS's.

    Raises WrongRequest where the volume's address is none.
    """
    if "volume" not in arguments:
        return arguments.get("host", "")
    try:
        address = parse(arguments["volume"])
    except WrongVolume as error:
        raise WrongRequest(str(error)) from None
    return f"{address.protocol}://{address.host}" if isinstance(address, BossAddress) else None


def _compare(told: crate.Told, found: crate.Told) -> int:
    """Say what differs between two runs; FAILED where anything does."""
    unlike = {name for name in told.inputs.keys() & found.inputs if told.digested[name] != found.digested[name]}
    if unlike:
        of = told.digested[min(unlike)].rstrip(".")
        print(f"Channels cannot be compared: the crate has checksums of {of}.", file=sys.stderr)
    for what, before, now in (("channel", told.inputs, found.inputs), ("file", told.outputs, found.outputs)):
        different = sorted(name for name in {*before, *now} - unlike if before.get(name) != now.get(name))
        if different:
            print(f"Not the same as before: the {what} {', '.join(different[:5])}.", file=sys.stderr)
            return FAILED
    print(f"All {len(found.outputs)} files are the same as the crate's, byte for byte.")
    return DONE


def _program(name: str) -> tuple[list[str], str]:
    """Command and version of a pipeline, by its entry. A crate comes from anywhere: what it calls for is looked up."""
    above = [Path(__file__).parent, *(Path(folder) for folder in (os.environ.get("NOMADS_PIPELINES"),) if folder)]
    for path in sorted(path for folder in above for path in folder.glob("*/pipeline.toml")):
        entry = tomllib.loads(path.read_text(encoding="utf-8"))
        if entry.get("name") == name and entry.get("command"):
            first, *rest = entry["command"]
            return [sys.executable if first == "python3" else first, *rest], str(entry.get("version", ""))
    raise WrongRequest("The crate's pipeline is none of those here.")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WrongRequest(f"{path} cannot be read: {error.strerror}.") from None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
