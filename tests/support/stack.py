"""deploy/nomads.yaml made in moto, with what moto's CloudFormation leaves out or does otherwise.

    with stack_world(Bot="elsewhere") as (world, stack):
        world.compute().submit(work)
        assert stack.settings["NOMADS_AWS_QUEUE"] == "nomads-queue"

moto ignores bucket policies, public access blocks, lifecycles, secrets, scheduling policies, queue policies and limits
on stuck jobs; it wants a service role for machines; it leaves AWS::NoValue in lists; it updates resources that do not
exist; it cannot delete a VPC that has a route table of the stack's; it empties no repository of images.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import moto.cloudformation.parsing as parsing
import yaml
from moto.batch.models import ComputeEnvironment, JobQueue
from moto.cloudformation.models import ChangeSet
from moto.cloudformation.models import Stack as MotoStack
from moto.cloudformation.utils import yaml_tag_constructor
from moto.core.common_models import CloudFormationModel
from moto.ec2.models import ec2_backends
from moto.ec2.models.vpcs import VPC
from moto.ecr.models import Repository, ecr_backends
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket

from bot.aws.config import AwsConfig
from tests.support.aws import World, aws_world, make_role, world_of
from tests.support.aws import _client as client
from tests.support.template import TEXT, setting_of

NAME = "nomads"
SERVICE_ROLE = "nomads-service"


@dataclass(frozen=True)
class Stack:
    """A stack that was made."""

    given: Mapping[str, str]
    """The parameters."""
    outputs: Mapping[str, str]

    @property
    def settings(self) -> dict[str, str]:
        """What belongs into a bot's `.env`."""
        return {setting_of(name): value for name, value in self.outputs.items() if name.startswith("Nomads")}

    @property
    def config(self) -> dict[str, Any]:
        """The settings as arguments of AwsConfig."""
        begin = "NOMADS_AWS_"
        return {name.removeprefix(begin).lower(): v for name, v in self.settings.items() if name.startswith(begin)}


def parameters(**given: str) -> list[dict[str, str]]:
    """Parameters of the template; moto takes the default of a list for a text."""
    lists = {"InstanceTypes": "optimal", "SubnetIds": "subnet-00000000,subnet-00000001"}
    if given.get("Bot") == "instance":
        lists["InstanceImage"] = client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in (lists | given).items()]


def make_stack(**given: str) -> Stack:
    """Create the stack `nomads` with these parameters."""
    client("cloudformation").create_stack(
        StackName=NAME, TemplateBody=TEXT, Parameters=parameters(**given), Capabilities=["CAPABILITY_NAMED_IAM"]
    )
    return _stack(given)


def update_stack(stack: Stack, **changed: str) -> Stack:
    """Update the stack `nomads` with these parameters changed."""
    given = {**stack.given, **changed}
    client("cloudformation").update_stack(
        StackName=NAME, TemplateBody=TEXT, Parameters=parameters(**given), Capabilities=["CAPABILITY_NAMED_IAM"]
    )
    return _stack(given)


def _stack(given: Mapping[str, str]) -> Stack:
    [found] = client("cloudformation").describe_stacks(StackName=NAME)["Stacks"]
    assert found["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE")
    return Stack(given, {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]})


@contextmanager
def stack_world(**given: str) -> Iterator[tuple[World, Stack]]:
    """An account in which the stack was made, and a world whose settings are the stack's."""
    with aws_world(empty=True), complete() as limits:
        made = make_stack(**given)
        world = world_of(AwsConfig(_env_file=None, tries=1, **made.config))
        world.limits.update(limits)
        yield world, made


@contextmanager
def complete() -> Iterator[dict[str, Any]]:
    """Let moto's CloudFormation make all of the template.

    Gives `jobStateTimeLimitActions` of each queue that is made, by its name: moto takes them and does not show them.
    """
    limits: dict[str, Any] = {}
    log = logging.getLogger("moto")
    level = log.level
    log.setLevel(logging.ERROR)
    further = {kind: _model(kind, make) for kind, make in _FURTHER.items()}
    known = parsing.get_model_map()
    with ExitStack() as entered:
        entered.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Tried to parse AWS::", UserWarning)
        entered.enter_context(patch.object(yaml, "Loader", yaml.CLoader))  # reads the template ten times as fast
        yaml.CLoader.add_multi_constructor("", yaml_tag_constructor)
        entered.enter_context(patch.object(parsing, "get_model_map", lambda: known | further))
        entered.enter_context(patch.object(parsing, "clean_json", _without_no_value))
        # moto knows no condition of a bucket's policy: the denial of requests without TLS would deny all of them.
        entered.enter_context(patch.object(FakeBucket, "get_permission", lambda *_: PermissionResult.NEUTRAL))
        entered.enter_context(patch.object(parsing, "parse_and_update_resource", _update_what_exists))
        for model, also in (
            (ComputeEnvironment, _with_role),
            (JobQueue, _with_limits(limits)),
            (FakeBucket, _guarded),
            (Repository, _emptied),
        ):
            original = model.create_from_cloudformation_json
            entered.enter_context(patch.object(model, "create_from_cloudformation_json", also(original)))
        entered.enter_context(
            patch.object(VPC, "delete_from_cloudformation_json", _without_routes(VPC.delete_from_cloudformation_json))
        )
        entered.enter_context(patch.object(JobQueue, "describe", _telling(limits, JobQueue.describe)))
        entered.enter_context(patch.object(MotoStack, "stack_parameters", property(_texts)))
        entered.enter_context(patch.object(MotoStack, "parameter_list", property(_shown)))
        entered.enter_context(patch.object(ChangeSet, "apply", _with_outputs(ChangeSet.apply)))
        yield limits
    log.setLevel(level)


def _texts(stack: Any) -> dict[str, str]:
    """A stack's parameters as AWS shows them: moto shows a list as a list, and cannot take that for what was before."""
    resolved = stack.resource_map.resolved_parameters
    return {key: ",".join(value) if isinstance(value, list) else str(value) for key, value in resolved.items()}


def _shown(stack: Any) -> list[dict[str, str]]:
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in _texts(stack).items()]


def _with_outputs(apply: Callable[[Any], None]) -> Callable[[Any], None]:
    """moto forgets the outputs and the parameters of what a change set made."""

    def applied(change_set: Any) -> None:
        apply(change_set)
        stack = change_set.stack
        stack.template, stack.parameters = change_set.template, change_set.parameters
        stack._parse_template()
        stack.output_map = stack._create_output_map()

    return applied


def _first_small(value: Any) -> Any:
    """CloudFormation's `MaxTimeSeconds` as the API's `maxTimeSeconds`."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _first_small(inner) for key, inner in value.items()}
    return [_first_small(inner) for inner in value] if isinstance(value, list) else value


_original_clean = parsing.clean_json


def _without_no_value(described: Any, resources_map: Any) -> Any:
    cleaned = _original_clean(described, resources_map)
    return [one for one in cleaned if one is not None] if isinstance(described, list) else cleaned


_original_update = parsing.parse_and_update_resource


def _update_what_exists(logical_id: str, resource_json: Any, resources_map: Any, **place: str) -> Any:
    condition = resource_json.get("Condition")
    if condition and not resources_map.lazy_condition_map[condition]:
        return None
    return _original_update(logical_id, resource_json, resources_map, **place)


def _with_role(make: Callable[..., Any]) -> Callable[..., Any]:
    def made(name: str, described: Any, account: str, region: str, **further: Any) -> Any:
        iam = client("iam", region)
        roles = {role["RoleName"]: role["Arn"] for role in iam.list_roles()["Roles"]}
        role = roles.get(SERVICE_ROLE) or make_role(SERVICE_ROLE, region)
        properties = {**described["Properties"], "ServiceRole": role}
        return make(name, {**described, "Properties": properties}, account, region, **further)

    return made


def _with_limits(limits: dict[str, Any]) -> Callable[..., Any]:
    def noting(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(name: str, described: Any, *place: str, **further: Any) -> Any:
            given = described["Properties"]["JobStateTimeLimitActions"]
            limits[name] = [{**_first_small(one), "maxTimeSeconds": int(one["MaxTimeSeconds"])} for one in given]
            return make(name, described, *place, **further)

        return made

    return noting


def _telling(limits: dict[str, Any], describe: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    return lambda queue: {**describe(queue), "jobStateTimeLimitActions": limits.get(queue.name, [])}


def _guarded(make: Callable[..., Any]) -> Callable[..., Any]:
    def made(name: str, described: Any, account: str, region: str, **further: Any) -> Any:
        bucket = make(name, described, account, region, **further)
        properties, s3 = described["Properties"], client("s3", region)
        s3.put_public_access_block(
            Bucket=name, PublicAccessBlockConfiguration=properties["PublicAccessBlockConfiguration"]
        )
        s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=properties["OwnershipControls"])
        [rule] = properties["LifecycleConfiguration"]["Rules"]
        rule = {("ID" if key == "Id" else key): value for key, value in rule.items()}
        s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [rule]})
        return bucket

    return made


def _emptied(make: Callable[..., Any]) -> Callable[..., Any]:
    def made(name: str, described: Any, account: str, region: str, **further: Any) -> Any:
        repository = make(name, described, account, region, **further)
        force = described["Properties"].get("EmptyOnDelete", False)
        backend = ecr_backends[account][region]
        repository.delete = lambda *_: backend.delete_repository(repository.name, force=force)
        return repository

    return made


def _without_routes(delete: Callable[..., Any]) -> Callable[..., Any]:
    def deleted(name: str, described: Any, account: str, region: str) -> None:
        backend = ec2_backends[account][region]
        for table in list(backend.route_tables.values()):
            if table.vpc_id == name and not table.main_association_id:
                table.associations.clear()
                backend.delete_route_table(table.id)
        delete(name, described, account, region)

    return deleted


def _bucket_policy(properties: Any, region: str) -> str:
    document = json.dumps(properties["PolicyDocument"])
    client("s3", region).put_bucket_policy(Bucket=properties["Bucket"], Policy=document)
    return f"{properties['Bucket']}-policy"


def _queue_policy(properties: Any, region: str) -> str:
    [url] = properties["Queues"]
    document = json.dumps(properties["PolicyDocument"])
    client("sqs", region).set_queue_attributes(QueueUrl=url, Attributes={"Policy": document})
    return f"{url}-policy"


def _shares(properties: Any, region: str) -> str:
    policy = _first_small(properties["FairsharePolicy"])
    made = client("batch", region).create_scheduling_policy(name=properties["Name"], fairsharePolicy=policy)
    return str(made["arn"])


def _secret(properties: Any, region: str) -> str:
    value = {"SecretString": "generated by AWS"} if "GenerateSecretString" in properties else {}
    return str(client("secretsmanager", region).create_secret(Name=properties["Name"], **value)["ARN"])


_FURTHER: dict[str, Callable[[Any, str], str]] = {
    "AWS::S3::BucketPolicy": _bucket_policy,
    "AWS::SQS::QueuePolicy": _queue_policy,
    "AWS::Batch::SchedulingPolicy": _shares,
    "AWS::SecretsManager::Secret": _secret,
}
"""What makes a resource that moto's CloudFormation ignores and its services know, and gives what Ref means."""


def _model(kind: str, make: Callable[[Any, str], str]) -> type[CloudFormationModel]:
    class Model(CloudFormationModel):
        def __init__(self, reference: str, region: str) -> None:
            self.physical_resource_id = reference
            self._region = region

        @staticmethod
        def cloudformation_name_type() -> str:
            return ""

        @staticmethod
        def cloudformation_type() -> str:
            return kind

        @classmethod
        def create_from_cloudformation_json(
            cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
        ) -> Any:
            return cls(make(cloudformation_json["Properties"], region_name), region_name)

        @classmethod
        def update_from_cloudformation_json(cls, original_resource: Any, *_: Any, **__: Any) -> Any:
            return original_resource

        def delete(self, account: str, region: str) -> None:
            if kind == "AWS::SecretsManager::Secret":
                client("secretsmanager", region).delete_secret(
                    SecretId=self.physical_resource_id, ForceDeleteWithoutRecovery=True
                )

    return Model
