"""Events of AWS Batch in a queue of SQS are hints: which job to ask about, and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bot.aws.events import BatchEvents
from bot.domain.errors import Busy, NotFound, Refused, Unavailable
from bot.domain.states import JobState
from bot.domain.work import Hint
from tests.support.aws import World, answer, aws_world, give

JOB = "0a1b2c3d-0000-4000-8000-0123456789ab"


@pytest.fixture
def world() -> Iterator[World]:
    with aws_world() as world:
        yield world


@pytest.fixture
def queue(world: World) -> str:
    return str(world.clients.sqs.create_queue(QueueName="nomads-events")["QueueUrl"])


@pytest.fixture
def events(world: World, queue: str) -> BatchEvents:
    config = world.config.model_copy(update={"events_queue": queue})
    return BatchEvents(config=config, clients=world.clients)


def an_event(*, kind: str = "Batch Job State Change", source: str = "aws.batch", **detail: Any) -> str:
    """As EventBridge writes it, shortened (AWS Batch user guide, “Job state change events”)."""
    job = {
        "jobArn": f"arn:aws:batch:eu-west-2:123456789012:job/{JOB}",
        "jobName": "a-job",
        "jobId": JOB,
        "status": "RUNNABLE",
        "attempts": [],
        "createdAt": 1508781340401,
        "retryStrategy": {"attempts": 3, "evaluateOnExit": []},
        "container": {"image": "i", "environment": [], "resourceRequirements": []},
    }
    return json.dumps(
        {
            "version": "0",
            "id": "c8f9c4b5-76e5-d76a-f980-7011e206042b",
            "detail-type": kind,
            "source": source,
            "account": "123456789012",
            "time": "2026-03-01T12:00:00Z",
            "region": "eu-west-2",
            "resources": [job["jobArn"]],
            "detail": job | detail,
        }
    )


def received(world: World, queue: str, events: BatchEvents, *bodies: str) -> list[Hint]:
    for body in bodies:
        world.clients.sqs.send_message(QueueUrl=queue, MessageBody=body)
    return list(events.receive(within=0))


def test_an_event_names_its_job_and_what_it_claims(world: World, queue: str, events: BatchEvents) -> None:
    [hint] = received(world, queue, events, an_event(status="RUNNING", startedAt=1508781350000))
    assert (hint.compute_id, hint.of_child) == (JOB, False)
    assert hint.claims
    assert (hint.claims.state, hint.claims.attempt) == (JobState.RUNNING, 1)


def test_a_later_attempt_is_claimed_as_such(world: World, queue: str, events: BatchEvents) -> None:
    lost = {"statusReason": "Host EC2 (instance i-0) terminated.", "stoppedAt": 1, "container": {}}
    [hint] = received(world, queue, events, an_event(status="RUNNABLE", attempts=[lost]))
    assert hint.claims
    assert hint.claims.attempt == 2


def test_why_a_queue_is_blocked_is_claimed(world: World, queue: str, events: BatchEvents) -> None:
    blocked = an_event(kind="Batch Job Queue Blocked", statusReason="CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - none")
    [hint] = received(world, queue, events, blocked)
    assert hint.claims
    assert hint.claims.reason.startswith("AWS has no free machine")


def test_an_event_of_a_program_names_its_array(world: World, queue: str, events: BatchEvents) -> None:
    child = an_event(jobId=f"{JOB}:17", status="SUCCEEDED", arrayProperties={"index": 17})
    parent = an_event(status="SUCCEEDED", arrayProperties={"size": 20, "statusSummary": {"SUCCEEDED": 20}})
    one, other = sorted(received(world, queue, events, child, parent), key=lambda hint: hint.of_child)
    assert (one.compute_id, other.compute_id) == (JOB, JOB)
    assert one.claims
    assert one.claims.state is JobState.SUCCEEDED
    assert (other.of_child, other.claims) == (True, None)


@pytest.mark.parametrize(
    "detail",
    [
        {"status": "DANCING"},
        {"status": 7},
        {"status": None},
        {"startedAt": "yesterday", "status": "RUNNING"},
        {"startedAt": 10**30, "status": "RUNNING"},
        {"attempts": "none"},
        {"arrayProperties": {"size": 3, "statusSummary": {"ODD": 1}}},
    ],
)
def test_an_event_that_cannot_be_read_still_names_its_job(
    world: World, queue: str, events: BatchEvents, detail: dict[str, Any]
) -> None:
    [hint] = received(world, queue, events, an_event(**detail))
    assert (hint.compute_id, hint.claims) == (JOB, None)


@pytest.mark.parametrize(
    "body",
    [
        "no JSON",
        "[]",
        "7",
        "[" * 100_000,
        json.dumps({"source": "aws.batch", "detail-type": "Batch Job State Change"}),
        an_event(source="aws.ecs"),
        an_event(kind="ECS Task State Change"),
        an_event(jobId=7),
        an_event(jobId="../../etc"),
        an_event(jobId=f"{JOB}; DROP TABLE jobs"),
        an_event(jobId=None),
    ],
    ids=lambda body: body[:30],
)
def test_a_message_that_is_no_event_about_a_job_names_none_and_is_deleted(
    world: World, queue: str, events: BatchEvents, body: str
) -> None:
    hints = received(world, queue, events, body)
    assert [(hint.compute_id, hint.claims) for hint in hints] == [("", None)]
    events.acknowledge(hints)
    attributes = world.clients.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessages"] == attributes["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_many_events_are_received_in_tens_and_deleted_in_tens(world: World, queue: str, events: BatchEvents) -> None:
    bodies = [an_event() for _ in range(25)]
    hints = received(world, queue, events, *bodies)
    assert len(hints) == 25
    world.sent.clear()
    events.acknowledge(hints)
    asked = world.asked("sqs.DeleteMessageBatch")
    assert [len(one["Entries"]) for one in asked] == [10, 10, 5]
    assert all(one["QueueUrl"] == queue for one in asked)


def test_no_more_than_a_hundred_events_are_received_at_once(world: World, queue: str, events: BatchEvents) -> None:
    assert len(received(world, queue, events, *[an_event() for _ in range(120)])) == 100


def test_a_wait_is_one_call_that_ends_with_the_first_events(world: World, queue: str, events: BatchEvents) -> None:
    give(world.clients.sqs, "sqs.ReceiveMessage", {})
    assert list(events.receive(within=2.0)) == []
    [asked] = world.asked("sqs.ReceiveMessage")
    assert asked == {"QueueUrl": queue, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 2}


def test_an_event_that_is_not_acknowledged_comes_again(world: World, queue: str, events: BatchEvents) -> None:
    world.clients.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "0"})
    first = received(world, queue, events, an_event())
    again = list(events.receive(within=0))
    assert [hint.compute_id for hint in again[:1]] == [hint.compute_id for hint in first[:1]] == [JOB]


@pytest.mark.parametrize(
    ("code", "status", "meaning"),
    [
        ("AccessDenied", 403, Refused),
        ("AWS.SimpleQueueService.NonExistentQueue", 400, NotFound),
        ("OverLimit", 403, Busy),
        ("ServiceUnavailable", 503, Unavailable),
    ],
)
def test_what_sqs_refuses_and_what_it_does_not_answer_are_told_apart(
    world: World, events: BatchEvents, code: str, status: int, meaning: type[Exception]
) -> None:
    answer(world.clients.sqs, "sqs.ReceiveMessage", status=status, code=code, message="no")
    with pytest.raises(meaning, match="SQS did not give AWS Batch's events"):
        events.receive(within=0)
