"""The form: opened, filled in with what BOSS says, and submitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from slack_bolt import Ack
from slack_sdk import WebClient

from bot.application.output import Output
from bot.application.people import People, Profile
from bot.application.ports import Workspace
from bot.application.queries import Queries
from bot.application.submission import Followed, Question, Submission
from bot.domain import words
from bot.domain.catalog import Catalog
from bot.domain.errors import InvalidRequest, NomadsError, Unavailable
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.people import SavedToken
from bot.slack.cards import section
from handlers import modal
from handlers.describing import Describing
from handlers.windows import Windows, window

CHECK = 1.5
"""Seconds within which a submitted form is checked, Slack's and BOSS's answers included."""
TELL_ME_TOO = "Tell me too when it ends"
SIDE_BY_SIDE = (
    "The blocks are worked on side by side, as many as there is room for: how long that takes depends on the room."
)
NO_PIPELINES = (
    "No pipelines are set up, so there is nothing to submit yet. Whoever runs NOMADS can add one (NOMADS_PIPELINES)."
)
BUSY = "NOMADS cannot write to its database just now. Nothing was submitted; try again."


class Submit:
    """Opens the form and submits it."""

    def __init__(
        self,
        *,
        submission: Submission,
        queries: Queries,
        people: People,
        output: Output,
        catalog: Catalog,
        workspace: Workspace,
        windows: Windows,
        describing: Describing,
        first_choice: Callable[[], str],
    ) -> None:
        """`first_choice` names the pipeline that is offered to a person without a last request."""
        self._submission = submission
        self._queries = queries
        self._people = people
        self._output = output
        self._catalog = catalog
        self._workspace = workspace
        self._windows = windows
        self._describing = describing
        self._first_choice = first_choice

    # Opening

    def open(self, client: WebClient, *, trigger_id: str, user: str, channel: str = "", text: str = "") -> None:
        """Open the form, filled from the command's words, else the channel, else the person's last request.

        Where the words name another volume than the last request, ranges that they leave out stay empty: all of it.
        """
        here = {"channel": channel} if channel[:1] in ("C", "G") else {}
        profile = self._people.profile(user)
        preset = {"pipeline": self._first_choice(), **profile.last_request, **here}
        wish = modal.wish(text, self._catalog, otherwise=preset["pipeline"])
        values = {**preset, **wish.values}
        if _elsewhere(values, preset):
            values |= {axis: wish.values.get(axis, "") for axis in "xyz"}  # the last ranges are another volume's
        if values["pipeline"] == preset["pipeline"] and "options" in preset:
            values["options"] = self._kept(preset, values, wish.values.get("options", {}))
        elif "options" not in wish.values:
            values.pop("options", None)  # they are another pipeline's
        wish = modal.Wish(values, wish.not_understood)
        self._show(client, {"trigger_id": trigger_id}, user, wish, profile)

    def _kept(self, preset: Mapping[str, Any], values: Mapping[str, Any], typed: Mapping[str, str]) -> dict[str, str]:
        """The options of the command, and those of the last request that have an effect with them.

        Of a request for another experiment, those that name channels are not kept.
        """
        kept: dict[str, str] = {**preset["options"], **typed}
        pipeline = self._catalog.get(preset["pipeline"])
        if pipeline is None:
            return kept
        gone = pipeline.idle_options(kept)
        if _elsewhere(values, preset):
            gone |= {option.name for option in pipeline.options if option.kind == "channels"}
        return {name: value for name, value in kept.items() if name in typed or name not in gone}

    def open_from_shortcut(self, ack: Ack, shortcut: dict[str, Any], client: WebClient) -> None:
        """Open the form from the global shortcut."""
        self.open(client, trigger_id=shortcut["trigger_id"], user=shortcut["user"]["id"])
        ack()

    def edit(self, ack: Ack, body: dict[str, Any], action: dict[str, Any], client: WebClient) -> None:
        """“Edit and rerun”: the form as it was, without the token."""
        user = body["user"]["id"]
        wish = modal.Wish(self._queries.typed(action["value"], actor=user))
        self._show(client, body, user, wish, self._people.profile(user))
        ack()

    def _show(self, client: WebClient, body: Mapping[str, Any], user: str, wish: modal.Wish, profile: Profile) -> None:
        if not list(self._catalog):
            raise NomadsError(NO_PIPELINES)
        if self._queries.mails and not wish.values.get("email"):
            wish = modal.Wish({**wish.values, "email": self._workspace.mail_of(user)}, wish.not_understood)
        about = self._describing.at_opening(self._describing.look(user, wish.values, profile=profile))
        view_id = self._windows.show(client, body, self._view(wish, profile, about))
        if about is None:
            self._describe_later(client, view_id, user, wish)

    # While it is open

    def chosen(self, ack: Ack, body: dict[str, Any], client: WebClient) -> None:
        """What was chosen changes the form: the pipeline its options; the rest what BOSS says of the experiment."""
        form, user = modal.parse(body["view"]), body["user"]["id"]
        values, block = dict(form.values), form.experiment_block
        chosen = body["actions"][0]["action_id"]
        if chosen == modal.COLLECTION and values.get(chosen) != form.meta.collection:
            values.pop(modal.EXPERIMENT, None)  # it is one of another collection
            block = modal.after_another_collection(form)
        self._describe_later(client, body["view"]["id"], user, modal.Wish(values, experiment_block=block), form)
        ack()

    def ticked(self, ack: Ack) -> None:
        """A box outside an input block was ticked: Slack tells it at once, and the form has it when it is submitted."""
        ack()

    def _describe_later(
        self, client: WebClient, view_id: str, user: str, wish: modal.Wish, form: modal.Filled | None = None
    ) -> None:
        """Show what BOSS says. Slack preserves what is typed meanwhile, since the blocks' ids stay."""
        look = self._describing.look(user, wish.values, typed=form.token if form else None)

        def view(about: modal.About) -> dict[str, Any]:
            return self._view(wish, self._people.profile(user), about)

        self._describing.later(client, view_id, look, view)

    def _view(
        self,
        wish: modal.Wish,
        profile: Profile,
        about: modal.About | None,
        question: modal.Question | None = None,
    ) -> dict[str, Any]:
        mails = self._queries.mails
        return modal.view(self._catalog, wish, saved=_saved(profile.saved), about=about, question=question, mails=mails)

    # Submitting

    def take(self, ack: Ack, body: dict[str, Any], view: dict[str, Any]) -> None:
        """Submit the form. It stays open with every mistake, or with a question, and closes once a job is accepted."""
        form, user = modal.parse(view), body["user"]["id"]
        try:
            outcome = self._submission.submit(form, actor=user, key=f"view:{view['id']}", within=CHECK)
        except InvalidRequest as error:
            ack(response_action="errors", errors=modal.errors(error.errors, view))
        except Unavailable:
            ack(response_action="errors", errors=modal.errors({"pipeline": BUSY}, view))
        else:
            if isinstance(outcome, Question) and outcome.twin_runs and outcome.digest == form.meta.asked:
                ack(response_action="errors", errors=modal.errors({modal.PIPELINE: _unanswered(outcome, user)}, view))
            elif isinstance(outcome, Question):
                ack(response_action="update", view=self._asked(view["id"], user, form, outcome))
            elif isinstance(outcome, Followed):
                ack(response_action="update", view=self._told(outcome.job))
            else:
                ack()

    def _told(self, job: Job) -> dict[str, Any]:
        how = "you are mentioned in its thread" + (" and get a mail, if you want any" if self._queries.mails else "")
        return window("You will be told", [section(f"When {self._named(job)} ends, {how}.")])

    def _asked(self, view_id: str, user: str, form: modal.Filled, question: Question) -> dict[str, Any]:
        """The view of the form with the question."""
        self._describing.drop(view_id)  # a late answer of BOSS's must not replace the question
        about = self._describing.known(self._describing.look(user, form.values, typed=form.token))
        wish = modal.Wish(form.values, experiment_block=form.experiment_block)
        return self._view(wish, self._people.profile(user), about, self._put(question, user))

    def _put(self, question: Question, user: str) -> modal.Question:
        """The question in the words of the form."""
        proposal, twin, digest = question.proposal, question.proposal.twin, question.digest
        if twin and question.twin_runs:
            text = f"*This is being done already*: {self._named(twin)}."
            return modal.Question(text, TELL_ME_TOO if twin.actor != user else "", digest, instead=True)
        texts, agree = [], "Yes, submit it"
        if twin:
            page = self._output.page(twin, Audience.person(user))
            here = f"; here are {words.link(page, 'its results')}" if page else ""
            texts.append(f"*This has been done already*: {self._named(twin)}{here}.")
            agree = "Run it again"
        if proposal.heavy:
            texts.append(f"*This is a large run*: {proposal.takes}. The box is {proposal.reviewed.box}.")
            texts += [SIDE_BY_SIDE] if proposal.reviewed.block else []
        return modal.Question("\n".join(texts), agree, digest)

    def _named(self, job: Job) -> str:
        link = self._workspace.link_to(job.request.channel, self._queries.card_of(job.id))
        return f"job `{job.id}`" + (f" ({words.link(link, 'its thread')})" if link else "")


def _elsewhere(values: Mapping[str, Any], preset: Mapping[str, Any]) -> bool:
    """Whether the values name another volume than the preset."""
    return any(values.get(name) != preset.get(name) for name in ("collection", "experiment"))


def _unanswered(question: Question, user: str) -> str:
    """What a person can do who submits once more what a job does now."""
    twin = question.proposal.twin
    assert twin is not None
    told = f"tick “{TELL_ME_TOO}” at the end of the form, " if twin.actor != user else ""
    return (
        f"Nothing was submitted, since job {twin.id} does this now: {told}change what is asked for, or close the form."
    )


def _saved(known: SavedToken | None) -> str | None:
    """How the form describes the saved token; None where there is none."""
    if known is None:
        return None
    return f"saved token ending …{known.ending}" if known.ending else "saved token"
