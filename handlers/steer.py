"""Cancel and retry: by a button on a card, in a list or in the home tab, or by a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from slack_bolt import Ack, Respond
from slack_sdk import WebClient
from slack_sdk.models.blocks import EmailInputElement, InputBlock, PlainTextInputElement
from slack_sdk.models.views import View

from bot.application.queries import Queries
from bot.application.steering import Needed, Retried, Steering
from bot.domain.checks import token_problem
from bot.domain.errors import InvalidRequest, NomadsError
from bot.domain.states import JobState
from handlers import modal
from handlers.look import Look
from handlers.submit import CHECK
from handlers.windows import Windows, said, update, window

CALLBACK = "nomads_retry_view"
DOUBT = "doubt"
"""The block of a form that says why the retry would fail again: who submits that form wants it all the same."""


class Steer:
    """Cancels and retries jobs for the person who clicks or types."""

    def __init__(self, *, steering: Steering, queries: Queries, look: Look, windows: Windows) -> None:
        self._steering = steering
        self._look = look
        self._queries = queries
        self._windows = windows

    def cancel(
        self, ack: Ack, body: dict[str, Any], action: dict[str, Any], client: WebClient, respond: Respond
    ) -> None:
        """Cancel the job whose button was clicked; Slack has asked whether the person is sure."""
        name, user = action["value"], body["user"]["id"]
        self._answer(ack, body, client, respond, lambda: self.cancelled(name, user), shown=name)

    def cancelled(self, name: str, user: str) -> str:
        """Cancel the job of that name; returns what to tell the person. Raises NomadsError."""
        job = self._steering.cancel(self._queries.named(name, actor=user).id, actor=user)
        done = "is cancelled" if job.state is JobState.CANCELLED else "is being cancelled"
        return f"Job {job.id} {done}."

    def go(self, ack: Ack, body: dict[str, Any], action: dict[str, Any], client: WebClient, respond: Respond) -> None:
        """Let the job whose button was clicked go on after its pilot."""
        name, user = action["value"], body["user"]["id"]
        self._answer(ack, body, client, respond, lambda: self.went(name, user), shown=name)

    def went(self, name: str, user: str) -> str:
        """Let the job of that name go on; returns what to tell the person. Raises NomadsError."""
        job = self._steering.go(self._queries.named(name, actor=user).id, actor=user)
        return f"Job {job.id} goes on."

    def retry(
        self, ack: Ack, body: dict[str, Any], action: dict[str, Any], client: WebClient, respond: Respond
    ) -> None:
        """Retry the job whose button was clicked."""
        name, user = action["value"], body["user"]["id"]
        self._answer(ack, body, client, respond, lambda: self.retried(client, body, name, user))

    def retried(self, client: WebClient, body: Mapping[str, Any], name: str, user: str) -> str:
        """Retry the job of that name; returns what to tell the person, or no text where a form asks for more."""
        outcome = self._steering.retry(self._queries.named(name, actor=user).id, actor=user)
        if isinstance(outcome, Retried):
            return _again(outcome)
        self._windows.show(client, body, _form(outcome))
        return ""

    def take(self, ack: Ack, body: dict[str, Any], view: dict[str, Any]) -> None:
        """Retry the job with what was missing and is now typed in the form."""
        form, user = modal.parse(view), body["user"]["id"]
        errors: dict[str, str] = {}
        try:
            outcome = self._steering.retry(
                view["private_metadata"],
                actor=user,
                token=form.token,
                email=form.values.get("email", ""),
                anyway=any(block["block_id"] == DOUBT for block in view["blocks"]),
                within=CHECK,
            )
            if isinstance(outcome, Needed) and outcome.doubt:  # it became known while the form was open
                ack(response_action="update", view=_form(outcome))
                return
            if isinstance(outcome, Needed):
                errors = _missing(outcome)
        except InvalidRequest as error:
            errors = error.errors
        except NomadsError as error:
            errors = {"token": str(error)}
        shown = [block["block_id"] for block in view["blocks"] if block["type"] == "input"]
        if errors and not shown:
            ack(response_action="update", view=window("NOMADS", [said(" ".join(errors.values()))]))
        elif errors:
            ack(response_action="errors", errors=modal.errors(_placed(errors, shown), view))
        else:
            ack(response_action="clear")

    def _answer(
        self,
        ack: Ack,
        body: dict[str, Any],
        client: WebClient,
        respond: Respond,
        act: Callable[[], str],
        *,
        shown: str = "",
    ) -> None:
        """Act, and tell the person what came of it; a view that shows the job itself tells its new state.

        `shown` names the job that the clicked window, if it was one, shows.
        """
        view = body.get("view") or {}
        try:
            text = act()
            if view.get("type") == "home" or (view and shown):
                text = ""
        except NomadsError as error:
            text = str(error)
        if text:
            self._windows.tell(client, body, respond, text)
        if shown and view.get("type") == "modal":
            user = body["user"]["id"]
            self._windows.later(lambda: update(client, view["id"], self._look.details_of(shown, user)))
        ack()


def _again(retried: Retried) -> str:
    if retried.already:
        return f"Job {retried.before.id} was tried again already, as job {retried.job.id}."
    return f"Tried again as job {retried.job.id}, attempt {retried.job.attempt}."


def _missing(needed: Needed) -> dict[str, str]:
    """The errors, by field, of a form without what a retry needs."""
    errors = {"token": token_problem("")} if needed.token else {}
    return errors | ({"email": "Your mail address is not known just now; write it here."} if needed.email else {})


def _placed(errors: Mapping[str, str], shown: list[str]) -> dict[str, str]:
    """Each error under its field, or under the first field where the form does not show its own."""
    placed: dict[str, str] = {}
    for field, text in errors.items():
        where = field if field in shown else shown[0]
        placed[where] = f"{placed[where]} {text}" if where in placed else text
    return placed


def _form(needed: Needed) -> dict[str, Any]:
    """The form that asks for what a retry needs: a token, a mail address, or that it is wanted all the same."""
    job = needed.job
    blocks: list[Any] = [said(f"Job {job.id} runs again as it was, as attempt {job.attempt + 1}.")]
    if needed.doubt:
        blocks = [said(needed.doubt, block_id=DOUBT), *blocks]
    another = bool(needed.doubt) and job.turned_down  # the saved token may be the one that BOSS refuses
    if needed.token or another:
        element = PlainTextInputElement(action_id=modal.ACTION)
        hint = "NOMADS forgets a job's token when it ends. /nomads token saves yours."
        hint = hint if needed.token else "Empty: your saved token."
        block = InputBlock(block_id="token", label="BOSS token", element=element, hint=hint, optional=not needed.token)
        blocks.append(block)
    if needed.email:
        blocks.append(InputBlock(block_id="email", label="Email", element=EmailInputElement(action_id=modal.ACTION)))
    return View(
        type="modal",
        callback_id=CALLBACK,
        title=f"Retry job {job.id}",
        submit="Retry all the same" if needed.doubt else "Retry",
        close="Close",
        blocks=blocks,
        private_metadata=job.id,
    ).to_dict()
