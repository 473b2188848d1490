"""What is said of a stack while AWS works on it, and what is said where that fails: answers of AWS's, word by word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bot.aws.stack import StackFailed, Stacks
from bot.aws.template import parameters
from bot.domain.errors import Refused
from tests.support.aws import World, aws_world, give
from tests.support.template import TEXT, template

STACK = "AWS::CloudFormation::Stack"


@pytest.fixture
def world() -> Iterator[World]:
    with aws_world(empty=True) as world:
        yield world


class Told:
    """CloudFormation, which tells a state a look, and of each state the events so far."""

    def __init__(self, world: World, *states: tuple[str, list[dict[str, str]]]) -> None:
        self._states = list(states)
        self._events: list[dict[str, str]] = []
        self.waits: list[float] = []
        self.said: list[str] = []
        self.stacks = Stacks(world.config, name="nomads", clients=world.clients, wait=self._wait)
        self._stack: dict[str, Any] = {}
        self._log: dict[str, Any] = {}
        give(world.clients.cloudformation, "cloudformation.DescribeStacks", self._stack)
        give(world.clients.cloudformation, "cloudformation.DescribeStackEvents", self._log)
        self._tell()

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._tell()

    def _tell(self) -> None:
        status, events = self._states.pop(0)
        self._events += [
            {"EventId": f"{len(self._events) + n}", "StackName": "nomads", **event} for n, event in enumerate(events)
        ]
        stack = {"StackId": "arn:stack/nomads", "StackName": "nomads", "StackStatus": status, "Outputs": []}
        self._stack["Stacks"] = [stack]
        self._log["StackEvents"] = self._events[::-1]

    def follow(self) -> Any:
        """Follow to the end."""
        return self.stacks.follow(say=self.said.append)


def event(status: str, name: str = "nomads", kind: str = STACK, reason: str = "") -> dict[str, str]:
    found = {"LogicalResourceId": name, "ResourceType": kind, "ResourceStatus": status}
    return found | ({"ResourceStatusReason": reason} if reason else {})


BEGUN = event("CREATE_IN_PROGRESS", reason="User Initiated")


def test_each_event_is_told_once_and_what_was_before_is_not(world: World) -> None:
    old = [event("DELETE_IN_PROGRESS"), event("DELETE_COMPLETE")]
    told = Told(
        world,
        ("CREATE_IN_PROGRESS", [*old, BEGUN, event("CREATE_IN_PROGRESS", "Bucket", "AWS::S3::Bucket")]),
        ("CREATE_IN_PROGRESS", [event("CREATE_COMPLETE", "Bucket", "AWS::S3::Bucket")]),
        ("CREATE_COMPLETE", [event("CREATE_COMPLETE")]),
    )

    assert told.follow().status == "CREATE_COMPLETE"

    assert told.said == [
        "CREATE_IN_PROGRESS  nomads",
        "CREATE_IN_PROGRESS  Bucket",
        "CREATE_COMPLETE  Bucket",
        "CREATE_COMPLETE  nomads",
    ]
    assert len(told.waits) == 2


def test_a_failure_names_the_resource_that_failed_by_itself_with_aws_s_reason_and_the_way_out(world: World) -> None:
    told = Told(
        world,
        (
            "ROLLBACK_IN_PROGRESS",
            [
                BEGUN,
                event("CREATE_FAILED", "Task", "AWS::ECS::TaskDefinition", "Resource creation cancelled"),
                event("CREATE_FAILED", "Database", "AWS::RDS::DBInstance", "The quota of instances is reached."),
                event("ROLLBACK_IN_PROGRESS", reason="The following resource(s) failed to create: [Database, Task]."),
            ],
        ),
        ("ROLLBACK_COMPLETE", [event("ROLLBACK_COMPLETE")]),
    )

    with pytest.raises(StackFailed) as failed:
        told.follow()

    assert str(failed.value) == (
        "The stack is ROLLBACK_COMPLETE. First to fail was Database (AWS::RDS::DBInstance): The quota of instances is "
        "reached. It could not be made, and AWS took back what was. Run deploy --destroy, which removes the rest, and "
        "deploy again."
    )
    assert "CREATE_FAILED  Database: The quota of instances is reached." in told.said
    assert not told.stacks.at_work


def test_a_change_that_was_taken_back_says_that_nothing_changed(world: World) -> None:
    told = Told(
        world,
        (
            "UPDATE_ROLLBACK_COMPLETE",
            [event("UPDATE_IN_PROGRESS"), event("UPDATE_FAILED", "Queue", "AWS::Batch::JobQueue", "No such thing")],
        ),
    )

    with pytest.raises(
        StackFailed, match=r"Queue \(AWS::Batch::JobQueue\): No such thing. Nothing was changed for good"
    ):
        told.follow()


@pytest.mark.parametrize(
    ("status", "way_out"),
    [
        ("ROLLBACK_COMPLETE", "Run deploy --destroy"),
        ("ROLLBACK_FAILED", "remove it, run deploy --destroy"),
        ("CREATE_FAILED", "Run deploy --destroy"),
        ("DELETE_FAILED", "run deploy --destroy again"),
        ("UPDATE_ROLLBACK_FAILED", "Continue update rollback"),
        ("UPDATE_ROLLBACK_COMPLETE", ""),
        ("CREATE_COMPLETE", ""),
    ],
)
def test_a_stack_that_takes_no_change_says_the_way_out(world: World, status: str, way_out: str) -> None:
    standing = Told(world, (status, [])).stacks.look()

    assert standing
    assert (way_out in standing.way_out) if way_out else standing.way_out == ""


def test_a_person_who_stops_following_is_known_to_have_left_aws_at_work(world: World) -> None:
    told = Told(world, ("CREATE_IN_PROGRESS", [BEGUN]))

    def stop(_seconds: float) -> None:
        raise KeyboardInterrupt

    told.stacks._wait = stop
    with pytest.raises(KeyboardInterrupt):
        told.follow()
    assert told.stacks.at_work


def test_outputs_that_are_settings_have_the_settings_names(world: World) -> None:
    outputs = [
        {"OutputKey": "NomadsAwsQueueOnDemand", "OutputValue": "lasting"},
        {"OutputKey": "BotPolicy", "OutputValue": "arn"},
    ]
    found = {"StackId": "arn", "StackStatus": "CREATE_COMPLETE", "Outputs": outputs}
    give(world.clients.cloudformation, "cloudformation.DescribeStacks", {"Stacks": [found]})

    standing = Stacks(world.config, name="nomads", clients=world.clients).look()

    assert standing
    assert standing.settings == {"NOMADS_AWS_QUEUE_ON_DEMAND": "lasting"}


def test_a_change_that_cloudformation_refuses_is_told_and_forgotten(world: World) -> None:
    client = world.clients.cloudformation
    given: dict[str, Any] = {
        "CreateChangeSet": {"Id": "arn:changes"},
        "DescribeChangeSet": {"Status": "FAILED", "StatusReason": "Template error: no such resource"},
        "DeleteChangeSet": {},
        "DescribeStacks": {"Stacks": [{"StackId": "arn", "StackStatus": "REVIEW_IN_PROGRESS"}]},
        "DeleteStack": {},
    }
    for operation, answer in given.items():
        give(client, f"cloudformation.{operation}", answer)
    stacks = Stacks(world.config, name="nomads", clients=world.clients)

    with pytest.raises(Refused, match="cannot make this change: Template error: no such resource"):
        stacks.propose("{}", {}, before=None)

    assert world.asked("cloudformation.DeleteChangeSet") == [{"ChangeSetName": "arn:changes", "StackName": "nomads"}]
    assert world.asked("cloudformation.DeleteStack") == [{"StackName": "arn"}]


def test_aws_names_a_machine_image_for_each_architecture_that_the_template_takes(world: World) -> None:
    stacks = Stacks(world.config, name="nomads", clients=world.clients)

    found = [stacks.machine_image(one) for one in template()["Parameters"]["Architecture"]["AllowedValues"]]

    assert len(set(found)) == len(found) == 2
    assert [one for one in found if parameters(TEXT)["InstanceImage"].wrong(one)] == []
