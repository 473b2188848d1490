"""Effects that chat performs: a job's card, its thread, and its owner's home tab.

A message in doubt is looked for by its key before it is posted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from bot.application.access import Access
from bot.application.ledger import MAX_REASON, JobChange, Ledger
from bot.application.ports import Chat, Results
from bot.application.queries import Queries
from bot.application.stalls import Stalls
from bot.application.stories import Stories
from bot.application.worker.handling import Handlers, telling
from bot.domain import words
from bot.domain.blocks import PILOT
from bot.domain.errors import Refused, TooSoon
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.messages import Step, Story
from bot.domain.outbox import Effect, Kind
from bot.domain.states import FINAL, JobState
from bot.storage.transaction import Transaction

NOT_POSTED_YET = 0.5
"""Seconds until the edit of a card that is not posted yet is tried again."""
MAX_PREVIEW = 8 * 2**20
"""Bytes of the largest preview that is posted."""
_CARD = "card"
DIRECT_CARD, DIRECT_END = "card", "end"
"""The subjects of a DIRECT: that the card could not be posted; the job's end."""


class CardEffects:
    """Posts and updates a job's card."""

    def __init__(self, *, ledger: Ledger, chat: Chat, stories: Stories, access: Access, edit_every: timedelta) -> None:
        """`edit_every` is the least time between two edits of a card."""
        self._access = access
        self._ledger = ledger
        self._database = ledger.database
        self._chat = chat
        self._stories = stories
        self._edit_every = edit_every

    def handlers(self) -> Handlers:
        """The handlers of CARD and EDIT."""
        return {
            Kind.CARD: telling(self._ledger, self._post, instead=_say_so),
            Kind.EDIT: telling(self._ledger, self._edit),
        }

    def _post(self, effect: Effect, job: Job) -> None:
        story, key = _listened_to(self._stories, job), f"{job.id}-card"
        if not job.checked:  # chat may not have said in time that the owner is in this channel
            self._access.insist(job)
        timestamp = self._chat.find(story, thread=None, key=key) if effect.in_doubt else None
        self._ledger.insist(effect)
        if timestamp:
            self._chat.edit_card(story, timestamp)
        else:
            timestamp = self._chat.post_card(story, key=key)
        with self._ledger.done(effect) as transaction:
            transaction.messages.posted(job.id, _CARD, timestamp, at=self._ledger.clock())
            if job.unposted:
                transaction.jobs.change(job.id, unposted="")

    def _edit(self, effect: Effect, job: Job) -> None:
        with self._database.read() as transaction:
            timestamp = transaction.messages.timestamp(job.id, _CARD)
            edited = transaction.messages.edited_at(job.id, _CARD)
            awaited = transaction.outbox.open(job.id, kind=Kind.CARD) if timestamp is None else 0
        if timestamp is not None:
            _not_too_often(edited, self._edit_every, now=self._ledger.clock())
            with self._database.read() as transaction:
                job = transaction.jobs.get(job.id)  # the job as it stands now
            self._ledger.insist(effect)  # or it could be older than what another worker has shown meanwhile
            self._chat.edit_card(_listened_to(self._stories, job), timestamp)
        elif awaited:  # the card that is being posted may show the job as it was before
            raise TooSoon("The card is not posted yet.", retry_after=NOT_POSTED_YET)
        with self._ledger.done(effect) as transaction:
            transaction.messages.edited(job.id, _CARD, at=self._ledger.clock())


class ThreadEffects:
    """Tells a job's steps in its card's thread, and shows the preview there."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        chat: Chat,
        stories: Stories,
        results: Results,
        access: Access,
        admins: Sequence[str] = (),
    ) -> None:
        """`admins` are mentioned where a job has waited to run for long."""
        self._ledger = ledger
        self._database = ledger.database
        self._chat = chat
        self._stories = stories
        self._results = results
        self._access = access
        self._admins = tuple(admins)

    def handlers(self) -> Handlers:
        """The handlers of REPLY, PREVIEW and DIRECT."""
        return {
            Kind.REPLY: telling(self._ledger, self._reply, instead=_tell_the_end),
            Kind.PREVIEW: telling(self._ledger, self._preview),
            Kind.DIRECT: telling(self._ledger, self._direct),
        }

    def _reply(self, effect: Effect, job: Job) -> None:
        story, name = _listened_to(self._stories, job), f"reply-{effect.subject}"
        with self._database.read() as transaction:
            thread = _thread(transaction, job)
            told = [t for t in transaction.story.of(job.id) if t.reply == int(effect.subject) and t.text]
            timestamp = transaction.messages.timestamp(job.id, name)
        steps = [Step(text=t.text, at=t.at, state=t.state, note=t.note) for t in told]
        story = self._named(story, steps)
        key = f"{job.id}-{name}"
        posted = timestamp is not None
        if timestamp is None and effect.in_doubt:
            timestamp = self._chat.find(story, thread=thread, key=key)
        self._ledger.insist(effect)  # to edit, too: another worker may have told more meanwhile
        if timestamp is None:
            timestamp = self._chat.post_reply(story, steps, thread=thread, key=key)
        else:
            self._chat.edit_reply(story, steps, timestamp)
        with self._ledger.done(effect) as transaction:
            if not posted:
                transaction.messages.posted(job.id, name, timestamp, at=self._ledger.clock())

    def _named(self, story: Story, steps: Sequence[Step]) -> Story:
        """The story with its mentions: at the end the owner, unless they said no, and followers who may see the job.

        Where the job waits for long, admins. A follower of whom chat does not tell now is not mentioned.
        """
        last = steps[-1].state if steps and not steps[-1].note else None
        if last is JobState.RUNNABLE:
            return replace(story, helpers=self._admins)
        if last in FINAL:
            with self._database.read() as transaction:
                wishes = transaction.people.get(story.job.actor).preferences
                owner = [story.job.actor] if wishes.mention and wishes.tells(last) else []
                followers = transaction.followers.of(story.job.id)
            return replace(story, mentions=[*owner, *(f for f in followers if self._access.may_see(f, story.job))])
        return story

    def _preview(self, effect: Effect, job: Job) -> None:
        story = _listened_to(self._stories, job)
        with self._database.read() as transaction:
            thread = _thread(transaction, job)
        shown = job.summary.preview if job.summary else None
        title = "Preview of the detections"
        if effect.subject == PILOT:
            shown, title = job.blocks.preview if job.blocks else None, "Preview of the pilot"
        name = f"{job.id}-{shown}".replace("/", "-")
        if shown and not (effect.in_doubt and self._chat.find(story, thread=thread, key=name)):
            content = self._results.read(job.folder, shown, limit=MAX_PREVIEW)
            self._ledger.insist(effect)
            self._chat.post_file(story, thread=thread, name=name, title=title, content=content)
        with self._ledger.done(effect):
            pass

    def _direct(self, effect: Effect, job: Job) -> None:
        """Tell the owner alone, and once, what could not be told in the channel."""
        story, name = self._stories.of(job, Audience.person(job.actor)), f"direct-{effect.subject}"
        with self._database.read() as transaction:
            told = transaction.messages.timestamp(job.id, name) is not None
            ends = [t for t in transaction.story.of(job.id) if t.state in FINAL and effect.subject == DIRECT_END]
        if told:
            with self._ledger.done(effect):
                return
        key = f"{job.id}-{name}"
        timestamp = self._chat.find_direct(story, key=key) if effect.in_doubt else None
        if timestamp is None:
            steps = [Step(text=t.text, at=t.at, state=t.state) for t in ends]
            self._ledger.insist(effect)
            timestamp = self._chat.post_direct(story, steps, key=key)
        with self._ledger.done(effect) as transaction:
            transaction.messages.posted(job.id, name, timestamp, at=self._ledger.clock())


def _say_so(_effect: Effect, error: str, change: JobChange) -> None:
    """A card that cannot be posted: its owner hears of it in a direct message, and wherever the job is listed."""
    change.set(unposted=words.shortened(error, MAX_REASON))
    if change.job.owner_in_chat:
        change.enqueue(Kind.DIRECT, DIRECT_CARD)
    change.show()


def _tell_the_end(effect: Effect, _error: str, change: JobChange) -> None:
    """A reply that cannot be posted and tells the job's end: its owner hears the end in a direct message."""
    ends = any(t.reply == int(effect.subject) and t.state in FINAL and t.text for t in change.story)
    if ends and change.job.owner_in_chat:
        change.enqueue(Kind.DIRECT, DIRECT_END)


class NoticeEffects:
    """Tells admins of outages, in direct messages."""

    def __init__(self, *, ledger: Ledger, chat: Chat, stalls: Stalls) -> None:
        self._ledger = ledger
        self._chat = chat
        self._stalls = stalls

    def handlers(self) -> Handlers:
        """The handler of NOTICE."""
        return {Kind.NOTICE: telling(self._ledger, self._tell)}

    def _tell(self, effect: Effect, _job: Job) -> None:
        admin, text = self._stalls.notice(effect)
        self._ledger.insist(effect)
        self._chat.tell(admin, text)
        with self._ledger.done(effect):
            pass


class HomeEffects:
    """Brings home tabs up to date."""

    def __init__(self, *, ledger: Ledger, chat: Chat, queries: Queries, edit_every: timedelta) -> None:
        """`edit_every` is the least time between two updates of a home tab."""
        self._ledger = ledger
        self._database = ledger.database
        self._chat = chat
        self._queries = queries
        self._edit_every = edit_every

    def handlers(self) -> Handlers:
        """The handler of HOME."""
        return {Kind.HOME: telling(self._ledger, self._show)}

    def _show(self, effect: Effect, job: Job) -> None:
        person = job.actor
        with self._database.begin() as transaction:  # all effects that wait for this home tab are coalesced
            transaction.outbox.coalesce(effect, person, at=self._ledger.clock())
            shown = transaction.people.get(person).home_shown_at
        _not_too_often(shown, self._edit_every, now=self._ledger.clock())
        at = self._ledger.clock()
        self._chat.show_home(person, self._queries.home(person))
        with self._ledger.done(effect) as transaction:
            transaction.people.change(person, home_shown_at=at)


def _listened_to(stories: Stories, job: Job) -> Story:
    """The job's story. Raises Refused where the job has no channel."""
    if job.request.channel is None:
        raise Refused("Nobody listens to this job in chat.")
    return stories.of(job, Audience.channel(job.request.channel))


def _thread(transaction: Transaction, job: Job) -> str:
    """The timestamp of the job's card. Raises Refused where it was never posted."""
    thread = transaction.messages.timestamp(job.id, _CARD)
    if thread is None:
        raise Refused("The card could not be posted, so there is no thread.")
    return thread


def _not_too_often(last: datetime | None, every: timedelta, *, now: datetime) -> None:
    # Where `last` lies ahead, the clock has gone back since, and nobody knows how long ago it was.
    wait = last + every - now if last and last <= now else timedelta()
    if wait > timedelta():
        raise TooSoon("It was shown a moment ago.", retry_after=wait.total_seconds())
