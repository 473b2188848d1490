"""What people are told, held against what chat and mail have: an effect that is marked as done was done, and once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping

from bot.application.people import PERSON_KEPT
from bot.application.queries import HOME_RECENT
from bot.application.worker.effects.chat import DIRECT_CARD, DIRECT_END
from bot.application.worker.effects.mail import NOT_MAILED
from bot.domain.blocks import PILOT
from bot.domain.job import Job, Transition
from bot.domain.outbox import Kind
from bot.domain.people import Privacy
from bot.domain.states import FINAL, JobState
from simulation.installation import Record
from simulation.outside import mail_of
from simulation.stage import EPOCH
from tests.support.memory import Message

Rule = Callable[[Record], Iterator[str]]
ENDS: Mapping[JobState, tuple[tuple[str, ...], tuple[str, ...]]] = {
    JobState.SUCCEEDED: ((), ("finished", "ended without results")),
    JobState.FAILED: (("Failed",), ("failed",)),
    JobState.CANCELLED: (("Cancelled",), ("cancelled",)),
    JobState.LOST: (("Lost",), ("lost",)),
}
"""How a reply about an end begins, and what the mail about it has as its subject."""


def each_job_has_one_card(record: Record) -> Iterator[str]:
    """A job has one card, in its channel; without one, its owner was told why, or nothing more could be done."""
    cards = Counter(message.story.job.id for message in record.outside.chat.cards)
    for job in record.jobs.values():
        if cards[job.id] > 1:
            yield f"{job.id} has {cards[job.id]} cards"
        if cards[job.id] == 0 and not job.unposted and not spared(record, job, Kind.CARD):
            yield f"{job.id} has no card, and nothing says why"
    for message in record.outside.chat.cards:
        shown, real = message.story.job, record.jobs.get(message.story.job.id)
        if real is None:
            yield f"a card shows {shown.id}, which is nowhere"
        elif not spared(record, real, Kind.EDIT) and not archived(record, message.channel):
            if (shown.state, bool(shown.retried_as)) != (real.state, bool(real.retried_as)):
                yield f"the card of {shown.id} shows {shown.state.value}, and it is {real.state.value}"
            elif shown.summary != real.summary:
                yield f"the card of {shown.id} does not show its results"


def each_step_is_told_once_and_in_order(record: Record) -> Iterator[str]:
    """A thread tells each step once, in the order of time; the first is the acceptance, the last the end."""
    for job in record.jobs.values():
        replies = _replies(record, job)
        steps = [step for reply in replies for step in reply.steps]
        keys = Counter(reply.key for reply in replies)
        for key, many in keys.items():
            if many > 1:
                yield f"reply {key} stands there {many} times"
        told = Counter((step.state, step.at, step.text) for step in steps)
        for (state, at, _), many in told.items():
            if many > 1:
                yield f"{job.id}: {state.value} of {at:%H:%M:%S} is told {many} times"
        times = [step.at for step in steps if not step.note]  # that an end's log waits is told before the end
        if times != sorted(times) and not record.jumped:
            yield f"{job.id} is told its steps in another order than that of time"
        ends = [step for step in steps if step.state in FINAL and not step.note]
        if ends and any(step.state not in FINAL for step in steps[steps.index(ends[0]) :]):
            yield f"{job.id} is told to go on after its end"
        if len(ends) > 1:
            yield f"{job.id} is told {len(ends)} ends"
        if ends and ends[0].state is not job.state:
            yield f"{job.id} is told to be {ends[0].state.value}, and is {job.state.value}"
        if silenced(record, job) or not _cards(record, job):
            continue
        if not ends and not spared(record, job, Kind.REPLY):
            yield f"{job.id} has ended, and its thread does not say so"
        if steps and not steps[0].text.startswith("Accepted"):
            yield f"the thread of {job.id} begins with: {steps[0].text}"


def what_runs_is_told(record: Record) -> Iterator[str]:
    """A thread tells that a program runs, to who wants to hear of all steps."""
    for job in record.jobs.values():
        steps = [step for reply in _replies(record, job) for step in reply.steps]
        told = any(step.state is JobState.RUNNING or ", attempt " in step.text for step in steps)
        if job.started_at and steps and not told and not silenced(record, job) and not spared(record, job, Kind.REPLY):
            yield f"the thread of {job.id} does not say that it ran"


def what_is_recorded_stands_in_the_thread(record: Record) -> Iterator[str]:
    """Each step that a reply is to tell stands in that reply, with its last words."""
    for job in record.jobs.values():
        replies = {reply.key: reply for reply in _replies(record, job)}
        for step in record.steps[job.id]:
            if step.reply is None or not step.text or spared(record, job, Kind.REPLY, str(step.reply)):
                continue
            reply = replies.get(f"{job.id}-reply-{step.reply}")
            if reply is None or (step.text, step.at) not in [(one.text, one.at) for one in reply.steps]:
                yield f"{job.id}: reply {step.reply} does not say: {step.text}"


def previews_are_shown(record: Record) -> Iterator[str]:
    """A preview that a program has left stands in the thread once, as it was left."""
    for job in record.jobs.values():
        files = [message for message in _in_thread(record, job) if message.content is not None]
        for key, many in Counter(file.key for file in files).items():
            if many > 1:
                yield f"the preview {key} stands there {many} times"
        announced = job.summary.preview if job.summary and _end(record, job).reply else None
        pilots = job.blocks.preview if job.blocks else ""
        for subject, name in (("", announced), (PILOT, pilots)):
            if not name or spared(record, job, Kind.PREVIEW, subject):
                continue
            shown = [file for file in files if file.key == f"{job.id}-{name}".replace("/", "-")]
            left = record.outside.account.results.files.get(job.folder, {}).get(name)
            if not shown:
                yield f"the thread of {job.id} does not show {name}"
            elif shown[0].content != left and job.folder not in record.outside.account.results.misread:
                yield f"the thread of {job.id} shows another {name} than was left"


def home_tabs_are_up_to_date(record: Record) -> Iterator[str]:
    """Who opens the home tab sees in it, at the end, how their newest jobs have ended, where one went on since then."""
    opened = {one.action.person: one.at for one in record.answers if one.said == "home" and one.acknowledged}
    for person, at in opened.items():
        mine = [job for job in record.jobs.values() if job.actor == person]
        since = any((step.at - EPOCH).total_seconds() > at for job in mine for step in record.steps[job.id])
        if not since or record.jumped or any(spared(record, job, Kind.HOME) for job in mine):
            continue
        homes = record.outside.chat.homes.get(person)
        if not homes:
            yield f"the home tab of {person} was never shown"
            continue
        shown = {job.id: job.state for job in homes[-1].recent}
        newest = sorted(mine, key=lambda job: job.accepted_at)[-HOME_RECENT:]
        if homes[-1].running or shown != {job.id: job.state for job in newest}:
            yield f"the home tab of {person} shows {shown} and {len(homes[-1].running)} that run"


def admins_hear_of_outages(record: Record) -> Iterator[str]:
    """An admin is told of each outage that it has begun, and that it is over, in direct messages."""
    told = [text for person, text in record.outside.chat.told if person == record.outside.cast.admin]
    over = sum(text.startswith("NOMADS has answers from compute again") for text in told)
    for outage in record.outages:
        begun = f"since {outage.began_at:%H:%M} UTC: {outage.why}"
        job = record.jobs[outage.job_id]
        if not any(begun in text for text in told) and not spared(record, job, Kind.NOTICE):
            yield f"no admin is told of the outage {begun}"
    ended = [one for one in record.outages if one.over_at]
    if over < len(ended) and not any(spared(record, record.jobs[one.job_id], Kind.NOTICE) for one in ended):
        yield f"{len(ended)} outages are over, and {over} of them were told to be"
    stalled = [step.text for steps in record.steps.values() for step in steps if step.text.startswith("It waits, for ")]
    if stalled and not record.outages:
        yield f"no outage is recorded, and a thread says: {stalled[0]}"


def each_mail_is_one(record: Record) -> Iterator[str]:
    """A mail that is sent twice has one Message-ID; an accepted job's owner gets both mails, and nobody else."""
    by_id: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for mail in record.outside.mails:
        by_id[mail.message_id].add((mail.to, mail.subject))
    for message_id, kinds in by_id.items():
        if len(kinds) > 1:
            yield f"{message_id} is {len(kinds)} different mails"
    for job in record.jobs.values():
        mine = [mail for mail in record.outside.mails if mail.to == job.request.email]
        begins = [mail for mail in mine if mail.subject == f"NOMADS job {job.id}: accepted"]
        ends = [mail for mail in mine if mail.subject.startswith(f"NOMADS job {job.id}: ") and mail not in begins]
        for kind, mails in ((Kind.MAIL_ACCEPTED, begins), (Kind.MAIL_FINISHED, ends)):
            ids = {mail.message_id for mail in mails}
            if len(ids) > 1:
                yield f"{job.id} has {len(ids)} {kind}s"
            if not ids and not _wants_no_mail(record, job.actor) and not spared(record, job, kind):
                yield f"{job.id} has no {kind}"


def who_follows_hears_of_the_end(record: Record) -> Iterator[str]:
    """Who was told that they will hear of the end of somebody else's job has one mail about the end."""
    following = {
        (one.action.person, one.said.removeprefix("follows "))
        for one in record.answers
        if one.said.startswith("follows ") and one.acknowledged
    }
    for person, name in sorted(following):
        job, workspace = record.jobs[name], record.outside.workspace
        channel = workspace.channels[job.request.channel or ""]
        sees = channel.privacy is Privacy.PUBLIC or person in channel.members
        if job.actor == person or not sees or person in workspace.left or _wants_no_mail(record, person):
            continue  # before or after the end
        got = {
            mail.message_id
            for mail in record.outside.mails
            if mail.to == mail_of(person) and mail.subject.startswith(f"NOMADS job {job.id}: ")
        }
        if len(got) != 1 and not spared(record, job, Kind.MAIL_FINISHED, person):
            yield f"{person} follows {job.id} and has {len(got)} mails about its end"


def ends_are_told_as_they_are(record: Record) -> Iterator[str]:
    """The reply about an end says how the job has ended, and mentions its owner; so does the subject of the mail."""
    for job in record.jobs.values():
        words, subjects = ENDS.get(job.state, ((), ()))
        for reply in _replies(record, job):
            ends = [step for step in reply.steps if step.state in FINAL and not step.note and step.text]
            for end in ends:
                others = [begin for state in FINAL - {job.state} for begin in ENDS[state][0]]
                if not end.text.startswith(words or ("",)) or end.text.startswith(tuple(others)):
                    yield f"{job.id} is {job.state.value}, and its thread says: {end.text}"
            if ends and job.actor not in reply.story.mentions:
                yield f"the end of {job.id} does not mention {job.actor}"
        for mail in record.outside.mails:
            about = f"NOMADS job {job.id}: "
            if mail.subject.startswith(about) and mail.subject.removeprefix(about) not in ("accepted", *subjects):
                yield f"{job.id} is {job.state.value}, and a mail says: {mail.subject}"


def ends_say_why(record: Record) -> Iterator[str]:
    """Thread and mail say why a job failed, the thread who cancelled it, the mail what was found and where it is."""
    for job in record.jobs.values():
        last = record.outside.last_run(job.id)
        failed = job.state in (JobState.FAILED, JobState.LOST)
        why = job.reason if failed else job.cancelled_by or "" if job.state is JobState.CANCELLED else ""
        if failed and not why and last and last.reason:
            yield f"{job.id} has failed, since: {last.reason}, and that is not recorded"
        for reply in _replies(record, job):
            for end in reply.steps:
                if end.state is job.state and not end.note and end.text and why not in end.text:
                    yield f"{job.id} has ended: {why}, and its thread says: {end.text}"
        for mail in record.outside.mails:
            about, said = mail.subject.removeprefix(f"NOMADS job {job.id}: "), " ".join(mail.text.split())
            if about in (mail.subject, "accepted"):
                continue
            if failed and " ".join(why.split()) not in said:
                yield f"{job.id} has failed: {why}, and the mail says: {said}"
            told = job.summary.counts if job.summary and job.state is JobState.SUCCEEDED else {}
            if told and not (f"{told['synapses']:,} synapse" in said and "/results/" in said):
                yield f"{job.id} has found {told}, and the mail says: {said}"


def who_wants_to_hear_less_does(record: Record) -> Iterator[str]:
    """Of jobs accepted after that, nobody gets mail who wants none, and who wants ends alone is told nothing else.

    Another bot knows of a wish PERSON_KEPT later.
    """
    since = _since(record)
    for job in record.jobs.values():
        at = (job.accepted_at - PERSON_KEPT - EPOCH).total_seconds()
        mails = [mail for mail in record.outside.mails if mail.subject.startswith(f"NOMADS job {job.id}: ")]
        if record.jumped:
            continue
        if at > since.get((job.actor, "no-mail"), at) and any(mail.to == job.request.email for mail in mails):
            yield f"{job.actor} wants no mail, and has some about {job.id}"
        steps = [step for reply in _replies(record, job) for step in reply.steps]
        if at > since.get((job.actor, "quiet"), at) and any(step.state not in FINAL for step in steps):
            yield f"{job.actor} wants to hear of ends alone, and is told more of {job.id}"


def who_wants_no_mail_hears_of_no_end(record: Record) -> Iterator[str]:
    """Nobody has mail about an end that came after they said they want none, or left where it was another's."""
    since = _since(record)
    for job in record.jobs.values():
        ended = (_end(record, job).at - EPOCH).total_seconds()
        for mail in record.outside.mails:
            about = mail.subject.removeprefix(f"NOMADS job {job.id}: ")
            if about in (mail.subject, "accepted") or record.jumped:
                continue
            for person in record.outside.cast.everybody:
                left = ended if person == job.actor else record.outside.workspace.left.get(person, ended)
                if mail.to == mail_of(person) and ended > min(since.get((person, "no-mail"), ended), left):
                    yield f"{person} wants no mail or has left, and has one about the end of {job.id}"


def what_no_mail_server_takes_is_told(record: Record) -> Iterator[str]:
    """A thread says that a mail to its job's owner could not be sent."""
    for job in record.jobs.values():
        refused = [kind for kind in (Kind.MAIL_ACCEPTED, Kind.MAIL_FINISHED) if spared(record, job, kind, "")]
        said = any(NOT_MAILED in text for reply in _replies(record, job) for text in reply.texts)
        if refused and not said and not silenced(record, job) and not spared(record, job, Kind.REPLY):
            yield f"{refused[0]} of {job.id} was given up, and its thread does not say so"


def what_no_channel_takes_is_told_directly(record: Record) -> Iterator[str]:
    """The owner of a job without a card is told so in a direct message, and its end where no reply could tell it."""
    for job in record.jobs.values():
        keys = Counter(message.key for message in record.outside.chat.directs if message.story.job.id == job.id)
        for key, many in keys.items():
            if many > 1:
                yield f"{job.actor} was told {key} {many} times"
        untold = _end(record, job).reply and spared(record, job, Kind.REPLY, str(_end(record, job).reply))
        for subject, wanted in ((DIRECT_CARD, job.unposted), (DIRECT_END, untold)):
            if wanted and f"{job.id}-direct-{subject}" not in keys and not spared(record, job, Kind.DIRECT, subject):
                yield f"{job.actor} was not told directly of the {subject} of {job.id}"


def spared(record: Record, job: Job, kind: Kind, subject: str | None = None) -> bool:
    """Whether an effect of that kind (and subject, where named) was given up for the job, with a note."""
    return any((one.job_id, one.kind) == (job.id, kind) and subject in (None, one.subject) for one in record.given_up)


def archived(record: Record, channel: str) -> bool:
    """Whether the channel takes nothing more."""
    return channel in record.outside.workspace.channels and record.outside.workspace.channels[channel].archived


def silenced(record: Record, job: Job) -> bool:
    """Whether its owner wants to be told less, or its channel takes nothing more."""
    quiet = {answer.action.person for answer in record.answers if answer.action.what == "quiet"}
    return job.actor in quiet or archived(record, job.request.channel or "")


def _end(record: Record, job: Job) -> Transition:
    """The job's last step, or the last one so far."""
    steps = [step for step in record.steps[job.id] if not step.note]
    return next((step for step in steps if step.state in FINAL), steps[-1])


def _since(record: Record) -> Mapping[tuple[str, str], float]:
    """Since when people want to hear less, by the person and what they said, in seconds of the stage."""
    return {
        (one.action.person, one.action.what): one.at
        for one in reversed(record.answers)
        if one.action.what in ("quiet", "no-mail") and one.acknowledged
    }


def _wants_no_mail(record: Record, person: str) -> bool:
    return any((one.action.person, one.action.what) == (person, "no-mail") for one in record.answers)


def _cards(record: Record, job: Job) -> list[Message]:
    return [card for card in record.outside.chat.cards if card.story.job.id == job.id]


def _in_thread(record: Record, job: Job) -> list[Message]:
    """What stands below the job's cards."""
    cards = [card.timestamp for card in _cards(record, job)]
    return [message for message in record.outside.chat.messages if message.thread in cards]


def _replies(record: Record, job: Job) -> list[Message]:
    return [message for message in _in_thread(record, job) if message.content is None]


TOLD: tuple[Rule, ...] = (
    each_job_has_one_card,
    each_step_is_told_once_and_in_order,
    what_runs_is_told,
    what_is_recorded_stands_in_the_thread,
    previews_are_shown,
    home_tabs_are_up_to_date,
    admins_hear_of_outages,
    each_mail_is_one,
    who_follows_hears_of_the_end,
    ends_are_told_as_they_are,
    ends_say_why,
    who_wants_to_hear_less_does,
    who_wants_no_mail_hears_of_no_end,
    what_no_mail_server_takes_is_told,
    what_no_channel_takes_is_told_directly,
)
"""The rules of this module."""
