"""Creates what the bot needs in an AWS account and does not find there, and mends guards that are not right.

Nothing is deleted. What might lose something, or might be meant so, is told and left to an admin.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

from bot.aws.batch import BatchCompute, definition
from bot.aws.clients import Clients, translated
from bot.aws.config import AwsConfig
from bot.aws.guards import Guard, Guards, differences
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

    Provisioning may be repeated at any time. `say` gets a line for each resource found or made, for each guard that is
    not as it should be, and for what was done about it; `wait` sleeps some seconds. Raises Refused where something
    stands in the way.
    """
    work = _Provision(config, clients or Clients(config), say, wait)
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
        self._guards = Guards(config, clients)

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
        for look in self._guards.bucket.values():
            self._right(look())

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

    def log_group(self) -> None:
        """Make the log group that the containers write to, or lengthen its retention."""
        name = self._config.log_group
        if (found := self._guards.log_group()) is None:
            with translated(f"The log group {name} could not be made"):
                self._clients.logs.create_log_group(logGroupName=name)
                self._clients.logs.put_retention_policy(logGroupName=name, retentionInDays=self._config.log_days)
            self._say(f"log group {name}: made, keeps {self._config.log_days} days")
            return
        self._say(f"log group {name}: is there")
        self._right(self._guards.retention(found))

    def compute_environment(self) -> None:
        """Make the compute environment: machines managed by AWS Batch, from none up to `max_vcpus`."""
        config, name = self._config, self._config.compute_environment
        what = f"compute environment {name}"
        if self._guards.machines() is None:
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
        self._right(self._guards.machines_state(self._until_valid(what, self._guards.machines)))

    def queue(self) -> None:
        """Make the queue, which AWS Batch does only on a valid compute environment."""
        config, what = self._config, f"queue {self._config.queue}"
        found = self._guards.queue()
        if found is None:
            with translated(f"The {what} could not be made"):
                self._clients.batch.create_job_queue(
                    jobQueueName=config.queue,
                    state="ENABLED",
                    priority=1,
                    computeEnvironmentOrder=[{"order": 1, "computeEnvironment": config.compute_environment}],
                    jobStateTimeLimitActions=cast("Any", self._guards.limits),
                )
            self._say(f"{what}: made")
        else:
            self._say(f"{what}: is there")
            self._right(self._guards.queue_state(found))
            self._right(self._guards.queue_limits(found))
        self._until_valid(what, self._guards.queue)

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
            for found in compute.active(request["jobDefinitionName"])[:1]:
                for text in differences(found, request):
                    self._say(f"pipeline {pipeline.name}: revision {found['revision']} is left, but {text}")
            arn = compute.ensure(request)
            self._say(f"pipeline {pipeline.name}: job definition {arn.rpartition('/')[2]}")

    def _right(self, guard: Guard) -> None:
        """Say how the guard differs from what it should be, and mend it where that loses nothing."""
        for text in guard.wrong:
            self._say(f"{guard.of}: {text}")
        for text in guard.notes:
            self._say(f"{guard.of}: note that {text}")
        if not guard.wrong:
            return
        if guard.mend is None:
            self._say(f"{guard.of}: left as it is. {guard.advice}")
            return
        with translated(f"The {guard.of} could not be mended"):
            guard.mend()
        self._say(f"{guard.of}: {guard.mended}")

    def _until_valid(self, what: str, look: Callable[[], Any]) -> Any:
        """What `look` finds, once AWS is done with making or changing it."""
        for _ in range(POLLS):
            found = look()
            status = found["status"] if found else "CREATING"  # a new resource may not show yet
            if status == "VALID":
                return found
            if status in ("INVALID", "DELETING", "DELETED"):
                raise Refused(f"The {what} is {status}: {found.get('statusReason') or 'AWS gives no reason'}")
            self._wait(POLL)
        raise Unavailable(f"The {what} is not ready after {POLL * POLLS:.0f} seconds; run provision again.")
