"""deploy/nomads.yaml made, changed and taken away in moto, and looked at with the bot's own eyes.

moto takes no queue and no compute environment away with a stack, so that nothing is said of these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bot.aws.config import ToRun
from bot.aws.doctor import Doctor
from tests.support.aws import World
from tests.support.aws import _client as client
from tests.support.stack import NAME, Stack, stack_world, update_stack
from tests.support.template import BOTS, listed, properties


@pytest.fixture(params=BOTS)
def made(request: pytest.FixtureRequest) -> Iterator[tuple[World, Stack]]:
    """An account in which the stack was made, for each place of the bot."""
    with stack_world(Bot=request.param) as made:
        yield made


def test_what_it_gives_are_settings_that_the_bot_takes(made: tuple[World, Stack]) -> None:
    _, stack = made
    config = ToRun(_env_file=None, **stack.config)

    assert config.queue == "nomads-queue"
    assert config.queue_on_demand == "nomads-queue-on-demand"
    assert config.fair_share
    assert json.loads(stack.settings["NOMADS_IMAGES"]).keys() == {"nomads-unsupervised", "nomads-classifier"}
    assert stack.settings["NOMADS_COMPUTE"] == "aws"
    assert stack.settings["NOMADS_AWS_EVENTS_QUEUE"].endswith("/nomads-events")


def test_the_doctor_finds_its_guards_in_place(made: tuple[World, Stack]) -> None:
    world, _ = made
    doctor = Doctor(world.config, world.clients, secrets=world.secrets(), pipelines=[])

    for name in ("roles", "secrets", "logs", "bucket", "queue"):
        assert doctor.checks[name]() == "", name


def test_a_changed_parameter_changes_what_was_made(made: tuple[World, Stack]) -> None:
    _, stack = made

    changed = update_stack(stack, LogDays="30")

    assert changed.settings["NOMADS_AWS_LOG_DAYS"] == "30"
    assert changed.settings["NOMADS_AWS_BUCKET"] == stack.settings["NOMADS_AWS_BUCKET"]


def test_taken_away_it_leaves_the_results_alone(made: tuple[World, Stack]) -> None:
    world, stack = made
    bucket = stack.settings["NOMADS_AWS_BUCKET"]
    world.clients.s3.put_object(Bucket=bucket, Key="a/results.json", Body=b"{}")

    client("cloudformation").delete_stack(StackName=NAME)

    assert world.clients.s3.get_object(Bucket=bucket, Key="a/results.json")["Body"].read() == b"{}"
    assert not [role for role in world.clients.iam.list_roles()["Roles"] if role["RoleName"] == "nomads-job"]
    assert not client("ec2").describe_vpcs(Filters=[{"Name": "tag:Name", "Values": ["nomads"]}])["Vpcs"]
    assert not world.clients.logs.describe_log_groups(logGroupNamePrefix="/nomads/")["logGroups"]
    assert not world.clients.secrets.list_secrets()["SecretList"]
    with pytest.raises(ClientError, match="does not exist"):
        client("cloudformation").describe_stacks(StackName=NAME)


@pytest.fixture
def elsewhere() -> Iterator[Stack]:
    """A stack without a bot: what events go through is the same in all."""
    with stack_world(Bot="elsewhere") as (_, stack):
        yield stack


def received(url: str) -> list[dict[str, Any]]:
    """All messages that are in a queue now."""
    found: list[dict[str, Any]] = []
    receive = client("sqs").receive_message
    while some := receive(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0).get("Messages"):
        found += some
    return found


def test_its_rule_brings_both_kinds_of_events_of_both_queues_and_none_of_another_queue(elsewhere: Stack) -> None:
    batch = client("batch")
    queues = {one["jobQueueName"]: one["jobQueueArn"] for one in batch.describe_job_queues()["jobQueues"]}
    assert set(queues) == {"nomads-queue", "nomads-queue-on-demand"}
    queues["theirs"] = queues["nomads-queue"].replace("nomads-queue", "theirs")
    kinds = ("Batch Job State Change", "Batch Job Queue Blocked", "Batch Compute Environment State Change")
    for source in ("aws.batch", "example.batch"):
        for kind, (name, arn) in product(kinds, queues.items()):
            detail = json.dumps({"jobId": name, "jobQueue": arn, "status": "RUNNING"})
            client("events").put_events(Entries=[{"Source": source, "DetailType": kind, "Detail": detail}])

    events = [json.loads(message["Body"]) for message in received(elsewhere.settings["NOMADS_AWS_EVENTS_QUEUE"])]

    assert {event["source"] for event in events} == {"aws.batch"}
    assert sorted((event["detail-type"], event["detail"]["jobId"]) for event in events) == [
        ("Batch Job Queue Blocked", "nomads-queue"),
        ("Batch Job Queue Blocked", "nomads-queue-on-demand"),
        ("Batch Job State Change", "nomads-queue"),
        ("Batch Job State Change", "nomads-queue-on-demand"),
    ]


def test_a_message_that_is_never_deleted_ends_among_the_lost_ones(elsewhere: Stack) -> None:
    sqs, url = client("sqs"), elsewhere.settings["NOMADS_AWS_EVENTS_QUEUE"]
    most = properties("EventsQueue")["RedrivePolicy"]["maxReceiveCount"]
    sqs.send_message(QueueUrl=url, MessageBody="nobody can read this")

    for _ in range(most):
        [message] = received(url)
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    assert received(url) == []

    [lost] = received(elsewhere.outputs["LostEvents"])
    assert lost["Body"] == "nobody can read this"


def test_with_a_sender_the_bot_may_send_by_its_identity_or_its_domain_s_and_else_not_at_all() -> None:
    with stack_world(Bot="elsewhere", MailFrom="nomads@example.org") as (world, stack):
        found = allowed_by(world, stack.outputs["BotPolicy"], "ses:SendEmail")
        looked = allowed_by(world, stack.outputs["DoctorPolicy"], "ses:GetEmailIdentity")
    arn = "arn:aws:ses:eu-west-2:123456789012:identity"
    assert found == looked == [f"{arn}/nomads@example.org", f"{arn}/example.org"]

    with stack_world(Bot="elsewhere") as (world, stack):
        assert allowed_by(world, stack.outputs["BotPolicy"], "ses:SendEmail") == []
        assert allowed_by(world, stack.outputs["DoctorPolicy"], "ses:GetEmailIdentity") == []


def allowed_by(world: World, policy: str, action: str) -> list[str]:
    """The resources on which a policy that was made allows the action."""
    version = world.clients.iam.get_policy(PolicyArn=policy)["Policy"]["DefaultVersionId"]
    made = world.clients.iam.get_policy_version(PolicyArn=policy, VersionId=version)["PolicyVersion"]["Document"]
    document: Any = json.loads(made) if isinstance(made, str) else made
    return [
        one for each in document["Statement"] if action in listed(each["Action"]) for one in listed(each["Resource"])
    ]
