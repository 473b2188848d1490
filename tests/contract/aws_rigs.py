"""The rigs of `rigs.py` for AWS. They stand apart because importing moto takes longer than most tests."""

from __future__ import annotations

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from types import SimpleNamespace
from typing import Any

from moto.ses.models import ses_backends
from pydantic import SecretStr

from bot.aws.ses import SesMailer
from bot.domain.states import JobState
from bot.domain.work import Work
from bot.mail.smtp import mime
from tests.contract.rigs import TOKEN, a_work
from tests.support import aws

ACCOUNT = "123456789012"
"""The account moto plays."""


class AwsComputeRig:
    """BatchCompute against moto, whose jobs are moved by hand."""

    def __init__(self, world: aws.World) -> None:
        self._world = world
        self.compute = world.compute()
        self.logs = world.logs()
        self._secrets = world.secrets()
        self._run: list[str] = []

    def work(self, name: str) -> Work:
        return a_work(name, token=self._secrets.put("U1", SecretStr(TOKEN)))

    def run(self, compute_id: str) -> None:
        self._run.append(compute_id)
        aws.set_state(compute_id, JobState.RUNNING)

    def end(self, compute_id: str, *, code: int, lines: tuple[str, ...] = ()) -> None:
        if lines:
            aws.write_log(compute_id, *lines)
        state = JobState.FAILED if code else JobState.SUCCEEDED
        aws.set_state(compute_id, state, reason="Essential container in task exited", exit_code=code)

    def say(self, compute_id: str, *lines: str) -> None:
        aws.write_log(compute_id, *lines)

    def after_cancel(self, compute_id: str) -> None:
        pass

    def exposed(self) -> str:
        batch = self._world.clients.batch
        return repr(
            [
                [sent for sent in self._world.sent if not sent.operation.startswith("secretsmanager.")],
                batch.describe_jobs(jobs=self._run)["jobs"],
                batch.describe_job_definitions()["jobDefinitions"],
            ]
        )


class AwsResultsRig:
    """S3Results in moto's bucket."""

    def __init__(self, world: aws.World) -> None:
        self.results = world.results()
        self._bucket = world.config.bucket

    def put(self, folder: str, name: str, content: bytes) -> None:
        aws.write_result(folder, name, content, bucket=self._bucket)


class AwsMailerRig:
    """SesMailer against moto, which takes every mail unless told otherwise."""

    def __init__(self, world: aws.World) -> None:
        self._client: Any = world.clients.ses
        self._client.create_email_identity(EmailIdentity=aws.SENDER)
        self._inbox = ses_backends[ACCOUNT][aws.REGION].sent_messages
        self._inbox.clear()
        self.mailer = SesMailer(
            config=world.config, mime=lambda mail: mime(mail, sender=f"NOMADS <{aws.SENDER}>"), clients=world.clients
        )

    def delivered(self) -> list[tuple[list[str], EmailMessage]]:
        # moto adds the recipients it reads in the message to those of the request
        return [
            (sorted(set(mail.destinations)), message_from_bytes(mail.raw_data.encode(), policy=SMTP))
            for mail in self._inbox
        ]

    def refuse(self, address: str) -> None:
        self._client.meta.events.register("before-call.sesv2.SendEmail", self._say_no, unique_id="refuse")

    def _say_no(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        error = {"Code": "MessageRejected", "Message": "Address is suppressed"}
        return SimpleNamespace(status_code=400), {"Error": error, "ResponseMetadata": {"HTTPStatusCode": 400}}

    def close(self) -> None:
        """Leave the account as it was."""
        self._client.meta.events.unregister("before-call.sesv2.SendEmail", unique_id="refuse")
        self._client.delete_email_identity(EmailIdentity=aws.SENDER)
