"""Programs that are not trusted: what they cannot read, and what they cannot use up. Most of it takes root."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot.domain.errors import NomadsError, NotFound
from bot.domain.results import ResultFile
from bot.domain.states import JobState
from bot.domain.work import Work
from bot.local import backend as local
from bot.local.backend import LocalBackend
from bot.local.confinement import Limits
from bot.settings import Settings
from bot.storage.engine import connect
from bot.storage.keys import load_key
from tests.contract.rigs import TOKEN, LocalComputeRig, a_work, texts
from tests.support.memory import MemorySecrets
from tests.support.waiting import until

FOLDER = "nomads-demo_demo_cortex_z_0_16_y_0_512_x_0_512/a1b2c3"
FIRST = 61440 + 8 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""Id of the first user that these programs run as: another one for each worker, since a bot ends all of its user's."""


class Lab:
    """A bot's data in a folder that other users can reach, with programs that are shell scripts."""

    def __init__(self, data: Path, **settings: object) -> None:
        self.data = data
        self.secrets = MemorySecrets()
        self.key = load_key(data / "secret.key", None)
        connect(f"sqlite:///{data / 'nomads.db'}").connect().close()
        made = local.backend(
            Settings.model_validate({"data": str(data), **settings}),
            tokens=self.secrets,
            key_for=lambda _: self.key,
        )
        self.backend: LocalBackend = made

    def work(self, name: str, source: str, *arguments: str, folder: str = FOLDER) -> Work:
        """A shell script; $0 and on are the arguments."""
        work = a_work(
            name,
            token=self.secrets.put("U1", SecretStr(TOKEN)),
            command=("/bin/sh", "-c", source),
            arguments=(self.backend.results.uri(folder).removeprefix("file://"), *arguments),
        )
        object.__setattr__(work, "results", self.backend.results.uri(folder))
        return work

    def ends(self, name: str) -> tuple[JobState, str]:
        """How the run ended, and why."""

        def ended() -> bool:
            seen = self.backend.compute.observe([name])[name]
            return seen.state in (JobState.SUCCEEDED, JobState.FAILED)

        until(ended, what=f"the end of {name}")
        seen = self.backend.compute.observe([name])[name]
        return seen.state, seen.reason

    def printed(self, name: str) -> list[str]:
        """The last lines of its log."""
        return texts(self.backend.logs.tail(name, log=None, lines=50))


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that others may enter; pytest's own are for the one who runs the tests alone."""
    folder = Path(tempfile.mkdtemp(prefix="nomads-", dir="/tmp"))
    folder.chmod(0o711)
    # Whether others reach the Python of this checkout is the machine's affair; these programs are shell scripts.
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    monkeypatch.setattr(local, "ROOT", Path("/"))
    (folder / "data").mkdir(mode=0o700)
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture
def lab(data: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(data, local_user=str(FIRST))
    monkeypatch.undo()  # the supervisor is Python
    return lab


@pytest.mark.root
def test_a_program_runs_as_a_user_of_its_own_and_the_bot_reads_its_results_afterwards(lab: Lab) -> None:
    source = "id -u; id -G; grep NoNew /proc/self/status; cd $0; mkdir deep; echo hello >deep/a; chmod 4777 deep/a"
    lab.backend.compute.submit(lab.work("job", source))

    assert lab.ends("job") == (JobState.SUCCEEDED, "")
    assert lab.printed("job") == [str(FIRST), str(FIRST), "NoNewPrivs:\t1"]
    assert lab.backend.results.read(FOLDER, "deep/a", limit=100) == b"hello\n"
    top = lab.data / "results" / FOLDER
    for path, mode in ((top, 0o750), (top / "deep", 0o750), (top / "deep/a", 0o640)):
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (os.geteuid(), mode)


@pytest.mark.root
def test_programs_of_an_array_run_as_users_of_their_own_and_write_a_folder_each(lab: Lab) -> None:
    """They have nothing to write in each other's, and whoever merges them may read all of them."""
    source = "id -u; cd $0/$NOMADS_INDEX; echo $NOMADS_INDEX >number; ! touch ../spoiled"
    blocks = f"{FOLDER}/blocks"
    lab.backend.compute.submit(replace(lab.work("many", source, folder=blocks), count=4))
    many = lab.ends("many")
    who = {line for number in range(4) for line in lab.printed(f"many.{number}")[:1]}

    lab.backend.compute.submit(lab.work("merge", "cd $0; cat blocks/*/number > all; rm -r blocks", folder=FOLDER))

    assert many == (JobState.SUCCEEDED, "")
    assert who <= {str(FIRST), str(FIRST + 1)}
    assert lab.ends("merge") == (JobState.SUCCEEDED, "")
    assert lab.backend.results.read(FOLDER, "all", limit=100) == b"0\n1\n2\n3\n"
    assert lab.backend.results.list(FOLDER) == [ResultFile("all", 8)]


@pytest.mark.root
def test_programs_of_an_array_read_the_files_that_are_shared_with_them_and_no_others(lab: Lab) -> None:
    lab.backend.results.write(FOLDER, "blocks/plan.json", [b"{}"])
    lab.backend.results.write(FOLDER, "secret.json", [b"{}"])
    uri = lab.backend.results.uri(FOLDER)
    work = lab.work("job", "cat $0/blocks/plan.json; echo; cat $0/secret.json; ls $0/blocks")
    lab.backend.compute.submit(replace(work, count=1, results=f"{uri}blocks/1/", shared=f"{uri}blocks/"))

    assert lab.ends("job")[0] is JobState.FAILED
    first, *refused = lab.printed(lab.backend.compute.child("job", 0))
    assert first == "{}"
    assert len(refused) == 2
    assert all("Permission denied" in line for line in refused)


SECRETS = {
    "the bot's key": "{data}/secret.key",
    "the database": "{data}/nomads.db",
    "the database's journal": "{data}/nomads.db-wal",
    "the bot's environment": "/proc/{bot}/environ",
    "the supervisor's environment": "/proc/$PPID/environ",
    "its own spec": "{data}/runs/job/spec.json",
    "another job's log": "{data}/runs/other/log",
    "another job's results": "{data}/results/{other}/secret",
    "another program's environment": "/proc/{program}/environ",
}


@pytest.mark.root
@pytest.mark.parametrize("secret", SECRETS)
def test_a_program_cannot_read(lab: Lab, secret: str) -> None:
    """Neither the bot's secrets nor another job's, whose token is in its environment."""
    other = "other/a1b2c4"
    lab.backend.compute.submit(lab.work("other", "echo secret > $0/secret; echo $$; exec sleep 600", folder=other))
    until(lambda: len(lab.printed("other")) == 1, what="the other program")
    (lab.data / "nomads.db-wal").touch(mode=0o600)
    path = SECRETS[secret].format(data=lab.data, bot=os.getpid(), other=other, program=lab.printed("other")[0])

    lab.backend.compute.submit(lab.work("job", f'cat "{path}" && echo READ'))
    state, reason = lab.ends("job")
    lab.backend.compute.cancel("other", reason="enough")
    lab.ends("other")

    assert state is JobState.FAILED
    assert "denied" in reason
    assert "READ" not in lab.printed("job")


@pytest.mark.root
def test_a_program_s_environment_holds_what_it_needs_and_no_more(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLACK_BOT_TOKEN", "NOMADS_SECRET_KEY", "NOMADS_DATABASE_URL", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-the-bot")
    lab.backend.compute.submit(lab.work("job", "env; touch $HOME/here $TMPDIR/there"))

    assert lab.ends("job") == (JobState.SUCCEEDED, "")
    names = {line.partition("=")[0] for line in lab.printed("job")}
    assert {"PATH", "BOSS_TOKEN", "HOME", "TMPDIR", "NOMADS_RUN"} <= names
    assert not any(name.startswith(("SLACK", "AWS", "NOMADS_S", "NOMADS_D")) for name in names)
    assert not any("of-the-bot" in line for line in lab.printed("job"))
    assert list((lab.data / "scratch").iterdir()) == []


@pytest.mark.root
def test_nothing_of_that_user_is_alive_at_the_end_of_a_job(lab: Lab) -> None:
    """Not even a process that has thrown away its mark, and whose supervisor was killed."""
    source = (
        "setsid env -i sh -c 'trap \"\" TERM; echo $$; while :; do sleep 600; done' & sleep 1; echo $PPID; sleep 600"
    )
    lab.backend.compute.submit(lab.work("job", source))
    until(lambda: len(lab.printed("job")) == 2, what="the escaped process")
    child, supervisor = (int(line) for line in lab.printed("job"))
    assert Path(f"/proc/{child}").stat().st_uid == FIRST
    os.kill(supervisor, 9)

    assert lab.ends("job")[0] is JobState.FAILED

    alive = [path for path in Path("/proc").glob("[0-9]*") if _user(path) == FIRST]
    assert alive == []


def _user(process: Path) -> int:
    try:
        status = (process / "status").read_text()
    except OSError:
        return -1
    uid = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
    return -1 if "State:\tZ" in status else int(uid)


@pytest.mark.root
def test_a_link_that_a_program_leaves_is_no_result_and_changes_nobody_s_file(lab: Lab) -> None:
    top = lab.data / "results" / FOLDER
    lab.backend.compute.submit(lab.work("job", f"ln -s {lab.data}/secret.key $0/soft; echo x > $0/fine"))
    assert lab.ends("job") == (JobState.SUCCEEDED, "")
    (top / "hard").hardlink_to(lab.data / "secret.key")  # as where the kernel does not protect hard links

    assert lab.backend.results.list(FOLDER) == [ResultFile("fine", 2)]
    for name in ("soft", "hard"):
        with pytest.raises(NotFound):
            lab.backend.results.read(FOLDER, name, limit=100)
    assert stat.S_IMODE((lab.data / "secret.key").stat().st_mode) == 0o600


@pytest.mark.root
@pytest.mark.parametrize("setting", ["no-such-user", "0", "1"])
def test_a_user_that_programs_cannot_have_stops_the_start(data: Path, setting: str) -> None:
    """User 2, of the second place, is another service's on every Debian."""
    with pytest.raises(NomadsError, match=f"NOMADS_LOCAL_USER: programs cannot run as {setting}: .+ Mend that"):
        Lab(data, local_user=setting)


@pytest.mark.root
def test_programs_that_others_cannot_reach_stop_the_start_where_a_user_is_named(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.parent.chmod(0o700)

    with pytest.raises(NomadsError, match="other users cannot enter"):
        Lab(data, local_user=str(FIRST))
    assert "Programs are trusted with everything" in Lab(data).backend.announcement


@pytest.mark.root
def test_root_runs_programs_as_other_users_without_being_told_to(data: Path) -> None:
    assert "trusted" not in Lab(data).backend.announcement
    assert "NOMADS_LOCAL_USER is off" in Lab(data, local_user="off").backend.announcement


def test_a_bot_that_may_not_change_users_says_in_one_sentence_that_programs_are_trusted(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.local.confinement._missing_rights", lambda: "CAP_SETUID")

    [_, _, sentence, *rest] = Lab(data).backend.announcement.split(". ")
    assert sentence.startswith("Programs are trusted with everything: ")
    assert sentence.endswith("since the bot is not root and lacks CAP_SETUID.")
    assert rest == []
    with pytest.raises(NomadsError, match="CAP_SETUID"):
        Lab(data, local_user=str(FIRST))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[LocalComputeRig]:
    rig = LocalComputeRig(tmp_path)
    yield rig
    rig.close()


LIMITED = {
    "memory": (Limits(memory=200_000_000), "x = bytearray(10**9)", "MemoryError"),
    "open files": (Limits(files=64), "f = [open('/dev/null') for _ in range(100)]", "Too many open files"),
    "one file": (Limits(disk=10**6), "open(sys.argv[1], 'wb').write(b'x' * 10**7)", "File too large"),
    "the log": (
        Limits(log=10**6),
        "print('x' * 2 * 10**6, flush=True); time.sleep(600)",
        "more than its limit of 1 MB",
    ),
    "all files": (
        Limits(disk=10**6),
        "for n in range(3): open(f'{sys.argv[1]}/{n}', 'wb').write(b'x' * 700_000)\ntime.sleep(600)",
        "their limit of 1 MB",
    ),
}


@pytest.mark.parametrize("limit", LIMITED)
def test_a_program_is_held_to_its_limit_of(rig: LocalComputeRig, tmp_path: Path, limit: str) -> None:
    limits, source, told = LIMITED[limit]
    folder = tmp_path / "results" / "key" / "job"
    target = folder / "big" if limit == "one file" else folder
    work = rig.script("job", f"import sys, time\n{source}", str(target))
    object.__setattr__(work, "results", folder.as_uri() + "/")

    rig.limited(limits).submit(work)

    assert told in rig.wait("job").reason


@pytest.mark.root
def test_a_program_is_held_to_its_limit_of_processes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(data, local_user=str(FIRST), local_processes=8)
    monkeypatch.undo()

    lab.backend.compute.submit(lab.work("job", "for n in 1 2 3 4 5 6 7 8 9; do sleep 600 & done; echo all"))
    lab.ends("job")

    assert "all" not in lab.printed("job")


def test_what_a_program_writes_is_for_its_owner_and_group_whatever_the_bot_s_umask(
    rig: LocalComputeRig, tmp_path: Path
) -> None:
    folder = tmp_path / "results" / "key" / "job"
    source = "import os, sys; os.umask(0); os.mkdir(sys.argv[1] + '/deep'); open(sys.argv[1] + '/deep/file', 'w')"
    work = rig.script("job", source, str(folder))
    object.__setattr__(work, "results", folder.as_uri() + "/")
    before = os.umask(0)
    try:
        rig.compute.submit(work)
    finally:
        os.umask(before)
    assert rig.wait("job").state is JobState.SUCCEEDED

    assert stat.S_IMODE((folder / "deep/file").stat().st_mode) == 0o640
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "deep")} == {0o750}
    for path in rig.folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_database_and_key_are_for_their_owner_alone_whatever_the_umask_and_old_files_are_tightened(
    tmp_path: Path,
) -> None:
    old = tmp_path / "results" / "key" / "job"
    old.mkdir(parents=True)
    (old / "file").touch()
    (tmp_path / "runs" / "job").mkdir(parents=True)
    (tmp_path / "runs" / "job" / "log").touch()
    for path in tmp_path.rglob("*"):
        path.chmod(0o777)
    before = os.umask(0)
    try:
        lab = Lab(tmp_path, local_user="off")
        engine = connect(f"sqlite:///{tmp_path / 'nomads.db'}")
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE anything (number INTEGER)")
            files = sorted(path.name for path in tmp_path.glob("nomads.db*"))
            modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("nomads.db*")}
        engine.dispose()
    finally:
        os.umask(before)

    assert (files, modes) == (["nomads.db", "nomads.db-shm", "nomads.db-wal"], {0o600})
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600
    wanted = {"results": 0o750, "results/key/job": 0o750, "results/key/job/file": 0o640}
    wanted |= {"runs": 0o700, "runs/job": 0o700, "runs/job/log": 0o600}
    assert {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in wanted} == wanted
    assert lab.backend.results.read("key/job", "file", limit=1) == b""


@pytest.mark.root
def test_settings_that_programs_could_read_are_closed_to_them_at_the_start(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = data.parent / ".env"
    settings.write_text("NOMADS_LOG_LEVEL=INFO\n")
    settings.chmod(0o644)
    monkeypatch.chdir(data.parent)

    said = Lab(data).backend.announcement

    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    assert f"could read {settings}; NOMADS has made it 600." in said
    assert str(settings) not in Lab(data).backend.announcement


@pytest.mark.root
def test_settings_of_somebody_else_s_that_programs_can_read_are_named_with_what_to_do(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = data.parent / ".env"
    settings.write_text("NOMADS_LOG_LEVEL=INFO\n")
    settings.chmod(0o644)
    os.chown(settings, FIRST + 7, FIRST + 7)
    monkeypatch.chdir(data.parent)

    assert f"chmod 600 {settings}" in Lab(data).backend.announcement
    assert stat.S_IMODE(settings.stat().st_mode) == 0o644


def test_a_data_folder_that_everybody_may_write_to_is_closed_to_them(data: Path) -> None:
    data.chmod(0o777)

    assert f"could write to {data}; NOMADS has made it 755." in Lab(data, local_user="off").backend.announcement
    assert stat.S_IMODE(data.stat().st_mode) == 0o755
