"""The form: opened, filled in with what BOSS says, and submitted."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr
from slack_bolt import Ack
from slack_sdk import WebClient

from bot.application.output import Output
from bot.application.people import Kept, typed
from bot.application.ports import Volumes
from bot.application.service import JobService, Proposal
from bot.domain import words
from bot.domain.catalog import Catalog
from bot.domain.errors import AlreadyRunning, InvalidRequest, Unavailable
from bot.domain.job import Job
from bot.domain.people import SavedToken
from bot.domain.request import PUBLIC_TOKEN
from bot.domain.states import FINAL
from bot.domain.volume import VolumesRefused
from bot.slack.workspace import Workspace
from handlers import modal
from handlers.windows import Windows, update

CHECK = 1.5
"""Seconds within which a submitted form is checked, Slack's and BOSS's answers included."""
PATIENCE = 3.0
"""Seconds that BOSS is given to describe an experiment to a form that is open anyway."""
FORMS = 1000
"""Open forms whose last choice is remembered."""
SLOW = "BOSS does not answer just now: names are taken as you type them, and checked before the run."
BUSY = "NOMADS cannot write to its database just now. Nothing was submitted; try again."


class Submit:
    """Opens the form and takes it."""

    def __init__(
        self,
        *,
        service: JobService,
        catalog: Catalog,
        volumes: Volumes,
        workspace: Workspace,
        windows: Windows,
        output: Output,
    ) -> None:
        self._service = service
        self._catalog = catalog
        self._volumes = volumes
        self._workspace = workspace
        self._windows = windows
        self._output = output
        self._latest: OrderedDict[str, object] = OrderedDict()

    # Opening

    def open(self, client: WebClient, *, trigger_id: str, user: str, channel: str = "", text: str = "") -> None:
        """Open the form: what the words say, then the channel they are in, then what this person last asked."""
        wish = modal.wish(text, self._catalog)
        here = {"channel": channel} if channel[:1] in ("C", "G") else {}
        kept = self._service.people.kept(user)
        preset = {"pipeline": self._service.first_choice(), **kept.last_request, **here}
        wish = modal.Wish({**preset, **wish.values}, wish.not_understood)
        self._show(client, {"trigger_id": trigger_id}, user, wish, kept)

    def open_from_shortcut(self, ack: Ack, shortcut: dict[str, Any], client: WebClient) -> None:
        """The global shortcut: the same form, from anywhere."""
        self.open(client, trigger_id=shortcut["trigger_id"], user=shortcut["user"]["id"])
        ack()

    def edit(self, ack: Ack, body: dict[str, Any], action: dict[str, Any], client: WebClient) -> None:
        """“Edit and rerun”: the form as it was, without the token; somebody else's without their address."""
        job, user = self._service.find(action["value"]), body["user"]["id"]
        values = typed(job.request)
        if user != job.actor:
            del values["email"]
        self._show(client, body, user, modal.Wish(values), self._service.people.kept(user))
        ack()

    def _show(self, client: WebClient, body: Mapping[str, Any], user: str, wish: modal.Wish, kept: Kept) -> None:
        if not wish.values.get("email"):
            wish = modal.Wish({**wish.values, "email": self._workspace.mail_of(user)}, wish.not_understood)
        about = self._about(wish.values, kept.token, within=0)
        view = modal.view(self._catalog, wish, saved=_saved(kept.saved), about=about)
        opened = self._windows.show(client, body, view)
        if about is None and wish.values.get(modal.EXPERIMENT):
            self._describe_later(client, opened, wish, kept.token, user)

    # While it is open

    def chosen(self, ack: Ack, body: dict[str, Any], client: WebClient) -> None:
        """A collection or an experiment was chosen: the form shows what BOSS says of it, a moment later."""
        form, user = modal.parse(body["view"]), body["user"]["id"]
        token = form.token if form.token.get_secret_value() else self._service.people.token_of(user)
        values = dict(form.values)
        if body["actions"][0]["action_id"] == modal.COLLECTION:  # the experiment was one of another collection
            values.pop(modal.EXPERIMENT, None)
        self._describe_later(client, body["view"]["id"], modal.Wish(values), token, user)
        ack()

    def _describe_later(
        self, client: WebClient, view_id: str, wish: modal.Wish, token: SecretStr | None, user: str
    ) -> None:
        """Show what BOSS says; what was typed meanwhile is kept by Slack, whose blocks keep their ids.

        Only what was chosen last is shown: an answer that comes after another choice is dropped.
        """
        mine = object()
        self._latest[view_id] = mine
        while len(self._latest) > FORMS:
            self._latest.popitem(last=False)

        def describe() -> None:
            about = self._about(wish.values, token, within=PATIENCE) or modal.About(said=SLOW)
            shown = modal.view(self._catalog, wish, saved=_saved(self._service.people.kept(user).saved), about=about)
            if self._latest.get(view_id) is mine:
                update(client, view_id, shown)

        self._windows.later(describe)

    def _about(self, values: Mapping[str, str], token: SecretStr | None, *, within: float) -> modal.About | None:
        """What is known of the experiment in time; None where nothing is."""
        collection, experiment = values.get(modal.COLLECTION, ""), values.get(modal.EXPERIMENT, "")
        if not (collection and experiment):
            return modal.About()
        try:
            token = token or SecretStr(PUBLIC_TOKEN)
            return modal.About(self._volumes.describe(collection, experiment, token=token, within=within))
        except VolumesRefused as refusal:
            return modal.About(said=str(refusal))
        except Unavailable:
            return None

    # Submitting

    def take(self, ack: Ack, body: dict[str, Any], view: dict[str, Any]) -> None:
        """Every mistake at once and the form stays; a question, and it stays too; or a job, and only then it closes."""
        until = time.monotonic() + CHECK
        form, user = modal.parse(view), body["user"]["id"]
        token = form.token if form.token.get_secret_value() else self._service.people.token_of(user) or form.token
        channel = form.values.get("channel", "")
        trouble = self._workspace.trouble_with(channel) if channel else "Choose the channel that hears of the results."
        errors = {"channel": trouble} if trouble else {}
        try:
            within = max(0.2, until - time.monotonic())
            key = f"view:{view['id']}"
            proposal = self._service.propose(form.values, token, actor=user, within=within, key=key)
            question = None if errors else self._question(proposal, proposal.twin, agreed=form.agreed)
            try:
                if not errors and not question:
                    self._accept(proposal, form, token, user=user, key=key)
            except AlreadyRunning as found:  # it has begun this moment
                if not proposal.readable and found.job.actor != user:
                    raise
                question = self._question(proposal, found.job, agreed="")
            if question:
                self._latest[view["id"]] = object()  # what BOSS may still say must not take the question away
                about = self._about(form.values, token, within=0)
                wish = modal.Wish(form.values)
                shown = modal.view(
                    self._catalog,
                    wish,
                    saved=_saved(self._service.people.kept(user).saved),
                    about=about,
                    question=question,
                )
                ack(response_action="update", view=shown)
                return
        except InvalidRequest as error:
            errors = {**error.errors, **errors}
        except AlreadyRunning:
            errors = {"pipeline": "A job does the same now; nothing was submitted."}
        except Unavailable:
            errors = {"pipeline": BUSY}
        if errors:
            ack(response_action="errors", errors=modal.errors(errors))
        else:
            ack()

    def _accept(self, proposal: Proposal, form: modal.Form, token: SecretStr, *, user: str, key: str) -> None:
        # first, for if it fails nothing was submitted, as the person is told
        if form.remember and form.token.get_secret_value() and proposal.readable:  # BOSS has taken it
            self._service.people.remember_token(user, form.token)
        self._service.accept(proposal.request, actor=user, token=token, key=key, proposal=proposal)

    def _question(self, proposal: Proposal, twin: Job | None, *, agreed: str) -> modal.Question | None:
        """What the person is asked before this is taken; nothing, where there is nothing to ask or it was answered."""
        digest = modal.digest(proposal.request, twin.id if twin else "", "large" if proposal.heavy else "")
        if twin and twin.state not in FINAL:
            return modal.Question(f"*This is being done already*: {self._named(twin)}.", "", digest)
        if agreed == digest or not (twin or proposal.heavy):
            return None
        texts, agree = [], "Yes, submit it"
        if twin:
            folder = words.link(self._output.address(twin), "its results")
            texts.append(f"*This has been done already*: {self._named(twin)}; here are {folder}.")
            agree = "Run it again"
        if proposal.heavy:
            texts.append(
                f"*This is a large run*: {words.takes(proposal.request.box.voxels, proposal.size, proposal.expected)}."
            )
        return modal.Question("\n".join(texts), agree, digest)

    def _named(self, job: Job) -> str:
        link = self._workspace.link_to(job.request.channel, self._service.card_of(job.id))
        return f"job `{job.id}`" + (f", {words.link(link, 'its thread')}" if link else "")


def _saved(known: SavedToken | None) -> str | None:
    """How the form names the kept token."""
    if known is None:
        return None
    return f"saved token ending …{known.ending}" if known.ending else "saved token"
