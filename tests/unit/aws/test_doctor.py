"""What `doctor` tries in AWS, what it says of each part, and what it says where it may not look."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

from bot.aws.doctor import Doctor, check_ses
from bot.domain.catalog import Pipeline
from bot.domain.errors import NomadsError
from tests.support.aws import SENDER, World, answer, aws_world, give
from tests.support.stack import stack_world

HERE = "123456789012.dkr.ecr.eu-west-2.amazonaws.com"
PIPELINES = [
    Pipeline(name="nomads-unsupervised", title="x", description="x", image="registry.example.org/nomads:1"),
    Pipeline(name="nomads-classifier", title="x", description="x", image=f"{HERE}/nomads/classifier:3"),
]


@contextmanager
def sound_world() -> Iterator[World]:
    """An account that deploy/nomads.yaml made."""
    with stack_world(Bot="elsewhere") as (world, _):
        yield world


@contextmanager
def bare_world() -> Iterator[World]:
    """An account with nothing in it."""
    with aws_world(empty=True, instance_role="nomads-instance") as world:
        yield world


def _role(iam: Any, name: str, service: str) -> None:
    trust = {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}, "Action": "sts:AssumeRole"}
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}))


def doctor(world: World, *pipelines: Pipeline) -> Doctor:
    return Doctor(world.config, world.clients, secrets=world.secrets(), pipelines=pipelines or PIPELINES[:1])


def wrong(check: Callable[[], str]) -> str:
    """What the check says is wrong."""
    with pytest.raises(NomadsError) as caught:
        check()
    return str(caught.value)


def test_a_sound_account_is_found_sound_and_what_is_not_in_aws_is_said() -> None:
    with sound_world() as world:
        said = {name: check() for name, check in doctor(world).checks.items()}
        assert said.pop("images") == (
            "not checked (nomads-unsupervised: registry.example.org/nomads:1, which is not in ECR)"
        )
        assert said == dict.fromkeys(("roles", "secrets", "logs", "bucket", "queue", "events"), "")


def test_nothing_is_left_of_the_secret_that_was_tried() -> None:
    with sound_world() as world:
        doctor(world).secrets()
        [stored] = world.asked("secretsmanager.CreateSecret")
        assert stored["Name"].startswith("nomads/")
        assert world.asked("secretsmanager.DeleteSecret")[0]["ForceDeleteWithoutRecovery"] is True
        assert boto3.client("secretsmanager", region_name="eu-west-2").list_secrets()["SecretList"] == []


def test_a_secret_that_cannot_be_read_is_deleted_all_the_same_and_the_right_is_named() -> None:
    with sound_world() as world:
        answer(world.clients.secrets, "secretsmanager.GetSecretValue", code="AccessDeniedException", message="no")
        assert "KeepTokens" in wrong(doctor(world).secrets)
        assert world.asked("secretsmanager.DeleteSecret")


def test_roles_that_are_missing_or_trust_others_are_named_with_what_to_do() -> None:
    with bare_world() as world:
        _role(boto3.client("iam", region_name="eu-west-2"), "nomads-job", "lambda")
        said = wrong(doctor(world).roles)
        assert "The role nomads-job does not trust ecs-tasks.amazonaws.com." in said
        assert "NOMADS_AWS_EXECUTION_ROLE: there is no role nomads-execution. Run nomads deploy." in said
        assert "NOMADS_AWS_INSTANCE_ROLE: there is no instance profile nomads-instance." in said


def test_an_instance_profile_needs_a_role_that_machines_may_take() -> None:
    with sound_world() as world:
        iam = boto3.client("iam", region_name="eu-west-2")
        iam.remove_role_from_instance_profile(InstanceProfileName="nomads-instance", RoleName="nomads-instance")
        assert wrong(doctor(world).roles) == "The instance profile nomads-instance has no role; give it one."
        iam.add_role_to_instance_profile(InstanceProfileName="nomads-instance", RoleName="nomads-job")
        assert "The role nomads-job does not trust ec2.amazonaws.com." in wrong(doctor(world).roles)


def test_an_image_of_ecr_is_looked_for_in_its_own_registry() -> None:
    with sound_world() as world:
        missing = f"nomads-classifier: {HERE}/nomads/classifier:3 is not in ECR. Push it, or name another one in"
        assert wrong(doctor(world, *PIPELINES).images).startswith(missing), "there is no repository"
        ecr = boto3.client("ecr", region_name="eu-west-2")
        ecr.create_repository(repositoryName="nomads/classifier")
        assert wrong(doctor(world, *PIPELINES).images).startswith(missing), "there is no such tag"
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = json.dumps({"mediaType": kind, "layers": []})
        ecr.put_image(repositoryName="nomads/classifier", imageManifest=manifest, imageTag="3")
        assert doctor(world, PIPELINES[1]).images() == ""
        assert world.asked("ecr.DescribeImages")[-1] == {
            "registryId": "123456789012",
            "repositoryName": "nomads/classifier",
            "imageIds": [{"imageTag": "3"}],
        }


def test_events_that_nobody_reads_are_told() -> None:
    with sound_world() as world:
        unread = {"Attributes": {"ApproximateNumberOfMessages": "1001"}}
        give(world.clients.sqs, "sqs.GetQueueAttributes", unread)
        assert doctor(world).events() == "ok. 1,001 events wait in nomads-events: is a bot running?"
        assert world.asked("sqs.GetQueueAttributes")[0]["QueueUrl"] == world.config.events_queue


def test_a_queue_of_events_that_is_missing_or_not_set_is_told() -> None:
    with sound_world() as world:
        world.clients.sqs.delete_queue(QueueUrl=world.config.events_queue)
        assert wrong(doctor(world).events) == ("NOMADS_AWS_EVENTS_QUEUE: there is no such queue. Run nomads deploy.")
    with bare_world() as world:
        said = "not checked (NOMADS_AWS_EVENTS_QUEUE is not set: AWS Batch is asked every ten seconds)"
        assert doctor(world).events() == said


def test_logs_that_are_missing_or_kept_too_long_or_unreadable_are_told() -> None:
    with bare_world() as world:
        assert wrong(doctor(world).logs) == "There is no log group /aws/batch/job. Run nomads deploy."
        boto3.client("logs", region_name="eu-west-2").create_log_group(logGroupName="/aws/batch/job")
        assert "lines are kept for ever; NOMADS_AWS_LOG_DAYS says 90 days" in wrong(doctor(world).logs)
        answer(world.clients.logs, "logs.GetLogEvents", code="AccessDeniedException", message="no")
        assert "These credentials may not read /aws/batch/job: give the bot logs:GetLogEvents." in wrong(
            doctor(world).logs
        )


def test_a_bucket_s_guard_that_is_off_is_named() -> None:
    with sound_world() as world:
        s3, name = boto3.client("s3", region_name="eu-west-2"), world.config.bucket
        blocks = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
        s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration={**blocks, "BlockPublicPolicy": False})
        assert wrong(doctor(world).bucket) == (
            f"bucket {name}: BlockPublicPolicy is off; it should be on. Set it so in S3's console."
        )


def test_a_queue_that_is_disabled_invalid_or_missing_is_told() -> None:
    with sound_world() as world:
        batch = boto3.client("batch", region_name="eu-west-2")
        batch.update_job_queue(jobQueue="nomads-queue", state="DISABLED")
        world.limits.clear()
        _invalid(world)
        said = wrong(doctor(world).queue)
        assert "The queue nomads-queue is INVALID: said AWS." in said
        assert "queue nomads-queue: is disabled; it should be enabled." in said
        assert "queue nomads-queue: has no limit for CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY" in said
    with bare_world() as world:
        said = wrong(doctor(world).queue)
        assert "There is no queue nomads-queue. Run nomads deploy." in said
        assert "There is no compute environment nomads-ce. Run nomads deploy." in said


def _invalid(world: World) -> None:
    def rewrite(response_dict: dict[str, Any], **_: Any) -> None:
        body = json.loads(response_dict["body"])
        for found in body["jobQueues"]:
            found |= {"status": "INVALID", "statusReason": "said AWS"}
        response_dict["body"] = json.dumps(body).encode()

    world.clients.batch.meta.events.register("before-parse.batch.DescribeJobQueues", rewrite)


@pytest.mark.parametrize(
    ("client", "operation", "code", "check", "said"),
    [
        ("iam", "iam.GetRole", "AccessDenied", "roles", "may not look: iam:GetRole"),
        ("iam", "iam.GetInstanceProfile", "AccessDenied", "roles", "may not look: iam:GetInstanceProfile"),
        ("logs", "logs.DescribeLogGroups", "AccessDeniedException", "logs", "may not look: logs:DescribeLogGroups"),
        ("s3", "s3.GetBucketPolicy", "AccessDenied", "bucket", "may not look: s3:GetBucketPolicy"),
        ("s3", "s3.GetPublicAccessBlock", "AccessDenied", "bucket", "may not look: s3:GetBucketPublicAccessBlock"),
        ("batch", "batch.DescribeJobQueues", "AccessDeniedException", "queue", "may not look: batch:DescribeJobQueues"),
    ],
)
def test_where_it_may_not_look_it_says_so_and_nothing_is_wrong(
    client: str, operation: str, code: str, check: str, said: str
) -> None:
    with sound_world() as world:
        answer(getattr(world.clients, client), operation, status=403, code=code, message="is not authorized")
        assert said in doctor(world).checks[check]()


def test_an_image_that_it_may_not_look_for_is_not_checked() -> None:
    with sound_world() as world:
        answer(world.clients.ecr("eu-west-2"), "ecr.DescribeImages", code="AccessDeniedException", message="no")
        assert doctor(world, PIPELINES[1]).images() == "not checked (may not look: ecr:DescribeImages)"


ACCOUNT = {"SendingEnabled": True, "ProductionAccessEnabled": True}


@pytest.mark.parametrize("known", [SENDER, "example.org"])
def test_ses_is_sound_with_a_verified_address_or_domain_outside_the_sandbox(known: str) -> None:
    with bare_world() as world:
        boto3.client("sesv2", region_name="eu-west-2").create_email_identity(EmailIdentity=known)
        _verified(world, True)
        give(world.clients.ses, "sesv2.GetAccount", ACCOUNT)
        assert check_ses(world.config, f"NOMADS <{SENDER}>", clients=world.clients) == ""


@pytest.mark.parametrize(
    ("known", "verified", "account", "told"),
    [
        (False, True, ACCOUNT, f"SES does not know {SENDER}. Verify the address or its domain in eu-west-2."),
        (True, False, ACCOUNT, f"SES has not verified {SENDER} yet."),
        (True, True, ACCOUNT | {"ProductionAccessEnabled": False}, "The account is in SES's sandbox"),
        (True, True, ACCOUNT | {"SendingEnabled": False}, "SES has paused this account's mail."),
    ],
)
def test_what_is_wrong_with_ses_is_told_with_what_to_do(
    known: bool, verified: bool, account: dict[str, bool], told: str
) -> None:
    with bare_world() as world:
        if known:
            boto3.client("sesv2", region_name="eu-west-2").create_email_identity(EmailIdentity=SENDER)
            _verified(world, verified)
        give(world.clients.ses, "sesv2.GetAccount", account)
        assert told in wrong(lambda: check_ses(world.config, SENDER, clients=world.clients))


def _verified(world: World, verified: bool) -> None:
    def rewrite(response_dict: dict[str, Any], **_: Any) -> None:
        if response_dict["status_code"] == 200:
            body = json.loads(response_dict["body"]) | {"VerifiedForSendingStatus": verified}
            response_dict["body"] = json.dumps(body).encode()

    world.clients.ses.meta.events.register("before-parse.sesv2.GetEmailIdentity", rewrite)


def test_ses_that_may_not_be_looked_at_is_said() -> None:
    with bare_world() as world:
        for operation in ("sesv2.GetAccount", "sesv2.GetEmailIdentity"):
            answer(world.clients.ses, operation, status=403, code="AccessDeniedException", message="no")
        assert check_ses(world.config, SENDER, clients=world.clients) == (
            "not checked (may not look: ses:GetEmailIdentity; may not look: ses:GetAccount)"
        )
