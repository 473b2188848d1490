"""What Slurm says, and what comes of it. The commands are played; tests/integration/test_slurm_compute.py runs them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot.domain.errors import NomadsError, Refused, Unavailable
from bot.domain.states import JobState
from bot.domain.work import Cause, Observation, Unclear
from bot.settings import read
from bot.slurm.backend import backend
from bot.slurm.commands import Commands, Unanswered
from bot.slurm.compute import SlurmCompute
from bot.slurm.config import SlurmConfig
from bot.slurm.states import Listed, read_queue, waiting
from tests.contract.rigs import TOKEN, a_work
from tests.support.memory import MemorySecrets

NAME = "nomads-demo_demo_cortex-k3v9"
ROOT = Path(__file__).resolve().parents[2]


class Played(Commands):
    """Slurm's commands as a test plays them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        """What squeue prints."""
        self.called: list[tuple[str, ...]] = []
        self.lost = False
        """Whether the answer of sbatch is lost."""

    def run(self, command: str, *arguments: str, cwd: str = "/") -> str:
        self.called.append((command, *arguments))
        if command == "squeue":
            return "\n".join(self.lines)
        if command == "sbatch" and self.lost:
            raise Unanswered("no answer")
        return "7;cluster\n"

    @property
    def asked(self) -> list[str]:
        """The commands so far, by name."""
        return [command for command, *_ in self.called]


class Bench:
    """A compute, the commands that it runs, and the files that a node would write."""

    def __init__(self, folder: Path) -> None:
        self.commands = Played()
        self.secrets = MemorySecrets()
        self.now = 0.0
        self.config = SlurmConfig(_env_file=None, folder=folder)
        self.runs = folder / "runs"
        self.compute = self.another()
        self.work = a_work(NAME, token=self.secrets.put("U1", SecretStr(TOKEN)))

    def another(self) -> SlurmCompute:
        """An adapter as after a restart."""
        return SlurmCompute(
            config=self.config, tokens=self.secrets, root=ROOT, commands=self.commands, clock=lambda: self.now
        )

    def submit(self, count: int | None = None) -> str:
        return self.compute.submit(replace(self.work, count=count))

    def list(self, state: str, reason: str = "None", *, numbers: str = "N/A") -> None:
        """Let squeue have this line of the job, too."""
        self.commands.lines.append(f"7|{numbers}|{state}|{NAME}|{reason}")

    def write(self, name: str, content: str) -> None:
        (self.runs / NAME / name).write_text(content)

    def seen(self) -> Observation:
        return self.compute.observe([NAME])[NAME]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "shared")


# Submission


def test_a_submission_asks_for_what_the_work_needs_and_carries_nothing_of_the_environment(bench: Bench) -> None:
    bench.submit()

    [(command, *arguments)] = bench.commands.called
    assert command == "sbatch"
    assert arguments[-1] == str(bench.runs / NAME / "script")
    assert {"--parsable", "--no-requeue", "--export=HOME,USER,LANG", f"--job-name={NAME}"} <= set(arguments)
    assert {"--cpus-per-task=1", "--mem=2048M", "--time=1", "--nodes=1", "--ntasks=1"} <= set(arguments)
    assert not [argument for argument in arguments if argument.startswith(("--array", "--partition", "--account"))]
    assert TOKEN not in repr(bench.commands.called)
    assert TOKEN not in (bench.runs / NAME / "script").read_text()


def test_settings_are_arguments_and_none_takes_the_place_of_what_nomads_says(bench: Bench) -> None:
    bench.config = SlurmConfig(
        _env_file=None, folder=bench.config.folder, partition="long", account="lab", arguments='["--qos=big"]'
    )
    bench.another().submit(replace(bench.work, count=12))

    arguments = bench.commands.called[0]
    assert arguments[1] == "--qos=big"
    assert {"--partition=long", "--account=lab", "--array=0-11"} <= set(arguments)


def test_the_token_lies_in_a_file_for_each_program_which_nobody_else_reads(bench: Bench) -> None:
    bench.submit(count=2)

    tokens = sorted((bench.runs / NAME).rglob("token"))
    assert [path.parent.name for path in tokens] == ["0", "1"]
    assert {(path.read_text(), path.stat().st_mode & 0o777) for path in tokens} == {(TOKEN, 0o600)}
    assert {path.stat().st_mode & 0o077 for path in (bench.runs, bench.runs / NAME)} == {0}


def test_a_submission_whose_answer_was_lost_is_looked_for_and_not_made_again(bench: Bench) -> None:
    bench.commands.lost = True
    with pytest.raises(Unavailable):
        bench.submit()
    bench.list("PENDING", "Resources")

    assert bench.another().submit(bench.work) == NAME
    assert bench.commands.asked.count("sbatch") == 1
    assert bench.compute.find(NAME) == NAME


def test_a_submission_that_was_lost_is_known_by_what_its_program_left_when_slurm_has_forgotten_it(bench: Bench) -> None:
    bench.commands.lost = True
    with pytest.raises(Unavailable):
        bench.submit()
    bench.write("begun", "100 7 n1\n")
    bench.write("finished", "101 0\n")

    assert bench.compute.find(NAME) == NAME
    assert bench.seen().state is JobState.SUCCEEDED


def test_a_submission_that_slurm_never_got_is_made_again(bench: Bench) -> None:
    bench.commands.lost = True
    with pytest.raises(Unavailable):
        bench.submit()
    bench.commands.lost = False

    assert bench.compute.find(NAME) is None
    assert bench.submit() == NAME
    assert bench.commands.asked.count("sbatch") == 2


def test_a_job_of_that_id_and_another_name_is_somebody_else_s(bench: Bench) -> None:
    bench.submit()
    bench.commands.lines.append("7|N/A|RUNNING|other|None")

    assert bench.compute.observe([NAME]) == {}


def test_a_program_that_takes_its_token_on_the_command_line_is_refused(bench: Bench) -> None:
    with pytest.raises(Refused, match="every user of a node can read it"):
        bench.compute.submit(replace(bench.work, token_argument=True))
    assert bench.commands.called == []


# States


@pytest.mark.parametrize(
    ("state", "said", "cause"),
    [
        ("TIMEOUT", "longer than its pipeline allows", Cause.TIME_LIMIT),
        ("OUT_OF_MEMORY", "more memory than it was given", Cause.MEMORY),
        ("NODE_FAIL", "broke down", Cause.MACHINE),
        ("PREEMPTED", "taken back", Cause.MACHINE),
        ("BOOT_FAIL", "did not start", Cause.MACHINE),
        ("CANCELLED", "cancelled on the cluster, and not from NOMADS", Cause.UNKNOWN),
        ("DEADLINE", "deadline", Cause.SETUP),
    ],
)
@pytest.mark.parametrize("finished", ["", "160 143\n"])
def test_how_slurm_ended_a_job_is_its_cause(bench: Bench, state: str, said: str, cause: Cause, finished: str) -> None:
    bench.submit()
    bench.list(state)
    bench.write("begun", "100 7 n1\n")
    if finished:
        bench.write("finished", finished)

    seen = bench.seen()

    assert (seen.state, seen.why) == (JobState.FAILED, cause)
    assert said in seen.reason
    bench.commands.lines.clear()
    assert bench.another().observe([NAME]) == {NAME: seen}  # Slurm has forgotten it


def test_a_program_s_own_end_counts_as_soon_as_it_is_written(bench: Bench) -> None:
    bench.submit()
    bench.list("COMPLETING")
    bench.write("begun", "100 7 n1\n")
    bench.write("log", "reading\nno such channel\n")
    bench.write("finished", "160 2\n")

    seen = bench.seen()

    assert (seen.state, seen.exit_code, seen.reason, seen.why) == (
        JobState.FAILED,
        2,
        "no such channel",
        Cause.REQUEST,
    )


def test_a_program_that_was_ended_by_a_signal_waits_for_what_slurm_says_of_it(bench: Bench) -> None:
    bench.submit()
    bench.list("COMPLETING")
    bench.write("begun", "100 7 n1\n")
    bench.write("finished", "160 137\n")

    assert bench.seen().state is JobState.RUNNING
    bench.commands.lines.clear()
    bench.list("OUT_OF_MEMORY")
    assert bench.seen().cause is Cause.MEMORY


@pytest.mark.parametrize(("ran", "cause"), [(59, Cause.UNKNOWN), (60, Cause.TIME_LIMIT)])
def test_a_signal_at_the_time_limit_is_the_time_limit_where_slurm_has_forgotten_the_job(
    bench: Bench, ran: int, cause: Cause
) -> None:
    bench.submit()
    bench.write("begun", "100 7 n1\n")
    bench.write("finished", f"{100 + ran} 143\n")

    assert bench.seen().why is cause


def test_a_job_that_slurm_has_forgotten_and_that_left_no_end_is_absent(bench: Bench) -> None:
    bench.submit()
    bench.write("begun", "100 7 n1\n")

    assert bench.compute.observe([NAME]) == {}


def test_the_token_of_a_job_that_slurm_has_forgotten_and_that_never_began_is_removed(bench: Bench) -> None:
    bench.submit()
    bench.compute.observe([NAME])
    bench.now = 3600

    assert bench.compute.observe([NAME]) == {}
    assert list(bench.runs.rglob("token")) == []


def test_a_token_that_a_killed_bot_left_in_a_folder_half_made_is_removed(bench: Bench) -> None:
    half = bench.runs / ".other.1.1"
    half.mkdir(parents=True)
    (half / "token").write_text(TOKEN)
    os.utime(half, (0, 0))

    bench.submit()

    assert not half.exists()


def test_a_program_of_an_array_that_slurm_has_forgotten_fails_once_its_files_would_be_there(bench: Bench) -> None:
    bench.submit(count=2)
    bench.list("COMPLETED", numbers="0")
    bench.write("0/begun", "100 7 n1\n")
    bench.write("0/finished", "160 0\n")

    first = bench.seen()
    bench.now = 3600
    ended = bench.seen()

    assert first.children == {JobState.SUCCEEDED: 1, JobState.STARTING: 1}
    assert (ended.state, ended.children) == (JobState.FAILED, {JobState.SUCCEEDED: 1, JobState.FAILED: 1})
    assert bench.compute.children(NAME)[1].cause is Cause.MACHINE


def test_a_script_that_could_not_begin_is_told_as_a_matter_of_the_shared_folder(bench: Bench) -> None:
    bench.submit()
    bench.list("FAILED", "NonZeroExitCode")

    meanwhile = bench.seen()
    bench.now = 3600
    ended = bench.seen()

    assert meanwhile.state is JobState.STARTING  # what the node wrote may be on its way
    assert (ended.state, ended.cause) == (JobState.FAILED, Cause.SETUP)
    assert "NOMADS_SLURM_FOLDER" in ended.reason


def test_a_state_that_nobody_knows_puts_that_job_alone_in_doubt(bench: Bench) -> None:
    bench.submit()
    other = bench.compute.submit(replace(bench.work, name="other"))
    bench.list("TELEPORTED")
    bench.commands.lines.append("7|N/A|PENDING|other|Priority")

    with pytest.raises(Unclear, match="TELEPORTED") as caught:
        bench.compute.observe([NAME, other])

    assert caught.value.ids == {NAME}
    assert set(caught.value.seen) == {other}


def test_a_cancelled_job_that_slurm_has_forgotten_ends_with_the_reason_given(bench: Bench) -> None:
    bench.submit()
    bench.list("PENDING", "Priority")
    bench.compute.cancel(NAME, reason="cancelled by U1")
    bench.commands.lines.clear()

    assert ("scancel", "7") in bench.commands.called
    assert (bench.seen().state, bench.seen().reason) == (JobState.FAILED, "cancelled by U1")
    assert list((bench.runs / NAME).rglob("token")) == []


def test_a_hundred_arrays_are_observed_with_one_squeue(bench: Bench) -> None:
    names = [bench.compute.submit(replace(bench.work, name=f"job-{n}", count=20)) for n in range(100)]
    for name in names:
        bench.commands.lines += [f"7|[5-19%4]|PENDING|{name}|Resources", f"7|4|CONFIGURING|{name}|None"]
        for number in range(4):
            (bench.runs / name / str(number) / "begun").write_text("100 7 n1\n")
            bench.commands.lines.append(f"7|{number}|RUNNING|{name}|None")
    bench.commands.called.clear()

    seen = bench.compute.observe(names)

    assert bench.commands.asked == ["squeue"]
    assert {one.state for one in seen.values()} == {JobState.RUNNING}
    assert seen[names[0]].children == {JobState.RUNNING: 4, JobState.STARTING: 1, JobState.RUNNABLE: 15}


def test_an_array_is_cancelled_with_one_scancel(bench: Bench) -> None:
    bench.submit(count=100)

    bench.compute.cancel(NAME, reason="enough")

    assert [call for call in bench.commands.called if call[0] == "scancel"] == [("scancel", "7")]


# What is read of squeue


def test_lines_of_squeue_tell_each_program_of_an_array() -> None:
    printed = "7|[2,5-9:2%4]|PENDING|n|Resources\n7|0|RUNNING|n|None\n8|N/A|PENDING|m|Nodes, down|x\nslurm: warning\n"

    assert read_queue(printed) == {
        ("7", "n"): {
            **dict.fromkeys((2, 5, 7, 9), Listed("PENDING", "Resources")),
            0: Listed("RUNNING", "None"),
        },
        ("8", "m"): {None: Listed("PENDING", "Nodes, down|x")},
    }


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("None", ""),
        ("Resources", "no free node"),
        ("Priority", "its turn"),
        ("QOSMaxJobsPerUserLimit", "limits for its account, user or partition are reached (QOSMaxJobsPerUserLimit)"),
        ("AssocGrpCPURunMinutesLimit", "Whoever looks after the cluster can raise them"),
        ("PartitionDown", "partition is down"),
        ("PartitionTimeLimit", "cannot start as it is (PartitionTimeLimit)"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "down or reserved"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "The nodes that it could have are down or reserved",
        ),
        ("(Resources)", "no free node"),
        ("SomethingNew", "says why it waits: SomethingNew"),
    ],
)
def test_why_a_job_waits_is_told_in_words(reason: str, words: str) -> None:
    assert words in waiting(reason)
    assert bool(waiting(reason)) is bool(words)


# Settings


def test_every_wrong_setting_is_named_with_what_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMADS_SLURM_FOLDER", "here")
    monkeypatch.setenv("NOMADS_SLURM_PARTITION", "a b")
    monkeypatch.setenv("NOMADS_SLURM_ARGUMENTS", '["--export=ALL"]')
    monkeypatch.setenv("NOMADS_SLURM_MAX_ARRAY", "0")

    with pytest.raises(NomadsError) as caught:
        read(SlurmConfig)

    said = str(caught.value)
    assert "NOMADS_SLURM_FOLDER: this has to be an absolute path" in said
    assert "NOMADS_SLURM_PARTITION: " in said
    assert "NOMADS_SLURM_ARGUMENTS: NOMADS says --export itself" in said
    assert "NOMADS_SLURM_MAX_ARRAY: " in said


def test_a_folder_is_needed() -> None:
    with pytest.raises(NomadsError, match=r"NOMADS_SLURM_FOLDER: .*such as /lab/nomads"):
        backend(None, tokens=MemorySecrets(), key_for=lambda _: b"")  # type: ignore[arg-type]


def test_the_page_about_slurm_has_every_setting_and_no_other() -> None:
    page = (ROOT / "docs" / "slurm.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("| `NOMADS_SLURM_")]

    assert rows == [f"NOMADS_SLURM_{name.upper()}" for name in SlurmConfig.model_fields]
