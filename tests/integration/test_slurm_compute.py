"""What compute on a cluster promises beyond its port, with Slurm's own controller and nodes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bot.domain.errors import NomadsError, Refused, Unavailable
from bot.domain.states import JobState
from bot.domain.work import Cause
from bot.slurm.commands import Commands, Unanswered
from bot.slurm.compute import SlurmCompute
from bot.slurm.doctor import Doctor
from tests.contract.rigs import TOKEN, texts
from tests.contract.slurm_rigs import SlurmComputeRig
from tests.support.slurm import MAX_ARRAY_SIZE, Cluster
from tests.support.waiting import until

pytestmark = pytest.mark.slurm

ONCE = """
import os, pathlib, sys
number = os.environ.get("NOMADS_INDEX", "alone")
pathlib.Path(sys.argv[1], f"ran.{number}").open("a").write("x")
"""
"""A program that leaves one letter for each time its number is run."""


@pytest.fixture
def rig(tmp_path: Path, slurm: Cluster) -> Iterator[SlurmComputeRig]:
    rig = SlurmComputeRig(tmp_path, slurm)
    yield rig
    rig.close()


def printed(rig: SlurmComputeRig, name: str) -> list[str]:
    """What the program printed, once it has ended."""
    rig.wait(name)
    return texts(rig.logs.tail(name, log=None, lines=100))


# What reaches a program, and what everybody sees


def test_a_program_gets_its_token_and_nothing_of_the_bot_s_environment(
    rig: SlurmComputeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "the bot's own")
    monkeypatch.setenv("SLURM_JWT", "the bot's own")
    source = "import os; print(os.environ['BOSS_TOKEN'] == 'demo-token-' + 'canary', *sorted(os.environ))"

    rig.compute.submit(rig.script("job", source))

    [line] = printed(rig, "job")
    assert line.startswith("True ")
    names = set(line.split()[1:])
    assert "SLURM_JOB_ID" in names
    assert "PYTHONUNBUFFERED" in names
    assert not {"SLACK_BOT_TOKEN", "SLURM_JWT", "NOMADS_INDEX"} & names


def test_the_token_is_gone_when_the_program_has_it_and_in_no_listing_while_it_waits(rig: SlurmComputeRig) -> None:
    with rig.cluster.full():
        rig.compute.submit(rig.work("job"))
        listed = rig.cluster.say("scontrol", "-dd", "show", "job") + rig.cluster.say("squeue", "-o", "%all")
        waiting = [(path.read_text(), path.stat().st_mode & 0o777) for path in rig.folder.rglob("token")]
    rig.run("job")

    assert "JobName=job" in listed
    assert TOKEN not in listed
    assert waiting == [(TOKEN, 0o600)]
    assert list(rig.folder.rglob("token")) == []
    assert TOKEN not in rig.exposed()


def test_a_program_runs_in_an_image_where_a_setting_names_one(
    tmp_path: Path, slurm: Cluster, rig: SlurmComputeRig
) -> None:
    """Apptainer itself is played: it tells its arguments, and what it would hand to the program."""
    played = tmp_path / "apptainer"
    played.write_text('#!/bin/sh\necho "$@"\nenv | grep ^APPTAINERENV_ | cut -d= -f1 | sort\n')
    played.chmod(0o755)
    compute = rig.another(image="/lab/nomads.sif", apptainer=str(played))

    compute.submit(replace(rig.script("job", "pass", "--col", "x"), count=1))
    rig.wait("job")

    command, *names = texts(rig.logs.tail("job.0", log=None, lines=9))
    bound = rig.config.folder
    assert command == f"exec --cleanenv --pwd /srv/nomads --bind {bound} /lab/nomads.sif python3 -c pass --col x"
    assert names == [f"APPTAINERENV_{name}" for name in ("BOSS_TOKEN", "NOMADS_INDEX", "PYTHONUNBUFFERED")]


def test_a_program_runs_on_the_python_that_a_setting_names(rig: SlurmComputeRig, tmp_path: Path) -> None:
    python = tmp_path / "a python"
    python.write_text('#!/bin/sh\necho played "$@"\n')
    python.chmod(0o755)

    rig.another(python=str(python)).submit(rig.script("job", "it's here"))

    assert printed(rig, "job") == ["played -c it's here"]


# Once, whatever happens


class Cut(Commands):
    """Commands whose sbatch is done, and its answer lost."""

    def run(self, command: str, *arguments: str, cwd: str = "/") -> str:
        printed = super().run(command, *arguments, cwd=cwd)
        if command == "sbatch":
            raise Unanswered("The answer was lost.")
        return printed


def test_a_submission_whose_answer_was_lost_runs_once(rig: SlurmComputeRig) -> None:
    cut = SlurmCompute(config=rig.config, tokens=rig.secrets, root=rig.control, commands=Cut(patience=20))
    work = replace(rig.script("unanswered", ONCE, str(rig.control)), count=3)
    with pytest.raises(Unavailable):
        cut.submit(work)

    assert rig.another().submit(work) == "unanswered"
    assert rig.wait("unanswered").children == {JobState.SUCCEEDED: 3}
    assert {path.name: path.read_text() for path in rig.control.glob("ran.*")} == {f"ran.{n}": "x" for n in range(3)}


def test_a_script_that_slurm_runs_twice_runs_its_program_once(rig: SlurmComputeRig) -> None:
    rig.compute.submit(rig.script("job", ONCE, str(rig.control)))
    rig.wait("job")
    script = str(rig.folder / "job" / "script")

    again = rig.cluster.say("sbatch", "--parsable", "--output=/dev/null", script).strip()

    assert again.isdecimal()
    # sbatch --wait asks ever more seldom, and Slurm forgets a job a few seconds after its end
    until(lambda: again not in rig.cluster.say("squeue", "--noheader", "--format=%A").split(), what="its end")
    assert (rig.control / "ran.alone").read_text() == "x"


def test_a_bot_that_starts_anew_finds_what_runs_and_what_ended_meanwhile(rig: SlurmComputeRig) -> None:
    rig.compute.submit(replace(rig.work("many"), count=2))
    rig.run("many.0")
    (rig.control / "many.0").write_text("3\nno such channel")
    rig.run("many.1")
    until(lambda: (rig.folder / "many" / "0" / "finished").exists(), what="the end of the first")

    rig.compute = rig.another()  # type: ignore[assignment]
    failed = rig.compute.children("many", states={JobState.FAILED})
    rig.end("many.1", code=0)

    assert {number: (one.exit_code, one.reason) for number, one in failed.items()} == {0: (3, "no such channel")}
    assert rig.wait("many").children == {JobState.FAILED: 1, JobState.SUCCEEDED: 1}


# What goes wrong


@contextmanager
def refused(said: str) -> Iterator[None]:
    """The block raises Refused with these words, and no token in them."""
    with pytest.raises(Refused) as caught:
        yield
    assert said in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_what_the_cluster_will_never_take_is_refused_in_words_and_leaves_nothing(rig: SlurmComputeRig) -> None:
    with refused("NOMADS_SLURM_PARTITION names the partition"):
        rig.another(partition="nowhere").submit(rig.work("job"))
    with refused("NOMADS_SLURM_MAX_ARRAY may be its MaxArraySize"):
        rig.another(max_array=5000).submit(replace(rig.work("job"), count=MAX_ARRAY_SIZE + 1))
    with refused("No node of the partition has as many processors or as much memory"):
        rig.compute.submit(replace(rig.work("job"), memory=10**6))
    with refused("NOMADS_SLURM_ARGUMENTS has to hold arguments that sbatch knows"):
        rig.another(arguments=("--nonsense=1",)).submit(rig.work("job"))

    assert rig.compute.find("job") is None
    assert list(rig.folder.iterdir()) == []


def test_a_controller_that_is_gone_or_hangs_is_no_answer_and_nothing_is_lost(rig: SlurmComputeRig) -> None:
    rig.compute.submit(rig.work("before"))
    rig.run("before")
    with rig.cluster.hanging():
        hanging = rig.another(patience=0.5)
        for call in (lambda: hanging.observe(["before"]), lambda: hanging.submit(rig.work("during"))):
            with pytest.raises(Unavailable, match=r"did not answer within 0\.5 seconds"):
                call()

    rig.compute.submit(rig.work("during"))
    rig.run("during")
    rig.end("during", code=0)
    rig.end("before", code=0)

    assert rig.compute.observe(["before"])["before"].state is JobState.SUCCEEDED


def test_where_there_is_no_controller_and_where_there_are_no_commands_is_said(
    rig: SlurmComputeRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with rig.cluster.hanging():
        monkeypatch.setenv("SLURM_CONF", str(_elsewhere(rig.cluster, tmp_path)))
        with pytest.raises(Unavailable, match="Unable to contact slurm controller"):
            rig.another(patience=60).submit(rig.work("job"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match="no command sbatch: install Slurm's commands"):
        rig.compute.submit(rig.work("job"))

    assert list(rig.folder.iterdir()) == []


def _elsewhere(cluster: Cluster, folder: Path) -> Path:
    """A slurm.conf that leads to a port where nobody listens, and gives up at once."""
    lines = (cluster.folder / "slurm.conf").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("SlurmctldPort", "MessageTimeout"))]
    conf = folder / "slurm.conf"
    conf.write_text("\n".join([*kept, "SlurmctldPort=9", "MessageTimeout=1", ""]))
    return conf


def test_why_a_job_waits_is_told_and_it_runs_when_it_can(rig: SlurmComputeRig) -> None:
    def why(name: str, said: str) -> bool:
        seen = rig.compute.observe([name])[name]
        return seen.state is JobState.RUNNABLE and said in seen.reason

    rig.another(partition="closed").submit(rig.work("closed"))
    with rig.cluster.full():
        rig.compute.submit(replace(rig.work("many"), count=2))
        until(lambda: why("many", "nodes that it could have are down or reserved"), what="the reason")
        until(lambda: why("closed", "Its partition is down"), what="the other reason")

    rig.run("many.1")


def test_a_job_that_somebody_else_cancels_has_failed_and_is_no_cancellation_of_ours(rig: SlurmComputeRig) -> None:
    rig.compute.submit(rig.work("job"))
    rig.run("job")

    rig.cluster.say("scancel", "--name=job")
    ended = rig.wait("job")

    assert (ended.state, ended.cause) == (JobState.FAILED, Cause.UNKNOWN)
    assert "cancelled on the cluster, and not from NOMADS" in ended.reason


def test_a_node_that_breaks_down_is_told_as_the_machine_s_failure(rig: SlurmComputeRig) -> None:
    rig.compute.submit(rig.work("job"))
    rig.run("job")
    node = rig.cluster.say("squeue", "-h", "-n", "job", "-o", "%N").strip()

    with rig.cluster.broken(node):
        ended = rig.wait("job")

    assert (ended.state, ended.cause) == (JobState.FAILED, Cause.MACHINE)
    assert "broke down" in ended.reason


def test_a_program_that_ends_well_when_it_is_cancelled_is_cancelled_all_the_same(rig: SlurmComputeRig) -> None:
    source = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(0))\nprint('up')\nwhile True: signal.pause()"
    rig.compute.submit(rig.script("job", source))
    until(lambda: texts(rig.logs.tail("job", log=None, lines=1)) == ["up"], what="the program")

    rig.compute.cancel("job", reason="cancelled by U1")

    assert (rig.wait("job").state, rig.wait("job").reason) == (JobState.FAILED, "cancelled by U1")


def test_a_node_that_does_not_have_the_run_s_folder_is_told(rig: SlurmComputeRig) -> None:
    with rig.cluster.full():
        rig.compute.submit(rig.work("far"))
        (rig.folder / "far").rename(rig.folder / "away")
    until(lambda: "FAILED" in rig.cluster.say("squeue", "-t", "all", "-n", "far", "-h", "-o", "%T"), what="the failure")
    (rig.folder / "away").rename(rig.folder / "far")

    seen = rig.another(lag=0).observe(["far"])["far"]

    assert (seen.state, seen.cause) == (JobState.FAILED, Cause.SETUP)
    assert "NOMADS_SLURM_FOLDER" in seen.reason


# Doctor


def test_the_doctor_finds_nothing_wrong_with_a_cluster_that_works(rig: SlurmComputeRig) -> None:
    checks = Doctor(rig.config.model_copy(update={"partition": "main"}), Commands(patience=20)).checks

    assert {name: check() for name, check in checks.items() if name != "shared folder"} == dict.fromkeys(
        ("slurm commands", "slurm controller", "slurm partition", "slurm arrays"), ""
    )
    assert checks["shared folder"]().startswith("ok here")


@pytest.mark.parametrize(
    ("settings", "check", "said"),
    [
        ({"partition": "nowhere"}, "slurm partition", "no partition nowhere"),
        ({"partition": "closed"}, "slurm partition", "jobs wait there until it is up"),
        ({"arguments": ("--nonsense",)}, "slurm partition", "would not take a job"),
        ({"max_array": 5000}, "slurm arrays", "takes arrays of 1001 at most"),
        ({"folder": Path("/dev/null/x")}, "shared folder", "nothing can be written"),
    ],
)
def test_the_doctor_names_what_is_wrong_with_the_settings(
    rig: SlurmComputeRig, settings: dict[str, object], check: str, said: str
) -> None:
    checks = Doctor(rig.config.model_copy(update=settings), Commands(patience=20)).checks

    with pytest.raises(NomadsError, match=said):
        checks[check]()


def test_the_doctor_names_what_is_wrong_with_the_machine(
    rig: SlurmComputeRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    checks = Doctor(rig.config.model_copy(update={"folder": open_to_all}), Commands(patience=20)).checks
    with pytest.raises(NomadsError, match=f"chmod go-w {open_to_all}"):
        checks["shared folder"]()
    with rig.cluster.hanging(), pytest.raises(NomadsError, match="did not answer"):
        Doctor(rig.config, Commands(patience=0.3)).checks["slurm controller"]()
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(NomadsError, match="lacks sbatch, squeue"):
        checks["slurm commands"]()
