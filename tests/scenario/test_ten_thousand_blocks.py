"""Jobs of very many blocks end right, and cost few calls of compute."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import pytest

from bot.aws.batch import BatchCompute
from bot.domain.states import JobState
from bot.domain.work import Observation, Work, at_once
from bot.storage.engine import Database
from contract.program import PLAN
from tests.support.aws import aws_world, give
from tests.support.memory import MemoryCompute
from tests.support.simulation import simulated
from tests.support.world import World, in_blocks

JOBS = 100
BLOCKS = 10_000


@pytest.mark.parametrize("seed", [0, 1])
def test_a_job_whose_programs_are_taken_back_and_told_of_late_misses_what_fails_for_good_alone(
    store: Database, seed: int
) -> None:
    ended = simulated(store, blocks=400, broken=0.01, seed=seed)

    assert ended.job.state is JobState.SUCCEEDED
    assert len(ended.broken) == 4
    assert ended.missing == ended.broken
    assert ended.job.blocks
    assert ended.job.blocks.rounds[0] == 400
    assert ended.job.blocks.rounds[-1] == 4  # the third round, in which those alone are left
    assert ended.job.summary
    assert ended.job.summary.notes == ["4 of 400 blocks are missing."]
    assert any(said.startswith("4 programs failed") and "given up" in said for said in ended.thread)
    calls = ended.calls["compute"]
    assert (calls["submit"], calls["children"]) == (5, 3)  # first look, three rounds, merge


def test_a_job_of_ten_thousand_blocks_costs_as_many_submissions_as_a_small_one(store: Database) -> None:
    ended = simulated(store, blocks=BLOCKS, broken=0, reclaimed=0)

    assert ended.job.state is JobState.SUCCEEDED
    assert ended.missing == ()
    assert ended.calls["compute"]["submit"] == 3


class AsBatch(MemoryCompute):
    """Takes jobs as MemoryCompute does, and asks AWS Batch about them under ids of its kind."""

    def __init__(self, batch: BatchCompute) -> None:
        super().__init__()
        self._batch = batch
        self.programs = 0

    def submit(self, work: Work, *, turn: Callable[[], None] = at_once) -> str:
        self.programs += work.count or 0
        return super().submit(replace(work, count=None), turn=turn)  # its programs are AWS Batch's alone

    @staticmethod
    @cache
    def name(compute_id: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, compute_id))

    def observe(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        names = {self.name(one): one for one in ids}
        return {names[name]: seen for name, seen in self._batch.observe(list(names)).items()}


def test_a_hundred_jobs_of_ten_thousand_blocks_are_watched_with_one_call_a_round(store: Database) -> None:
    with aws_world() as aws:
        compute = AsBatch(aws.compute())
        world = World(store, compute=compute, pipeline=in_blocks(), block_voxels=10_000, reads=10**8, mails=False)
        jobs = [world.accept(actor=f"U{number:04}") for number in range(JOBS)]
        world.settle()
        firsts = [compute.find(work.name) or "" for work in compute.works]
        for job in jobs:
            world.results.put(job.folder, PLAN, json.dumps({"blocks": BLOCKS, "reads": 9, "pilot": None}).encode())
        says: dict[str, list[dict[str, object]]] = {}
        says["jobs"] = [{"jobId": compute.name(one), "status": "SUCCEEDED"} for one in firsts]
        give(aws.clients.batch, "batch.DescribeJobs", says)
        world.worker.watcher.watch_once()
        world.settle()
        arrays = [compute.find(work.name) or "" for work in compute.works[JOBS:]]
        assert compute.programs == JOBS * BLOCKS

        for done in (0, 2_000, 4_000, 9_990):
            aws.sent.clear()
            summary = {"RUNNABLE": BLOCKS - done - 3, "RUNNING": 2, "FAILED": 1, "SUCCEEDED": done}
            seen = {"status": "PENDING", "arrayProperties": {"size": BLOCKS, "statusSummary": summary}}
            says["jobs"] = [{"jobId": compute.name(one), **seen} for one in arrays]
            world.clock.advance(10)
            world.worker.watcher.watch_once()
            assert aws.operations == ["batch.DescribeJobs"]

        assert compute.calls.count("children") == 0
        said = [world.job(job).blocks for job in jobs]
        assert {blocks.done if blocks else 0 for blocks in said} == {9_990}
