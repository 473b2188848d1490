"""Both pipelines through `/nomads submit`, as processes of their own, on eight channels."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bot.domain.states import JobState
from bot.settings import ROOT
from sandbox.house import House
from sandbox.volumes import cortex
from tests.support.processes import Lab
from tests.support.puncta import match
from tests.support.waiting import PATIENCE


@pytest.mark.parametrize(
    ("pipeline", "counted"),
    [("nomads-unsupervised", {"synapses"}), ("nomads-classifier", {"synapses", "GABA", "non-GABA", "not classified"})],
)
def test_it_succeeds_and_its_thread_shows_counts_and_a_preview(
    tmp_path: Path, pipeline: str, counted: set[str]
) -> None:
    small = cortex(shape=(32, 288, 288))  # the usual one takes half a minute to be drawn and registered
    with (
        House(ack_timeout=PATIENCE, demo=small) as house,
        Lab(house, tmp_path, NOMADS_PIPELINES=str(ROOT / "pipelines")) as lab,
    ):
        lab.start()
        lab.submit(pipeline=pipeline, x="0,256", y="0,256", z="0,32")
        lab.settle()

        job = lab.newest
        assert job.state is JobState.SUCCEEDED, (job.reason, job.log_tail)
        assert job.summary is not None
        assert counted | {"voxels in synapses"} == set(job.summary.counts)
        told = "\n".join(lab.thread(job))
        assert all(f"{job.summary.counts[name]} {name}" in told for name in counted)
        pictures = [file for message in house.slack.messages("#synapses") for file in message.get("files") or []]
        assert [file["title"] for file in pictures] == ["Preview of the detections"]

        with (lab.results(job) / "synapses.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        sure = [row for row in found if float(row["false_discovery_rate"]) <= 0.05]  # a quarter of all may be by chance
        places = [[float(row[axis]) for axis in "zyx"] for row in sure]
        truth = small.truth_within((0, 0, 0), (32, 256, 256))
        assert min(match(places, truth)) > 0.93  # those cut by the border count against it
