"""An outside judge: what was promised, held against what the stand-ins have.

Of the bot it knows what its database has of jobs, and of effects that are open or given up. The promises are those of
docs/architecture.md and docs/following.md. `judged` names each one that was broken.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from bot.domain import words
from bot.domain.job import Job
from bot.domain.outbox import Kind
from bot.domain.states import FINAL, JobState
from bot.domain.work import CANCELLED
from contract.program import RESULTS
from simulation.bots import BLOCK, CONFIRMED, CPU_HOUR, GB_HOUR, MOST
from simulation.incidents import What
from simulation.installation import Record
from simulation.outside import PRIVATE, SPOILT, SUBMISSIONS, Run, mail_of
from simulation.stage import EPOCH
from simulation.told import TOLD, Rule, archived, silenced, spared
from tests.support.memory import Message

CANARY = re.compile(rb"canary-token-of-[a-z]+")
LOST = re.compile(r"Lost by that: ([^.]+(?:\.\d+)?)\.")
FORM = re.compile(r"V\d+-(\d+)")
"""The key of a job that came of a form, with the number of its action."""
NOT_CANCELLED = "It could not be cancelled:"
AWAY = ("There is no answer.", "The answer was lost.", "It has too much to do.")
"""What is said of a service that will be there again: no run lasts for as many attempts as an effect is given."""
ROUNDED = 0.001
"""Seconds by which a time in the database may be rounded."""
CHANNELS = 2
"""Channels of a byte a voxel that every pipeline reads."""
SOON = 60.0
"""Seconds within which a program ends that somebody has cancelled, where nothing goes wrong."""


def judged(record: Record) -> list[str]:
    """The promises that a run has broken, each as a sentence; empty: none."""
    records = (record, *record.others)
    broken = [f"{rule.__name__.replace('_', ' ')}: {said}" for rule in RULES for one in records for said in rule(one)]
    return [*broken, *(f"workspaces are apart: {said}" for said in workspaces_are_apart(records))]


def workspaces_are_apart(records: Sequence[Record]) -> Iterator[str]:
    """Every program belongs to a job of the workspace whose person it names, and nobody hears of another one's job.

    Nor does anybody get mail who is in none.
    """
    known = {mail_of(person) for record in records for person in record.outside.cast.everybody}
    for mail in records[0].outside.mailer.sent:
        if mail.to not in known:
            yield f"a mail went to {mail.to}, who is in no workspace: {mail.subject}"
    for record in records:
        theirs = {name for other in records if other is not record for name in other.jobs}
        for run in record.outside.runs:
            if run.of in theirs:
                yield f"{run.compute_id} of {run.user} belongs to {run.of}, which is another workspace's"
        heard = "\n".join(
            [
                *(_text(message) for message in record.outside.chat.messages),
                *(f"{mail.subject} {mail.text}" for mail in record.outside.mails),
                *(f"{answer.job} {answer.said}" for answer in record.answers),
                repr(record.outside.chat.homes),
            ]
        )
        for name in sorted(theirs):
            if name in heard:
                yield f"{name} is told of in another workspace"


def everything_is_done(record: Record) -> Iterator[str]:
    """Every effect is done, given up with a note, or due; and every accepted job has ended."""
    if not record.finished:
        yield f"not in time; open: {record.open_effects}"
    for job in record.jobs.values():
        if job.state not in FINAL:
            yield f"{job.id} is {job.state.value}"
    for one in record.given_up:
        if not one.error.strip():
            yield f"{one.kind} of {one.job_id} was given up without a note"
        job = record.jobs[one.job_id]
        refuses = archived(record, job.request.channel or "") or job.unposted or "nobody foresaw" in one.error
        if one.kind in (Kind.REPLY, Kind.PREVIEW, Kind.EDIT) and not refuses:
            yield f"{one.kind} of {one.job_id} was given up, and nothing refused it: {one.error}"
        if one.error.endswith(AWAY):
            yield f"{one.kind} of {one.job_id} was given up too early: {one.error}"
        if one.kind in (Kind.COLLECT, Kind.ADVANCE) and record.calm:
            yield f"{one.kind} of {one.job_id} was given up, and nothing was away: {one.error}"


def nothing_acknowledged_is_missing(record: Record) -> Iterator[str]:
    """What a person was told is there: the job that was accepted, once, and what was cancelled is cancelled."""
    by_delivery: dict[tuple[int, str], set[str]] = defaultdict(set)
    for answer in record.answers:
        if answer.job and answer.acknowledged:
            if answer.job not in record.jobs:
                yield f"{answer.job} was acknowledged and is nowhere"
            by_delivery[answer.action.number, answer.said].add(answer.job)
    for (number, said), names in by_delivery.items():
        if len(names) > 1:
            yield f"action {number} was delivered twice and made {sorted(names)} ({said})"


def nothing_refused_was_done(record: Record) -> Iterator[str]:
    """No job comes of a form of which a person heard that it is wrong, and of nothing else."""
    taken = {answer.action.number for answer in record.answers if answer.job or not answer.acknowledged}
    made = {int(found[1]) for job in record.jobs.values() if (found := FORM.fullmatch(job.key))}
    for number in sorted(made):
        if number not in taken:
            yield f"the form of action {number} was refused, and made a job"


def each_job_is_run_once(record: Record) -> Iterator[str]:
    """No program is submitted twice under a name, and only machines that were taken back, or stages, need more."""
    names = Counter(run.work.name for run in record.outside.runs)
    for name, many in names.items():
        if many > 1:
            yield f"{name} was submitted {many} times"
    by_job: dict[str, list[str]] = defaultdict(list)
    for run in record.outside.runs:
        by_job[run.of].append(run.compute_id)
    for name, ids in by_job.items():
        job = record.jobs.get(name)
        if job is None:
            yield f"{name} was submitted, and is nowhere"
        elif job.blocks is None and len(ids) > 1 + job.lasting:
            yield f"{name} was submitted {len(ids)} times"
    for run in record.outside.runs:
        again = by_job[run.of][0] != run.compute_id
        if again and (job := record.jobs.get(run.of)) and job.blocks is None and not run.work.lasting:
            yield f"{run.compute_id} of {run.of} may be taken back, as the one before was"


def jobs_are_what_was_asked_for(record: Record) -> Iterator[str]:
    """A job's owner, box, channel and address are those of the form, or of the job and the person that try it again.

    So is the token that its programs are given.
    """
    cast = record.outside.cast
    for job in record.jobs.values():
        form, before = FORM.fullmatch(job.key), record.jobs.get(job.retry_of or "")
        owner, token = job.actor, cast.tokens.get(job.actor, "public")
        if before:
            wanted = _asked(before)
        elif form:
            (action,) = (one for one in record.actions if one.number == int(form[1]))
            views = {one.words.get("view"): one.words for one in record.actions}
            same = action.what == "submit-the-same"  # as another form, by the person's own token
            words = views[f"V{action.words['of']}"] if same else action.words
            ranges = (tuple(map(int, words[axis].split(","))) for axis in "zyx")
            wanted = [words["collection"], "cortex", words["channel"], *ranges]
            owner, token = action.person, token if same else words["token"]
        else:
            yield f"{job.id} came of no form: {job.key}"
            continue
        if (owner, mail_of(owner), wanted) != (job.actor, job.request.email, _asked(job)):
            yield f"{owner} asked for {wanted}, and {job.id} of {job.actor}, {job.request.email}, is {_asked(job)}"
        for run in record.outside.runs:
            _, given = record.outside.secrets.values.get(run.work.token, ("", ""))
            if run.of == job.id and given != token:
                yield f"{run.compute_id} of {job.id} runs with another token than its owner's"


def the_same_work_is_done_once(record: Record) -> Iterator[str]:
    """No job is accepted while another one does the same."""
    if record.jumped:  # then the times in the database do not tell
        return
    by_work: dict[str, list[Job]] = defaultdict(list)
    for job in record.jobs.values():
        by_work[job.work].append(job)
    for same in by_work.values():
        for one, other in itertools.pairwise(sorted(same, key=lambda job: job.accepted_at)):
            if one.finished_at and other.accepted_at < one.finished_at:
                yield f"{other.id} was accepted while {one.id} did the same"


def nothing_runs_that_boss_refuses(record: Record) -> Iterator[str]:
    """A program gets a token that BOSS takes."""
    takes = record.outside.volumes.readers
    for run in record.outside.runs:
        _, token = record.outside.secrets.values.get(run.work.token, ("", ""))
        if token not in takes:
            yield f"{run.compute_id} runs with a token that BOSS refuses"


def nothing_runs_on(record: Record) -> Iterator[str]:
    """When all is done no program runs, and a job's end is that of its program."""
    for run in record.outside.runs:
        job, seen = record.jobs.get(run.of), record.outside.compute.now(run.compute_id)
        if seen is None or job is None:
            continue
        if seen.state not in FINAL:
            yield f"{run.compute_id} of {job.id} is {seen.state.value}, and {job.id} {job.state.value}"
    for job in record.jobs.values():
        own = [run for run in record.outside.runs if run.of == job.id]
        last = record.outside.compute.now(own[-1].compute_id) if own else None
        if job.state is JobState.SUCCEEDED and (last is None or last.state is not JobState.SUCCEEDED):
            yield f"{job.id} is told to have succeeded, and its program has not"
        if job.state is JobState.FAILED and last is not None and last.state is JobState.SUCCEEDED and not job.blocks:
            yield f"{job.id} is told to have failed, and its program has succeeded"
        if job.state is JobState.LOST and last is not None:
            yield f"{job.id} is told to be lost, and compute knows it"


def what_was_found_is_told(record: Record) -> Iterator[str]:
    """A job that succeeded tells the counts that its program has left, in its record and at its end, and no others.

    It tells none where nothing can be used of what was left, or of what somebody read.
    """
    results = record.outside.account.results
    for job in record.jobs.values():
        left = results.files.get(job.folder, {}).get(RESULTS, b"")
        found = {} if left in SPOILT or job.state is not JobState.SUCCEEDED else json.loads(left)["counts"]
        told = job.summary.counts if job.summary else {}
        if told != found and (told or job.folder not in results.misread):
            yield f"{job.id} has {told} as found, and has found {found}"
        ends = [
            step.text
            for message in record.outside.chat.replies
            if message.story.job.id == job.id
            for step in message.steps
            if step.state is JobState.SUCCEEDED and not step.note
        ]
        for end in ends:
            if told and not end.startswith(f"{words.count(told['synapses'])} synapse"):
                yield f"{job.id} has found {told}, and its thread says: {end}"


def who_cancels_is_heard(record: Record) -> Iterator[str]:
    """A job whose cancellation was acknowledged is cancelled, or had ended, or its thread says why it goes on."""
    for answer in record.answers:
        if answer.said != "cancelled" or not answer.acknowledged:
            continue
        job = record.jobs[answer.job]
        last = record.outside.last_run(job.id)
        by_itself = last is not None and not last.reason.startswith("Cancelled")
        late = last and last.stopped_at and _seconds(last.stopped_at) > answer.at + SOON
        refused = _refused_to_cancel(record, job, since=answer.at)
        truly = refused and _wrong_with(record, f"compute.cancel: {What.REFUSED}", since=answer.at)
        if record.calm and by_itself and late and not truly:
            yield f"{job.id} was cancelled by {answer.action.person}, and its program ran on"
        if job.state is not JobState.CANCELLED and not by_itself and not refused:
            yield f"{job.id} was cancelled by {answer.action.person}, and is {job.state.value}"


def nobody_else_cancels(record: Record) -> Iterator[str]:
    """No job is cancelled that nobody asked to end, nor after its thread has said that it could not be cancelled.

    No job that was cancelled is told to have failed.
    """
    for job in record.jobs.values():
        if job.state is JobState.FAILED and job.reason.startswith(CANCELLED):
            yield f"{job.id} has failed, since it was cancelled"
        asked = [  # no job is named where no answer came
            one for one in record.answers if one.action.what == "cancel" and one.job in (job.id, "")
        ]
        if job.state is JobState.CANCELLED and not asked:
            yield f"{job.id} is cancelled, and nobody asked for that"
        last = record.outside.last_run(job.id)
        if last is None or last.stopped_at is None or record.jumped:
            continue
        stopped = _seconds(last.stopped_at)
        for told in _refusals(record, job) if last.reason.startswith(CANCELLED) else ():
            again = any(one.at >= told and one.action.at <= stopped + ROUNDED for one in asked)
            if told < stopped and not again:
                yield f"{job.id} was cancelled, after its thread had said that it could not be"


def a_retry_is_one_job(record: Record) -> Iterator[str]:
    """All retries of a job make one new job, and the old one names it."""
    after: dict[str, set[str]] = defaultdict(set)
    for job in record.jobs.values():
        if job.retry_of:
            after[job.retry_of].add(job.id)
    for name, made in after.items():
        if len(made) > 1:
            yield f"{name} was tried again as {sorted(made)}"
        if record.jobs[name].retried_as not in made:
            yield f"{name} does not name {sorted(made)}"


def limits_hold(record: Record) -> Iterator[str]:
    """Nothing is accepted that is larger than is allowed; who asks for much was asked first, and has agreed."""
    for job in record.jobs.values():
        size, form = job.request.box.voxels, FORM.fullmatch(job.key)
        if size > MOST:
            yield f"{job.id} has {size:,} voxels"
        much = size > BLOCK or CHANNELS * size > CONFIRMED
        if much and not job.retry_of and not (form and int(form[1]) in record.agreed):
            yield f"{job.id} has {size:,} voxels, and nobody was asked"


def submissions_keep_to_the_rate(record: Record) -> Iterator[str]:
    """No second sees more submissions than compute takes, of all bots together."""
    times = [run.at for run in record.outside.runs]
    for first, last in zip(times, times[SUBMISSIONS:], strict=False):
        if record.calm and last - first < timedelta(seconds=1):
            yield f"more than {SUBMISSIONS} submissions within a second from {first:%H:%M:%S} on"


def who_asks_for_time_is_given_it(record: Record) -> Iterator[str]:
    """Who names a time to come back is not called again before: seen where one job alone calls, and no clock is set."""
    if record.jumped or not record.alone or len(record.jobs) != 1:
        return
    for number, until in record.postponed:
        first = record.called[number]
        if first.point.startswith("workspace."):  # what chat does not tell of people is not known, and asked again
            continue
        for call in record.called[number + 1 :]:
            if call.at >= until - ROUNDED:
                break
            if (call.point, call.what) == (first.point, first.what):
                yield f"{first.point} asked to come back after {until:.3f}, and was called at {call.at:.3f}"


def money_adds_up(record: Record) -> Iterator[str]:
    """What blocks that failed have used up is told once a round, in time and money, by what compute has had to give."""
    for job in record.jobs.values():
        spent = Counter(filter(None, (_spent(record, run) for run in record.outside.runs if run.of == job.id)))
        replies = [m for m in record.outside.chat.replies if m.story.job.id == job.id]
        told = Counter(found for m in replies for text in m.texts for found in LOST.findall(text))
        for said in told - spent:
            yield f"{job.id} is told to have lost {said}, and has not"
        if job.state is JobState.SUCCEEDED and not silenced(record, job) and not spared(record, job, Kind.REPLY):
            for said in spent - told:
                yield f"{job.id} has lost {said}, which nobody is told"


def nobody_sees_what_is_not_theirs(record: Record) -> Iterator[str]:
    """A job is told in its channel, to its owner and to who asked to hear of its end; a home tab shows one's own."""
    followers = defaultdict(set)
    for answer in record.answers:
        if answer.said.startswith("follows "):
            followers[answer.said.removeprefix("follows ")].add(answer.action.person)
        elif answer.action.what.startswith("submit") and not answer.acknowledged:  # may have asked to hear of the twin
            for job in record.jobs.values():
                followers[job.id].add(answer.action.person)
    for message in record.outside.chat.messages:
        job = message.story.job
        if message.channel not in (job.request.channel, job.actor):
            yield f"{job.id} is told in {message.channel}"
        strangers = set(message.story.mentions) - followers[job.id] - {job.actor}
        if strangers:
            yield f"{job.id} mentions {sorted(strangers)}"
    for mail in record.outside.mails:
        name = mail.subject.removeprefix("NOMADS job ").partition(":")[0]
        job_of = record.jobs.get(name)
        to = {job_of.request.email, *(mail_of(who) for who in followers[name])} if job_of else set()
        if mail.to not in to:
            yield f"a mail about {name} went to {mail.to}"
    for person, homes in record.outside.chat.homes.items():
        others = {job.id for home in homes for job in (*home.running, *home.recent) if job.actor != person}
        if others:
            yield f"the home tab of {person} shows {sorted(others)}"
    inside = {name: channel.members for name, channel in record.outside.workspace.channels.items()}
    for message in record.outside.chat.messages:
        job = message.story.job
        if message.channel == PRIVATE and job.actor not in inside[PRIVATE]:
            yield f"{job.id} of {job.actor} is told in a private channel that they are not in"
    for answer in record.answers:
        for job in record.jobs.values():
            theirs = answer.action.person in (job.actor, record.outside.cast.admin) or job.request.channel != PRIVATE
            if job.id in f"{answer.said} {answer.job}" and not theirs and answer.action.person not in inside[PRIVATE]:
                yield f"{answer.action.person} heard of {job.id}"
    for answer in record.answers:
        if answer.said in ("cancelled", "goes") and answer.acknowledged:
            job = record.jobs[answer.job]
            if answer.action.person not in (job.actor, record.outside.cast.admin):
                yield f"{answer.action.person} could steer {job.id}"
    for again in record.jobs.values():
        before = record.jobs.get(again.retry_of or "")
        if before and again.actor not in (before.actor, record.outside.cast.admin):
            yield f"{again.actor} could try {before.id} again"


def no_token_is_anywhere(record: Record) -> Iterator[str]:
    """No token stands in what is posted, mailed, answered or stored, nor in what compute is given."""
    outside = record.outside
    places = {
        "a message": "\n".join(f"{_text(m)} {m.content!r}" for m in outside.chat.messages),
        "a home tab": repr(outside.chat.homes),
        "a direct message": repr(outside.chat.told),
        "a log": "\n".join(record.outside.printed(run) for run in _without_an_orderly_end(record)),
        "a mail": "\n".join(f"{m.to} {m.subject} {m.text} {m.html}" for m in outside.mails),
        "what compute is given": repr(outside.compute.works),
        "an answer": repr([(a.job, a.said) for a in record.answers]),
    }
    for where, text in places.items():
        if found := CANARY.search(text.encode()):
            yield f"{where} has {found[0].decode()}"
    if found := CANARY.search(record.stored):
        yield f"the database has {found[0].decode()}"
    if record.sealed != len(record.saved):
        yield f"{record.sealed} tokens are sealed in the database, and {len(record.saved)} people have saved one"


def tokens_are_saved_for_who_asked(record: Record) -> Iterator[str]:
    """A token is saved for who wanted that, and for nobody who has asked since then that it be forgotten."""
    forgotten = {one.action.person: one.at for one in record.answers if one.said == "forgotten" and one.acknowledged}
    for person in record.saved:
        asked = [
            one.at
            for one in record.answers
            if one.action.person == person
            and (one.action.words.get("remember") or one.action.what == "submit-the-same")
        ]
        if not asked:
            yield f"the token of {person} is saved, and they did not ask for that"
        elif max(asked) < forgotten.get(person, 0.0):
            yield f"the token of {person} is saved, and they have asked that it be forgotten"


def _without_an_orderly_end(record: Record) -> Iterator[Run]:
    """The programs whose logs the bot clears of the token: those of jobs that have ended, but not by a program's end.

    Not those that compute has submitted again elsewhere, which no compute does that keeps logs on this machine; nor
    those of a job whose end could not be collected, or of which no compute id is known: nobody is shown their logs.
    """
    for job in record.jobs.values():
        runs = [run for run in record.outside.runs if run.of == job.id]
        unknown = spared(record, job, Kind.COLLECT) or spared(record, job, Kind.SUBMIT)
        if job.state in FINAL and (job.blocks or job.exit_code is None) and not unknown:
            yield from runs if job.blocks else runs[-1:]


def programs_do_what_was_asked_for(record: Record) -> Iterator[str]:
    """A program is given the box that its job's owner has asked for, a pilot a part of it, and a folder of its own."""
    for run in record.outside.runs:
        job = record.jobs.get(run.of)
        if job is None:  # its form was refused, which another rule tells
            continue
        told, asked = dict(itertools.pairwise(run.work.arguments)), job.request
        folder = told.get("--results-uri", "")
        shared = job.blocks.origin if job.blocks and job.blocks.origin else job.folder  # of a repair: the first job's
        if not folder.startswith((f"file:///memory/{job.folder}/", f"file:///memory/{shared}/")):
            yield f"a program of {job.id} is to write to {folder}"
        if (told.get("--col"), told.get("--exp")) != (asked.collection, asked.experiment):
            yield f"a program of {job.id} is to read {told.get('--col')}/{told.get('--exp')}"
        for axis, side in zip("zyx", (asked.box.z, asked.box.y, asked.box.x), strict=True):
            start, stop = map(int, told.get(f"--{axis}-range", "0,0").split(","))
            within = side.start <= start < stop <= side.stop
            if (start, stop) != (side.start, side.stop) and not (within and "/pilot/" in folder):
                yield f"a program of {job.id} is given {axis} {start},{stop} of {side.start},{side.stop}"


RULES: tuple[Rule, ...] = (
    everything_is_done,
    nothing_acknowledged_is_missing,
    nothing_refused_was_done,
    *TOLD,
    each_job_is_run_once,
    jobs_are_what_was_asked_for,
    programs_do_what_was_asked_for,
    the_same_work_is_done_once,
    nothing_runs_that_boss_refuses,
    nothing_runs_on,
    what_was_found_is_told,
    who_cancels_is_heard,
    nobody_else_cancels,
    a_retry_is_one_job,
    limits_hold,
    submissions_keep_to_the_rate,
    who_asks_for_time_is_given_it,
    money_adds_up,
    nobody_sees_what_is_not_theirs,
    no_token_is_anywhere,
    tokens_are_saved_for_who_asked,
)


def _asked(job: Job) -> list[object]:
    """What a form asks for: collection, experiment, channel, and the ranges along z, y and x."""
    asked = job.request
    ranges = ((side.start, side.stop) for side in asked.box.sides.values())
    return [asked.collection, asked.experiment, asked.channel, *ranges]


def _spent(record: Record, run: Run) -> str:
    """What the failed programs of an array have used up, in time and money, as people are told; empty: nothing."""
    compute = record.outside.compute
    seen = [compute.now(compute.child(run.compute_id, number)) for number in range(run.work.count or 0)]
    spans = [
        one.stopped_at - one.started_at
        for one in seen
        if one and one.state is JobState.FAILED and one.started_at and one.stopped_at
    ]
    span = sum(spans, timedelta())
    if span <= timedelta():
        return ""
    hourly = run.work.cpu * CPU_HOUR + run.work.memory * 2**20 / 1e9 * GB_HOUR
    return f"{words.duration(span)} of machine time, {words.money(hourly * span / timedelta(hours=1), '$')}"


def _text(message: Message) -> str:
    """All that a message says, now and before."""
    said = [(message.story, message.steps), *message.history]
    return repr([(story, steps) for story, steps in said]) + message.title


def _refused_to_cancel(record: Record, job: Job, *, since: float) -> bool:
    """Whether the job's thread says that it could not be cancelled, and something has gone wrong with that since."""
    return bool(_wrong_with(record, "compute.cancel: ", since=since) and _refusals(record, job))


def _wrong_with(record: Record, call: str, *, since: float) -> bool:
    """Whether the history tells of such a thing at a call since then."""
    return any(call in line and float(line[:10]) >= since - ROUNDED for line in record.history)


def _refusals(record: Record, job: Job) -> list[float]:
    """When the job's thread began to say that it could not be cancelled, in seconds of the stage, by message."""
    found: list[float] = []
    for message in record.outside.chat.replies:
        said = [*(steps for _, steps in message.history), message.steps]
        times = [message.posted_at, *message.edited_at]
        if message.story.job.id != job.id:
            continue
        for at, steps in zip(times, said, strict=True):
            if any(NOT_CANCELLED in step.text for step in steps):
                found.append(_seconds(at))
                break
    return found


def _seconds(at: datetime) -> float:
    """A time, in seconds of the stage."""
    return (at - EPOCH).total_seconds()
