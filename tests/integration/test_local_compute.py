"""What compute on this machine promises beyond its port: restarts, slots, signals, logs."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot.domain.errors import Refused, Unavailable
from bot.domain.states import FINAL, JobState
from bot.domain.work import Cause, LogLine, Observation, Unclear
from bot.files import records
from bot.files.runs import SPOILED
from bot.local import supervise
from bot.local.backend import backend
from bot.local.compute import LocalCompute
from bot.settings import Settings
from contract import masking
from tests.contract.rigs import PROGRAM, TOKEN, LocalComputeRig, a_work, texts
from tests.support.memory import MemorySecrets
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "nomads-demo_demo_cortex_z_0_16_y_0_512_x_0_512/a1b2c3"
OTHER = "nomads-demo_demo_cortex_z_0_16_y_0_512_x_0_512/a1b2c4"
COUNT = "import sys; open(sys.argv[1], 'a').write('ran\\n')"
"""A program that leaves one line for each time it is run."""
PATIENT = """
import os, sys, time
print("up", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
"""
"""A program that runs until the file it is given is there."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[LocalComputeRig]:
    rig = LocalComputeRig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[LocalComputeRig]:
    """Room for one program at once."""
    rig = LocalComputeRig(tmp_path, slots=1)
    yield rig
    rig.close()


def is_alive(pid: int) -> bool:
    """Whether a process of that id runs (a dead one that nobody reaped does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def printed(rig: LocalComputeRig, name: str, count: int = 1) -> list[str]:
    """The program's output, once it has that many lines."""
    return until(
        lambda: [lines for lines in [texts(rig.logs.tail(name, log=None, lines=100))] if len(lines) >= count],
        what=f"output of {name}",
    )[0]


def test_python3_means_the_python_the_bot_runs_on(rig: LocalComputeRig) -> None:
    rig.compute.submit(rig.script("job", "import sys; print(sys.executable)"))
    rig.wait("job")

    assert texts(rig.logs.tail("job", log=None, lines=5)) == [sys.executable]


def test_a_program_runs_where_it_was_told_to_with_its_own_and_the_requests_arguments(rig: LocalComputeRig) -> None:
    rig.compute.submit(rig.script("job", "import os, sys; print(os.getcwd(), sys.argv[1:])", "--col", "a b; $(x)"))
    rig.wait("job")

    assert texts(rig.logs.tail("job", log=None, lines=5)) == [f"{rig.control} ['--col', 'a b; $(x)']"]


def test_a_program_gets_the_token_and_none_of_the_bots_own_secrets(
    rig: LocalComputeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["SLACK_BOT_TOKEN", "SLACK_SIGNING_SECRET", "NOMADS_SECRET_KEY", "NOMADS_MAIL", "NOMADS_DATABASE_URL"]
    for name in [*own, "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MY_PATH"]:
        monkeypatch.setenv(name, "demo-secret")
    source = """
import hashlib, json, os
print(hashlib.sha256(os.environ.pop("BOSS_TOKEN").encode()).hexdigest())
print(json.dumps(dict(os.environ)))
"""
    rig.compute.submit(rig.script("job", source))
    rig.wait("job")

    digest, environment = texts(rig.logs.tail("job", log=None, lines=5))
    assert digest == hashlib.sha256(TOKEN.encode()).hexdigest()
    assert json.loads(environment)["PATH"] == os.environ["PATH"]
    assert "demo-secret" not in environment


def test_a_program_that_takes_its_token_as_an_argument_is_refused(rig: LocalComputeRig) -> None:
    """The process list would show it."""
    work = a_work("job", token=rig.secrets.put("U1", SecretStr(TOKEN)))
    object.__setattr__(work, "token_argument", True)

    with pytest.raises(Refused, match="container"):
        rig.compute.submit(work)
    assert rig.compute.find("job") is None


def test_a_pipeline_without_a_program_is_refused(rig: LocalComputeRig) -> None:
    assert rig.compute.refuses(image="registry.example.org/x:1", command=()) != ""
    with pytest.raises(Refused, match="no program"):
        rig.compute.submit(a_work("job", token="x", command=()))


@pytest.mark.parametrize("name", ["../job", "a/b", "", ".queue", "-x", "x" * 129, "a\nb"])
def test_a_name_that_is_no_plain_name_reaches_no_file(rig: LocalComputeRig, name: str) -> None:
    rig.compute.submit(rig.script("job", ""))

    with pytest.raises(Refused):
        rig.compute.submit(rig.script(name, ""))
    assert rig.compute.find(name) is None
    assert rig.compute.observe([name]) == {}
    assert rig.logs.tail(name, log=None, lines=5) == []
    rig.compute.cancel(name, reason="x")


def test_only_the_owner_may_look_at_runs(rig: LocalComputeRig) -> None:
    rig.compute.submit(rig.script("job", ""))

    for folder in (rig.folder, rig.folder / "job"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_adapter_says_that_it_is_a_local_one(rig: LocalComputeRig) -> None:
    made = backend(Settings.model_validate({"data": str(rig.folder)}), tokens=rig.secrets, key_for=lambda _: b"k" * 32)
    assert "this machine" in made.announcement
    assert "at most 2" in made.announcement


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("print('reading'); print('demo/cortex ends at x = 1024\\n\\n'); sys.exit(2)", "demo/cortex ends at x = 1024"),
        ("sys.stderr.write('BOSS refused the token'); sys.exit(3)", "BOSS refused the token"),
        ("sys.exit(2)", "The request is wrong."),
        ("sys.exit(3)", "BOSS refused or failed."),
        ("sys.exit(7)", "The program ended with exit code 7."),
        ("raise ValueError('no such channel')", "ValueError: no such channel"),
        ("os.kill(os.getpid(), 15)", "The program was ended by signal SIGTERM."),
        ("os.kill(os.getpid(), 9)", "The program was ended by signal SIGKILL. This machine may be short of memory."),
        ("print('x' * 9000); sys.exit(1)", "x" * records.MAX_REASON),
    ],
)
def test_a_failure_is_explained_by_the_last_line_or_by_the_exit_code(
    rig: LocalComputeRig, source: str, reason: str
) -> None:
    rig.compute.submit(rig.script("job", f"import os, sys; {source}"))

    assert rig.wait("job").reason == reason


def test_a_reason_never_repeats_the_token(rig: LocalComputeRig) -> None:
    rig.compute.submit(rig.script("job", "import os, sys; sys.exit('bad token ' + os.environ['BOSS_TOKEN'])"))

    assert rig.wait("job").reason == "bad token …"


def test_the_token_of_public_data_is_a_word_that_logs_may_hold(rig: LocalComputeRig) -> None:
    token = rig.secrets.put("U1", SecretStr("public"))
    work = a_work("job", token=token, command=("python3", "-c", "import sys; sys.exit('this is public data')"))
    rig.compute.submit(work)

    assert rig.wait("job").reason == "this is public data"
    assert texts(rig.logs.tail("job", log=None, lines=1)) == ["this is public data"]


def test_a_program_that_cannot_be_started_fails_with_the_reason(rig: LocalComputeRig) -> None:
    rig.compute.submit(a_work("job", token=rig.secrets.put("U1", SecretStr(TOKEN)), command=("no-such-program",)))

    seen = rig.wait("job")
    assert seen.reason == "The program could not be started: No such file or directory."
    assert seen.why is Cause.SETUP


def test_a_program_that_takes_too_long_is_ended_and_says_so(rig: LocalComputeRig) -> None:
    rig.compute.submit(rig.script("job", "import time; time.sleep(600)", timeout=0.3))

    seen = rig.wait("job")

    assert seen.state is JobState.FAILED
    assert seen.reason == "The program was ended: it ran longer than its limit of 0.3 seconds."
    assert seen.why is Cause.TIME_LIMIT


FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["time.sleep(600)", "sys.exit(0)"])
def test_nothing_a_program_started_outlives_it(rig: LocalComputeRig, then: str) -> None:
    rig.compute.submit(rig.script("job", FAMILY.format(then=then)))
    [child] = printed(rig, "job")

    rig.compute.cancel("job", reason="enough")
    rig.wait("job")

    until(lambda: not is_alive(int(child)), what="the end of the program's own child")


def test_a_program_deaf_to_sigterm_is_killed(rig: LocalComputeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "GRACE", 0.2)
    source = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    rig.compute.submit(rig.script("job", source))
    printed(rig, "job")

    rig.compute.cancel("job", reason="enough")

    seen = rig.wait("job")
    assert (seen.exit_code, seen.reason) == (-signal.SIGKILL, "enough")


@pytest.mark.parametrize("code", [0, 1, 143])
def test_a_program_that_cleans_up_when_cancelled_has_failed_for_that_reason(rig: LocalComputeRig, code: int) -> None:
    source = """
import signal, sys, time
signal.signal(15, lambda *_: (print("interrupted"), sys.exit(int(sys.argv[1]))))
print("up", flush=True)
time.sleep(600)
"""
    rig.compute.submit(rig.script("job", source, str(code)))
    printed(rig, "job")

    rig.compute.cancel("job", reason="enough")

    seen = rig.wait("job")
    assert (seen.state, seen.reason, seen.exit_code) == (JobState.FAILED, "enough", code)


def test_a_program_that_ends_before_its_cancellation_is_seen_keeps_its_own_reason(
    rig: LocalComputeRig, tmp_path: Path
) -> None:
    source = f"print(os.getppid(), os.getpid(), flush=True)\n{PATIENT}sys.exit('BOSS refused the token')"
    rig.compute.submit(rig.script("job", f"import os\n{source}", str(tmp_path / "go")))
    supervisor, program = (int(pid) for pid in printed(rig, "job")[0].split())
    os.kill(supervisor, signal.SIGSTOP)  # it sees nothing of what happens now
    try:
        (tmp_path / "go").touch()
        until(lambda: not is_alive(program), what="the program's end")
        rig.compute.cancel("job", reason="enough")
    finally:
        os.kill(supervisor, signal.SIGCONT)

    seen = rig.wait("job")
    assert (seen.state, seen.reason, seen.exit_code) == (JobState.FAILED, "BOSS refused the token", 1)


def test_a_program_ends_with_its_supervisor(rig: LocalComputeRig) -> None:
    """As when the machine is told to shut down."""
    rig.compute.submit(rig.script("job", "import os, time; print(os.getppid(), flush=True); time.sleep(600)"))
    [supervisor] = printed(rig, "job")

    os.kill(int(supervisor), signal.SIGTERM)

    assert "ended with the machine" in rig.wait("job").reason


def test_a_program_whose_supervisor_was_killed_has_vanished_and_runs_no_more(rig: LocalComputeRig) -> None:
    source = "import os, time; print(os.getppid(), flush=True); print(os.getpid(), flush=True); time.sleep(600)"
    rig.compute.submit(rig.script("job", source))
    supervisor, program = printed(rig, "job", 2)

    os.kill(int(supervisor), signal.SIGKILL)

    seen = rig.wait("job")
    assert seen.state is JobState.FAILED
    assert "vanished" in seen.reason
    assert seen.why is Cause.MACHINE
    assert not is_alive(int(program))


SPOILING = {
    "a list": "(run / 'exit.json').write_text('[]')",
    "no JSON": "(run / 'exit.json').write_bytes(b'{\\xff')",
    "deep JSON": "(run / 'exit.json').write_text('[' * 60_000)",
    "an object without its fields": "(run / 'exit.json').write_text('{}')",
    "an end at no time": """(run / 'exit.json').write_text(
        '{"code": 0, "reason": "", "started": 1e300, "stopped": 1e400}')""",
    "a code that is a word": """(run / 'exit.json').write_text(
        '{"code": "0", "reason": "", "started": 1, "stopped": 2}')""",
    "a folder": "(run / 'exit.json').mkdir()",
    "a pipe": "os.mkfifo(run / 'exit.json')",
    "no start": "(run / 'started').unlink()",
}
"""What a program that runs as the bot's user may do to the files of its run."""


@pytest.mark.parametrize("spoils", SPOILING)
def test_a_run_whose_files_its_program_spoiled_has_failed_and_the_others_are_seen(
    rig: LocalComputeRig, spoils: str
) -> None:
    source = f"""
import os, pathlib, signal, time
run = pathlib.Path(os.environ["NOMADS_RUN"])
{SPOILING[spoils]}
print(os.getpid(), flush=True)
os.kill(os.getppid(), signal.SIGKILL)
time.sleep(600)
"""
    rig.compute.submit(rig.script("spoiled", source))
    rig.compute.submit(rig.script("sound", "print('done')"))

    seen = rig.wait("spoiled")

    assert (seen.state, seen.reason) == (JobState.FAILED, SPOILED)
    assert rig.wait("sound").state is JobState.SUCCEEDED


def test_a_run_whose_files_cannot_be_used_is_in_doubt_by_itself(rig: LocalComputeRig) -> None:
    rig.compute.submit(rig.script("odd", "print('done')"))
    rig.compute.submit(rig.script("sound", "print('done')"))
    rig.wait("odd"), rig.wait("sound")
    (rig.folder / "odd" / "exit.json").unlink()
    (rig.folder / "odd" / "exit.json").symlink_to("exit.json")

    with pytest.raises(Unclear, match="the files of its run cannot be used") as caught:
        rig.compute.observe(["odd", "sound", "unknown"])

    (rig.folder / "odd" / "exit.json").unlink()
    assert caught.value.ids == {"odd"}
    assert list(caught.value.seen) == ["sound"]


def test_only_the_end_of_a_long_output_is_read(rig: LocalComputeRig) -> None:
    rig.compute.submit(rig.script("job", "for n in range(200_000): print('line', n)"))
    rig.wait("job")

    lines = texts(rig.logs.tail("job", log=None, lines=10**6))

    assert lines[-1] == "line 199999"
    assert lines[0].startswith("line ")
    assert len("\n".join(lines)) < records.TAIL < (rig.folder / "job" / "log").stat().st_size


def test_output_that_is_no_text_is_shown_as_far_as_it_goes(rig: LocalComputeRig) -> None:
    rig.compute.submit(rig.script("job", r"import sys; sys.stdout.buffer.write(b'\xff\xfe caf\xc3\xa9\n')"))
    rig.wait("job")

    assert texts(rig.logs.tail("job", log=None, lines=5)) == ["\ufffd\ufffd café"]


def notes(rig: LocalComputeRig, name: str) -> list[tuple[float, int]]:
    """What the supervisor noted: times and sizes of the log."""
    index = rig.folder / name / "log.times"
    lines = index.read_text().splitlines() if index.exists() else []
    return [(float(at), int(size)) for at, size in (line.split() for line in lines)]


def noted(rig: LocalComputeRig, name: str, count: int = 1) -> None:
    """Wait until the supervisor has noted so many sizes of the log."""
    until(lambda: len(notes(rig, name)) >= count, what="the supervisor's note")


def a_run(rig: LocalComputeRig, name: str = "job") -> Path:
    """The folder of a run that printed nothing and has ended."""
    rig.compute.submit(rig.script(name, ""))
    rig.wait(name)
    return rig.folder / name


def test_lines_printed_apart_have_times_apart_and_in_order(rig: LocalComputeRig) -> None:
    rig.compute.submit(rig.work("job"))
    rig.run("job")
    for count, word in enumerate(("one", "two", "three"), start=1):
        rig.say("job", word)
        noted(rig, "job", count)
    rig.end("job", code=0, lines=("four", "five"))

    one, two, three, four, five = [line.at for line in rig.logs.tail("job", log=None, lines=10)]

    assert one
    assert two
    assert three
    assert four
    assert one < two < three < four == five
    assert [at for at, _ in notes(rig, "job")] == [line.timestamp() for line in (one, two, three, four)]


def test_a_line_s_time_is_that_of_the_first_note_that_covers_it(rig: LocalComputeRig) -> None:
    run = a_run(rig)
    (run / "log").write_bytes(b"one\ntwo\nthree\nfour")
    (run / "log.times").write_bytes(b"100.250 3\n200.000 9\n300.500 14\n")
    os.utime(run / "log", (400, 400))

    lines = rig.logs.tail("job", log=None, lines=10)

    assert [(line.text, line.at.timestamp() if line.at else None) for line in lines] == [
        ("one", 200),
        ("two", 200),
        ("three", 300.5),
        ("four", 400),  # printed after the last note, as by a program that was killed: the log's own time
    ]
    assert rig.logs.tail("job", log=None, lines=2) == lines[2:]


@pytest.mark.parametrize(
    "damage", [b"300.5 1", b"\0\0\0\n", b"what\n", b"1 2 3\n"], ids=["cut", "zeros", "words", "three"]
)
def test_a_damaged_index_costs_no_line(rig: LocalComputeRig, damage: bytes) -> None:
    run = a_run(rig)
    (run / "log").write_bytes(b"one\ntwo\n")
    (run / "log.times").write_bytes(b"100.000 4\n" + damage)
    os.utime(run / "log", (400, 400))

    lines = rig.logs.tail("job", log=None, lines=10)

    assert [(line.text, line.at.timestamp() if line.at else None) for line in lines] == [("one", 100), ("two", 400)]


def test_the_lines_of_a_run_without_an_index_have_no_times(rig: LocalComputeRig) -> None:
    """As of runs from before there was one."""
    run = a_run(rig)
    (run / "log").write_bytes(b"one\n")
    (run / "log.times").unlink()

    assert rig.logs.tail("job", log=None, lines=10) == [LogLine("one")]


def test_an_index_that_cannot_be_written_harms_no_run(narrow: LocalComputeRig) -> None:
    narrow.compute.submit(narrow.work("first"))
    narrow.run("first")
    narrow.compute.submit(narrow.script("job", "print('printed')"))
    (narrow.folder / "job" / "log.times").mkdir()  # in the index's way

    narrow.end("first", code=0)

    assert narrow.wait("job").state is JobState.SUCCEEDED
    assert b"".join(narrow.logs.whole("job", log=None)) == b"printed\n"


def test_only_the_end_of_a_long_index_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").write_bytes(b"")
    (tmp_path / "log.times").write_text("".join(f"{n}.000 {n * 10}\n" for n in range(1, 200_001)))
    read: list[bytes] = []
    note = records._note

    def counted(line: bytes) -> tuple[float, int] | None:
        read.append(line)
        return note(line)

    monkeypatch.setattr(records, "_note", counted)

    assert records.times(tmp_path, [1_999_985, 1_999_990, 2_000_000]) == [199_999, 199_999, 200_000]
    assert len(read) < 1000
    assert records.times(tmp_path, [1, 2_000_000]) == [1, 200_000]


def test_the_times_of_a_program_killed_with_its_supervisor_are_known(rig: LocalComputeRig) -> None:
    source = "import os, time; print(os.getppid(), flush=True); time.sleep(600)"
    rig.compute.submit(rig.script("job", source))
    [supervisor] = printed(rig, "job")
    noted(rig, "job")
    os.kill(int(supervisor), signal.SIGKILL)
    rig.wait("job")

    [line] = rig.logs.tail("job", log=None, lines=5)

    assert line.at
    assert line.at.timestamp() == notes(rig, "job")[0][0]


ODD = b"\x1b[31mred\x1b[0m \xf0\x9f\xa7\xa0 <!channel> nul:\0 \xff \x0b\x0c\x1c\xe2\x80\xa8 end"
"""Bytes that terminals, Slack or a splitter of lines might take for something."""


def test_every_byte_of_the_output_comes_as_it_is_but_the_ends_of_lines(rig: LocalComputeRig) -> None:
    run = a_run(rig)
    (run / "log").write_bytes(b"10%\r20%\r\n" + ODD)

    assert b"".join(rig.logs.whole("job", log=None)) == b"10%\r20%\r\n" + ODD
    assert texts(rig.logs.tail("job", log=None, lines=5)) == ["10%", "20%", ODD.decode(errors="replace")]


def test_a_log_of_two_gigabytes_is_read_at_its_end_or_in_small_pieces(rig: LocalComputeRig) -> None:
    run = a_run(rig)
    with (run / "log").open("wb") as file:
        file.write(b"the first line\n")
        file.truncate(2 * 2**30)  # a hole, which takes no room
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe last line")

    began = time.perf_counter()
    lines = rig.logs.tail("job", log=None, lines=2)
    pieces = list(islice(rig.logs.whole("job", log=None), 8))
    took = time.perf_counter() - began

    assert lines[-1].text == "the last line"
    assert len(lines[0].text) < records.TAIL  # one line of two gigabytes, as much of it as is read
    assert {len(piece) for piece in pieces} == {2**20}
    assert pieces[0].startswith(b"the first line\n")
    assert took < 1


def test_one_line_of_two_gigabytes_is_shown_by_its_end(rig: LocalComputeRig) -> None:
    run = a_run(rig)
    with (run / "log").open("wb") as file:
        file.truncate(2 * 2**30)
        file.seek(0, os.SEEK_END)
        file.write(b"x" * 10)

    [line] = rig.logs.tail("job", log=None, lines=20)

    assert len(line.text) == records.TAIL
    assert line.text.endswith("\0" + "x" * 10)


def test_what_is_printed_while_the_log_is_read_is_left_for_the_next_time(rig: LocalComputeRig) -> None:
    run = a_run(rig)
    (run / "log").write_bytes(b"x" * (2**20 + 3))

    pieces = rig.logs.whole("job", log=None)
    first = next(pieces)
    with (run / "log").open("ab") as file:
        file.write(b"more")

    assert [len(first), *(len(piece) for piece in pieces)] == [2**20, 3]


def test_a_log_that_cannot_be_read_is_unavailable_when_it_is_iterated(rig: LocalComputeRig) -> None:
    run = a_run(rig)
    (run / "log").unlink()
    (run / "log").mkdir()

    pieces = rig.logs.whole("job", log=None)

    with pytest.raises(Unavailable, match="folder of runs"):
        next(pieces)


LEAKY = """
import os, time
print("token:", os.environ["BOSS_TOKEN"], os.environ["BOSS_TOKEN"], flush=True)
print(os.getppid(), flush=True)
time.sleep(600)
"""


def test_a_secret_is_struck_out_of_the_log_of_a_program_whose_supervisor_was_killed(rig: LocalComputeRig) -> None:
    rig.compute.submit(rig.script("job", LEAKY))
    _, supervisor = printed(rig, "job", 2)
    os.kill(int(supervisor), signal.SIGKILL)
    rig.wait("job")
    log = rig.folder / "job" / "log"
    os.utime(log, (400, 400))
    assert TOKEN in log.read_text()

    rig.logs.redact("job", SecretStr(TOKEN))

    stars = "*" * len(TOKEN)
    assert log.read_text() == f"token: {stars} {stars}\n{supervisor}\n"
    assert log.stat().st_mtime == 400  # it still says when the last line was printed


def test_a_secret_is_struck_out_wherever_it_lies_in_a_long_log(rig: LocalComputeRig) -> None:
    run = a_run(rig)
    word, piece = TOKEN.encode(), masking.PIECE
    places = [0, 500, 500 + len(word), *(piece * n - back for n, back in enumerate((1, 5, len(word) - 1, 40), start=1))]
    content = bytearray(b"x" * (5 * piece))
    for place in places:
        content[place : place + len(word)] = word
    content += word
    (run / "log").write_bytes(content)

    rig.logs.redact("job", SecretStr(TOKEN))

    assert (run / "log").read_bytes() == bytes(content).replace(word, b"*" * len(word))


def test_the_log_of_a_running_program_is_not_touched(rig: LocalComputeRig) -> None:
    """Its supervisor strikes the token out when it ends."""
    rig.compute.submit(rig.script("job", LEAKY))
    printed(rig, "job", 2)

    rig.logs.redact("job", SecretStr(TOKEN))
    assert TOKEN in (rig.folder / "job" / "log").read_text()

    rig.compute.cancel("job", reason="enough")
    rig.wait("job")
    assert TOKEN not in (rig.folder / "job" / "log").read_text()


def test_the_word_public_is_never_struck_out(rig: LocalComputeRig) -> None:
    run = a_run(rig)
    (run / "log").write_bytes(b"public data\n")

    rig.logs.redact("job", SecretStr("public"))

    assert (run / "log").read_bytes() == b"public data\n"


def test_there_is_nothing_to_strike_out_of_a_run_that_never_ran(narrow: LocalComputeRig) -> None:
    narrow.compute.submit(narrow.work("one"))
    narrow.compute.submit(narrow.work("two"))
    narrow.compute.cancel("two", reason="changed my mind")

    narrow.logs.redact("two", SecretStr(TOKEN))

    assert not (narrow.folder / "two" / "log").exists()


def test_programs_beyond_the_slots_wait_and_start_in_the_order_of_submission(narrow: LocalComputeRig) -> None:
    for name in ("one", "two", "three"):
        narrow.compute.submit(narrow.work(name))
    narrow.run("one")
    assert [narrow.state("two"), narrow.state("three")] == [JobState.RUNNABLE, JobState.RUNNABLE]

    narrow.end("one", code=0)
    narrow.run("two")
    assert narrow.state("three") is JobState.RUNNABLE

    narrow.end("two", code=0)
    narrow.run("three")


def test_a_program_that_waits_says_for_what_and_who_can_help(rig: LocalComputeRig) -> None:
    for name in ("one", "two", "three"):
        rig.compute.submit(rig.work(name))
    rig.run("one")
    rig.run("two")

    seen = rig.another().observe(["two", "three"])

    assert seen["two"].reason == ""
    assert (seen["three"].state, seen["three"].reason) == (
        JobState.RUNNABLE,
        "All 2 places for programs on this machine are taken; it starts when one is free. "
        "Whoever runs NOMADS can raise NOMADS_LOCAL_SLOTS.",
    )
    rig.end("one", code=0)
    rig.run("three")
    assert rig.compute.observe(["three"])["three"].reason == ""


def test_a_single_place_is_told_as_one(narrow: LocalComputeRig) -> None:
    narrow.compute.submit(narrow.work("one"))
    narrow.compute.submit(narrow.work("two"))
    narrow.run("one")

    assert narrow.compute.observe(["two"])["two"].reason.startswith("The one place for programs on this machine is")


def test_a_program_that_waits_while_there_is_room_waits_for_no_place(rig: LocalComputeRig) -> None:
    rig.secrets.fail_next(Unavailable("database locked"), call="get", times=2)

    rig.compute.submit(rig.script("job", ""))

    seen = rig.compute.observe(["job"])["job"]
    assert (seen.state, seen.reason) == (JobState.RUNNABLE, "")
    rig.wait("job")


def test_a_waiting_program_that_is_cancelled_fails_at_once_and_never_runs(narrow: LocalComputeRig) -> None:
    narrow.compute.submit(narrow.work("one"))
    narrow.compute.submit(narrow.work("two"))

    narrow.compute.cancel("two", reason="changed my mind")

    seen = narrow.compute.observe(["two"])["two"]
    assert (seen.state, seen.reason, seen.started_at) == (JobState.FAILED, "changed my mind", None)
    narrow.run("one")
    narrow.end("one", code=0)
    assert not (narrow.folder / "two" / "started").exists()


def test_there_are_never_more_programs_than_slots_whoever_asks(rig: LocalComputeRig, tmp_path: Path) -> None:
    """The command line and the bot share the folder, and the bot has threads."""
    marks = tmp_path / "marks"
    marks.mkdir()
    source = """
import os, sys, time
mark = os.path.join(sys.argv[1], str(os.getpid()))
open(mark, "x").close()
print(len(os.listdir(sys.argv[1])))
time.sleep(0.05)
os.unlink(mark)
"""
    names = [f"job-{number}" for number in range(8)]
    works = [rig.script(name, source, str(marks)) for name in names]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda work: rig.another().submit(work), works))
        until(
            lambda: all(
                seen.state is JobState.SUCCEEDED
                for many in pool.map(lambda _: rig.another().observe(names), range(4))
                for seen in many.values()
            ),
            what="the end of all programs",
        )

    counts = {int(line.text) for name in names for line in rig.logs.tail(name, log=None, lines=5)}
    assert counts <= {1, 2}


def test_a_bot_that_restarts_finds_its_running_programs_again(rig: LocalComputeRig) -> None:
    rig.compute.submit(rig.work("job"))
    rig.run("job")

    restarted = rig.another()

    assert restarted.find("job") == "job"
    assert restarted.observe(["job"])["job"].state is JobState.RUNNING
    rig.end("job", code=0, lines=("done",))
    assert restarted.observe(["job"])["job"].state is JobState.SUCCEEDED
    assert texts(rig.logs.tail("job", log=None, lines=5)) == ["done"]


def submit_and_die(rig: LocalComputeRig, source: str, *arguments: str, dies_in: str = "") -> None:
    """Submit `job` from a process that kills itself: in that function, or right after submit() returned."""
    die = "lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)"
    script = f"""
import os, signal, subprocess, sys
from pathlib import Path
from pydantic import SecretStr
from bot.files import records
from bot.local import compute as local, supervise
from tests.contract.rigs import a_work
from tests.support.memory import MemorySecrets
secrets = MemorySecrets()
work = a_work("job", token=secrets.put("U1", SecretStr("{TOKEN}")),
              command=("python3", "-c", sys.argv[2]), arguments=tuple(sys.argv[3:]))
compute = local.LocalCompute(folder=Path(sys.argv[1]), tokens=secrets, root=Path.cwd(), slots=2)
if "{dies_in}":
    {dies_in or "unused"} = {die}
compute.submit(work)
({die})()
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(rig.folder), source, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    rig.secrets.put("U1", SecretStr(TOKEN))  # under the same reference as the dead process's


def test_a_program_survives_the_death_of_the_bot_that_started_it(rig: LocalComputeRig, tmp_path: Path) -> None:
    submit_and_die(rig, PATIENT, str(tmp_path / "go"))
    printed(rig, "job")

    assert rig.state("job") is JobState.RUNNING
    (tmp_path / "go").touch()
    assert rig.wait("job").state is JobState.SUCCEEDED


ESCAPED = """
import os, signal, sys, time
child = os.fork()
if child == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        print(os.getpid(), os.getppid(), flush=True)
        time.sleep(600)
    os._exit(0)
os.waitpid(child, 0)
while os.fstat(1).st_size == 0:
    time.sleep(0.01)
print(os.getppid(), flush=True)
"""
"""Leaves a process in a session of its own, without a parent, deaf to SIGTERM; prints its id and the supervisor's."""
UNMARKED = ESCAPED.replace("time.sleep(600)", "os.execve('/bin/sleep', ['sleep', '600'], {})")
"""The same, and nothing in the environment of that process tells whose it is."""
ENDINGS = {
    "it succeeds": "sys.exit(0)",
    "it fails": "sys.exit(1)",
    "it is cancelled": "time.sleep(600)",
    "it exceeds its time": "time.sleep(600)",
    "its supervisor is killed": "time.sleep(600)",
    "its guard is killed": "time.sleep(600)",
}


def escaped(rig: LocalComputeRig) -> tuple[int, int]:
    """The ids of the escaped process and of the supervisor."""
    first, supervisor = printed(rig, "job", 2)
    return int(first.split()[0]), int(supervisor)


def guard_of(supervisor: int) -> int:
    """The supervisor's parent."""
    return int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])


def kill_both(supervisor: int) -> None:
    """Kill a supervisor and its guard at one moment: neither can act any more when the other is killed."""
    both = (guard_of(supervisor), supervisor)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in both:
            os.kill(pid, number)
    until(lambda: not any(is_alive(pid) for pid in both), what="the end of supervisor and guard")


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_of_a_job_is_alive_when_it_is_told_as_ended(rig: LocalComputeRig, ending: str) -> None:
    timeout = 3.0 if ending == "it exceeds its time" else 60.0
    rig.compute.submit(rig.script("job", UNMARKED + ENDINGS[ending], timeout=timeout))
    child, supervisor = escaped(rig)
    if ending == "it is cancelled":
        rig.compute.cancel("job", reason="enough")
    if ending == "its supervisor is killed":
        os.kill(supervisor, signal.SIGKILL)
    if ending == "its guard is killed":
        os.kill(guard_of(supervisor), signal.SIGKILL)

    seen = rig.wait("job")

    assert not is_alive(child)
    assert seen.stopped_at
    assert seen.state is (JobState.SUCCEEDED if ending == "it succeeds" else JobState.FAILED)


def test_what_is_left_when_the_supervisor_is_killed_ends_without_the_bot(rig: LocalComputeRig) -> None:
    submit_and_die(rig, UNMARKED + "time.sleep(600)")
    child, supervisor = escaped(rig)

    os.kill(supervisor, signal.SIGKILL)

    until(lambda: not is_alive(child), what="the end of the escaped process")


def test_what_is_marked_ends_also_after_bot_and_supervisor_and_guard_were_killed(rig: LocalComputeRig) -> None:
    submit_and_die(rig, ESCAPED + "time.sleep(600)")
    child, supervisor = escaped(rig)
    kill_both(supervisor)
    assert is_alive(child)

    seen = rig.another().observe(["job"])["job"]  # the next start of the bot

    assert not is_alive(child)
    assert (seen.state, "vanished" in seen.reason) == (JobState.FAILED, True)


def test_what_a_killed_supervisor_left_is_ended_before_its_place_is_given_to_the_next(narrow: LocalComputeRig) -> None:
    narrow.compute.submit(narrow.script("job", ESCAPED + "time.sleep(600)"))
    child, supervisor = escaped(narrow)
    kill_both(supervisor)

    narrow.compute.submit(narrow.script("next", ""))

    assert not is_alive(child)
    assert narrow.wait("next").state is JobState.SUCCEEDED
    assert narrow.wait("job").state is JobState.FAILED


def test_no_process_of_a_program_holds_the_lock_that_tells_that_it_runs(rig: LocalComputeRig) -> None:
    """A surviving child that held it would keep the job running for ever."""
    source = "import os; print(sorted(os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')[:-1]))"
    rig.compute.submit(rig.script("job", source))
    rig.wait("job")

    [line] = texts(rig.logs.tail("job", log=None, lines=5))
    assert "/job/log" in line
    assert "lock" not in line
    assert ".slots" not in line


def test_a_token_that_is_split_over_the_last_lines_is_not_told_in_part(rig: LocalComputeRig) -> None:
    source = (
        "import os, sys; t = os.environ['BOSS_TOKEN']; print('refused:', t[:9]); print(t[9:], 'is wrong'); sys.exit(3)"
    )
    rig.compute.submit(rig.script("job", source))

    assert rig.wait("job").reason == "refused: … is wrong"


def test_a_process_of_another_run_is_left_alone(rig: LocalComputeRig) -> None:
    rig.compute.submit(rig.work("other"))
    rig.run("other")
    rig.compute.submit(rig.script("job", ESCAPED + "time.sleep(600)"))
    _, supervisor = escaped(rig)
    os.kill(supervisor, signal.SIGKILL)
    rig.wait("job")

    assert rig.state("other") is JobState.RUNNING
    rig.end("other", code=0)
    assert rig.wait("other").state is JobState.SUCCEEDED


def test_a_bot_killed_before_it_started_what_it_had_queued_runs_it_once(rig: LocalComputeRig, tmp_path: Path) -> None:
    submit_and_die(rig, COUNT, str(tmp_path / "count"), dies_in="subprocess.Popen")
    assert rig.compute.find("job") == "job"

    assert rig.wait("job").state is JobState.SUCCEEDED
    rig.compute.observe(["job"])
    assert (tmp_path / "count").read_text() == "ran\n"


def test_a_bot_killed_while_it_queued_has_not_submitted_and_may_try_again(rig: LocalComputeRig, tmp_path: Path) -> None:
    submit_and_die(rig, COUNT, str(tmp_path / "count"), dies_in="records.write")
    assert rig.compute.find("job") is None
    assert rig.compute.observe(["job"]) == {}

    rig.compute.submit(rig.script("job", COUNT, str(tmp_path / "count")))

    assert rig.wait("job").state is JobState.SUCCEEDED
    assert (tmp_path / "count").read_text() == "ran\n"


def test_work_submitted_twice_runs_once(rig: LocalComputeRig, tmp_path: Path) -> None:
    work = rig.script("job", COUNT, str(tmp_path / "count"))

    assert rig.compute.submit(work) == rig.compute.submit(work) == "job"
    rig.wait("job")
    rig.another().submit(work)

    assert rig.wait("job").state is JobState.SUCCEEDED
    assert (tmp_path / "count").read_text() == "ran\n"


def test_two_supervisors_of_one_run_run_the_program_once(tmp_path: Path) -> None:
    rig = LocalComputeRig(tmp_path, slots=0)  # nothing is started but by us
    rig.compute.submit(rig.script("job", COUNT, str(tmp_path / "count")))
    command = [sys.executable, "-I", "-S", supervise.__file__, str(rig.folder / "job")]

    rivals = [subprocess.Popen(command) for _ in range(4)]

    assert [rival.wait(timeout=20) for rival in rivals] == [0, 0, 0, 0]
    assert subprocess.run(command, check=False).returncode == 0
    assert rig.wait("job").state is JobState.SUCCEEDED
    assert (tmp_path / "count").read_text() == "ran\n"


def test_a_program_that_vanished_is_not_run_again(rig: LocalComputeRig, tmp_path: Path) -> None:
    """It may have written half of its results; only a person can tell."""
    source = f"{COUNT}; import os, time; print(os.getppid(), flush=True); time.sleep(600)"
    rig.compute.submit(rig.script("job", source, str(tmp_path / "count")))
    [supervisor] = printed(rig, "job")
    os.kill(int(supervisor), signal.SIGKILL)
    rig.wait("job")

    assert (
        subprocess.run(
            [sys.executable, "-I", "-S", supervise.__file__, str(rig.folder / "job")], check=False
        ).returncode
        == 0
    )

    assert "vanished" in rig.wait("job").reason
    assert (tmp_path / "count").read_text() == "ran\n"


def test_a_supervisor_that_cannot_start_is_given_up(rig: LocalComputeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "__file__", "/nowhere/supervise.py")
    rig.compute.submit(rig.script("job", ""))

    assert rig.wait("job").reason == "The program's supervisor could not be started."


def test_a_program_waits_while_its_token_cannot_be_read(rig: LocalComputeRig) -> None:
    rig.secrets.fail_next(Unavailable("database locked"), call="get", times=2)

    rig.compute.submit(rig.script("job", ""))

    assert rig.state("job") is JobState.RUNNABLE
    assert rig.wait("job").state is JobState.SUCCEEDED


def test_a_program_whose_token_was_forgotten_fails_with_the_reason(rig: LocalComputeRig) -> None:
    work = rig.script("job", "")
    rig.secrets.forget(work.token)

    rig.compute.submit(work)

    assert rig.wait("job").reason == "The token is not kept any more."


def test_a_folder_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    compute = LocalCompute(folder=tmp_path / "file", tokens=MemorySecrets(), root=tmp_path, slots=1)

    with pytest.raises(Unavailable, match="folder of runs"):
        compute.submit(a_work("job", token="memory:1"))


def test_how_long_a_program_ran_is_right_although_the_clock_was_put_back_meanwhile(tmp_path: Path) -> None:
    spec = {"argv": [sys.executable, "-c", ""], "timeout": 60, "grace": 1}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    back = (
        "import sys, time\n"
        "from bot.local import supervise\n"
        "real, popen = time.time, supervise.subprocess.Popen\n"
        "def begun(*given, **more):\n"
        "    time.time = lambda: real() - 3600\n"
        "    return popen(*given, **more)\n"
        "supervise.subprocess.Popen = begun\n"
        "sys.exit(supervise.main(sys.argv[1:]))\n"
    )
    subprocess.run([sys.executable, "-c", back, str(tmp_path)], cwd=ROOT, check=True, timeout=60)
    ended = json.loads((tmp_path / "exit.json").read_text())
    assert ended["code"] == 0
    assert 0 < ended["stopped"] - ended["started"] < 60


# Arrays

ONCE = """
import os, pathlib, sys
number = os.environ["NOMADS_INDEX"]
pathlib.Path(sys.argv[1], f"ran.{number}").open("a").write("x")
"""
"""A program that leaves one letter for each time its number is run."""


def test_programs_of_an_array_run_as_places_become_free_and_each_once(rig: LocalComputeRig) -> None:
    rig.compute.submit(replace(rig.script("many", ONCE, str(rig.control)), count=12))

    ended = rig.wait("many")

    assert ended.state is JobState.SUCCEEDED
    assert ended.children == {JobState.SUCCEEDED: 12}
    assert ended.started_at is not None
    assert ended.stopped_at is not None
    assert ended.started_at < ended.stopped_at
    assert {path.name: path.read_text() for path in rig.control.iterdir()} == {f"ran.{n}": "x" for n in range(12)}


def test_no_more_programs_of_an_array_run_at_once_than_there_are_places(rig: LocalComputeRig) -> None:
    rig.compute.submit(replace(rig.work("many"), count=5))
    for number in (0, 1):
        rig.run(f"many.{number}")

    seen = rig.compute.observe(["many"])["many"]
    waiting = rig.compute.children("many", states={JobState.RUNNABLE})

    assert seen.children == {JobState.RUNNING: 2, JobState.RUNNABLE: 3}
    assert set(waiting) == {2, 3, 4}
    assert {one.reason.partition(";")[0] for one in waiting.values()} == {
        "All 2 places for programs on this machine are taken"
    }
    assert len([path for path in (rig.folder / "many").iterdir() if path.is_dir()]) == 2


def test_a_bot_that_starts_anew_finds_the_programs_of_an_array_and_goes_on_with_the_rest(rig: LocalComputeRig) -> None:
    rig.compute.submit(replace(rig.work("many"), count=4))
    rig.run("many.0")
    rig.run("many.1")
    rig.end("many.0", code=1)
    rig.compute = rig.another()
    found = rig.compute.observe(["many"])["many"]
    for number in (1, 2, 3):
        rig.run(f"many.{number}")
        rig.end(f"many.{number}", code=0)

    ended = rig.another().observe(["many"])["many"]

    assert (found.state, found.children[JobState.FAILED]) == (JobState.RUNNING, 1)
    assert sum(found.children.values()) == 4
    assert (ended.state, ended.children) == (JobState.FAILED, {JobState.FAILED: 1, JobState.SUCCEEDED: 3})
    assert rig.another().children("many")[0].exit_code == 1


def test_a_folder_that_a_killed_bot_left_half_made_is_made_again_and_its_program_run_once(
    narrow: LocalComputeRig,
) -> None:
    """It was killed after it gave the program its place in the queue, and before the program had its folder."""
    narrow.compute.submit(narrow.work("first"))
    narrow.run("first")
    narrow.compute.submit(replace(narrow.script("many", ONCE, str(narrow.control)), count=2))
    [rest] = (narrow.folder / ".queue").glob("*.many.~")
    rest.with_name(rest.name.replace("~", "0")).touch()
    (narrow.folder / ".new").mkdir()
    narrow.end("first", code=0)

    ended = narrow.wait("many")

    assert ended.children == {JobState.SUCCEEDED: 2}
    assert {path.name: path.read_text() for path in narrow.control.glob("ran.*")} == {"ran.0": "x", "ran.1": "x"}
    assert list((narrow.folder / ".queue").iterdir()) == []


def test_several_processes_start_programs_of_one_array_and_none_twice(rig: LocalComputeRig) -> None:
    rig.compute.submit(replace(rig.script("many", ONCE, str(rig.control)), count=16))
    others = [rig.another() for _ in range(4)]

    with ThreadPoolExecutor(len(others)) as pool:
        ends = list(pool.map(lambda one: until(lambda: ended_by(one), what="the end of all"), others))

    assert [end.state for end in ends if end] == [JobState.SUCCEEDED] * len(others)
    assert {path.read_text() for path in rig.control.glob("ran.*")} == {"x"}
    assert len(list(rig.control.glob("ran.*"))) == 16


def ended_by(compute: LocalCompute) -> Observation | None:
    """How the array `many` ended, as this adapter sees it; None: it has not."""
    seen = compute.observe(["many"])["many"]
    return seen if seen.state in FINAL else None


def test_a_program_of_an_array_whose_supervisor_is_killed_has_failed_and_the_others_go_on(rig: LocalComputeRig) -> None:
    patient = f"import os; print(os.getppid(), flush=True)\n{PROGRAM}"
    rig.compute.submit(replace(rig.script("many", patient, str(rig.control / "many")), count=2))
    rig.run("many.1")
    [supervisor] = printed(rig, "many.0")

    os.kill(int(supervisor), signal.SIGKILL)
    failed = until(lambda: rig.compute.children("many", states={JobState.FAILED}), what="the end of the killed one")
    rig.end("many.1", code=0)

    assert (failed[0].state, failed[0].cause) == (JobState.FAILED, Cause.MACHINE)
    assert rig.wait("many").children == {JobState.FAILED: 1, JobState.SUCCEEDED: 1}


def test_an_array_whose_files_were_spoiled_ends_and_the_next_run_starts(narrow: LocalComputeRig) -> None:
    narrow.compute.submit(narrow.work("first"))
    narrow.run("first")
    narrow.compute.submit(replace(narrow.work("many"), count=3))
    (narrow.folder / "many" / "spec.json").write_text("spoiled")
    narrow.compute.submit(narrow.work("last"))
    narrow.end("first", code=0)

    assert narrow.wait("many").reason == SPOILED
    narrow.run("last")
    narrow.end("last", code=0)


def test_ten_thousand_programs_cost_a_look_at_those_alone_that_run(rig: LocalComputeRig) -> None:
    rig.compute.submit(replace(rig.work("many"), count=10_000))
    rig.run("many.0")

    began = time.process_time()
    seen = [rig.compute.observe(["many"])["many"] for _ in range(20)]

    assert {sum(one.children.values()) for one in seen} == {10_000}
    assert time.process_time() - began < 0.5
