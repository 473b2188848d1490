"""A job in blocks from the form to its results, whose programs are taken back, fail for good, and are told of late."""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bot.domain.job import Job
from bot.domain.states import FINAL, JobState
from bot.domain.work import Cause, Observation, Work
from bot.storage.engine import Database
from contract.program import BLOCKS, FIRST, PLAN, RESULTS
from tests.support.memory import MemoryCompute
from tests.support.world import World, in_blocks

SIDE = 10_000
"""Voxels of the volume along each axis: 10**12 in all."""
RECLAIMED = Observation(JobState.FAILED, "The machine was taken back.", cause=Cause.MACHINE)
BROKEN = Observation(JobState.FAILED, "The program ended with exit code 1.", exit_code=1)
TURNS = 12
"""Looks at a round until all of its programs have ended, about."""


class LateCompute(MemoryCompute):
    """Says now and then what it said some looks ago, and lists the programs of an array in no order."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self._draw = draw
        self._said: deque[Mapping[str, Observation]] = deque(maxlen=4)

    def observe(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        now = super().observe(ids)
        self._said.append(now)
        old = self._draw.choice(self._said) if self._draw.random() < 0.3 else now
        return {name: old.get(name, seen) for name, seen in now.items()}

    def children(self, compute_id: str, *, states: Collection[JobState] | None = None) -> Mapping[int, Observation]:
        found = list(super().children(compute_id, states=states).items())
        self._draw.shuffle(found)
        return dict(found + found[: len(found) // 2])


@dataclass(frozen=True)
class Ended:
    """How the job ended, and what it took."""

    job: Job
    missing: tuple[int, ...]
    """The blocks that no program has done."""
    broken: tuple[int, ...]
    """The blocks at which every program fails."""
    thread: Sequence[str]
    calls: Mapping[str, Counter[str]]
    """Calls of each port."""


def simulated(store: Database, *, blocks: int, reclaimed: float = 0.02, broken: float = 0.001, seed: int = 0) -> Ended:
    """Run a job of so many blocks; parts of the programs are `reclaimed`, and of the blocks `broken`."""
    return _Simulation(store, blocks, reclaimed, broken, random.Random(seed)).run()


class _Simulation:
    def __init__(self, store: Database, blocks: int, reclaimed: float, broken: float, draw: random.Random) -> None:
        self._draw, self._blocks, self._reclaimed = draw, blocks, reclaimed
        self._broken = frozenset(draw.sample(range(blocks), round(broken * blocks)))
        self._left = list(range(blocks))
        self._compute = LateCompute(draw)
        self._world = World(
            store,
            compute=self._compute,
            pipeline=in_blocks(),
            block_voxels=SIDE**3 // blocks,
            reads=2 * blocks,
            edit_every=5,
        )
        sides = ((0, SIDE), (0, SIDE), (0, SIDE))
        self._world.volumes.add("demo", "whole", bounds=sides, channels={"PSD95": "uint8", "Synapsin": "uint8"})

    def run(self) -> Ended:
        world, everything = self._world, f"0,{SIDE}"
        job = world.accept(experiment="whole", x=everything, y=everything, z=everything)
        world.settle()
        while (now := world.job(job)).state not in FINAL:
            self._stage(now, self._compute.works[-1])
        world.settle()
        ports = {
            "compute": self._compute,
            "results": world.results,
            "chat": world.chat,
            "mail": world.mailer,
            "volumes": world.volumes,
        }
        calls = {name: Counter(port.calls) for name, port in ports.items()}
        missing = tuple(self._left)
        return Ended(world.job(job), missing, tuple(sorted(self._broken)), list(world.thread), calls)

    def _stage(self, job: Job, work: Work) -> None:
        """Let the programs of the present stage run to their ends."""
        words = dict(zip(work.arguments[::2], work.arguments[1::2], strict=True))
        compute_id = f"memory-{len(self._compute.works)}"
        if words["--stage"] == BLOCKS:
            self._round(compute_id, work.count or 1)
            return
        self._compute.tell(compute_id, Observation(JobState.RUNNING))
        self._look()
        results = self._world.results
        if words["--stage"] == FIRST:
            plan = {"blocks": self._blocks, "reads": SIDE**3 * 5 // 4, "pilot": None}
            results.put(job.folder, PLAN, json.dumps(plan).encode())
        else:
            lost = f"{len(self._left):,} of {self._blocks:,} blocks are missing."
            found = {"counts": {"synapses": 5}, "notes": [lost] if self._left else []}
            results.put(job.folder, RESULTS, json.dumps(found).encode())
        self._compute.tell(compute_id, Observation(JobState.SUCCEEDED, exit_code=0))
        self._look()

    def _round(self, array: str, programs: int) -> None:
        """Let each program work on its share of the blocks that are left, all ending at some time."""
        due, done = self._left, set[int]()
        ends: list[list[tuple[int, Observation]]] = [[] for _ in range(TURNS)]
        for number in range(programs):
            seen = Observation(JobState.SUCCEEDED, exit_code=0)
            mine = due[number::programs]
            if self._draw.random() < self._reclaimed:
                seen, mine = RECLAIMED, mine[: len(mine) // 2]
            for block in mine:
                if block in self._broken:
                    seen = BROKEN
                    break
                done.add(block)
            ends[self._draw.randrange(TURNS)].append((number, seen))
        self._left = [block for block in due if block not in done]
        for some in ends:
            for number, seen in some:
                self._compute.tell(self._compute.child(array, number), seen)
            self._look()

    def _look(self) -> None:
        """Let a minute pass in which the watcher looks twice."""
        for _ in range(2):
            self._world.clock.advance(30)
            self._world.worker.watcher.watch_once()
            self._world.settle()
