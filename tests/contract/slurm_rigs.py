"""The rig of `rigs.py` for Slurm, whose programs run on a real cluster of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bot.files.logs import FolderLogs
from bot.files.runs import folder_of
from bot.slurm.compute import LAG, SlurmCompute, is_over
from bot.slurm.config import SlurmConfig
from tests.contract.rigs import LocalComputeRig, command_lines
from tests.support.memory import MemorySecrets
from tests.support.slurm import Cluster
from tests.support.waiting import until


class SlurmComputeRig(LocalComputeRig):
    """SlurmCompute with the programs of LocalComputeRig, on two nodes."""

    def __init__(self, folder: Path, cluster: Cluster, **settings: Any) -> None:
        self.cluster = cluster
        self.control = folder / "control"
        self.control.mkdir()
        self.secrets = MemorySecrets()
        self.config = SlurmConfig(_env_file=None, folder=folder / "shared", **settings)
        self.folder = self.config.folder / "runs"
        self.compute = self.another()  # type: ignore[assignment]
        self.logs = FolderLogs(folder=self.folder, is_over=is_over)

    def another(self, *, lag: float = LAG, **settings: Any) -> SlurmCompute:  # type: ignore[override]
        """A second adapter on the same folder, as after a restart; `settings` override those of the rig."""
        config = self.config.model_copy(update=settings)
        return SlurmCompute(config=config, tokens=self.secrets, root=self.control, lag=lag)

    def run(self, compute_id: str) -> None:
        begun = (folder_of(self.folder, compute_id) or self.folder) / "begun"
        until(begun.exists, what=f"{compute_id} on its node")  # cheaper than asking Slurm all the time
        super().run(compute_id)

    def exposed(self) -> str:
        cluster = self.cluster
        listings = [cluster.say("scontrol", "-dd", "show", "job"), cluster.say("squeue", "-t", "all", "-o", "%all")]
        jobs = [path.read_text() for path in self.folder.glob("*/job")]
        scripts = [cluster.say("scontrol", "write", "batch_script", job, "-") for job in jobs]
        return "\n".join([*command_lines(), *listings, *scripts, *_texts(self.folder)])

    def close(self) -> None:
        """Leave no program behind."""
        self.cluster.clear()


def _texts(folder: Path) -> list[str]:
    return [path.read_text() for path in folder.rglob("*") if path.is_file()]
