"""A job in blocks: a volume that is too large for one program is cut, worked on by many, and merged.

The stages are those of `contract.program`. A stage is one submission to compute: the first look, a round over the
blocks (an array), or the merge. What a round leaves undone, the next one does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictInt, ValidationError

from bot.domain import words
from bot.domain.states import JobState
from bot.domain.summary import Summary
from bot.domain.volume import Box
from bot.domain.work import Cause, Observation
from contract.program import BLOCKS, FIRST, MERGE

if TYPE_CHECKING:
    from bot.domain.job import Expected

PILOT, ASKED = "pilot", "asked"
"""Stages of the bot's own between the first look and the blocks: one block is worked on and shown, as any job of one
block is; then whoever may steer the job is asked whether it goes on. No program of the job runs while it is asked."""
PILOT_FROM = 8
"""Blocks of a job for which a pilot is worth the wait."""
FOR_ALL = (Cause.REQUEST, Cause.REFUSED, Cause.IMAGE, Cause.SECRET, Cause.ROLE, Cause.SETUP)
"""What made one program of a round fail, and would make all of them fail."""
LONGEST = 1e10
"""Seconds, three centuries: what takes longer is told as that."""
MANY = 10**6
"""Blocks that any box may be cut into."""
ROUNDS = 3
"""Rounds over the blocks, at most: a block that fails so often fails for good."""
TRIES = 3
"""Tries of a stage of one program, at most, where its machine was taken back or its memory was too small."""
MOST_MEMORY = 2**24
"""MiB that compute is asked for, at most: no machine has more."""
LONGEST_MERGE = 30 * 86400
"""Seconds that a merge may take, at most."""
TOLD_MEMORY = 4 * 2**10
"""MiB from which on it is told what a merge needs."""
MORE_MEMORY = 2
"""Times the memory of a round, where programs of the last one ran out of it; once."""
_ALONE = {FIRST: "The first look", PILOT: "The pilot", MERGE: "The merge"}
"""The stages of one program, in words."""
_BETTER = {
    Cause.MEMORY: "its memory was too small",
    Cause.MACHINE: "its machine was taken back or broke down",
    Cause.DISK: "the disk of its machine was full",
}
"""What made a program fail that may go better, and why it did, in words."""
_ANEW: dict[str, object] = {"tries": 1, "memory": 1, "lasting": False}
"""What the first look and the pilot have needed, the next stage need not have."""
SHARES = {FIRST: (0.0, 0.05), PILOT: (0.05, 0.05), ASKED: (0.05, 0.05), BLOCKS: (0.05, 0.9), MERGE: (0.9, 1.0)}
"""The part of a job's work, from 0 to 1, at which each stage begins and ends, about."""


class Unplanned(ValueError):
    """What the first look has left is no plan. The text is one sentence for a person."""


class Blocks(BaseModel):
    """How far a job in blocks is."""

    model_config = ConfigDict(frozen=True)

    stage: str = FIRST
    rounds: tuple[int, ...] = ()
    """How many programs each round over the blocks has; the last one is the present one."""
    all: int = 0
    """How many blocks there are; 0: that is not known yet."""
    reads: int = 0
    """Voxels of a channel that all of them read, margins counted."""
    merge_memory: int = 0
    """MiB that the merge needs, by the first look; 0: no more than a block."""
    merge_seconds: int = 0
    """Seconds that the merge may need, by the first look; 0: no more than a block."""
    done: int = 0
    """How many blocks are done, about: programs that have several tell of none before they end."""
    running: int = 0
    """How many blocks are being worked on now, about."""
    failed: int = 0
    """How many blocks have failed in the present round, about; after the last round, for good."""
    again: int = 0
    """How many programs were tried again."""
    lasting: bool = False
    """Whether programs run on machines that are not taken back, since one failed for its machine, or a program that is
    tried again."""
    tries: int = Field(1, validation_alias=AliasChoices("tries", "merges"))
    """How often the present stage is tried, this time included, where it is one program. Rows of earlier releases have
    it of the merge alone, as `merges`."""
    memory: int = 1
    """By how much the memory of the present stage is multiplied."""
    wanted: bool = False
    """Whether a pilot is run, and the job goes on only when somebody says so."""
    pilot: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None
    """The box of the pilot, z, y, x."""
    took: float = 0
    """Seconds that the pilot ran."""
    shown: str = ""
    """What is told of the pilot, and asked."""
    preview: str = ""
    """The pilot's preview, in the job's folder; empty: it left none."""
    origin: str = ""
    """The results folder of the job whose blocks are gone on with; empty: the job's own."""
    earlier: int = 0
    """How many of the rounds other jobs have made."""
    why: Cause = Cause.UNKNOWN
    """What made the present stage fail, where it is one program that is tried again."""
    ended: tuple[str, ...] = ()
    """The compute ids of the stages that have ended, in order."""

    @property
    def label(self) -> str:
        """Names the present stage within the job: letters and digits."""
        number = len(self.rounds) if self.stage == BLOCKS else self.tries if self.tries > 1 else ""
        return f"{self.stage}{number}"

    @property
    def last(self) -> bool:
        """Whether the job ends with the present stage."""
        return self.stage == MERGE

    @property
    def alone(self) -> str:
        """The present stage in words, where it is one program; else empty."""
        return _ALONE.get(self.stage, "")

    def goes_on(self, seen: Observation) -> bool:
        """Whether another stage may follow the present one, of which that was seen."""
        if self.stage == BLOCKS:
            return seen.state in (JobState.SUCCEEDED, JobState.FAILED)
        if seen.state is JobState.FAILED and self.alone:
            return seen.why in _BETTER and self.tries < TRIES
        return seen.state is JobState.SUCCEEDED and self.stage in (FIRST, PILOT)

    @property
    def missed(self) -> str:
        """Why the present stage is to be tried again, as the thread is told; empty: it is not.

        A pilot that nobody waits for any more is not tried again.
        """
        if not self.alone or self.why not in _BETTER:
            return ""
        failed = f"{self.alone} failed, as {_BETTER[self.why]}"
        spared = self.stage == PILOT and not self.wanted
        return f"{failed}; the job goes on without it." if spared else f"{failed}, and is tried again."

    def planned(self, content: bytes, box: Box, *, most: int) -> Blocks:
        """With the pilot or the first round, as the first look's plan of the box has it.

        A round has `most` programs at most. Raises Unplanned.
        """
        try:
            plan = _Plan.model_validate(json.loads(content))
        except (ValueError, ValidationError, RecursionError):
            raise Unplanned("The first look at the volume has left no plan that can be read.") from None
        # a block may lie beside the box, in what is searched around it
        if not 1 <= plan.blocks <= MANY + box.voxels or plan.reads < 1:
            raise Unplanned("The first look at the volume has left a plan whose blocks cannot be right.")
        update: dict[str, object] = {"rounds": (min(plan.blocks, most),), "all": plan.blocks, "reads": plan.reads}
        update |= {"merge_memory": plan.needs("memory", most=MOST_MEMORY), "stage": BLOCKS}
        update |= {"merge_seconds": plan.needs("seconds", most=LONGEST_MERGE)} | _ANEW
        sides = [box.z, box.y, box.x]
        inside = plan.pilot and all(
            side.start <= low < high <= side.stop for side, (low, high) in zip(sides, plan.pilot, strict=True)
        )
        if self.wanted and inside and plan.blocks >= PILOT_FROM:
            return self.model_copy(update={**update, "stage": PILOT, "pilot": plan.pilot})
        return self.model_copy(update={**update, "wanted": False})

    def piloted(self, said: str, *, preview: str) -> Blocks:
        """After the pilot, of which that is said; it is asked whether the job goes on, if that is wanted still."""
        stage = ASKED if self.wanted else BLOCKS
        return self.model_copy(update={**_ANEW, "stage": stage, "shown": said, "preview": preview})

    def go(self) -> Blocks:
        """With the leave to go on: at once, if it was asked for; else as soon as the pilot has ended."""
        stage = BLOCKS if self.stage == ASKED else self.stage
        return self.model_copy(update={"wanted": False, "stage": stage})

    def spared(self) -> Blocks:
        """Without a pilot, where somebody has said so while the stage before it ended."""
        more = {**_ANEW, "stage": BLOCKS} if self.stage in (PILOT, ASKED) else {}
        return self.model_copy(update={"wanted": False, **more})

    def after(self, failed: Mapping[int, Observation]) -> tuple[Blocks, Observation | None]:
        """The stage after a round of which these programs failed; and what fails the job instead, if anything does.

        Another round is for what may go better: machines taken back, lost programs, too little memory (with more of
        it, once). What all programs would say, as that the request is wrong, or that there is no image, ends the job.
        """
        wrong = next((seen for seen in failed.values() if seen.why in FOR_ALL), None)
        if wrong:
            return self, wrong
        better = [seen for seen in failed.values() if seen.why.passing or seen.why is Cause.MEMORY]
        greedy = any(seen.why is Cause.MEMORY for seen in failed.values())
        hopeless = not better or (self.memory > 1 and all(seen.why is Cause.MEMORY for seen in better))
        if len(self.rounds) - self.earlier >= ROUNDS or hopeless:
            missing = -(-len(failed) * min(self.all, self._due) // self.rounds[-1])
            done = {"done": self.all - missing, "running": 0, "failed": missing}
            return self.model_copy(update={**done, "stage": MERGE, "memory": 1, "why": Cause.UNKNOWN}), None
        many = len(failed) * -(-self.all // self.rounds[0])
        update = {
            "rounds": (*self.rounds, min(many, self.rounds[0])),
            "running": 0,
            "failed": 0,
            "again": self.again + len(failed),
            "memory": MORE_MEMORY if greedy else self.memory,
            "lasting": self.lasting or any(seen.why.elsewhere for seen in failed.values()),
        }
        return self.model_copy(update=update), None

    def tried_again(self) -> Blocks:
        """With another try of a program that failed, for which more memory or another machine may be enough."""
        more = self.memory * MORE_MEMORY if self.why is Cause.MEMORY else self.memory
        return self.model_copy(update={"tries": self.tries + 1, "memory": more, "lasting": True, "why": Cause.UNKNOWN})

    def resumed(self, folder: str, *, missing: int) -> Blocks:
        """A further round over the blocks that are missing, by another job than that of this results folder.

        The first look, where there were no blocks yet, or nobody has let the job go on after its pilot.
        """
        if not self.all or self.wanted:
            return Blocks(wanted=self.wanted)
        again = min(max(1, missing), self.rounds[0])
        return Blocks(
            stage=BLOCKS,
            rounds=(*self.rounds, again),
            all=self.all,
            reads=self.reads,
            merge_memory=self.merge_memory,
            merge_seconds=self.merge_seconds,
            done=max(0, self.all - missing),
            origin=self.origin or folder,
            earlier=len(self.rounds),
        )

    def counted(self, children: Mapping[JobState, int]) -> Blocks:
        """With the blocks in each state, as the states of the present round's programs tell."""
        due = min(self.all, self._due)

        def of(*states: JobState) -> int:
            programs = sum(children.get(state, 0) for state in states)
            return due * programs // max(1, sum(children.values()))

        done = max(self.done, self.all - due + of(JobState.SUCCEEDED))
        failed = min(of(JobState.FAILED, JobState.LOST), self.all - done)
        running = min(of(JobState.RUNNING), self.all - done - failed)
        return self.model_copy(update={"done": done, "failed": failed, "running": running})

    @property
    def states(self) -> dict[str, int]:
        """How many blocks are done, failed, running and waiting, in that order. Compute tells how many, not which."""
        waiting = self.all - self.done - self.failed - self.running
        return {"done": self.done, "failed": self.failed, "running": self.running, "waiting": max(0, waiting)}

    @property
    def _due(self) -> int:
        """How many blocks the present round has, about."""
        if len(self.rounds) == 1:
            return self.all
        return min(self.all, self.rounds[-1])

    def part(self, within: float) -> float:
        """The part of the job's work that is done, where so much of the present stage's is."""
        begin, end = SHARES[self.stage]
        return begin + (end - begin) * within

    @property
    def said(self) -> str:
        """How far it is, in words for a person; empty before the blocks are known."""
        if not self.all:
            return ""
        tried = f", {words.count(self.again)} tried again" if self.again else ""
        return f"{self.done:,} of {words.count(self.all)} {'block' if self.all == 1 else 'blocks'}{tried}"


class _Plan(BaseModel):
    """What the bot reads of the first look's plan."""

    blocks: StrictInt
    reads: StrictInt
    pilot: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None
    merge: object = None
    """What the merge needs: `memory` in MiB, and `seconds`. What is none of these asks for no more than a block."""

    def needs(self, what: str, *, most: int) -> int:
        """What the merge needs of that, and `most` at most."""
        said = self.merge.get(what) if isinstance(self.merge, dict) else None
        return min(max(0, said), most) if isinstance(said, int) else 0


def after_pilot(blocks: Blocks, summary: Summary, box: Box, expected: Expected | None) -> str:
    """What is told of a pilot, with what all blocks would take; the last sentence asks whether the job goes on.

    The time is between what was expected of the box and what the pilot took, for all blocks.
    """
    there = summary.found or "what it found cannot be read"
    told = f"Pilot: one of {words.count(blocks.all)} blocks, {words.voxels(box.voxels)}, was run: {there}."
    seconds = sorted([min(blocks.took * blocks.all, LONGEST), *([expected.seconds] if expected else [])])
    least, most = (words.duration(timedelta(seconds=one)) for one in (seconds[0], seconds[-1]))
    takes = f"{least} to {most}" if least != most else least
    told += f" All blocks take {takes} of machine time"
    if expected and (costs := [expected.cost_of(one) for one in (seconds[0], seconds[-1])]) and None not in costs:
        low, high = (words.money(cost, expected.currency) for cost in costs if cost is not None)
        told += f", {low} to {high}" if low != high else f", {low}"
    return f"{told}. Go or Cancel, on the card."


def lost(failed: Sequence[Observation], expected: Expected | None, *, memory: int) -> str:
    """What programs that failed have used up for nothing, in time and money; empty where nobody knows.

    They had so many times the memory that programs have at first.
    """
    spans = [seen.stopped_at - seen.started_at for seen in failed if seen.started_at and seen.stopped_at]
    span = sum(spans, timedelta())
    if span <= timedelta():
        return ""
    cost = expected.cost_of(span.total_seconds(), memory=memory) if expected else None
    money = f", {words.money(cost, expected.currency)}" if expected and cost is not None else ""
    return f" Lost by that: {words.duration(span)} of machine time{money}."


def told(
    before: Blocks, after: Blocks, failed: Sequence[Observation], *, voxels: int, expected: Expected | None = None
) -> str:
    """What the thread is told when a stage has ended, of whose programs these failed; empty: nothing.

    `voxels` are those of the box.
    """
    if before.stage == FIRST:
        many = f"{words.count(after.all)} {'block' if after.all == 1 else 'blocks'}"
        more = after.reads / voxels - 1
        around = f"; what is read around them adds {more:.0%}" if 0.005 <= more < 100 else ""
        needs = f"; the merge needs {words.size(after.merge_memory * 2**20)} of memory"
        return f"The volume is cut into {many}{around}{needs if after.merge_memory >= TOLD_MEMORY else ''}."
    if not failed:
        return ""
    many = f"{words.count(len(failed))} {'program' if len(failed) == 1 else 'programs'}"
    goes_on = "tried again" if after.stage == BLOCKS else "given up; what they have not done will be missing"
    if after.memory > before.memory:
        goes_on += f", with {MORE_MEMORY} times the memory"
    ((why, _),) = Counter(seen.reason.rstrip(".") or "no reason is known" for seen in failed).most_common(1)
    said = f"{many} failed ({why}), and {'is' if len(failed) == 1 else 'are'} {goes_on}."
    return said + lost(failed, expected, memory=before.memory)
