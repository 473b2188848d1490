"""Cancel and retry: by a button on a card, in a list or in the home tab, or by a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from slack_bolt import Ack, Respond
from slack_sdk import WebClient
from slack_sdk.models.blocks import EmailInputElement, InputBlock, PlainTextInputElement
from slack_sdk.models.views import View

from bot.application.service import JobService
from bot.domain.checks import token_problem
from bot.domain.errors import InvalidRequest, NomadsError
from bot.domain.job import Job
from bot.domain.states import JobState
from bot.slack.workspace import Workspace
from handlers import modal
from handlers.windows import Windows, said

CALLBACK = "nomads_retry_view"


class Steer:
    """What a person does about a job."""

    def __init__(self, *, service: JobService, workspace: Workspace, windows: Windows) -> None:
        self._service = service
        self._workspace = workspace
        self._windows = windows

    def cancel(
        self, ack: Ack, body: dict[str, Any], action: dict[str, Any], client: WebClient, respond: Respond
    ) -> None:
        """The button; Slack has asked whether the person is sure."""
        self._answer(ack, body, client, respond, lambda: self.cancelled(action["value"], body["user"]["id"]))

    def cancelled(self, name: str, user: str) -> str:
        """End the job of that name; what to say of it. Raises NomadsError with what is wrong."""
        job = self._service.cancel(self._service.named(name).id, actor=user)
        done = "is cancelled" if job.state is JobState.CANCELLED else "is being cancelled"
        return f"Job {job.id} {done}."

    def retry(
        self, ack: Ack, body: dict[str, Any], action: dict[str, Any], client: WebClient, respond: Respond
    ) -> None:
        """The button."""
        self._answer(
            ack, body, client, respond, lambda: self.retried(client, body, action["value"], body["user"]["id"])
        )

    def retried(self, client: WebClient, body: Mapping[str, Any], name: str, user: str) -> str:
        """Try the job of that name again; what to say of it, or nothing where a form asks for what is missing."""
        job = self._service.retryable(self._service.named(name).id, actor=user)
        if job.retried_as:
            return f"Job {job.id} was tried again already, as job {job.retried_as}."
        self._still_posts_to(job)
        token = self._service.people.token_of(user)
        email = self._mail_for(job, user)
        if token and email:
            return _again(self._service.retry(job.id, actor=user, token=token, email=email))
        self._windows.show(client, body, _form(job, token=not token, email=not email))
        return ""

    def take(self, ack: Ack, body: dict[str, Any], view: dict[str, Any]) -> None:
        """The form with the token that was missing."""
        form, user = modal.parse(view), body["user"]["id"]
        typed = form.token if form.token.get_secret_value() else self._service.people.token_of(user) or form.token
        errors: dict[str, str] = {}
        try:
            job = self._service.retryable(view["private_metadata"], actor=user)
            email = form.values.get("email") or self._mail_for(job, user)
            if problem := token_problem(typed.get_secret_value()):
                errors["token"] = problem
            else:
                self._service.retry(job.id, actor=user, token=typed, email=email)
        except InvalidRequest as error:
            errors = error.errors
        except NomadsError as error:
            errors["token"] = str(error)
        if errors:
            shown = [block["block_id"] for block in view["blocks"] if block["type"] == "input"]
            ack(response_action="errors", errors=modal.errors(_placed(errors, shown)))
        else:
            ack(response_action="clear")

    def _still_posts_to(self, job: Job) -> None:
        if job.request.channel and (trouble := self._workspace.trouble_with(job.request.channel)):
            raise NomadsError(f"{trouble} “Edit and rerun” lets you choose the channel.")

    def _mail_for(self, job: Job, user: str) -> str:
        """Where the retry's mail goes: never to somebody else's address."""
        return job.request.email if user == job.actor else self._workspace.mail_of(user)

    def _answer(
        self, ack: Ack, body: dict[str, Any], client: WebClient, respond: Respond, act: Callable[[], str]
    ) -> None:
        try:
            text = act()
            if (body.get("view") or {}).get("type") == "home":
                text = ""  # the tab itself shows what has become of the job
        except NomadsError as error:
            text = str(error)
        if text:
            self._windows.tell(client, body, respond, text)
        ack()


def _again(job: Job) -> str:
    return f"Tried again as job {job.id}, attempt {job.attempt}."


def _placed(errors: Mapping[str, str], shown: list[str]) -> dict[str, str]:
    """Each under its field, or, where the form does not show that, under the first one."""
    placed: dict[str, str] = {}
    for field, text in errors.items():
        where = field if field in shown else shown[0]
        placed[where] = f"{placed[where]} {text}" if where in placed else text
    return placed


def _form(job: Job, *, token: bool, email: bool) -> dict[str, Any]:
    """Asks for what a retry needs and NOMADS does not keep."""
    blocks: list[Any] = [said(f"Job {job.id} runs again as it was, as attempt {job.attempt + 1}.")]
    if token:
        element = PlainTextInputElement(action_id=modal.ACTION)
        hint = "NOMADS forgets a job's token when it ends. /nomads token saves yours."
        blocks.append(InputBlock(block_id="token", label="BOSS token", element=element, hint=hint))
    if email:
        blocks.append(InputBlock(block_id="email", label="Email", element=EmailInputElement(action_id=modal.ACTION)))
    return View(
        type="modal",
        callback_id=CALLBACK,
        title=f"Retry job {job.id}",
        submit="Retry",
        close="Close",
        blocks=blocks,
        private_metadata=job.id,
    ).to_dict()
