"""What people are told, held against what chat and mail have: an effect that is marked as done was done, and once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bot.application.queries import HOME_RECENT
from bot.application.worker.effects.chat import DIRECT_CARD, DIRECT_END
from bot.domain.blocks import PILOT
from bot.domain.job import Job, Transition
from bot.domain.outbox import Kind
from bot.domain.people import Privacy
from bot.domain.states import FINAL
from simulation.installation import Record
from simulation.outside import mail_of
from simulation.stage import EPOCH
from tests.support.memory import Message


def what_is_recorded_stands_in_the_thread(record: Record) -> Iterator[str]:
    """Each step that a reply is to tell stands in that reply, with its last words."""
    for job in record.jobs.values():
        replies = {reply.key: reply for reply in in_thread(record, job) if reply.content is None}
        for step in record.steps[job.id]:
            if step.reply is None or not step.text or spared(record, job, Kind.REPLY, str(step.reply)):
                continue
            reply = replies.get(f"{job.id}-reply-{step.reply}")
            if reply is None or (step.text, step.at) not in [(one.text, one.at) for one in reply.steps]:
                yield f"{job.id}: reply {step.reply} does not say: {step.text}"


def previews_are_shown(record: Record) -> Iterator[str]:
    """A preview that a program has left stands in the thread once, as it was left."""
    for job in record.jobs.values():
        files = [message for message in in_thread(record, job) if message.content is not None]
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
            continue
        got = {
            mail.message_id
            for mail in record.outside.mails
            if mail.to == mail_of(person) and mail.subject.startswith(f"NOMADS job {job.id}: ")
        }
        if len(got) != 1 and not spared(record, job, Kind.MAIL_FINISHED, person):
            yield f"{person} follows {job.id} and has {len(got)} mails about its end"


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


def in_thread(record: Record, job: Job) -> list[Message]:
    """What stands below the cards of the job."""
    cards = [card.timestamp for card in record.outside.chat.cards if card.story.job.id == job.id]
    return [message for message in record.outside.chat.messages if message.thread in cards]


def _end(record: Record, job: Job) -> Transition:
    """The job's last step, or the last one so far."""
    steps = [step for step in record.steps[job.id] if not step.note]
    return next((step for step in steps if step.state in FINAL), steps[-1])


def _wants_no_mail(record: Record, person: str) -> bool:
    return any((one.action.person, one.action.what) == (person, "no-mail") for one in record.answers)
