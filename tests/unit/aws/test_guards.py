"""What `doctor` compares: a bucket, a log group, machines and a queue with what they should be."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from botocore.loaders import Loader

from bot.aws.config import LOG_DAYS, AwsConfig
from bot.aws.guards import STUCK, UPLOAD_DAYS, Guard, Guards
from tests.support.aws import BUCKET, World, aws_world
from tests.support.aws import _client as client

BLOCKS: Any = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
DENIAL = {
    "Sid": "TlsOnly",
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:*",
    "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
OTHERS = {
    "Sid": "Colleagues",
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
    "Action": "s3:GetObject",
    "Resource": f"arn:aws:s3:::{BUCKET}/*",
}
PUBLIC = OTHERS | {"Sid": "Everybody", "Principal": "*"}


@pytest.fixture(scope="module")
def account() -> Any:
    """One account for all cases, each of which makes the bucket what it needs."""
    with aws_world() as world:
        yield world


@pytest.fixture
def world(account: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The account, with a bucket whose every guard is as it should be."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    s3 = client("s3")
    s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=BLOCKS)
    s3.put_bucket_ownership_controls(
        Bucket=BUCKET, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    )
    s3.put_bucket_encryption(
        Bucket=BUCKET,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    drop_parts_after(UPLOAD_DAYS)
    policy(DENIAL)
    return account


def policy(*statements: dict[str, Any]) -> None:
    """Give the bucket this policy."""
    client("s3").put_bucket_policy(
        Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    )


def drop_parts_after(days: int, *, prefix: str = "") -> None:
    """Let the bucket drop parts of broken uploads after so many days."""
    rule: Any = {
        "ID": "theirs",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
    }
    client("s3").put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]})


def said(*guards: Guard) -> list[str]:
    """What the guards say is wrong, and what they note."""
    return [line for guard in guards for line in (*guard.wrong, *(f"note that {note}" for note in guard.notes))]


def of_the_bucket(world: World) -> list[str]:
    """What all guards of the bucket say."""
    return said(*(look() for look in Guards(world.config, world.clients).bucket.values()))


def test_a_bucket_that_is_as_it_should_be_is_not_spoken_of(world: World) -> None:
    assert of_the_bucket(world) == []


def test_a_bucket_without_guards_lacks_each_of_them(world: World) -> None:
    s3 = client("s3")
    s3.delete_public_access_block(Bucket=BUCKET)
    s3.delete_bucket_encryption(Bucket=BUCKET)
    s3.delete_bucket_ownership_controls(Bucket=BUCKET)
    s3.delete_bucket_lifecycle(Bucket=BUCKET)
    policy(OTHERS)
    assert of_the_bucket(world) == [
        "BlockPublicAcls is off; it should be on",
        "IgnorePublicAcls is off; it should be on",
        "BlockPublicPolicy is off; it should be on",
        "RestrictPublicBuckets is off; it should be on",
        "objects are not encrypted; they should be",
        "object ownership is not set; it should be BucketOwnerEnforced",
        "the policy lets requests in without TLS; it should deny them",
        "note that the policy's statement Colleagues lets in account 111122223333",
        "parts of broken uploads are kept for ever; it should be 1 day",
    ]


def test_a_block_that_is_off_is_named(world: World) -> None:
    blocks = {**BLOCKS, "BlockPublicPolicy": False}
    client("s3").put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=blocks)
    assert of_the_bucket(world) == ["BlockPublicPolicy is off; it should be on"]


def test_objects_of_other_owners_and_late_clearing_of_uploads_are_told(world: World) -> None:
    client("s3").put_bucket_ownership_controls(
        Bucket=BUCKET, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    )
    drop_parts_after(30)
    assert of_the_bucket(world) == [
        "object ownership is ObjectWriter; it should be BucketOwnerEnforced",
        "parts of broken uploads are kept 30 days; it should be 1 day",
    ]


def test_a_rule_for_some_objects_only_drops_no_other_s_parts(world: World) -> None:
    drop_parts_after(1, prefix="some/")
    assert of_the_bucket(world) == ["parts of broken uploads are kept for ever; it should be 1 day"]


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
    world: World, condition: dict[str, Any], is_public: bool
) -> None:
    """As S3 means it: otherwise a condition that everybody meets would hide that everybody is let in."""
    policy(DENIAL, PUBLIC | {"Condition": condition})
    told = of_the_bucket(world)
    assert ("the policy's statement Everybody lets anybody in; it should be gone" in told) is is_public
    assert ("note that the policy has statements that are not NOMADS's: Everybody" in told) is not is_public


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
def test_a_denial_without_tls_counts_however_it_is_spelled(world: World, change: dict[str, Any]) -> None:
    policy(DENIAL | change)
    assert of_the_bucket(world) == []


def test_a_denial_without_tls_may_be_two_statements(world: World) -> None:
    policy(*(DENIAL | {"Sid": f"Tls{n}", "Resource": one} for n, one in enumerate(DENIAL["Resource"])))
    assert of_the_bucket(world) == []


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
def test_a_statement_that_only_looks_like_the_one_for_tls_does_not_count(world: World, change: dict[str, Any]) -> None:
    policy(DENIAL | change)
    assert "the policy lets requests in without TLS; it should deny them" in of_the_bucket(world)


def test_machines_and_queues_that_somebody_changed_are_told(world: World) -> None:
    guards = Guards(world.config, world.clients)
    batch = client("batch")
    batch.update_job_queue(jobQueue="nomads-queue", state="DISABLED")
    batch.update_compute_environment(computeEnvironment="nomads-ce", state="DISABLED")
    try:
        assert said(guards.queue_state(guards.queue())) == ["is disabled; it should be enabled"]
        assert said(guards.machines_state(guards.machines())) == ["is disabled; it should be enabled"]
    finally:
        batch.update_job_queue(jobQueue="nomads-queue", state="ENABLED")
        batch.update_compute_environment(computeEnvironment="nomads-ce", state="ENABLED")


def test_a_queue_on_other_machines_is_told(world: World) -> None:
    others = Guards(world.config.model_copy(update={"compute_environment": "nomads-other"}), world.clients)
    assert said(others.queue_state(others.queue())) == ["nomads-ce serves it; it should be nomads-other"]


def test_limits_on_stuck_jobs_that_differ_are_told_and_others_are_nobody_s_business(world: World) -> None:
    guards = Guards(world.config, world.clients)
    theirs = {"reason": "THEIRS", "state": "RUNNABLE", "maxTimeSeconds": 900, "action": "CANCEL"}
    capacity, most, need = STUCK
    found = {"jobStateTimeLimitActions": [{**theirs, "reason": capacity, "maxTimeSeconds": 600}, theirs]}
    assert said(guards.queue_limits(found)) == [
        f"the limit for {capacity} is CANCEL after 600 s; it should be CANCEL after 86400 s",
        f"has no limit for {most}; it should be 86400 s",
        f"has no limit for {need}; it should be 86400 s",
    ]
    assert said(guards.queue_limits({"jobStateTimeLimitActions": [*guards.limits, theirs]})) == []


@pytest.mark.parametrize(("kept", "shown"), [(30, "30 days"), (365, "365 days"), (None, "for ever")])
def test_lines_that_are_kept_for_another_time_are_told_with_what_mending_deletes(
    world: World, kept: int | None, shown: str
) -> None:
    guard = Guards(world.config, world.clients).retention({"retentionInDays": kept} if kept else {})
    assert said(guard) == [f"lines are kept {shown}; NOMADS_AWS_LOG_DAYS says 90 days"]
    assert "deletes older lines" in guard.advice


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
