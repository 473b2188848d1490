"""Status, lists, details and results of jobs."""

from __future__ import annotations

from typing import Any

from slack_bolt import Ack, Respond
from slack_sdk import WebClient
from slack_sdk.models.blocks import ActionsBlock, Block, ButtonElement

from bot.application.output import Output
from bot.application.ports import Workspace
from bot.application.queries import Queries, Which
from bot.application.steering import Steering
from bot.domain import words
from bot.domain.catalog import Catalog
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.results import Lasting
from bot.slack import cards
from handlers.windows import Windows, update, window

DETAILS = "Job"
"""Title of the window of details."""
TURNS = 120
"""Pages that can be turned back: a button's value holds 2,000 characters, and a page's `last` has up to 15."""
_TITLES = {
    Which.MINE: "Your jobs",
    Which.ALL: "All jobs",
    Which.RUNNING: "Jobs that have not ended",
    Which.FAILED: "Jobs that have failed",
    Which.MINE_RUNNING: "Your jobs that have not ended",
    Which.MINE_FAILED: "Your jobs that have failed",
}


class Look:
    """Shows jobs; changes nothing."""

    def __init__(
        self,
        *,
        queries: Queries,
        steering: Steering,
        output: Output,
        catalog: Catalog,
        workspace: Workspace,
        windows: Windows,
    ) -> None:
        self._queries = queries
        self._steering = steering
        self._output = output
        self._catalog = catalog
        self._workspace = workspace
        self._windows = windows

    # Status and lists

    def status(self, name: str, user: str) -> list[Block]:
        """One job with its buttons; without a name, this person's jobs that have not ended, or their last one."""
        if name:
            job = self._queries.named(name, actor=user)
            buttons = cards.buttons(job, steers=self._steering.may_steer(job, user))
            return [cards.section(cards.row(job)), ActionsBlock(block_id=f"job-{job.id}", elements=buttons)]
        if self._queries.page(Which.MINE_RUNNING, actor=user, most=1).jobs:
            return self.page(f"{Which.MINE_RUNNING}:", user)
        last = self._queries.page(Which.MINE, actor=user, most=1).jobs
        if not last:
            return [cards.section("You have no jobs yet; `/nomads submit` opens the form.")]
        return [cards.section("Nothing of yours is running. Your last job:"), *cards.listed(last)]

    def page(self, place: str, user: str) -> list[Block]:
        """A page of a list; `place` is `which:last,last…`, of each earlier page."""
        which, _, turned = place.partition(":")
        before = [turn for turn in turned.split(",") if turn]
        wanted = Which(which)
        page = self._queries.page(wanted, actor=user, before=before[-1] if before else None)
        title = f"*{_TITLES[wanted]}*" + (f", page {len(before) + 1}" if before else "")
        none = [] if page.more or page.doubtful else [cards.section("There are none.")]
        blocks: list[Block] = [cards.section(title), *(cards.listed(page.jobs) or none)]
        turns = []
        if before:
            turns.append(_turn("newer", "Newer", f"{which}:{','.join(before[:-1])}"))
        if page.doubtful:
            blocks.append(cards.context("Slack does not tell now who may see some jobs, so they are left out."))
        if page.last and page.more:
            turns.append(_turn("older", "Older", f"{which}:{','.join([*before, page.last][-TURNS:])}"))
        return [*blocks, ActionsBlock(block_id="pages", elements=turns)] if turns else blocks

    def turn(self, ack: Ack, body: dict[str, Any], action: dict[str, Any], client: WebClient, respond: Respond) -> None:
        """Show another page in place of the one whose button was clicked; from the home tab, in a new window."""
        place, user, view = action["value"], body["user"]["id"], body.get("view") or {}
        blocks = self.page(place, user)
        if body.get("response_url"):
            self._windows.later(lambda: respond(text="Jobs", blocks=blocks, replace_original=True))
        elif view.get("type") == "modal":
            self._windows.later(lambda: update(client, view["id"], window("Jobs", blocks)))
        else:
            self._windows.show(client, body, window("Jobs", blocks))
        ack()

    # One job

    def results(self, ack: Ack, body: dict[str, Any], action: dict[str, Any], client: WebClient) -> None:
        """Show the job's results in a window, with links made anew, since they may expire."""
        user, job_id = body["user"]["id"], action["value"]
        self._windows.open(client, body, "Results", lambda: self._results(self._queries.seen(job_id, actor=user), user))
        ack()

    def _results(self, job: Job, user: str) -> list[Block]:
        links, page = self._output.links(job, Audience.person(user)), self._output.page(job, Audience.person(user))
        lines = [
            f"*Job `{job.id}`*",
            *([words.unmarked(job.reason)] if job.unread else []),
            *(words.unmarked(finding) for finding in (job.summary.findings if job.summary else [])),
        ]
        lines += [words.unmarked(note) for note in (job.summary.notes if job.summary else [])]
        lines += [f"• {words.link(link.url, title)}" for title, link in links]
        lines += [words.link(page, "All files")] if page else []
        blocks: list[Block] = [cards.section(text) for text in cards.packed(lines)]
        if lasting := Lasting.of(link for _, link in links):
            until = f"{cards.moment(lasting.until)}{lasting.how}"
            blocks.append(cards.context(f"These links work until {until}; then ask for new ones."))
        return blocks

    def details(self, ack: Ack, body: dict[str, Any], action: dict[str, Any], client: WebClient) -> None:
        """Show everything about the job in a window."""
        user, job_id = body["user"]["id"], action["value"]
        self._windows.open(client, body, DETAILS, lambda: self._details(self._queries.seen(job_id, actor=user), user))
        ack()

    def details_of(self, job_id: str, user: str) -> dict[str, Any]:
        """The window of details of the job as it stands now. Raises UnknownJob and Unavailable."""
        return window(DETAILS, self._details(self._queries.seen(job_id, actor=user), user))

    def _details(self, job: Job, user: str) -> list[Block]:
        request = job.request
        facts = [
            f"*Job `{job.id}`*: {cards.state(job)}{cards.progress(job)}",
            f"Pipeline: {words.mrkdwn(request.pipeline)}",
            f"Volume: {words.mrkdwn(request.place)}, {request.box} "
            f"({words.voxels(request.box.voxels)}{f', {words.size(job.size)}' if job.size else ''})",
            f"Asked by {cards.who(job.actor)}",
        ]
        if options := self._catalog.told_options(request):
            facts.insert(2, f"Options: {words.mrkdwn(words.options(options))}")
        if request.channel:
            thread = self._workspace.link_to(request.channel, self._queries.card_of(job.id))
            facts.append(f"Channel: <#{request.channel}>" + (f", {words.link(thread, 'thread')}" if thread else ""))
        if job.unposted:
            facts.append(cards.unposted(job))
        if address := job.mail_for(user):
            facts.append(f"Mail: {words.mrkdwn(address)}")
        if job.expected:
            facts.append(f"Expected: {words.mrkdwn(words.forecast(job.expected))}")
        if job.reason:
            facts.append(f"Reason: {words.unmarked(job.reason)}")
        if job.compute_id:
            console = self._output.console(job)
            facts.append(f"Compute id: `{job.compute_id}`" + (f", {words.link(console, 'console')}" if console else ""))
        blocks: list[Block] = [cards.section(text) for text in cards.packed(facts)]
        blocks += cards.block_map(job)
        blocks += [cards.section(text) for text in cards.packed(["*What happened*", *self._story(job)])]
        attempts = self._queries.attempts(job, actor=user)
        if len(attempts) > 1:
            tried = [f"{one.attempt}: `{one.id}` {cards.state(one)}" for one in attempts]
            blocks += [cards.section(text) for text in cards.packed(["*Attempts*", *tried])]
        buttons = [
            button
            for button in cards.buttons(job, steers=self._steering.may_steer(job, user))
            if button.action_id != cards.DETAILS
        ]
        return [*blocks, *([ActionsBlock(block_id=f"job-{job.id}", elements=buttons)] if buttons else [])]

    def _story(self, job: Job) -> list[str]:
        """A line for every transition, with its time."""
        steps = self._queries.transitions(job.id)
        told = [f": {words.shortened(cards.step_text(step, job), 1000)}" if step.text else "" for step in steps]
        return [
            f"{cards.moment(step.at, seconds=True)} {step.state.value}{text}"
            for step, text in zip(steps, told, strict=True)
        ]


def _turn(way: str, text: str, place: str) -> ButtonElement:
    return ButtonElement(action_id=f"{cards.LIST}_{way}", text=text, value=place)
