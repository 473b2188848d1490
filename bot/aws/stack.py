"""The stack of deploy/nomads.yaml: what a change would do, doing it, following it, and taking it away."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from bot.aws import template
from bot.aws.batch import CONTENT_TAG
from bot.aws.clients import Clients, translated, wanted
from bot.aws.config import AwsConfig
from bot.domain.errors import NomadsError, Refused

LOOK = 5.0
"""Seconds between two looks at a stack that AWS is changing."""
CAPABILITIES = ("CAPABILITY_NAMED_IAM",)
"""What is agreed to: roles are made, under names of ours."""
MACHINE_IMAGE = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{architecture}"
"""AWS's public parameter that names the newest image of Amazon Linux 2023."""
_UNCHANGED = re.compile(r"didn't contain changes|No updates are to be performed")
_AFTERMATH = ("cancelled", "The following resource(s) failed")
"""What AWS's reason holds for resources that failed only because another had."""
_GONE = "DELETE_COMPLETE"
_BEGINNINGS = ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS")
_CONSOLE = "CloudFormation's console"
_DEAD_ENDS = {
    "ROLLBACK_COMPLETE": "It could not be made, and AWS took back what was. Run deploy --destroy, which removes the "
    "rest, and deploy again.",
    "ROLLBACK_FAILED": f"It could not be made, nor taken back. Look in {_CONSOLE} at what could not be removed, remove "
    "it, run deploy --destroy, and deploy again.",
    "CREATE_FAILED": "It could not be made. Run deploy --destroy, and deploy again.",
    "DELETE_FAILED": f"It could not be taken away. Look in {_CONSOLE} at what could not be removed, and run deploy "
    "--destroy again.",
    "UPDATE_ROLLBACK_FAILED": f"A change failed and could not be taken back. Choose “Continue update rollback” in "
    f"{_CONSOLE}, then deploy again.",
}
"""States in which a stack takes no change, and the way out of each."""


@dataclass(frozen=True)
class Standing:
    """A stack as it is."""

    arn: str
    status: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def exists(self) -> bool:
        """Whether anything was made: a change set for a new stack makes an empty one."""
        return self.status != "REVIEW_IN_PROGRESS"

    @property
    def busy(self) -> bool:
        """Whether AWS is changing it."""
        return self.exists and self.status.endswith("_IN_PROGRESS")

    @property
    def way_out(self) -> str:
        """What to do where it takes no change; empty where it does."""
        return _DEAD_ENDS.get(self.status, "")

    @property
    def settings(self) -> dict[str, str]:
        """The bot's settings among the outputs: `NomadsAwsBucket` is NOMADS_AWS_BUCKET."""
        return {
            re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper(): value
            for name, value in self.outputs.items()
            if name.startswith("Nomads")
        }


@dataclass(frozen=True)
class Change:
    """What would become of one resource."""

    action: str
    """`Add`, `Modify` or `Remove`."""
    name: str
    kind: str
    """Such as `AWS::S3::Bucket`."""
    replaced: str = ""
    """Whether another takes its place, in AWS's words: `True`, `Conditional` where AWS does not know, or else."""


@dataclass(frozen=True)
class Attachment:
    """A policy of the stack on something that is not the stack's."""

    policy: str
    """Its ARN."""
    kind: str
    """`role`, `user` or `group`."""
    name: str


@dataclass(frozen=True)
class Besides:
    """What the bot of an installation made by itself, which is no part of the stack."""

    tokens: Sequence[str]
    """The ARNs of people's BOSS tokens in Secrets Manager."""
    definitions: Sequence[str]
    """The ARNs of its job definitions that are active."""

    def __bool__(self) -> bool:
        return bool(self.tokens or self.definitions)

    def __str__(self) -> str:
        return f"{len(self.tokens):,} BOSS tokens of people and {len(self.definitions):,} job definitions"


@dataclass(frozen=True)
class Proposal:
    """A change set that waits to be executed."""

    arn: str
    changes: Sequence[Change]


class StackFailed(NomadsError):
    """AWS could not make the stack, or change it, or take it away; the text says which resource failed and why."""


class Stacks:
    """One stack, by its name. `wait` sleeps some seconds."""

    def __init__(
        self,
        config: AwsConfig,
        *,
        name: str,
        clients: Clients | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.at_work = False
        """Whether AWS is at work and this process only follows it."""
        self._clients = clients or Clients(config)
        self._wait = wait

    @property
    def region(self) -> str:
        """The region in which the stack is. Raises Refused where none is set."""
        return self._clients.region

    def look(self, name: str = "") -> Standing | None:
        """The stack as it is (or the one of that ARN); None where there is none."""
        with translated("CloudFormation did not show the stack"):
            client = self._clients.cloudformation
            try:
                [found] = client.describe_stacks(StackName=name or self.name)["Stacks"]
            except client.exceptions.ClientError as error:
                if "does not exist" in error.response["Error"].get("Message", ""):
                    return None
                raise
        return Standing(
            arn=wanted(found, "StackId"),
            status=wanted(found, "StackStatus"),
            parameters={one["ParameterKey"]: one.get("ParameterValue", "") for one in found.get("Parameters", ())},
            outputs={one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", ())},
        )

    def propose(self, body: str, given: Mapping[str, str], *, before: Standing | None) -> Proposal | None:
        """A change set to this template and these parameters; others stay as they were. None: nothing would change."""
        exists = before is not None and before.exists
        known = {name: one.default for name, one in template.parameters(body).items()}
        before_it = before.parameters if before and exists else {}
        kept = [
            {"ParameterKey": key, "UsePreviousValue": True} for key in known if key in before_it and key not in given
        ]
        new = {key: value for key, value in known.items() if key not in before_it} | dict(given)
        parameters = [*kept, *({"ParameterKey": key, "ParameterValue": value} for key, value in new.items())]
        with translated("CloudFormation did not take the change"):
            client = self._clients.cloudformation
            try:
                made = client.create_change_set(
                    StackName=self.name,
                    ChangeSetName=f"nomads-{time.time_ns():x}",
                    ChangeSetType="UPDATE" if exists else "CREATE",
                    TemplateBody=body,
                    Parameters=parameters,
                    Capabilities=list(CAPABILITIES),
                )
            except client.exceptions.ClientError as error:
                if _UNCHANGED.search(error.response["Error"].get("Message", "")):
                    return None
                raise
            arn = str(wanted(made, "Id"))
        while (found := self._change_set(arn))["Status"] in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
            self._wait(LOOK)
        if found["Status"] == "CREATE_COMPLETE":
            return Proposal(arn, list(self._changes(arn)))
        reason = found.get("StatusReason", "")
        self.withdraw(arn)
        if _UNCHANGED.search(reason):
            return None
        raise Refused(f"CloudFormation cannot make this change: {reason or found['Status']}.")

    def _change_set(self, arn: str, **page: str) -> Any:
        with translated("CloudFormation did not show the change"):
            return self._clients.cloudformation.describe_change_set(ChangeSetName=arn, StackName=self.name, **page)

    def _changes(self, arn: str) -> Iterator[Change]:
        page: dict[str, str] = {}
        while True:
            found = self._change_set(arn, **page)
            for one in found.get("Changes", ()):
                change = one["ResourceChange"]
                yield Change(
                    action=change["Action"],
                    name=change["LogicalResourceId"],
                    kind=change["ResourceType"],
                    replaced=change.get("Replacement", ""),
                )
            if not found.get("NextToken"):
                return
            page = {"NextToken": found["NextToken"]}

    def withdraw(self, arn: str) -> None:
        """Forget a change set, and the empty stack that one for a new stack makes."""
        with translated("CloudFormation did not forget the change"):
            client = self._clients.cloudformation
            client.delete_change_set(ChangeSetName=arn, StackName=self.name)
            found = self.look()
            if found and not found.exists:
                client.delete_stack(StackName=found.arn)

    def execute(self, proposal: Proposal, *, say: Callable[[str], None]) -> Standing:
        """Make the change and follow it to its end. Returns the stack; raises StackFailed."""
        told = self._told()
        with translated("CloudFormation did not begin with the change"):
            self._clients.cloudformation.execute_change_set(ChangeSetName=proposal.arn, StackName=self.name)
        return self.follow(told=told, say=say)

    def destroy(self, standing: Standing, *, say: Callable[[str], None]) -> None:
        """Take the stack away and follow that to its end. Raises StackFailed."""
        told = self._told(standing.arn)
        with translated("CloudFormation did not begin to take the stack away"):
            self._clients.cloudformation.delete_stack(StackName=standing.arn)
        self.follow(standing.arn, told=told, say=say)

    def attachments(self, standing: Standing) -> list[Attachment]:
        """Where the stack's policies are attached to what is not the stack's: IAM deletes none that is attached."""
        policies, own = [], set()
        with translated("CloudFormation did not say what the stack has"):
            pages = self._clients.cloudformation.get_paginator("list_stack_resources").paginate(StackName=standing.arn)
            for one in (one for page in pages for one in page["StackResourceSummaries"]):
                if one["ResourceType"] == "AWS::IAM::ManagedPolicy" and one.get("PhysicalResourceId"):
                    policies.append(one["PhysicalResourceId"])
                elif one["ResourceType"] == "AWS::IAM::Role":
                    own.add(("role", one.get("PhysicalResourceId")))
        found = [Attachment(policy, kind, name) for policy in policies for kind, name in self._has(policy)]
        return [one for one in found if (one.kind, one.name) not in own]

    def _has(self, policy: str) -> Iterator[tuple[str, str]]:
        """What has the policy, as kind and name; nothing where there is no such policy any more."""
        client = self._clients.iam
        with translated(f"IAM did not say what has the policy {policy}"):
            try:
                pages = client.get_paginator("list_entities_for_policy").paginate(
                    PolicyArn=policy, PolicyUsageFilter="PermissionsPolicy"
                )
                for page in pages:
                    yield from (("role", one["RoleName"]) for one in page["PolicyRoles"])
                    yield from (("user", one["UserName"]) for one in page["PolicyUsers"])
                    yield from (("group", one["GroupName"]) for one in page["PolicyGroups"])
            except client.exceptions.NoSuchEntityException:
                return

    def detach(self, attachment: Attachment) -> None:
        """Take the policy from what has it; one that it no longer has is no error."""
        client = self._clients.iam
        with translated(f"IAM did not detach {attachment.policy}"), suppress(client.exceptions.NoSuchEntityException):
            match attachment.kind:
                case "role":
                    client.detach_role_policy(RoleName=attachment.name, PolicyArn=attachment.policy)
                case "user":
                    client.detach_user_policy(UserName=attachment.name, PolicyArn=attachment.policy)
                case "group":
                    client.detach_group_policy(GroupName=attachment.name, PolicyArn=attachment.policy)

    def besides(self, standing: Standing) -> Besides:
        """What the bot of this stack's installation made; nothing where it is no stack of ours."""
        name = standing.parameters.get("Name")
        if not name or not standing.exists:
            return Besides((), ())
        with translated("Secrets Manager did not list the tokens"):
            pages = self._clients.secrets.get_paginator("list_secrets").paginate()
            found = [one for page in pages for one in wanted(page, "SecretList")]
            tokens = [wanted(one, "ARN") for one in found if wanted(one, "Name").startswith(f"{name}/")]
        with translated("AWS Batch did not show its job definitions"):
            listed = self._clients.batch.get_paginator("describe_job_definitions").paginate(status="ACTIVE")
            definitions = [
                wanted(one, "jobDefinitionArn")
                for page in listed
                for one in wanted(page, "jobDefinitions")
                if wanted(one, "jobDefinitionName").startswith(f"{name}_") and CONTENT_TAG in one.get("tags", {})
            ]
        return Besides(tokens, definitions)

    def erase(self, besides: Besides) -> None:
        """Erase the tokens, none of which should linger for the days that a secret can be had back; and the rest."""
        for token in besides.tokens:
            with translated("Secrets Manager did not erase a token", quiet=True):
                self._clients.secrets.delete_secret(SecretId=token, ForceDeleteWithoutRecovery=True)
        for definition in besides.definitions:
            with translated("AWS Batch did not deregister a job definition"):
                self._clients.batch.deregister_job_definition(jobDefinition=definition)

    def follow(self, name: str = "", *, told: frozenset[str] | None = None, say: Callable[[str], None]) -> Standing:
        """Say what AWS does until it ends: every event that is not in `told`; None: all of what it is at now.

        Returns the stack as it then is; raises StackFailed, with the resource that failed first and AWS's reason.
        """
        self.at_work = True
        seen = set(self._before(self._events(name)) if told is None else told)
        failed: list[str] = []
        while True:
            standing = self.look(name)
            for event in self._events(name):
                if event["EventId"] in seen:
                    continue
                seen.add(event["EventId"])
                say(_line(event))
                if failure := _failure(event):
                    failed.append(failure)
            if standing is None or not standing.busy:
                break
            self._wait(LOOK)
        self.at_work = False
        standing = standing or Standing(name, _GONE, {}, {})
        if standing.status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE", _GONE):
            raise StackFailed(_told_failure(standing, failed))
        return standing

    @staticmethod
    def _before(events: Sequence[Mapping[str, Any]]) -> set[str]:
        """The ids of the events before what AWS is at now."""
        begun = [n for n, event in enumerate(events) if event.get("ResourceStatus") in _BEGINNINGS and _of_stack(event)]
        return {event["EventId"] for event in events[: begun[-1] if begun else None]}

    def _told(self, name: str = "") -> frozenset[str]:
        return frozenset(event["EventId"] for event in self._events(name))

    def _events(self, name: str = "") -> list[Any]:
        """The stack's events, the oldest first; none where there is no stack."""
        with translated("CloudFormation did not tell what it does"):
            client = self._clients.cloudformation
            try:
                pages = client.get_paginator("describe_stack_events").paginate(StackName=name or self.name)
                return [event for page in pages for event in page["StackEvents"]][::-1]
            except client.exceptions.ClientError as error:
                if "does not exist" in error.response["Error"].get("Message", ""):
                    return []
                raise

    def machine_image(self, architecture: str) -> str:
        """The newest machine image of Amazon Linux 2023, `x86_64` or `arm64`."""
        name = MACHINE_IMAGE.format(architecture=architecture)
        with translated("AWS did not name a machine image"):
            return str(self._clients.ssm.get_parameter(Name=name)["Parameter"]["Value"])

    def store(self, secret: str, value: str) -> bool:
        """Give a secret of the stack its value. Returns whether it had another one or none."""
        with translated("Secrets Manager did not store the secret", quiet=True):
            client = self._clients.secrets
            try:
                if client.get_secret_value(SecretId=secret)["SecretString"] == value:
                    return False
            except client.exceptions.ResourceNotFoundException:
                pass  # it has no value yet
            client.put_secret_value(SecretId=secret, SecretString=value)
        return True

    def digest(self, image: str) -> str:
        """The digest of an image, `…/repository:tag`, in this account's registry; empty where it is not there."""
        repository, _, tag = image.rpartition("/")[2].partition(":")
        client = self._clients.ecr(self.region)
        with translated(f"ECR did not show {image}"):
            try:
                [found] = client.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])[
                    "imageDetails"
                ]
            except (client.exceptions.ImageNotFoundException, client.exceptions.RepositoryNotFoundException):
                return ""
        return str(wanted(found, "imageDigest"))

    def registry_password(self) -> SecretStr:
        """The password of the user AWS at this account's registry; it works for twelve hours."""
        with translated("ECR gave no password", quiet=True):
            [given] = self._clients.ecr(self.region).get_authorization_token()["authorizationData"]
        return SecretStr(base64.b64decode(given["authorizationToken"]).decode().partition(":")[2])


def _line(event: Mapping[str, Any]) -> str:
    reason = event.get("ResourceStatusReason", "")
    said = f"{event.get('ResourceStatus', '')}  {event.get('LogicalResourceId', '')}"
    return f"{said}: {reason}" if reason and "FAILED" in event.get("ResourceStatus", "") else said


def _of_stack(event: Mapping[str, Any]) -> bool:
    return event.get("ResourceType") == "AWS::CloudFormation::Stack"


def _failure(event: Mapping[str, Any]) -> str:
    """What an event says of a resource that failed by itself; empty where it says nothing of that."""
    reason = event.get("ResourceStatusReason", "")
    own = event.get("ResourceStatus", "").endswith("_FAILED") and not any(one in reason for one in _AFTERMATH)
    if not own or _of_stack(event):
        return ""
    return f"{event['LogicalResourceId']} ({event['ResourceType']}): {reason or 'AWS gives no reason'}"


def _told_failure(standing: Standing, failed: Sequence[str]) -> str:
    first = failed[0] if failed else "AWS does not say which resource failed"
    what = standing.way_out or "Nothing was changed for good: mend the cause, and deploy again."
    return f"The stack is {standing.status}. First to fail was {first.rstrip('.')}. {what}"
