"""`provision`: what it makes, what it leaves, and what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from botocore.loaders import Loader
from moto.batch.models import BatchBackend

from bot.aws.config import LOG_DAYS, AwsConfig
from bot.aws.provision import POLLS, provision
from bot.domain.catalog import Pipeline
from bot.domain.errors import Refused, Unavailable
from tests.support.aws import BUCKET, World, answer, answer_otherwise, aws_world, make_role, network

PIPELINES = [
    Pipeline(name="nomads-unsupervised", title="x", description="x", image="registry.example.org/nomads:1"),
    Pipeline(name="nomads-classifier", title="x", description="x"),
]
MADE = (
    "sts.GetCallerIdentity s3.HeadBucket s3.CreateBucket"
    " s3.GetPublicAccessBlock s3.PutPublicAccessBlock s3.GetBucketEncryption s3.PutBucketEncryption"
    " s3.GetBucketOwnershipControls s3.GetBucketPolicy s3.PutBucketPolicy"
    " s3.GetBucketLifecycleConfiguration s3.PutBucketLifecycleConfiguration"
    " logs.DescribeLogGroups logs.CreateLogGroup logs.PutRetentionPolicy"
    " batch.DescribeComputeEnvironments batch.CreateComputeEnvironment batch.DescribeComputeEnvironments"
    " batch.DescribeJobQueues batch.CreateJobQueue batch.DescribeJobQueues"
    " batch.DescribeJobDefinitions batch.DescribeJobDefinitions batch.RegisterJobDefinition"
)

LIMITS = [
    {"reason": reason, "state": "RUNNABLE", "maxTimeSeconds": 86_400, "action": "CANCEL"}
    for reason in (
        "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY",
        "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE",
        "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
    )
]


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
            "jobStateTimeLimitActions": LIMITS,
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


def _a_bucket(*statements: dict[str, Any], **blocks: bool) -> Any:
    """A bucket that somebody made, with such a policy and such blocks; S3's client."""
    s3 = boto3.client("s3", region_name="eu-west-2")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
    if statements:
        s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))
    if blocks:
        s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=blocks)  # type: ignore[arg-type]
    return s3


def _of_the_bucket(said: list[str]) -> list[str]:
    return [line.removeprefix(f"bucket {BUCKET}: ") for line in said if line.startswith("bucket ")]


OTHERS = {
    "Sid": "Colleagues",
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
    "Action": "s3:GetObject",
    "Resource": f"arn:aws:s3:::{BUCKET}/*",
}
PUBLIC = OTHERS | {"Sid": "Everybody", "Principal": "*"}


def test_a_bucket_that_is_there_keeps_its_statements_and_gets_the_guards_it_lacks() -> None:
    with bare_world() as world:
        s3 = _a_bucket(OTHERS)
        said = run(world)
        first, second = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
        assert first == OTHERS
        assert second["Sid"] == "TlsOnly"
        assert world.asked("s3.CreateBucket") == []
        assert _of_the_bucket(said) == [
            "is there",
            "BlockPublicAcls is off; it should be on",
            "IgnorePublicAcls is off; it should be on",
            "BlockPublicPolicy is off; it should be on",
            "RestrictPublicBuckets is off; it should be on",
            "public access is blocked",
            "objects are not encrypted; they should be",
            "objects are encrypted",
            "object ownership is not set; it should be BucketOwnerEnforced",
            "objects belong to the bucket's owner",
            "the policy lets requests in without TLS; it should deny them",
            "note that the policy's statement Colleagues lets in account 111122223333",
            "only TLS is let in",
            "parts of broken uploads are kept for ever; it should be 1 day",
            "parts of broken uploads are dropped after 1 day",
        ]


def test_a_block_that_is_off_is_named_and_put_on() -> None:
    with bare_world() as world:
        run(world)
        s3 = boto3.client("s3", region_name="eu-west-2")
        blocks = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
        s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration={**blocks, "BlockPublicPolicy": False})
        assert _of_the_bucket(run(world)) == [
            "is there",
            "BlockPublicPolicy is off; it should be on",
            "public access is blocked",
        ]
        assert s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"] == blocks


def test_a_public_policy_is_shut_in_and_left_to_an_admin() -> None:
    with bare_world() as world:
        s3 = _a_bucket(PUBLIC)
        said = _of_the_bucket(run(world))
        assert "the policy's statement Everybody lets anybody in; it should be gone" in said
        assert "left as it is. Take the statement out of the bucket's policy, and run provision again." in said
        assert json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"] == [PUBLIC]
        blocks = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
        assert all(blocks.values()), "so nobody gets in"


@pytest.mark.parametrize(
    ("condition", "is_public"),
    [
        ({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}, True),
        ({"IpAddress": {"aws:SourceIp": ["192.0.2.0/24", "128.0.0.0/1"]}}, True),
        ({"IpAddress": {"aws:SourceIp": "::/0"}}, True),
        ({"StringLike": {"aws:UserAgent": "*"}}, True),
        ({"StringEquals": {"aws:Referer": "https://example.org"}}, True),
        ({"StringLike": {"aws:SourceVpc": "vpc-*"}}, True),
        ({"StringEqualsIfExists": {"aws:SourceVpc": "vpc-1"}}, True),
        ({"StringNotEquals": {"aws:SourceVpc": "vpc-1"}}, True),
        ({"IpAddress": {"aws:SourceIp": ["192.0.2.0/24", "2001:db8::/32"]}}, False),
        ({"StringEquals": {"AWS:SourceVpce": ["vpce-1", "vpce-2"]}}, False),
        ({"StringEquals": {"aws:PrincipalOrgID": "o-1"}, "StringLike": {"aws:UserAgent": "*"}}, False),
        ({"ArnLike": {"s3:DataAccessPointArn": "arn:aws:s3:eu-west-2:123456789012:accesspoint/*"}}, False),
    ],
)
def test_a_statement_is_public_unless_its_conditions_hold_it_to_fixed_values(
    condition: dict[str, Any], is_public: bool
) -> None:
    """As S3 means it: otherwise a condition that everybody meets would hide that everybody is let in."""
    with bare_world() as world:
        _a_bucket(PUBLIC | {"Condition": condition})
        said = _of_the_bucket(run(world))
        assert ("the policy's statement Everybody lets anybody in; it should be gone" in said) is is_public
        assert ("note that the policy has statements that are not NOMADS's: Everybody" in said) is not is_public


@pytest.mark.parametrize(
    "change",
    [
        {"Condition": {"Bool": {"aws:SecureTransport": ["false"]}}},
        {"Condition": {"bool": {"AWS:securetransport": False}}},
        {"Condition": {"BoolIfExists": {"aws:SecureTransport": "False"}}},
        {"Principal": {"AWS": ["*"]}, "Action": ["S3:*"]},
        {"Resource": [f"arn:aws:s3:::{BUCKET}/*", f"arn:aws:s3:::{BUCKET}", "arn:aws:s3:::more"]},
    ],
)
def test_a_denial_without_tls_counts_however_it_is_spelled(change: dict[str, Any]) -> None:
    with bare_world() as world:
        run(world)
        _change_the_denial(change)
        assert _of_the_bucket(run(world)) == ["is there"]


def test_a_denial_without_tls_may_be_two_statements() -> None:
    with bare_world() as world:
        run(world)
        resources = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
        _change_the_denial(*({"Sid": f"Tls{n}", "Resource": one} for n, one in enumerate(resources)))
        assert _of_the_bucket(run(world)) == ["is there"]


def _change_the_denial(*changes: dict[str, Any]) -> None:
    """Put the policy's one statement in the bucket's policy once for each of the changes."""
    s3 = boto3.client("s3", region_name="eu-west-2")
    policy = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])
    changed = [{**policy["Statement"][0], **change} for change in changes]
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({**policy, "Statement": changed}))


@pytest.mark.parametrize(
    "change",
    [
        {"Effect": "Allow", "Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        {"Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        {"Action": "s3:GetObject"},
        {"Resource": f"arn:aws:s3:::{BUCKET}/*"},
        {"Principal": {"AWS": "arn:aws:iam::111122223333:root"}},
    ],
)
def test_a_statement_that_only_looks_like_the_one_for_tls_does_not_count(change: dict[str, Any]) -> None:
    with bare_world() as world:
        run(world)
        _change_the_denial(change)
        assert "the policy lets requests in without TLS; it should deny them" in _of_the_bucket(run(world))
        assert "is there" in _of_the_bucket(run(world))


def test_objects_of_other_owners_and_late_clearing_of_uploads_are_mended_and_other_rules_stay() -> None:
    with bare_world() as world:
        run(world)
        s3 = boto3.client("s3", region_name="eu-west-2")
        s3.put_bucket_ownership_controls(
            Bucket=BUCKET, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
        )
        rule: Any = {
            "ID": "theirs",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 30},
        }
        s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]})
        assert _of_the_bucket(run(world)) == [
            "is there",
            "object ownership is ObjectWriter; it should be BucketOwnerEnforced",
            "objects belong to the bucket's owner",
            "parts of broken uploads are kept 30 days; it should be 1 day",
            "parts of broken uploads are dropped after 1 day",
        ]
        rules = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
        assert [one["ID"] for one in rules] == ["theirs", "nomads-incomplete-uploads"]
        assert _of_the_bucket(run(world)) == ["is there"]


@pytest.mark.parametrize(
    ("operation", "status", "code"), [("s3.HeadBucket", 403, "403"), ("s3.CreateBucket", 409, "BucketAlreadyExists")]
)
def test_a_stranger_s_bucket_is_left_alone(operation: str, status: int, code: str) -> None:
    with bare_world() as world:
        answer(world.clients.s3, operation, status=status, code=code, message="no")
        with pytest.raises(Refused, match="choose another"):
            run(world)
        assert not [sent for sent in world.operations if sent.startswith(("batch.", "s3.Put"))]


@pytest.mark.parametrize("status", [403, 404])
def test_a_proxy_that_answers_in_s3_s_place_neither_makes_a_bucket_nor_calls_it_a_stranger_s(status: int) -> None:
    with bare_world() as world:
        answer_otherwise(world.clients.s3, "s3.HeadBucket", status=status, content=b"")
        with pytest.raises(Unavailable, match="not AWS's own"):
            run(world)
        assert "s3.CreateBucket" not in world.operations


def test_the_bucket_s_owner_is_named_in_the_look() -> None:
    with bare_world() as world:
        run(world)
        assert world.asked("s3.HeadBucket") == [{"Bucket": BUCKET, "ExpectedBucketOwner": "123456789012"}]


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
            jobQueue="nomads-queue",
            state="DISABLED",
            computeEnvironmentOrder=[{"order": 1, "computeEnvironment": other}],
        )
        said = run(world)
        assert "queue nomads-queue: is disabled; it should be enabled" in said
        assert "queue nomads-queue: other-ce serves it; it should be nomads-ce" in said
        assert [line for line in said if line.startswith("queue nomads-queue: left as it is.")]
        [found] = batch.describe_job_queues(jobQueues=["nomads-queue"])["jobQueues"]
        assert found["state"] == "DISABLED"


def test_machines_that_somebody_disabled_are_remarked_and_left() -> None:
    with bare_world() as world:
        run(world)
        batch = boto3.client("batch", region_name="eu-west-2")
        batch.update_compute_environment(computeEnvironment="nomads-ce", state="DISABLED")
        assert "compute environment nomads-ce: is disabled; it should be enabled" in run(world)


def test_a_queue_without_limits_on_stuck_jobs_gets_them_and_keeps_others() -> None:
    with bare_world() as world:
        run(world)
        theirs = {"reason": "THEIRS", "state": "RUNNABLE", "maxTimeSeconds": 900, "action": "CANCEL"}
        world.limits["nomads-queue"] = [{**LIMITS[0], "maxTimeSeconds": 600}, theirs]
        said = run(world)
        capacity, most, need = (limit["reason"] for limit in LIMITS)
        assert [line for line in said if line.startswith("queue")] == [
            "queue nomads-queue: is there",
            f"queue nomads-queue: the limit for {capacity} is CANCEL after 600 s; it should be CANCEL after 86400 s",
            f"queue nomads-queue: has no limit for {most}; it should be 86400 s",
            f"queue nomads-queue: has no limit for {need}; it should be 86400 s",
            "queue nomads-queue: jobs that cannot start are given up after 86400 s",
        ]
        assert world.asked("batch.UpdateJobQueue") == [
            {"jobQueue": "nomads-queue", "jobStateTimeLimitActions": [*LIMITS, theirs]}
        ]


@pytest.mark.parametrize(
    ("kept", "old", "told"),
    [
        (30, True, "keeps 90 days"),  # nothing is deleted by that
        (None, False, "keeps 90 days"),  # nothing in it is as old as that
        (None, True, "left as it is. Provision deletes no lines"),
        (365, True, "left as it is. Provision deletes no lines"),
    ],
)
def test_lines_are_kept_for_as_long_as_the_settings_say_but_none_is_deleted_for_that(
    kept: int | None, old: bool, told: str
) -> None:
    with bare_world() as world:
        logs = boto3.client("logs", region_name="eu-west-2")
        logs.create_log_group(logGroupName="/aws/batch/job")
        if kept:
            logs.put_retention_policy(logGroupName="/aws/batch/job", retentionInDays=kept)
        if old:
            _made_long_ago(world)
        said = [line.removeprefix("log group /aws/batch/job: ") for line in run(world) if line.startswith("log group")]
        shown = f"{kept} days" if kept else "for ever"
        assert said[:2] == ["is there", f"lines are kept {shown}; NOMADS_AWS_LOG_DAYS says 90 days"]
        assert said[2].startswith(told)
        put = world.asked("logs.PutRetentionPolicy")
        assert put == ([{"logGroupName": "/aws/batch/job", "retentionInDays": 90}] if told.startswith("keeps") else [])


def _made_long_ago(world: World) -> None:
    def rewrite(response_dict: dict[str, Any], **_: Any) -> None:
        body = json.loads(response_dict["body"])
        for group in body["logGroups"]:
            group["creationTime"] = 0
        response_dict["body"] = json.dumps(body).encode()

    world.clients.logs.meta.events.register("before-parse.cloudwatch-logs.DescribeLogGroups", rewrite)


@pytest.mark.parametrize(("days", "nearest"), [(100, 90), (2, 1), (10, 7), (9999, 3653)])
def test_days_that_cloudwatch_does_not_offer_are_an_error_before_anything_is_done(days: int, nearest: int) -> None:
    with pytest.raises(
        ValueError,
        match=f"CloudWatch does not offer {days} days; the nearest that it offers is {nearest}. It offers 1, 3",
    ):
        AwsConfig(_env_file=None, log_days=days)


def test_the_days_that_cloudwatch_offers_are_those_of_its_own_description() -> None:
    model = Loader().load_service_model("logs", "service-2")
    said = str(model["shapes"]["PutRetentionPolicyRequest"]["members"]["retentionInDays"])
    said += str(model["shapes"]["Days"])
    assert {int(number) for number in re.findall(r"\b[0-9]+\b", said)} >= set(LOG_DAYS)


def test_a_job_definition_that_differs_is_named_part_by_part_and_a_right_one_is_registered() -> None:
    with bare_world() as world:
        run(world)
        [ours] = world.asked("batch.RegisterJobDefinition")
        container = ours["containerProperties"] | {"jobRoleArn": "arn:aws:iam::123456789012:role/another"}
        container["logConfiguration"] = {"logDriver": "json-file"}
        changed = ours | {
            "containerProperties": container,
            "retryStrategy": {"attempts": 1},
            "timeout": {"attemptDurationSeconds": 60},
        }
        boto3.client("batch", region_name="eu-west-2").register_job_definition(**changed)
        boto3.client("batch", region_name="eu-west-2").deregister_job_definition(
            jobDefinition="nomads_nomads-unsupervised:1"
        )
        said = [line for line in run(world) if "nomads-unsupervised" in line]
        told = "pipeline nomads-unsupervised: revision 2 is left, but its "
        assert [line.removeprefix(told).partition(" is ")[0] for line in said[:-1]] == [
            *("job role", "log configuration", "retry strategy", "time limit"),
        ]
        assert f"{told}job role is arn:aws:iam::123456789012:role/another; it should be {world.config.job_role}" in said
        assert said[-1] == "pipeline nomads-unsupervised: job definition nomads_nomads-unsupervised:3"
        assert not [line for line in run(world) if "is left" in line]


def test_nothing_is_ever_deleted_and_what_is_right_is_not_touched() -> None:
    with bare_world() as world:
        run(world)
        run(world)
        assert not [
            sent for sent in world.operations if sent.partition(".")[2].startswith(("Delete", "Update", "Dereg"))
        ]
