"""The window with a job's log, which grows while the job runs."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slack_bolt import Ack
from slack_sdk import WebClient
from slack_sdk.errors import SlackClientError
from slack_sdk.models.blocks import ActionsBlock, Block, ButtonElement

from bot.application.output import Output, log_lines
from bot.application.queries import Queries
from bot.domain import words
from bot.domain.errors import InDoubt, NomadsError, UnknownJob
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.results import Lasting
from bot.slack import cards
from handlers.windows import Windows, said, update, window

CALLBACK = "nomads_logs_view"
WHOLE = "nomads_whole_log"
LINES = 100
"""Lines of a log that are shown, at most."""
EVERY = 3.0
"""Seconds between two rounds of updates of open logs, at least."""
EACH = 0.75
"""Seconds of a round for each open log: Slack takes some 100 updates a minute."""
ROOM = 60_000
"""Characters of a log that a window shows; Slack takes 100 blocks of 3,000, and 250 kB."""
NOTES = 1000
"""Windows whose link to the whole log is remembered."""
FOLLOWED = 1800.0
"""Seconds for which an open log grows; then the window says so."""


@dataclass
class _Open:
    """A window that is updated as its log grows."""

    client: WebClient
    job_id: str
    user: str
    until: float
    shown: str = ""


class Logs:
    """Opens logs and updates the open ones. One thread updates all of them, as long as there are any."""

    def __init__(
        self,
        *,
        queries: Queries,
        output: Output,
        windows: Windows,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queries = queries
        self._output = output
        self._windows = windows
        self._every = every
        self._clock = clock
        self._open: dict[str, _Open] = {}
        self._notes: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def show(self, ack: Ack, body: dict[str, Any], action: dict[str, Any], client: WebClient) -> None:
        """Open the log of the job whose button was clicked."""
        self.open(client, body, action["value"], body["user"]["id"])
        ack()

    def open(self, client: WebClient, body: dict[str, Any], job_id: str, user: str) -> None:
        """Open the window of that job's log for this person."""

        def follow(view_id: str) -> None:
            if not self._queries.seen(job_id, actor=user).ended:
                self._follow(view_id, _Open(client, job_id, user, self._clock() + FOLLOWED))

        self._windows.open(
            client,
            body,
            f"Log of {job_id}",
            lambda: self._blocks(self._queries.seen(job_id, actor=user)),
            callback=CALLBACK,
            meta=job_id,
            then=follow,
        )

    def whole(self, ack: Ack, body: dict[str, Any], action: dict[str, Any], client: WebClient) -> None:
        """Link the whole log in the same window, later: a long log takes a while to copy."""
        view_id, job_id, user = body["view"]["id"], action["value"], body["user"]["id"]

        def link() -> str:
            found = self._output.whole_log(self._queries.seen(job_id, actor=user), Audience.person(user))
            lasting = Lasting.of([found])
            until = f" until {cards.moment(lasting.until)}{lasting.how}" if lasting else ""
            return f"{words.link(found.url, 'The whole log')}, as it was when you asked for it{until}."

        def show() -> None:
            try:
                note = link()
            except NomadsError as error:
                note = words.mrkdwn(str(error))
            self._note(view_id, note)
            update(client, view_id, self._view(job_id, user, note))

        self._windows.later(show)
        ack()

    def closed(self, ack: Ack, view: dict[str, Any]) -> None:
        """A window was closed: stop updating it."""
        with self._lock:
            self._open.pop(view["id"], None)
        ack()

    @property
    def followed(self) -> int:
        """How many windows are being updated."""
        return len(self._open)

    def close(self) -> None:
        """Stop updating windows, and wait for the thread."""
        self._over.set()
        if self._thread:
            self._thread.join()

    def _note(self, view_id: str, note: str) -> None:
        with self._lock:
            self._notes[view_id] = note
            while len(self._notes) > NOTES:
                self._notes.popitem(last=False)

    def _view(self, job_id: str, user: str, note: str = "", *, over: bool = False) -> dict[str, Any]:
        job = self._queries.seen(job_id, actor=user)
        return window(f"Log of {job.id}", self._blocks(job, note, over=over), callback=CALLBACK, meta=job.id)

    def _blocks(self, job: Job, note: str = "", *, over: bool = False) -> list[Block]:
        lines = self._output.tail(job, lines=LINES)
        shown = cards.log(log_lines(lines), room=ROOM)
        grows = " It is not followed any more: open it again." if over else " It grows while the job runs."
        small = f"Job `{job.id}`: {cards.state(job)}. The last lines, times in UTC.{'' if job.ended else grows}"
        button = ButtonElement(action_id=WHOLE, text="The whole log", value=job.id)
        return [
            cards.context(small),
            *(cards.section(text) for text in shown or ["It has not printed anything, or its log is not kept."]),
            *([ActionsBlock(elements=[button])] if lines else []),
            *([cards.section(note)] if note else []),
        ]

    # Growing

    def _follow(self, view_id: str, opened: _Open) -> None:
        with self._lock:
            self._open[view_id] = opened
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look_after, name="open-logs", daemon=True)
                self._thread.start()

    def _look_after(self) -> None:
        while True:
            with self._lock:
                opened = dict(self._open)
                if not opened or self._over.is_set():
                    self._thread = None if not self._over.is_set() else self._thread
                    return
            for view_id, one in opened.items():
                if not self._brought_up_to_date(view_id, one):
                    with self._lock:
                        self._open.pop(view_id, None)
            self._over.wait(max(self._every, EACH * len(opened)))

    def _brought_up_to_date(self, view_id: str, one: _Open) -> bool:
        """Update the window if its content has changed. Returns whether to go on updating it.

        Whoever may not see the job any more is shown its log no longer.
        """
        over = self._clock() > one.until
        try:
            ended = self._queries.seen(one.job_id, actor=one.user).ended
            view = self._view(one.job_id, one.user, self._notes.get(view_id, ""), over=over)
            if str(view) == one.shown:
                return not over
            shown = update(one.client, view_id, view)
        except InDoubt:
            return not over
        except UnknownJob as error:
            gone = window(f"Log of {one.job_id}", [said(str(error))], callback=CALLBACK, meta=one.job_id)
            return update(one.client, view_id, gone) == "later"
        except (NomadsError, SlackClientError, OSError):
            return not over
        if shown == "shown":
            one.shown = str(view)
        return shown == "later" or (shown == "shown" and not ended and not over)
