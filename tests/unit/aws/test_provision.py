"""`provision`: what it makes, what it leaves, and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from moto.batch.models import BatchBackend

from bot.aws.config import AwsConfig
from bot.aws.provision import POLLS, provision
from bot.domain.catalog import Pipeline
from bot.domain.errors import Refused, Unavailable
from tests.support.aws import BUCKET, World, answer, aws_world, make_role, network

PIPELINES = [
    Pipeline(name="nomads-unsupervised", title="x", description="x", image="registry.example.org/nomads:1"),
    Pipeline(name="nomads-classifier", title="x", description="x"),
]
MADE = (
    "sts.GetCallerIdentity s3.HeadBucket s3.CreateBucket"
    " s3.GetPublicAccessBlock s3.PutPublicAccessBlock s3.GetBucketEncryption s3.PutBucketEncryption"
    " s3.GetBucketOwnershipControls s3.GetBucketPolicy s3.PutBucketPolicy"
    " logs.DescribeLogGroups logs.CreateLogGroup logs.PutRetentionPolicy"
    " batch.DescribeComputeEnvironments batch.CreateComputeEnvironment batch.DescribeComputeEnvironments"
    " batch.DescribeJobQueues batch.CreateJobQueue batch.DescribeJobQueues"
    " batch.DescribeJobDefinitions batch.RegisterJobDefinition"
)


@contextmanager
def bare_world(region: str = "eu-west-2", **settings: Any) -> Iterator[World]:
    """An account with nothing but what an admin brings; moto's check of the network is left out, being slow."""
    admin: dict[str, Any] = {
        "subnets": ["subnet-0"],
        "security_groups": ["sg-0"],
        "instance_types": ["optimal"],
        "instance_role": "arn:aws:iam::123456789012:instance-profile/nomads",
        "service_role": "arn:aws:iam::123456789012:role/nomads-service",
    }
    with (
        aws_world(region=region, empty=True, **(admin | settings)) as world,
        patch.object(BatchBackend, "_validate_compute_resources", lambda *_: None),
    ):
        make_role("nomads-service", region)
        yield world


def run(world: World) -> list[str]:
    """Provision, without waiting; what was said."""
    said: list[str] = []
    provision(world.config, PIPELINES, say=said.append, clients=world.clients, wait=lambda _: None)
    return said


def test_an_empty_account_gets_everything_looked_for_before_it_is_made() -> None:
    with bare_world() as world:
        said = run(world)
        assert world.operations == MADE.split()
        assert said[-2:] == [
            "pipeline nomads-unsupervised: job definition nomads_nomads-unsupervised:1",
            "pipeline nomads-classifier: has no image, so no job definition; name one in NOMADS_IMAGES",
        ]


def test_a_second_run_only_looks() -> None:
    with bare_world() as world:
        run(world)
        before = len(world.sent)
        said = run(world)
        verbs = {operation.partition(".")[2] for operation in world.operations[before:]}
        assert all(verb.startswith(("Get", "Head", "Describe")) for verb in verbs), verbs
        assert "queue nomads-queue: is there" in said


def test_moto_s_whole_network_is_accepted() -> None:
    with aws_world(empty=True) as world:
        world.config = AwsConfig(_env_file=None, **(world.config.model_dump() | network()))
        run(world)
        assert world.asked("batch.CreateComputeEnvironment")[0]["serviceRole"] == world.config.service_role


def test_the_machines_are_as_the_settings_say() -> None:
    with bare_world(max_vcpus=128) as world:
        run(world)
        [asked] = world.asked("batch.CreateComputeEnvironment")
    assert asked == {
        "computeEnvironmentName": "nomads-ce",
        "type": "MANAGED",
        "state": "ENABLED",
        "computeResources": {
            "type": "EC2",
            "allocationStrategy": "BEST_FIT_PROGRESSIVE",
            "minvCpus": 0,
            "maxvCpus": 128,
            "instanceTypes": ["optimal"],
            "subnets": ["subnet-0"],
            "securityGroupIds": ["sg-0"],
            "instanceRole": "arn:aws:iam::123456789012:instance-profile/nomads",
        },
        "serviceRole": "arn:aws:iam::123456789012:role/nomads-service",
    }


def test_spot_machines_on_request() -> None:
    with bare_world(spot=True) as world:
        run(world)
        [asked] = world.asked("batch.CreateComputeEnvironment")
    assert asked["computeResources"]["type"] == "SPOT"
    assert asked["computeResources"]["allocationStrategy"] == "SPOT_PRICE_CAPACITY_OPTIMIZED"


def test_without_a_service_role_batch_uses_its_own() -> None:
    with bare_world(service_role="") as world:
        with pytest.raises(Refused):  # moto's; AWS takes it
            run(world)
        [asked] = world.asked("batch.CreateComputeEnvironment")
    assert "serviceRole" not in asked


def test_the_queue_has_its_own_name_and_is_the_one_jobs_go_to() -> None:
    """In 2018 a queue named `string` was made, and jobs went to another."""
    with bare_world() as world:
        run(world)
        [asked] = world.asked("batch.CreateJobQueue")
        assert asked == {
            "jobQueueName": "nomads-queue",
            "state": "ENABLED",
            "priority": 1,
            "computeEnvironmentOrder": [{"order": 1, "computeEnvironment": "nomads-ce"}],
        }
        assert asked["jobQueueName"] == world.config.queue


@pytest.mark.parametrize(
    ("region", "place"),
    [
        ("us-east-1", None),
        ("eu-west-2", {"LocationConstraint": "eu-west-2"}),
        ("ap-southeast-2", {"LocationConstraint": "ap-southeast-2"}),
    ],
)
def test_the_bucket_is_made_in_any_region_private_and_for_tls_only(region: str, place: Any) -> None:
    with bare_world(region=region) as world:
        run(world)
        [asked] = world.asked("s3.CreateBucket")
        assert asked.get("CreateBucketConfiguration") == place
        assert asked["ObjectOwnership"] == "BucketOwnerEnforced"
        s3 = boto3.client("s3", region_name=region)
        blocked = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
        assert blocked == {
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        }
        [rule] = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
        assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
        [statement] = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
        assert statement["Effect"] == "Deny"
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert statement["Resource"] == [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]


def test_a_bucket_that_is_there_keeps_its_policy_and_gets_the_guards_it_lacks() -> None:
    with bare_world() as world:
        s3 = boto3.client("s3", region_name="eu-west-2")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
        own = json.dumps({"Version": "2012-10-17", "Statement": []})
        s3.put_bucket_policy(Bucket=BUCKET, Policy=own)

        said = run(world)

        assert s3.get_bucket_policy(Bucket=BUCKET)["Policy"] == own
        assert world.asked("s3.CreateBucket") == []
        assert [line for line in said if "bucket" in line] == [
            f"bucket {BUCKET}: is there",
            f"bucket {BUCKET}: public access is blocked",
            f"bucket {BUCKET}: objects are encrypted",
            f"bucket {BUCKET}: objects belong to the bucket's owner",
        ]


@pytest.mark.parametrize(
    ("operation", "status", "code"), [("s3.HeadBucket", 403, "403"), ("s3.CreateBucket", 409, "BucketAlreadyExists")]
)
def test_a_stranger_s_bucket_is_left_alone(operation: str, status: int, code: str) -> None:
    with bare_world() as world:
        answer(world.clients.s3, operation, status=status, code=code, message="no")
        with pytest.raises(Refused, match="choose another"):
            run(world)
        assert not [sent for sent in world.operations if sent.startswith(("batch.", "s3.Put"))]


def test_the_bucket_s_owner_is_named_in_the_look() -> None:
    with bare_world() as world:
        run(world)
        assert world.asked("s3.HeadBucket") == [{"Bucket": BUCKET, "ExpectedBucketOwner": "123456789012"}]


def test_all_missing_settings_are_named_at_once_and_nothing_is_called() -> None:
    with (
        aws_world(empty=True, region="", bucket="", execution_role="", job_role="") as world,
        pytest.raises(Refused) as caught,
    ):
        run(world)
    for name in (
        *("REGION", "BUCKET", "EXECUTION_ROLE", "JOB_ROLE"),
        *("INSTANCE_ROLE", "SUBNETS", "SECURITY_GROUPS", "INSTANCE_TYPES"),
    ):
        assert f"NOMADS_AWS_{name}" in str(caught.value)
    assert world.operations == []


def _statuses(world: World, operation: str, *statuses: str) -> None:
    """Let the thing described have these statuses in turn, then keep the last."""
    left = list(statuses)

    def rewrite(response_dict: dict[str, Any], **_: Any) -> None:
        body = json.loads(response_dict["body"])
        for [found] in [items for items in body.values() if items]:
            found["status"] = left.pop(0) if len(left) > 1 else left[0]
            found["statusReason"] = "said AWS"
        response_dict["body"] = json.dumps(body).encode()

    world.clients.batch.meta.events.register(f"before-parse.batch.{operation}", rewrite)


def test_the_queue_waits_for_valid_machines() -> None:
    with bare_world() as world:
        _statuses(world, "DescribeComputeEnvironments", "CREATING", "CREATING", "VALID")
        waits: list[float] = []
        provision(world.config, PIPELINES, say=lambda _: None, clients=world.clients, wait=waits.append)
        assert len(waits) == 2
        order = world.operations
        last_look = max(n for n, sent in enumerate(order) if sent == "batch.DescribeComputeEnvironments")
        assert last_look < order.index("batch.CreateJobQueue")


def test_invalid_machines_are_told_with_aws_s_reason() -> None:
    with bare_world() as world:
        _statuses(world, "DescribeComputeEnvironments", "INVALID")
        with pytest.raises(Refused, match="compute environment nomads-ce is INVALID: said AWS"):
            run(world)
        assert "batch.CreateJobQueue" not in world.operations


def test_machines_that_never_get_ready_end_the_wait() -> None:
    with bare_world() as world:
        _statuses(world, "DescribeComputeEnvironments", "CREATING")
        waits: list[float] = []
        with pytest.raises(Unavailable, match="run provision again"):
            provision(world.config, PIPELINES, say=lambda _: None, clients=world.clients, wait=waits.append)
        assert len(waits) == POLLS


def test_a_queue_on_other_machines_is_remarked_and_left() -> None:
    with bare_world() as world:
        run(world)
        batch = boto3.client("batch", region_name="eu-west-2")
        other = batch.create_compute_environment(
            computeEnvironmentName="other-ce", type="UNMANAGED", state="ENABLED", serviceRole=world.config.service_role
        )["computeEnvironmentArn"]
        batch.update_job_queue(
            jobQueue="nomads-queue", computeEnvironmentOrder=[{"order": 1, "computeEnvironment": other}]
        )
        assert "queue nomads-queue: note that nomads-ce does not serve it" in run(world)


def test_nothing_is_ever_deleted_or_updated() -> None:
    with bare_world() as world:
        run(world)
        run(world)
        assert not [
            sent for sent in world.operations if sent.partition(".")[2].startswith(("Delete", "Update", "Dereg"))
        ]
