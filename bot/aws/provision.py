"""Creates what the bot needs in an AWS account and does not find there; deletes and changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from bot.aws.batch import BatchCompute, definition
from bot.aws.clients import Clients, translated
from bot.aws.config import AwsConfig
from bot.domain.errors import NotFound, Refused, Unavailable

POLL = 5.0
"""Seconds between two looks at a resource that AWS is still making."""
POLLS = 120
"""Looks before giving up: ten minutes in all."""

_SHARED_NAMES = "Bucket names are shared by all of AWS: if it is not yours, choose another."


class Program(Protocol):
    """The part of a pipeline that provisioning uses."""

    @property
    def name(self) -> str:
        """The pipeline's name."""

    @property
    def image(self) -> str:
        """The pipeline's container image; empty: it cannot run on AWS Batch."""


def provision(
    config: AwsConfig,
    pipelines: Iterable[Program],
    *,
    say: Callable[[str], None],
    clients: Clients | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Make bucket, log group, compute environment, queue and job definitions where they are missing.

    Provisioning may be repeated at any time. `say` gets a line for each resource found or made; `wait` sleeps some
    seconds. Raises Refused, which names all missing settings, and where something stands in the way.
    """
    clients = clients or Clients(config)
    missing = config.missing_to_provision()
    try:
        _ = clients.region
    except Refused:  # told with the other settings
        missing.insert(0, "NOMADS_AWS_REGION")
    if missing:
        raise Refused(f"These settings are missing: {', '.join(missing)}. docs/aws.md says what each of them is.")
    work = _Provision(config, clients, say, wait)
    work.bucket()
    work.log_group()
    work.compute_environment()
    work.queue()
    work.definitions(pipelines)


class _Provision:
    def __init__(
        self, config: AwsConfig, clients: Clients, say: Callable[[str], None], wait: Callable[[float], None]
    ) -> None:
        self._config = config
        self._clients = clients
        self._say = say
        self._wait = wait

    def bucket(self) -> None:
        """Make the bucket: private, encrypted, its objects its owner's, reached over TLS only."""
        name, region = self._config.bucket, self._clients.region
        with translated("AWS did not say whose credentials these are"):
            account = self._clients.sts.get_caller_identity()["Account"]
        try:
            # Naming the owner prevents writing to a stranger's bucket that happens to let us in.
            with translated(f"The bucket {name} cannot be used"):
                found = self._clients.s3.head_bucket(Bucket=name, ExpectedBucketOwner=account)
        except NotFound:
            self._make_bucket(name, region)
        except Refused as error:
            raise Refused(f"{error}. {_SHARED_NAMES}") from None
        else:
            where = found.get("BucketRegion", region)
            if where != region:
                raise Refused(f"The bucket {name} is in {where}, not in {region}: choose another name or region.")
            self._say(f"bucket {name}: is there")
        self._guard_bucket(name)

    def _make_bucket(self, name: str, region: str) -> None:
        place: Any = {}
        if region != "us-east-1":  # S3's default, which it refuses to be told
            place = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            with translated(f"The bucket {name} could not be made"):
                self._clients.s3.create_bucket(Bucket=name, ObjectOwnership="BucketOwnerEnforced", **place)
        except Refused as error:
            raise Refused(f"{error}. {_SHARED_NAMES}") from None
        self._say(f"bucket {name}: made in {region}")

    def _guard_bucket(self, name: str) -> None:
        """Set each guard that is missing, so that the next run completes one that broke off half way."""
        s3 = self._clients.s3
        partition = self._clients.session.get_partition_for_region(self._clients.region)
        arn = f"arn:{partition}:s3:::{name}"
        block: Any = {
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        }
        encryption: Any = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
        ownership: Any = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        tls_only = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "TlsOnly",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [arn, f"{arn}/*"],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            ],
        }
        guards: list[tuple[str, str, Callable[[], object], Callable[[], object]]] = [
            (
                "public access is blocked",
                "NoSuchPublicAccessBlockConfiguration",
                lambda: s3.get_public_access_block(Bucket=name),
                lambda: s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block),
            ),
            (
                "objects are encrypted",
                "ServerSideEncryptionConfigurationNotFoundError",
                lambda: s3.get_bucket_encryption(Bucket=name),
                lambda: s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration=encryption),
            ),
            (
                "objects belong to the bucket's owner",
                "OwnershipControlsNotFoundError",
                lambda: s3.get_bucket_ownership_controls(Bucket=name),
                lambda: s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=ownership),
            ),
            (
                "only TLS is let in",
                "NoSuchBucketPolicy",
                lambda: s3.get_bucket_policy(Bucket=name),
                lambda: s3.put_bucket_policy(Bucket=name, Policy=json.dumps(tls_only)),
            ),
        ]
        for what, absent, look, make in guards:
            with translated(f"The bucket {name} could not be guarded ({what})"):
                try:
                    look()
                except s3.exceptions.ClientError as error:
                    if error.response["Error"]["Code"] != absent:
                        raise
                    make()
                    self._say(f"bucket {name}: {what}")

    def log_group(self) -> None:
        """Make the log group that the containers write to."""
        name, logs = self._config.log_group, self._clients.logs
        with translated(f"The log group {name} could not be made"):
            pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=name)
            if any(group["logGroupName"] == name for page in pages for group in page["logGroups"]):
                self._say(f"log group {name}: is there")
                return
            logs.create_log_group(logGroupName=name)
            logs.put_retention_policy(logGroupName=name, retentionInDays=self._config.log_days)
        self._say(f"log group {name}: made, keeps {self._config.log_days} days")

    def compute_environment(self) -> None:
        """Make the compute environment: machines managed by AWS Batch, from none up to `max_vcpus`."""
        config, name = self._config, self._config.compute_environment
        what = f"compute environment {name}"
        if self._environment() is None:
            request: dict[str, Any] = {"serviceRole": config.service_role} if config.service_role else {}
            with translated(f"The {what} could not be made"):
                self._clients.batch.create_compute_environment(
                    computeEnvironmentName=name,
                    type="MANAGED",
                    state="ENABLED",
                    computeResources={
                        "type": "SPOT" if config.spot else "EC2",
                        "allocationStrategy": (
                            "SPOT_PRICE_CAPACITY_OPTIMIZED" if config.spot else "BEST_FIT_PROGRESSIVE"
                        ),
                        "minvCpus": 0,
                        "maxvCpus": config.max_vcpus,
                        "instanceTypes": list(config.instance_types),
                        "subnets": list(config.subnets),
                        "securityGroupIds": list(config.security_groups),
                        "instanceRole": config.instance_role,
                    },
                    **request,
                )
            self._say(
                f"{what}: made, {'spot' if config.spot else 'on-demand'} machines, at most {config.max_vcpus} vCPUs"
            )
        else:
            self._say(f"{what}: is there")
        self._until_valid(what, self._environment)

    def queue(self) -> None:
        """Make the queue, which AWS Batch does only on a valid compute environment."""
        config, what = self._config, f"queue {self._config.queue}"
        found = self._queue()
        if found is None:
            with translated(f"The {what} could not be made"):
                self._clients.batch.create_job_queue(
                    jobQueueName=config.queue,
                    state="ENABLED",
                    priority=1,
                    computeEnvironmentOrder=[{"order": 1, "computeEnvironment": config.compute_environment}],
                )
            self._say(f"{what}: made")
        else:
            self._say(f"{what}: is there")
            served = [str(item["computeEnvironment"]) for item in found["computeEnvironmentOrder"]]
            if not any(arn.rpartition("/")[2] == config.compute_environment for arn in served):
                self._say(f"{what}: note that {config.compute_environment} does not serve it")
        self._until_valid(what, self._queue)

    def definitions(self, pipelines: Iterable[Program]) -> None:
        """Make a job definition without a token for each pipeline with an image; the bot makes those with tokens."""
        compute = BatchCompute(config=self._config, clients=self._clients)
        for pipeline in pipelines:
            if not pipeline.image:
                self._say(f"pipeline {pipeline.name}: has no image, so no job definition; name one in NOMADS_IMAGES")
                continue
            request = definition(
                self._config, region=self._clients.region, pipeline=pipeline.name, image=pipeline.image
            )
            arn = compute.ensure(request)
            self._say(f"pipeline {pipeline.name}: job definition {arn.rpartition('/')[2]}")

    def _environment(self) -> Any:
        with translated("AWS Batch did not show its compute environments"):
            found = self._clients.batch.describe_compute_environments(
                computeEnvironments=[self._config.compute_environment]
            )["computeEnvironments"]
        return found[0] if found else None

    def _queue(self) -> Any:
        with translated("AWS Batch did not show its queues"):
            found = self._clients.batch.describe_job_queues(jobQueues=[self._config.queue])["jobQueues"]
        return found[0] if found else None

    def _until_valid(self, what: str, look: Callable[[], Any]) -> None:
        for _ in range(POLLS):
            found = look()
            status = found["status"] if found else "CREATING"  # a new resource may not show yet
            if status == "VALID":
                if found["state"] != "ENABLED":
                    self._say(f"{what}: note that it is disabled")
                return
            if status in ("INVALID", "DELETING", "DELETED"):
                raise Refused(f"The {what} is {status}: {found.get('statusReason') or 'AWS gives no reason'}")
            self._wait(POLL)
        raise Unavailable(f"The {what} is not ready after {POLL * POLLS:.0f} seconds; run provision again.")
