"""What a proxy answers in AWS's place is no refusal, no absence and no success."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from bot.aws.ses import SesMailer
from bot.domain.errors import NotFound, Refused, Unavailable
from bot.mail.smtp import mime
from tests.support.aws import SENDER, World, answer, answer_otherwise, aws_world
from tests.unit.aws.test_batch import WORK
from tests.unit.aws.test_ses import MAIL

HTML = b"<html><body><h1>Who are you?</h1></body></html>"
ANSWERS = {
    "200 with HTML": (200, HTML),
    "200 with null": (200, b"null"),
    "200 with a list": (200, b"[]"),
    "200 with text": (200, b"welcome"),
    "302": (302, b""),
    "403 with HTML": (403, HTML),
    "403 with nothing": (403, b""),
    "404 with HTML": (404, HTML),
    "404 with nothing": (404, b""),
    "407 with HTML": (407, HTML),
    "502 with HTML": (502, HTML),
}
JOB = "11111111-2222-3333-4444-555555555555"
STORED = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:nomads/x"


def _mailer(world: World) -> SesMailer:
    return SesMailer(config=world.config, clients=world.clients, mime=lambda mail: mime(mail, sender=SENDER))


CALLS: dict[str, Callable[[World], object]] = {
    "batch.SubmitJob": lambda world: world.compute().submit(WORK),
    "batch.DescribeJobDefinitions": lambda world: world.compute().submit(WORK),
    "batch.ListJobs": lambda world: world.compute().find("a-name"),
    "batch.DescribeJobs": lambda world: world.compute().observe([JOB]),
    "batch.TerminateJob": lambda world: world.compute().cancel(JOB, reason="x"),
    "s3.ListObjectsV2": lambda world: world.results().list("key/job"),
    "s3.GetObject": lambda world: world.results().read("key/job", "results.json", limit=1000),
    "s3.GetObject, opened": lambda world: world.results().open("key/job", "results.json"),
    "s3.HeadObject": lambda world: world.results().redirect("key/job", "results.json"),
    "sesv2.SendEmail": lambda world: _mailer(world).send(MAIL),
    "secretsmanager.CreateSecret": lambda world: world.secrets().put("U01", SecretStr("demo-token")),
    "secretsmanager.GetSecretValue": lambda world: world.secrets().get(STORED),
    "logs.GetLogEvents": lambda world: world.logs().tail(JOB, log="stream", lines=5),
}


def _client(world: World, operation: str) -> Any:
    if operation == "batch.SubmitJob":
        return world.clients.submitter
    service = operation.partition(".")[0]
    return getattr(world.clients, {"sesv2": "ses", "secretsmanager": "secrets"}.get(service, service))


@pytest.mark.parametrize("operation", CALLS)
def test_what_is_not_an_answer_of_aws_leaves_the_call_in_doubt(operation: str) -> None:
    for name, (status, content) in ANSWERS.items():
        with aws_world(tries=1) as world:
            called, _, _ = operation.partition(",")
            answer_otherwise(_client(world, called), called, status=status, content=content)
            with pytest.raises(Unavailable) as caught:
                CALLS[operation](world)
            assert "Who are you" not in str(caught.value), name


@pytest.mark.parametrize(
    ("operation", "code", "status", "meaning"),
    [
        ("batch.SubmitJob", "ClientException", 400, Refused),
        ("batch.DescribeJobs", "ClientException", 400, Refused),
        ("s3.GetObject", "NoSuchKey", 404, NotFound),
        ("s3.ListObjectsV2", "NoSuchBucket", 404, NotFound),
        ("s3.GetObject", "AccessDenied", 403, Refused),
        ("sesv2.SendEmail", "MessageRejected", 400, Refused),
        ("batch.SubmitJob", "ExpiredTokenException", 403, Unavailable),
        ("batch.DescribeJobs", "UnrecognizedClientException", 403, Unavailable),
        ("batch.TerminateJob", "ServerException", 500, Unavailable),
        ("s3.GetObject", "RequestTimeTooSkewed", 403, Unavailable),
        ("sesv2.SendEmail", "AccountSuspendedException", 400, Refused),
        ("sesv2.SendEmail", "LimitExceededException", 400, Unavailable),
    ],
)
def test_only_what_aws_documents_as_the_callers_mistake_is_a_refusal(
    operation: str, code: str, status: int, meaning: type[Exception]
) -> None:
    with aws_world(tries=1) as world:
        answer(_client(world, operation), operation, status=status, code=code)
        with pytest.raises(meaning):
            CALLS[operation](world)
