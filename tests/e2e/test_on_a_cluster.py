"""A job on a cluster, from the form to its results: the real program, on Slurm's own controller and nodes."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from bot.domain.states import JobState
from bot.settings import ROOT
from sandbox.boss import DEMO_TOKEN
from sandbox.house import House
from sandbox.volumes import cortex
from tests.support.processes import Lab
from tests.support.slurm import Cluster
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.slurm


def test_a_job_runs_on_a_cluster_from_the_form_to_its_results(tmp_path: Path, slurm: Cluster) -> None:
    shared = tmp_path / "shared"
    settings = {
        "NOMADS_PIPELINES": str(ROOT / "pipelines"),
        "NOMADS_COMPUTE": "slurm",
        "NOMADS_SLURM_FOLDER": str(shared),
        "NOMADS_SLURM_PARTITION": "main",
        "SLURM_CONF": os.environ["SLURM_CONF"],
        "PATH": os.environ["PATH"],
    }
    small = cortex(shape=(32, 288, 288))  # the usual one's sections take ten times as long to be registered
    with House(ack_timeout=PATIENCE, demo=small) as house, Lab(house, tmp_path, **settings) as lab:
        lab.start()
        lab.submit(pipeline="nomads-unsupervised", x="0,256", y="0,256", z="0,16")
        lab.settle()
        job = lab.newest
        told = "\n".join(lab.thread(job))
        doctor = lab.here("doctor")

    assert job.state is JobState.SUCCEEDED, (job.reason, job.log_tail)
    assert job.summary is not None
    assert f"{job.summary.counts['synapses']} synapses" in told
    assert [file.name for file in lab.slack.files if file.shared] == [f"{job.id}-preview.png"]
    [results] = (shared / "results").glob("*/*")
    with (results / "synapses.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) >= job.summary.counts["synapses"]
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in kept if DEMO_TOKEN.encode() in path.read_bytes()] == []
    assert "slurm controller: ok" in doctor.out
    assert "shared folder: ok here" in doctor.out
