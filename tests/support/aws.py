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
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import boto3
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.loaders import Loader
from moto import mock_aws
from moto.backends import get_backend
from moto.batch.models import Job, batch_backends
from moto.batch_simple.models import BatchSimpleBackend
from moto.core.config import default_user_config
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer
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
from bot.domain.states import FINAL, WAITING, JobState
from bot.mail.smtp import mime

REGION = "eu-west-2"
BUCKET = "nomads-results-for-tests"
SENDER = "nomads@example.org"
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


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
        patch.dict(os.environ, _ENVIRONMENT),
        patch.object(botocore.session, "create_loader", _shared_loader),
        mock_aws(config={"batch": {"use_docker": False}}),
        patch.object(BatchSimpleBackend, "_mark_job_as_finished", _keep),
        patch.object(Job, "terminate", _terminate),
        patch.object(Job, "describe", _describe),
        patch.object(Job, "_container_details", _container_details),
    ):
        elsewhere = ("NOMADS_AWS_", "AWS_PROFILE", "AWS_SESSION", "AWS_ENDPOINT_URL")
        for name in [name for name in os.environ if name.startswith(elsewhere)]:
            del os.environ[name]
        config = AwsConfig(_env_file=None, **(values | settings))
        if not empty:
            _furnish(config)
        yield world_of(config)


def world_of(config: AwsConfig) -> World:
    """The account that `aws_world` made, with the module's clients of these settings."""
    world = World(config, Clients(config))
    world.clients.session.events.register("before-parameter-build.*.*", _recorder(world))
    world.clients.session.events.register("before-parse.batch.DescribeJobQueues", _limited(world))
    return world


def _client(service: str, region: str = REGION) -> Any:
    """A client of the test's own. It is made once for each place: that takes longer than what most tests do with it."""
    return _made(service, region, os.environ.get("AWS_ENDPOINT_URL"))


@cache
def _made(service: str, region: str, endpoint: str | None) -> Any:
    session = boto3.session.Session(aws_access_key_id="testing", aws_secret_access_key="testing", region_name=region)
    return session.client(service, endpoint_url=endpoint)  # type: ignore[call-overload]


def _furnish(config: AwsConfig) -> None:
    """A queue and a bucket, the quick way: without machines, whose network takes moto seconds."""
    batch = _client("batch", config.region)
    batch.create_compute_environment(
        computeEnvironmentName=config.compute_environment,
        type="UNMANAGED",
        state="ENABLED",
        serviceRole=make_role("nomads-service", config.region),
    )
    batch.create_job_queue(
        jobQueueName=config.queue,
        state="ENABLED",
        priority=1,
        computeEnvironmentOrder=[{"order": 1, "computeEnvironment": config.compute_environment}],
    )
    place: Any = {"CreateBucketConfiguration": {"LocationConstraint": config.region}}
    _client("s3", config.region).create_bucket(Bucket=config.bucket, **place)


@dataclass
class Server:
    """AWS as a server on loopback, for processes of their own."""

    url: str
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    """Every request so far: its operation's name or path, and its body."""

    @property
    def environment(self) -> dict[str, str]:
        """What a bot needs to live in this account."""
        role = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role"
        return _ENVIRONMENT | {
            "AWS_ENDPOINT_URL": self.url,
            "NOMADS_COMPUTE": "aws",
            "NOMADS_AWS_REGION": REGION,
            "NOMADS_AWS_BUCKET": BUCKET,
            "NOMADS_AWS_EXECUTION_ROLE": f"{role}/nomads-execution",
            "NOMADS_AWS_JOB_ROLE": f"{role}/nomads-job",
        }

    def client(self, service: str) -> Any:
        """A client of the account for the test itself."""
        return _client(service)


@contextmanager
def aws_server() -> Iterator[Server]:
    """A fresh account with a queue and a bucket behind a real HTTP server; jobs stay where `set_state` puts them."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    account = Server(f"http://{host}:{port}")
    dispatch = DomainDispatcherApplication.__call__

    def listen(self: Any, environ: dict[str, Any], start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        account.heard.append((environ.get("HTTP_X_AMZ_TARGET") or environ["PATH_INFO"], body))
        return dispatch(self, environ, start_response)

    try:
        with (
            patch.dict(os.environ, _ENVIRONMENT | {"AWS_ENDPOINT_URL": account.url}),
            patch.dict(default_user_config, {"batch": {"use_docker": False}}),
            patch.object(DomainDispatcherApplication, "__call__", listen),
            patch.object(BatchSimpleBackend, "_mark_job_as_finished", _keep),
            patch.object(Job, "_container_details", _container_details),
        ):
            for backends in (batch_backends, get_backend("s3"), get_backend("secretsmanager"), get_backend("logs")):
                backends.reset()
            _furnish(AwsConfig(_env_file=None, region=REGION, bucket=BUCKET))
            yield account
    finally:
        server.stop()


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


def _keep(self: Any, include_start_attempt: bool, job: Any) -> None:
    """In place of moto's `_mark_job_as_finished`: the job stays SUBMITTED."""
    self.backend._jobs[job.job_id] = job


def _terminate(self: Any, reason: str) -> None:
    """In place of moto's `terminate`, which only notes the reason: AWS also ends the job, and says that it did.

    So it does with the children of an array.
    """
    _settle(self)
    for child in self._child_jobs or ():
        _terminate(child, reason)
    if not self.job_stopped:
        self.how_ended = "isTerminated" if self.status in ("STARTING", "RUNNING") else "isCancelled"
        set_state(self.job_id, JobState.FAILED, reason=reason, exit_code=137 if self.status == "RUNNING" else None)


_moto_container_details = Job._container_details


def _container_details(self: Any) -> dict[str, Any]:
    """What moto leaves out of DescribeJobs' container."""
    details: dict[str, Any] = _moto_container_details(self)
    if self.exit_code is not None:
        details["exitCode"] = self.exit_code
    if getattr(self, "container_reason", ""):
        details["reason"] = self.container_reason
    return details


_moto_describe = Job.describe


def _describe(self: Any) -> dict[str, Any]:
    """What moto leaves out of DescribeJobs' job."""
    ended = getattr(self, "how_ended", "")
    _settle(self)
    told = {**_moto_describe(self), "isCancelled": ended == "isCancelled", "isTerminated": ended == "isTerminated"}
    if "index" in self.array_properties:
        told["arrayProperties"] = {"statusSummary": {}, "index": self.array_properties["index"]}
    return told


def _settle(job: Any) -> None:
    """Move an array as AWS does: PENDING while a child is open, then FAILED if one of them is."""
    if not job._child_jobs or job.job_stopped:
        return
    states = {JobState(child.status) for child in job._child_jobs}
    if FINAL.issuperset(states):
        failed = JobState.FAILED in states
        reason = "Array Child Job failed" if failed else ""
        set_state(job.job_id, JobState.FAILED if failed else JobState.SUCCEEDED, reason=reason)
    elif states != {JobState.SUBMITTED}:
        job.status = "PENDING"


def moto_job(compute_id: str) -> Any:
    """moto's own object for the job. A plain job is the first program of an array of one, too."""
    for name in (compute_id, compute_id.removesuffix(":0")):
        for account in batch_backends.values():
            for backend in account.values():
                if name in backend._jobs:
                    return backend._jobs[name]
    raise LookupError(f"moto has no job {compute_id}")


def set_state(
    compute_id: str,
    state: JobState,
    *,
    reason: str = "",
    exit_code: int | None = None,
    container_reason: str = "",
) -> None:
    """Move moto's job to one of Batch's states: `reason` is its statusReason, `container_reason` its container's."""
    job = moto_job(compute_id)
    job.status = str(state)
    job.job_stopped_reason = reason or None
    job.exit_code = exit_code
    job.container_reason = container_reason
    if state not in WAITING:
        job.job_started_at = datetime.now()  # noqa: DTZ005  moto reckons in naive local time
        job.log_stream_name = job._stream_name
    if state in FINAL:
        job.job_stopped = True
        job.job_stopped_at = datetime.now()  # noqa: DTZ005


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
