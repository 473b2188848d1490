"""AWS on this machine: moto, with jobs that stay where a test puts them, and a record of every request.

    with aws_world() as world:
        job = world.compute().submit(work)
        set_state(job, JobState.FAILED, reason="Essential container in task exited", exit_code=2)
        assert world.operations == ["batch.DescribeJobDefinitions", "batch.RegisterJobDefinition", "batch.SubmitJob"]

moto takes much that AWS refuses, so every SubmitJob and DescribeJobs is held against AWS's limits here, on its way.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email import message_from_string, policy
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.loaders import Loader
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ses.models import ses_backends
from urllib3 import HTTPResponse

from bot.application.ports import Compute, Mailer, Results, Secrets
from bot.aws.batch import BatchCompute
from bot.aws.clients import Clients
from bot.aws.config import AwsConfig
from bot.aws.logs import CloudWatchLogs
from bot.aws.s3 import S3Results
from bot.aws.secrets import AwsSecrets
from bot.aws.ses import SesMailer
from bot.mail.smtp import mime
from sandbox.aws import CREDENTIALS, client, furnish
from sandbox.aws import REGION as REGION
from sandbox.batch import as_aws
from sandbox.batch import moto_job as moto_job
from sandbox.batch import set_state as set_state

BUCKET = "nomads-results-for-tests"
SENDER = "nomads@example.org"


_LOADER = Loader()


def _shared_loader(*_: Any) -> Loader:
    """botocore's service descriptions are read once for all worlds, not once for each session."""
    return _LOADER


@dataclass(frozen=True)
class Sent:
    """A call as botocore was asked to make it."""

    operation: str
    """Such as `batch.SubmitJob`."""
    params: dict[str, Any]


@dataclass
class World:
    """An AWS account with a queue and a bucket, the module's clients, and what they asked for."""

    config: AwsConfig
    clients: Clients
    sent: list[Sent] = field(default_factory=list)
    limits: dict[str, Any] = field(default_factory=dict)
    """`jobStateTimeLimitActions` of each queue, which moto takes and does not show."""

    @property
    def operations(self) -> list[str]:
        """The calls made so far, in order."""
        return [sent.operation for sent in self.sent]

    def asked(self, operation: str) -> list[dict[str, Any]]:
        """The parameters of every call of that operation, in order."""
        return [sent.params for sent in self.sent if sent.operation == operation]

    def compute(self) -> BatchCompute:
        """A compute as after a restart: it remembers nothing."""
        return BatchCompute(config=self.config, clients=self.clients)

    def logs(self) -> CloudWatchLogs:
        """The logs of its jobs."""
        compute = self.compute()
        return CloudWatchLogs(config=self.config, stream_of=compute.stream_of, clients=self.clients)

    def results(self) -> S3Results:
        """The results in the world's bucket."""
        return S3Results(config=self.config, clients=self.clients)

    def secrets(self) -> AwsSecrets:
        """Secrets as after a restart, always with the same key."""
        return AwsSecrets(config=self.config, key=b"a key for tests only", clients=self.clients)


@contextmanager
def aws_world(*, region: str = REGION, empty: bool = False, **settings: Any) -> Iterator[World]:
    """A fresh account; `settings` override those of AwsConfig. `empty`: without queue and bucket."""
    values: dict[str, Any] = {
        "region": region,
        "bucket": BUCKET,
        "execution_role": f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/nomads-execution",
        "job_role": f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/nomads-job",
        "tries": 1,  # a second try would sleep
    }
    with (
        patch.dict(os.environ, CREDENTIALS),
        patch.object(botocore.session, "create_loader", _shared_loader),
        mock_aws(config={"batch": {"use_docker": False}}),
        as_aws(),
    ):
        elsewhere = ("NOMADS_AWS_", "AWS_PROFILE", "AWS_SESSION", "AWS_ENDPOINT_URL")
        for name in [name for name in os.environ if name.startswith(elsewhere)]:
            del os.environ[name]
        config = AwsConfig(_env_file=None, **(values | settings))
        if not empty:
            named = {"queue": config.queue, "environment": config.compute_environment}
            furnish(lambda service: _client(service, config.region), bucket=config.bucket, **named)
        yield world_of(config)


def world_of(config: AwsConfig) -> World:
    """The account that `aws_world` made, with the module's clients of these settings."""
    world = World(config, Clients(config))
    world.clients.session.events.register("before-parameter-build.*.*", _recorder(world))
    world.clients.session.events.register("before-parse.batch.DescribeJobQueues", _limited(world))
    return world


def _client(service: str, region: str = REGION) -> Any:
    return client(service, region, os.environ.get("AWS_ENDPOINT_URL"))


def make_role(name: str, region: str = REGION) -> str:
    """A role moto knows; its ARN."""
    return str(_client("iam", region).create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"])


def _recorder(world: World) -> Callable[..., None]:
    def record(params: dict[str, Any], model: Any, **_: Any) -> None:
        operation = f"{model.service_model.service_name}.{model.name}"
        check = _LIMITS.get(operation)
        if check:
            check(params)
        world.sent.append(Sent(operation, json.loads(json.dumps(params, default=repr))))
        if "jobStateTimeLimitActions" in params:
            world.limits[params.get("jobQueueName") or params["jobQueue"]] = params["jobStateTimeLimitActions"]

    return record


def _limited(world: World) -> Callable[..., None]:
    """What moto leaves out of DescribeJobQueues' queue."""

    def add(response_dict: dict[str, Any], **_: Any) -> None:
        body = json.loads(response_dict["body"])
        for queue in body.get("jobQueues", ()):
            queue["jobStateTimeLimitActions"] = world.limits.get(queue["jobQueueName"], [])
        response_dict["body"] = json.dumps(body).encode()

    return add


def _check_queue(params: dict[str, Any]) -> None:
    for limit in params.get("jobStateTimeLimitActions", ()):
        assert set(limit) == {"reason", "state", "maxTimeSeconds", "action"}
        assert limit["state"] == "RUNNABLE"
        assert limit["action"] == "CANCEL"
        assert 600 <= limit["maxTimeSeconds"] <= 86_400


def _check_submission(params: dict[str, Any]) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", params["jobName"]), params["jobName"]
    assert params["timeout"]["attemptDurationSeconds"] >= 60
    assert len(json.dumps(params)) < 30 * 1024
    _check_tags(params["tags"])
    assert re.fullmatch(r"[A-Za-z0-9]{1,255}", params.get("shareIdentifier", "none"))
    # AWS's own model has the priority as optional; the service refuses one without the other.
    assert ("shareIdentifier" in params) == ("schedulingPriorityOverride" in params), "a share has a priority"
    assert 0 <= params.get("schedulingPriorityOverride", 0) <= 9999
    needs = {need["type"]: need["value"] for need in params["containerOverrides"]["resourceRequirements"]}
    assert re.fullmatch(r"[1-9][0-9]*", needs["VCPU"]), needs
    assert int(needs["MEMORY"]) >= 4
    assert 2 <= params.get("arrayProperties", {}).get("size", 2) <= 10_000


def _check_definition(params: dict[str, Any]) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", params["jobDefinitionName"])
    container = params["containerProperties"]
    assert not container.get("secrets") or container.get("executionRoleArn"), "secrets need an execution role"
    assert params["timeout"]["attemptDurationSeconds"] >= 60
    assert 1 <= params["retryStrategy"]["attempts"] <= 10
    retries = params["retryStrategy"]["evaluateOnExit"]
    assert len(retries) <= 5
    for retry in retries:
        for name in {"onReason", "onStatusReason"} & set(retry):
            assert re.fullmatch(r"[A-Za-z0-9.:\s]{0,511}\*?", retry[name]), retry
    _check_tags(params["tags"])


def _check_tags(tags: dict[str, str]) -> None:
    assert len(tags) <= 50
    for key, value in tags.items():
        assert re.fullmatch(r"[\w\s.:/=+\-@]{1,128}", key), key
        assert re.fullmatch(r"[\w\s.:/=+\-@]{0,256}", value), value
        assert not key.lower().startswith("aws:")


def _check_listing(params: dict[str, Any]) -> None:
    assert len({"jobQueue", "arrayJobId", "multiNodeJobId"} & set(params)) == 1
    assert 1 <= params.get("maxResults", 1) <= (100 if "filters" in params else 1000)
    assert not ("filters" in params and "arrayJobId" in params)


def _check_description(params: dict[str, Any]) -> None:
    assert 1 <= len(params["jobs"]) <= 100, "DescribeJobs takes at most 100 ids"


_LIMITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "batch.SubmitJob": _check_submission,
    "batch.RegisterJobDefinition": _check_definition,
    "batch.CreateJobQueue": _check_queue,
    "batch.UpdateJobQueue": _check_queue,
    "batch.DescribeJobs": _check_description,
    "batch.ListJobs": _check_listing,
}


def forget(compute_id: str) -> None:
    """Let AWS Batch no longer know the job, as a week after its end."""
    del moto_job(compute_id).backend.backend._jobs[compute_id]


def write_log(compute_id: str, *lines: str) -> None:
    """Let the job's program print these lines."""
    job = moto_job(compute_id)
    logs = _client("logs", job.job_definition._region)
    group = job.job_definition.container_properties["logConfiguration"]["options"]["awslogs-group"]
    stream = job._stream_name
    if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
        logs.create_log_group(logGroupName=group)
    if not logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=stream)["logStreams"]:
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
    job.log_stream_name = stream
    now = int(datetime.now().timestamp() * 1000)  # noqa: DTZ005
    logs.put_log_events(
        logGroupName=group,
        logStreamName=stream,
        logEvents=[{"timestamp": now, "message": line} for line in lines],
    )


def write_result(folder: str, name: str, content: bytes, *, bucket: str = BUCKET) -> None:
    """Let a program write a file to the world's bucket."""
    _client("s3").put_object(Bucket=bucket, Key=f"{folder}/{name}", Body=content)


def give(client: Any, operation: str, parsed: dict[str, Any]) -> None:
    """Let AWS answer every further call of that operation with this, as botocore gives it to the caller."""

    def reply(**_: Any) -> tuple[SimpleNamespace, dict[str, Any]]:
        return SimpleNamespace(status_code=200), parsed

    client.meta.events.register_first(f"before-call.{_event(operation)}", reply)


def answer(
    client: Any, operation: str, *, status: int = 400, code: str = "", message: str = "", retry_after: str = ""
) -> None:
    """Let AWS answer every further call of `batch.SubmitJob` or the like with that error, having done nothing."""
    headers = {"x-amz-request-id": "EXAMPLE"} | ({"retry-after": retry_after} if retry_after else {})
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    parsed = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}

    def reply(**_: Any) -> tuple[SimpleNamespace, dict[str, Any]]:
        return SimpleNamespace(status_code=status), parsed

    # Here, before the request exists: moto would perform it even though another handler answers.
    client.meta.events.register_first(f"before-call.{_event(operation)}", reply)


def interrupt(client: Any, operation: str, error: Exception, *, done: bool = False) -> None:
    """Let every further call of that operation break off with botocore's error; `done`: after AWS did it."""

    def fail(**_: Any) -> None:
        raise error

    client.meta.events.register_first(f"{'before-parse' if done else 'before-send'}.{_event(operation)}", fail)


def _event(operation: str) -> str:
    service, _, name = operation.partition(".")
    return f"{ {'secretsmanager': 'secrets-manager', 'logs': 'cloudwatch-logs'}.get(service, service) }.{name}"


@contextmanager
def compute(tmp_path: Path) -> Iterator[Compute]:
    """AWS Batch, for the contract tests; `set_state` moves its jobs and `write_log` prints for them."""
    with aws_world() as world:
        yield world.compute()


@contextmanager
def results(tmp_path: Path) -> Iterator[Results]:
    """S3, for the contract tests; `write_result` writes what a program would."""
    with aws_world() as world:
        yield world.results()


@contextmanager
def secrets() -> Iterator[Secrets]:
    """Secrets Manager, for the contract tests."""
    with aws_world() as world:
        yield world.secrets()


@contextmanager
def mailer() -> Iterator[tuple[Mailer, Callable[[], list[EmailMessage]]]]:
    """SES with SENDER's identity, for the contract tests, and a function that gives what was sent."""
    with aws_world() as world:
        _client("sesv2").create_email_identity(EmailIdentity=SENDER)

        def sent() -> list[EmailMessage]:
            kept = ses_backends[DEFAULT_ACCOUNT_ID][REGION].sent_messages
            return [message_from_string(mail.raw_data, policy=policy.SMTP) for mail in kept]

        yield SesMailer(config=world.config, mime=partial(mime, sender=SENDER), clients=world.clients), sent


def answer_otherwise(client: Any, operation: str, *, status: int, content: bytes, kind: str = "text/html") -> None:
    """Let every further call of that operation get exactly this over HTTP, as a proxy on the way may answer."""

    def reply(request: Any, **_: Any) -> AWSResponse:
        headers: Any = {"content-type": kind, "content-length": str(len(content))}
        return AWSResponse(request.url, status, headers, HTTPResponse(io.BytesIO(content), preload_content=False))

    client.meta.events.register_first(f"before-send.{_event(operation)}", reply)
