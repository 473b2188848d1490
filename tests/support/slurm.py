"""A cluster on this machine: Slurm's own controller and two nodes of it, from Debian's packages, all on loopback.

    with cluster() as slurm:
        slurm.use(monkeypatch)          # Slurm's commands find it
        with slurm.down(): ...          # its controller does not answer

It takes root, a second to start, and nothing of the machine's own Slurm: keys, ports, sockets and logs are its own.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.contract.rigs import free_port
from tests.support.waiting import until

COMMANDS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
MIN_JOB_AGE = 2
"""Seconds for which the controller remembers a job that has ended, at least."""
MAX_ARRAY_SIZE = 1001
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONF = """
ClusterName=nomads
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CryptoType=crypto/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
MinJobAge={min_job_age}
MaxArraySize={max_array_size}
KillWait=2
MessageTimeout=10
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=4 RealMemory=16000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=4 RealMemory=16000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes=n1 State=DOWN
"""


def is_there() -> bool:
    """Whether this machine can play a cluster."""
    return os.geteuid() == 0 and all(shutil.which(command, path=_PATH) for command in COMMANDS)


class Cluster:
    """Slurm at work in a folder of its own."""

    def __init__(self, folder: Path, until_the_end: ExitStack) -> None:
        self.folder = folder
        self._until_the_end = until_the_end
        self._environment = {"PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf"), "LC_ALL": "C"}
        self._controller: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start everything, and wait until both nodes are idle."""
        for name in ("state", "n1", "n2"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        conf = _CONF.format(
            host=socket.gethostname().partition(".")[0],
            folder=self.folder,
            port=free_port(),
            first=free_port(),
            second=free_port(),
            min_job_age=MIN_JOB_AGE,
            max_array_size=MAX_ARRAY_SIZE,
        )
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # nodes do not start without a plugin
        places = [f"--{name}={self.folder}/munge.{name.partition('-')[0]}" for name in ("pid-file", "log-file")]
        places += [f"--seed-file={self.folder}/munge.seed", f"--socket={self.folder}/munge.sock", f"--key-file={key}"]
        self._begin("munged", "--foreground", "--force", *places)
        until((self.folder / "munge.sock").exists, what="munged")
        self._controller = self._begin("slurmctld", "-D")
        for node in ("n1", "n2"):
            self._begin("slurmd", "-D", "-N", node)
        until(lambda: self.say("sinfo", "-h", "-o", "%T", "-p", "main").split() == ["idle"], what="the nodes")

    def _begin(self, *command: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{command[0]}.out", "ab") as output:
            process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder
            )
        self._until_the_end.callback(_end, process)
        return process

    def say(self, *command: str) -> str:
        """What one of Slurm's commands prints, on both its outputs."""
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False, timeout=30)
        return done.stdout + done.stderr

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the commands that this test runs find the cluster."""
        monkeypatch.setenv("SLURM_CONF", self._environment["SLURM_CONF"])
        monkeypatch.setenv("PATH", f"{os.environ.get('PATH', '')}:{_PATH}")

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let the controller take connections and answer nobody."""
        self._controller.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._controller.send_signal(signal.SIGCONT)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Let there be no controller. What it knew it knows afterwards."""
        _end(self._controller)
        try:
            yield
        finally:
            self._controller = self._begin("slurmctld", "-D")
            until(lambda: "is UP" in self.say("scontrol", "ping"), what="the controller")

    @contextmanager
    def full(self) -> Iterator[None]:
        """Let no node take a job."""
        self.say("scontrol", "update", "NodeName=n1,n2", "State=DRAIN", "Reason=full")
        try:
            yield
        finally:
            self.say("scontrol", "update", "NodeName=n1,n2", "State=RESUME")

    @contextmanager
    def broken(self, node: str) -> Iterator[None]:
        """Let the node be down, with all that runs there."""
        self.say("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=broken")
        try:
            yield
        finally:
            self.say("scontrol", "update", f"NodeName={node}", "State=RESUME")

    def clear(self) -> None:
        """End every job."""
        self.say("scancel", "--user=root")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster, which ends with the block; so do its jobs."""
    with ExitStack() as until_the_end:
        folder = Path(tempfile.mkdtemp(prefix="nomads-slurm-", dir="/tmp"))  # a socket's path may not be long
        until_the_end.callback(shutil.rmtree, folder, ignore_errors=True)
        slurm = Cluster(folder, until_the_end)
        slurm.start()
        yield slurm
        slurm.clear()
        until(lambda: slurm.say("squeue", "-h", "-t", "R,CG").strip() == "", what="the end of the last jobs")
