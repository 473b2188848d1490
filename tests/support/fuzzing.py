"""`python -m tests.support.fuzzing`: the tests of test_fuzz.py, led by what they reach in the code, and a corpus of it.

Each of these tests is a target, for which atheris looks for inputs that reach further. Those that do are the corpus,
tests/corpus, which `make test` reads again; an input that fails a target is added to it, so that `make test` fails too.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]  # nothing of the bot's is imported before it is instrumented
CORPUS = ROOT / "tests" / "corpus"
LARGEST = 2048
"""Bytes of an input, at most: hypothesis makes of each what a test is given."""
Target = Callable[[bytes], object]


def kept(name: str) -> Iterator[bytes]:
    """The inputs of a target that are kept, the shortest first."""
    path = CORPUS / f"{name}.txt"
    yield from map(base64.b64decode, path.read_text(encoding="ascii").split() if path.exists() else ())


def keep(name: str, inputs: Sequence[bytes]) -> None:
    """Keep these inputs, and no others."""
    CORPUS.mkdir(exist_ok=True)
    lines = [base64.b64encode(one).decode() for one in sorted(set(inputs), key=lambda one: (len(one), one)) if one]
    (CORPUS / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def targets() -> Mapping[str, Target]:
    """By its name, what takes an input of each test."""
    from tests.unit import test_fuzz

    return {name: test.hypothesis.fuzz_one_input for name, test in test_fuzz.TARGETS.items()}


def look(name: str, seconds: int) -> str:
    """Look for further inputs of a target for so long. Returns what failed; empty: nothing did."""
    with tempfile.TemporaryDirectory(prefix="nomads-fuzz-") as scratch:
        found, failed = Path(scratch, "found"), Path(scratch, "failed")
        found.mkdir()
        failed.mkdir()
        for number, content in enumerate(kept(name)):
            (found / str(number)).write_bytes(content)
        options = (
            f"-max_total_time={seconds}",
            f"-max_len={LARGEST}",
            "-len_control=0",
            f"-artifact_prefix={failed}/",
            str(found),
        )
        argv = [sys.executable, "-m", "tests.support.fuzzing", "--one", name, *options]
        ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        inputs = [path.read_bytes() for path in failed.iterdir()]
        if ended.returncode and not inputs:
            return f"{name} could not be fuzzed: {ended.stderr[-2000:]}"
        keep(name, [path.read_bytes() for path in found.iterdir()] + inputs)
        last = next((line for line in reversed(ended.stderr.splitlines()) if "exec/s" in line), "")
        print(f"{name}: {len(list(kept(name)))} inputs kept; {last}", flush=True)
        return f"{name} fails, see make test\n{ended.stderr[-2000:]}" if inputs else ""


def _one(argv: Sequence[str]) -> None:
    """Be the process that fuzzes one target, with libFuzzer's options."""
    fuzz: Any = importlib.import_module("atheris")  # which make fuzz alone installs
    os.environ["FUZZ"] = "1"
    with fuzz.instrument_imports(include=["bot", "contract", "volumes"], enable_loader_override=False):
        target = targets()[argv[0]]
    fuzz.Setup([sys.argv[0], *argv[1:]], target)
    fuzz.Fuzz()


def main(argv: Sequence[str]) -> int:
    """The command. Returns 0 where nothing failed."""
    if argv[:1] == ["--one"]:
        _one(argv[1:])
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together (10)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time (one for each core)")
    parser.add_argument("names", nargs="*", help="of targets; by default all")
    asked = parser.parse_args(argv)
    names = asked.names or list(targets())
    seconds = max(1, round(60 * asked.minutes * asked.jobs / len(names)))
    with ThreadPoolExecutor(asked.jobs) as pool:
        wrong = [said for said in pool.map(lambda name: look(name, seconds), names) if said]
    print("\n".join(wrong) if wrong else f"{len(names)} targets, {seconds} s each: nothing failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
