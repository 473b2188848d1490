"""AWS on loopback: moto's server, whose AWS Batch runs the programs of jobs on this machine and tells EventBridge.

    with AwsStandIn() as aws:
        with bot_process(house.environment(data, **aws.environment), log=log): ...

`AWS_ENDPOINT_URL` alone leads the bot, and the programs, here. What moto does not model is not here either: rights,
machines, attempts after the first, and the signatures of links.
"""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from unittest.mock import patch

import boto3
from moto.backends import get_backend
from moto.core.config import default_user_config
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer

from bot.domain.states import FINAL, JobState
from sandbox.batch import as_aws, moto_job, set_state, settle

ROOT = Path(__file__).resolve().parent.parent
REGION = "eu-west-2"
BUCKET = "nomads-results-on-this-machine"
LOG_GROUP = "/aws/batch/job"
AT_ONCE = 2
"""Programs that run at the same time; further ones are RUNNABLE."""
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_KEPT = ("batch", "s3", "secretsmanager", "logs", "sqs", "events", "sesv2", "ses")


@cache
def client(service: str, region: str, endpoint: str | None) -> Any:
    """A client for whoever plays the account. It is made once for each place: that takes longer than most uses."""
    session = boto3.session.Session(aws_access_key_id="testing", aws_secret_access_key="testing", region_name=region)
    return session.client(service, endpoint_url=endpoint)  # type: ignore[call-overload]


@dataclass
class _Running:
    process: subprocess.Popen[bytes] | None = None
    ended: bool = False


class AwsStandIn:
    """One account with a bucket, a queue of jobs, and a queue of their events. A context manager.

    `programs`: whether jobs run; without, they stay SUBMITTED until `move` moves them.
    """

    def __init__(self, *, programs: bool = True, bucket: str = BUCKET) -> None:
        self.url = ""
        self.heard: list[tuple[str, bytes]] = []
        """Every request so far: its operation's name or path, and its body."""
        self.events_queue = ""
        """The URL of the queue that the events of jobs come to."""
        self.jobs: list[Any] = []
        """moto's own objects for the jobs so far, an array's programs among them, in the order of their submission."""
        self._bucket = bucket
        self._programs = programs
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()
        self._stack = ExitStack()

    def __enter__(self) -> AwsStandIn:
        requests = logging.getLogger("werkzeug")  # a line for each
        self._stack.callback(requests.setLevel, requests.level)
        requests.setLevel(logging.ERROR)
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        self._stack.callback(server.stop)
        host, port = server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        for change in (
            patch.dict(os.environ, CREDENTIALS | {"AWS_ENDPOINT_URL": self.url}),
            patch.dict(default_user_config, {"batch": {"use_docker": False}}),
            patch.object(DomainDispatcherApplication, "__call__", _listening(self.heard)),
            as_aws(kept=self._kept, ended=self._ended),
        ):
            self._stack.enter_context(change)
        for service in _KEPT:
            get_backend(cast("Any", service)).reset()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="batch")
        self._stack.callback(self._end)
        self._furnish()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def client(self, service: str) -> Any:
        """A client of the account."""
        return client(service, REGION, self.url)

    @property
    def environment(self) -> dict[str, str]:
        """What a bot needs to live in this account."""
        role = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role"
        return CREDENTIALS | {
            "AWS_ENDPOINT_URL": self.url,
            "NOMADS_COMPUTE": "aws",
            "NOMADS_AWS_REGION": REGION,
            "NOMADS_AWS_BUCKET": self._bucket,
            "NOMADS_AWS_EVENTS_QUEUE": self.events_queue,
            "NOMADS_AWS_EXECUTION_ROLE": f"{role}/nomads-execution",
            "NOMADS_AWS_JOB_ROLE": f"{role}/nomads-job",
        }

    def _furnish(self) -> None:
        """Make what a bot needs, the quick way: without machines, whose network takes moto seconds."""
        furnish(self.client, bucket=self._bucket)
        sqs, events = self.client("sqs"), self.client("events")
        self.events_queue = sqs.create_queue(QueueName="nomads-events")["QueueUrl"]
        asked = {"QueueUrl": self.events_queue, "AttributeNames": ["QueueArn"]}
        arn = sqs.get_queue_attributes(**asked)["Attributes"]["QueueArn"]
        pattern = {"source": ["aws.batch"], "detail-type": ["Batch Job State Change"]}
        events.put_rule(Name="nomads-jobs", EventPattern=json.dumps(pattern))
        events.put_targets(Rule="nomads-jobs", Targets=[{"Id": "queue", "Arn": arn}])
        if self._programs:
            self.client("logs").create_log_group(logGroupName=LOG_GROUP)

    # Jobs

    def tell(self, job: Any) -> None:
        """Tell EventBridge how moto's job is, as AWS Batch does."""
        backend: Any = get_backend("events")[DEFAULT_ACCOUNT_ID][REGION]
        detail = json.dumps(job.describe(), default=str)
        event = {"Source": "aws.batch", "DetailType": "Batch Job State Change", "Detail": detail}
        backend.put_events([event | {"Resources": [job.arn]}])

    def move(self, compute_id: str, state: JobState, **said: Any) -> None:
        """Move a job, as `sandbox.batch.set_state` does, and tell EventBridge."""
        set_state(compute_id, state, **said)
        self.tell(moto_job(compute_id))

    def take_back(self, compute_id: str) -> None:
        """Take the machine of a job back, in the last of the job's attempts: its program ends there and then."""
        job, running = moto_job(compute_id), self._running[compute_id]
        self._move(job, JobState.FAILED, reason="Host EC2 (instance i-0a1b2c3d) terminated.")
        if running.process:
            running.process.kill()

    def _kept(self, job: Any) -> None:
        self.jobs.append(job)
        if self._programs:
            self._running[job.job_id] = _Running()
            threading.Thread(target=self._start, args=(job,), daemon=True).start()

    def _start(self, job: Any) -> None:
        self._move(job, JobState.RUNNABLE)
        with suppress(RuntimeError):  # the account is being closed
            self._pool.submit(self._run, job)

    def _move(self, job: Any, state: JobState, **said: Any) -> bool:
        """Move the job, unless it has ended, and tell of it."""
        with self._lock:
            if self._running[job.job_id].ended:
                return False
            self._running[job.job_id].ended = state in FINAL
            set_state(job.job_id, state, **said)
        self.tell(job)
        if "index" in job.array_properties:
            with suppress(LookupError):  # moto has not finished taking the array
                self._settle(moto_job(job.job_id.partition(":")[0]))
        return True

    def _settle(self, array: Any) -> None:
        """Tell of an array whose last program has ended."""
        with self._lock:
            open_before = not array.job_stopped
            settle(array)
        if open_before and array.job_stopped:
            self.tell(array)

    def _ended(self, job: Any) -> None:
        """TerminateJob has ended a job."""
        running = self._running.get(job.job_id)
        if running is None:
            return
        running.ended = True
        if running.process:
            running.process.kill()
        threading.Thread(target=self.tell, args=(job,), daemon=True).start()

    def _run(self, job: Any) -> None:
        if not self._move(job, JobState.STARTING):
            return
        command = job.container_overrides["command"]
        with subprocess.Popen(
            [sys.executable if command[0] == "python3" else command[0], *command[1:]],
            cwd=ROOT,
            env=self._environment(job),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            self._running[job.job_id].process = process
            if not self._move(job, JobState.RUNNING):
                process.kill()
            limit = threading.Timer(job.timeout["attemptDurationSeconds"], process.kill)
            limit.start()
            self._log(job, process)
            code = process.wait()
            limit.cancel()
        state = JobState.FAILED if code else JobState.SUCCEEDED
        reason = (
            "Essential container in task exited" if limit.finished.is_set() else "Job attempt duration exceeded timeout"
        )
        self._move(job, state, reason=reason, exit_code=code if code >= 0 else 128 - code)

    def _environment(self, job: Any) -> dict[str, str]:
        """A container's: what the job's definition and its submission name, its secrets, and where the account is."""
        container = job.job_definition.container_properties
        named = [*container.get("environment", ()), *job.container_overrides.get("environment", ())]
        found = {one["name"]: one["value"] for one in named}
        for secret in container.get("secrets", ()):
            stored = self.client("secretsmanager").get_secret_value(SecretId=secret["valueFrom"])
            found[secret["name"]] = stored["SecretString"]
        if "index" in job.array_properties:
            found["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.array_properties["index"])
        home = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        return home | CREDENTIALS | {"AWS_ENDPOINT_URL": self.url} | found

    def _log(self, job: Any, process: subprocess.Popen[bytes]) -> None:
        """Put what the program prints into the job's log stream, until it has ended."""
        logs, stream = self.client("logs"), job._stream_name
        logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream)
        assert process.stdout
        for line in process.stdout:
            event = {"timestamp": int(time.time() * 1000), "message": line.decode(errors="replace").rstrip("\n") or " "}
            logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=stream, logEvents=[event])

    def _end(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for running in list(self._running.values()):
            running.ended = True
            if running.process:
                running.process.kill()
        self._pool.shutdown(wait=True)


def furnish(made: Any, *, bucket: str, queue: str = "nomads-queue", environment: str = "nomads-ce") -> None:
    """A bucket, and a queue of jobs without machines; `made` gives a client by its service's name."""
    batch = made("batch")
    role = made("iam").create_role(RoleName="nomads-service", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    batch.create_compute_environment(
        computeEnvironmentName=environment, type="UNMANAGED", state="ENABLED", serviceRole=role
    )
    batch.create_job_queue(
        jobQueueName=queue,
        state="ENABLED",
        priority=1,
        computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment}],
    )
    region = batch.meta.region_name
    made("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})


def _listening(heard: list[tuple[str, bytes]]) -> Any:
    dispatch = DomainDispatcherApplication.__call__

    def listen(self: Any, environ: dict[str, Any], start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        heard.append((environ.get("HTTP_X_AMZ_TARGET") or environ["PATH_INFO"], body))
        return dispatch(self, environ, start_response)

    return listen
