"""The template's policies against the code: each call is covered by a policy, none allows what no call needs."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import botocore.loaders
import pytest
from botocore import xform_name

from bot.aws.config import AwsConfig
from tests.support.template import branches, listed, properties, resources, statements, template, text, within

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "aws-reference.md").read_text(encoding="utf-8")
CODE = ROOT / "bot" / "aws"
SERVICES = ("batch", "s3", "sesv2", "secretsmanager", "logs", "sts", "iam", "ecr", "sqs")
ACTIONS = {
    "batch.SubmitJob": {"batch:SubmitJob", "batch:TagResource"},
    "batch.RegisterJobDefinition": {"batch:RegisterJobDefinition", "batch:TagResource", "iam:PassRole"},
    "s3.ListObjectsV2": {"s3:ListBucket"},
    "s3.CreateMultipartUpload": {"s3:PutObject"},
    "s3.UploadPart": {"s3:PutObject"},
    "s3.CompleteMultipartUpload": {"s3:PutObject"},
    "s3.GetPublicAccessBlock": {"s3:GetBucketPublicAccessBlock"},
    "s3.GetBucketEncryption": {"s3:GetEncryptionConfiguration"},
    "s3.HeadObject": {"s3:GetObject"},
    "s3.GetBucketLifecycleConfiguration": {"s3:GetLifecycleConfiguration"},
    "sqs.DeleteMessageBatch": {"sqs:DeleteMessage"},
    "sesv2.GetAccount": {"ses:GetAccount"},
    "sesv2.GetEmailIdentity": {"ses:GetEmailIdentity"},
    "sesv2.SendEmail": {"ses:SendEmail", "ses:SendRawEmail"},
}
"""What a call needs where it is not simply the action of the same name (AWS's Service Authorization Reference)."""

BUCKET, OBJECTS = "${Bucket.Arn}", "${Bucket.Arn}/*"


def ours(service: str, resource: str) -> str:
    """An ARN of this account and region, as Fn::Sub has it."""
    return f"arn:${{AWS::Partition}}:{service}:${{AWS::Region}}:${{AWS::AccountId}}:{resource}"


TOKENS = ours("secretsmanager", "secret:${Name}/*")
JOBS = ours("batch", "job/*")
DEFINITIONS = ours("batch", "job-definition/${Name}_*")
JOB_LINES = ours("logs", "log-group:${JobLogs}:*")
BOT_LINES = ours("logs", "log-group:${BotLogs}:*")
SENDERS = {
    ours("ses", "identity/${MailFrom}"),
    ours("ses", "identity/") + json.dumps({"Fn::Select": [1, {"Fn::Split": ["@", {"Ref": "MailFrom"}]}]}),
}
PROGRAMS = {"${UnsupervisedImages.Arn}", "${ClassifierImages.Arn}"}
FETCH = "ecr:BatchCheckLayerAvailability ecr:GetDownloadUrlForLayer ecr:BatchGetImage"
"""What ECS's agent, or Docker, calls to pull an image (ECR user guide, private registry policy examples)."""
WRITE_LINES = "logs:CreateLogStream logs:PutLogEvents"
"""What the log driver awslogs calls (ECS developer guide, awslogs)."""
RIGHTS: dict[str, dict[str, set[str]]] = {
    # The bot's own calls; which actions those are, the code says: `test_the_bot_may_do_exactly_what_it_does`.
    "BotPolicy": {
        "batch:SubmitJob batch:RegisterJobDefinition batch:TagResource": {
            *("${Queue}", "${QueueOnDemand}", DEFINITIONS, JOBS)
        },
        "batch:DescribeJobs batch:DescribeJobDefinitions batch:ListJobs": {"*"},
        "batch:TerminateJob": {JOBS},
        "sqs:ReceiveMessage sqs:DeleteMessage": {"${EventsQueue.Arn}"},
        "iam:PassRole": {"${ExecutionRole.Arn}", "${JobRole.Arn}"},  # the two that a job definition names
        "s3:ListBucket": {BUCKET},
        "s3:GetObject s3:PutObject s3:AbortMultipartUpload": {OBJECTS},
        "secretsmanager:CreateSecret secretsmanager:DescribeSecret secretsmanager:RestoreSecret": {TOKENS},
        "secretsmanager:GetSecretValue secretsmanager:DeleteSecret": {TOKENS},
        "logs:GetLogEvents": {JOB_LINES},
        "ses:SendEmail ses:SendRawEmail": SENDERS,
    },
    "DoctorPolicy": {
        "batch:DescribeComputeEnvironments batch:DescribeJobQueues logs:DescribeLogGroups ses:GetAccount": {"*"},
        "iam:GetRole iam:GetInstanceProfile": {"${ExecutionRole.Arn}", "${JobRole.Arn}", "${InstanceProfile.Arn}"},
        "ecr:DescribeImages": PROGRAMS,
        "s3:GetBucketPublicAccessBlock s3:GetEncryptionConfiguration s3:GetBucketOwnershipControls": {BUCKET},
        "s3:GetBucketPolicy s3:GetLifecycleConfiguration": {BUCKET},
        "sqs:GetQueueAttributes": {"${EventsQueue.Arn}"},
        "ses:GetEmailIdentity": SENDERS,
    },
    "JobRole": {
        "s3:PutObject s3:AbortMultipartUpload s3:DeleteObject": {OBJECTS},
        "s3:GetObject": {f"{OBJECTS}/blocks/*", f"{OBJECTS}/ro-crate-metadata.json"},
        "s3:ListBucket": {BUCKET},
    },
    # ECS takes it, no code of ours: to start a job's container it pulls its image, hands it the person's token as a
    # variable, and writes its lines (ECS developer guide, task execution role).
    "ExecutionRole": {
        "secretsmanager:GetSecretValue": {TOKENS},
        "ecr:GetAuthorizationToken": {"*"},
        FETCH: PROGRAMS,
        WRITE_LINES: {JOB_LINES},
    },
    # The same for the bot's container; on an instance its script does these with AWS's and Docker's commands.
    "StartPolicy": {
        "secretsmanager:GetSecretValue": {
            *("${SlackBotToken}", "${SlackAppToken}", "${SecretKey}", "${DatabasePassword}")
        },
        "ecr:GetAuthorizationToken": {"*"},
        FETCH: {"${BotImages.Arn}"},
        WRITE_LINES: {BOT_LINES},
    },
}
"""Every right that the template gives: actions, divided by spaces, to the resources that they reach."""
_FROM = {"StringEquals": {"ses:FromAddress": {"Ref": "MailFrom"}}}
CONDITIONS: dict[str, dict[str, Any]] = {
    "BotPolicy": {
        "iam:PassRole": {"StringEquals": {"iam:PassedToService": ["ecs-tasks.amazonaws.com", "batch.amazonaws.com"]}},
        "ses:SendEmail": _FROM,
        "ses:SendRawEmail": _FROM,
    },
    "JobRole": {"s3:ListBucket": {"StringLike": {"s3:prefix": "*/blocks/*"}}},
}
"""Conditions by policy and action."""
MANAGED: dict[str, list[Any]] = {
    # A machine of AWS Batch joins ECS's cluster by this policy of AWS's (AWS Batch user guide, instance role).
    "InstanceRole": [
        {"Fn::Sub": "arn:${AWS::Partition}:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"}
    ],
    "ExecutionRole": [],
    "JobRole": [],
    # An instance starts the bot by itself; on Fargate BotExecutionRole does.
    "BotRole": [{"Ref": "BotPolicy"}, {"Fn::If": ["OnInstance", {"Ref": "StartPolicy"}, {"Ref": "AWS::NoValue"}]}],
    "BotExecutionRole": [{"Ref": "StartPolicy"}],
}
"""The managed policies of every role."""
GIVEN_BY_RESOURCES = {"EventsQueuePolicy", "LostEventsPolicy", "ToS3"}
"""What else allows something; test_template.py looks at the queues' policies."""
_NO_RESOURCE = "AWS knows no resource for it (Service Authorization Reference)"
BOUNDLESS = {
    **dict.fromkeys(("batch:DescribeJobs", "batch:DescribeJobDefinitions", "batch:ListJobs"), _NO_RESOURCE),
    **dict.fromkeys(("batch:DescribeComputeEnvironments", "batch:DescribeJobQueues"), _NO_RESOURCE),
    "logs:DescribeLogGroups": "the list of all groups is asked for, by the beginning of a name",
    "ecr:GetAuthorizationToken": "a registry's login is for the whole registry",
    "ses:GetAccount": _NO_RESOURCE,
}
"""Actions that may be allowed on `*`, each with the reason."""
PATTERNS = {
    JOBS: "AWS Batch gives a job its id",
    DEFINITIONS: "the bot registers them, under names that begin so",
    TOKENS: "the bot makes one for each person, and Secrets Manager ends its name by chance",
    OBJECTS: "a folder for each job",
    f"{OBJECTS}/blocks/*": "what the programs of a whole volume leave for one another",
    f"{OBJECTS}/ro-crate-metadata.json": "the same",
    JOB_LINES: "a stream for each container",
    BOT_LINES: "a stream for each container",
}
"""Resources with a wildcard in their name, each with the reason."""


TRANSFER = {
    "s3.PutObject",
    "s3.CreateMultipartUpload",
    "s3.UploadPart",
    "s3.CompleteMultipartUpload",
    "s3.AbortMultipartUpload",
}
"""What boto3's own `upload_fileobj` calls."""


@cache
def operations() -> dict[str, str]:
    """boto3's method names of the services in use, such as submit_job, to `batch.SubmitJob`."""
    loader = botocore.loaders.Loader()
    return {
        xform_name(name): f"{service}.{name}"
        for service in SERVICES
        for name in loader.load_service_model(service, "service-2")["operations"]
    }


def calls(*files: str) -> set[str]:
    """Every AWS operation these files of the module call, read from their syntax."""
    known, found = operations(), set()
    for file in files:
        for node in ast.walk(ast.parse((CODE / file).read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            name = node.func.attr
            if name in ("get_paginator", "generate_presigned_url"):
                assert isinstance(node.args[0], ast.Constant)
                name = str(node.args[0].value)
            if name == "upload_fileobj":
                found |= TRANSFER
            if name in known:
                found.add(known[name])
    return found


def actions(needed: Iterable[str]) -> set[str]:
    """The IAM actions those operations need."""
    return {action for call in needed for action in ACTIONS.get(call, {call.replace(".", ":")})}


def allowed(name: str) -> set[str]:
    """The actions that the policies of that role, or that managed policy, allow."""
    found = statements(name)
    assert {statement["Effect"] for statement in found} == {"Allow"}
    return {action for statement in found for action in listed(statement["Action"])}


def test_the_bot_may_do_exactly_what_it_does() -> None:
    files = ("batch.py", "events.py", "logs.py", "s3.py", "ses.py", "secrets.py", "clients.py")
    assert allowed("BotPolicy") == actions(calls(*files))


def test_the_doctor_may_look_at_exactly_what_it_looks_at_beside_what_the_bot_may() -> None:
    assert allowed("DoctorPolicy") == actions(calls("doctor.py") | looks()) - allowed("BotPolicy")


def looks() -> set[str]:
    """What the guards look at."""
    return {call for call in calls("guards.py") if call.partition(".")[2].startswith(("Get", "Describe"))}


def test_the_syntax_reader_sees_plain_calls_pages_and_links() -> None:
    assert {"batch.SubmitJob", "batch.ListJobs"} <= calls("batch.py")
    assert "logs.GetLogEvents" in calls("logs.py")
    assert calls("s3.py") == {"s3.ListObjectsV2", "s3.GetObject", "s3.HeadObject"} | TRANSFER


@pytest.mark.parametrize("name", RIGHTS)
def test_a_right_reaches_what_it_is_for_and_nothing_else(name: str) -> None:
    wanted: dict[str, set[str]] = {}
    for words, reached in RIGHTS[name].items():
        for action in words.split():
            wanted.setdefault(action, set()).update(reached)
    given: dict[str, set[str]] = {}
    for statement in statements(name):
        for action in listed(statement["Action"]):
            given.setdefault(action, set()).update(reached_by(statement))
    assert given == wanted


@pytest.mark.parametrize("name", RIGHTS)
def test_rights_hold_under_the_conditions_that_are_named_and_all_others_always(name: str) -> None:
    found = {
        action: statement["Condition"]
        for statement in statements(name)
        if "Condition" in statement
        for action in listed(statement["Action"])
    }
    assert found == CONDITIONS.get(name, {})


def test_every_role_has_the_policies_that_are_named_and_no_other() -> None:
    roles = resources("AWS::IAM::Role")
    assert {name: role.get("ManagedPolicyArns", []) for name, role in roles.items()} == MANAGED
    of_their_own = {name for name, role in roles.items() if "Policies" in role}
    assert of_their_own | set(resources("AWS::IAM::ManagedPolicy")) == set(RIGHTS)
    assert {property for role in roles.values() for property in role} == {
        *("RoleName", "AssumeRolePolicyDocument", "ManagedPolicyArns", "Policies")
    }


def test_nothing_else_of_iam_is_made() -> None:
    kinds = {resource["Type"] for resource in template()["Resources"].values()}
    assert {kind for kind in kinds if kind.startswith("AWS::IAM::")} == {
        *("AWS::IAM::Role", "AWS::IAM::ManagedPolicy", "AWS::IAM::InstanceProfile")
    }


def reached_by(statement: Mapping[str, Any]) -> set[str]:
    """The resources of a statement, those under a condition among them."""
    return {text(one) for resource in listed(statement["Resource"]) for one in branches(resource)}


def test_a_wildcard_stands_only_where_it_has_a_reason() -> None:
    found = [
        (name, statement)
        for name, resource in template()["Resources"].items()
        for _, statement in within(resource)
        if isinstance(statement, dict) and statement.get("Effect") == "Allow"
    ]
    assert {name for name, _ in found} == set(RIGHTS) | set(resources("AWS::IAM::Role")) | GIVEN_BY_RESOURCES
    for name, statement in found:
        if name == "ToS3":  # the way of the network to S3, open as without it; whose rights count are the roles'
            continue
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Principal", "Condition"}
        assert not [action for action in listed(statement["Action"]) if set("*?") & set(action)], name
        for resource in reached_by(statement) if "Resource" in statement else ():
            if resource == "*":
                assert set(listed(statement["Action"])) <= set(BOUNDLESS), name
            elif set("*?") & set(resource):
                assert resource in PATTERNS, name


def test_only_those_who_hand_over_or_keep_tokens_read_them() -> None:
    tokens = "secret:${Name}/*"
    readers = [
        name
        for name in RIGHTS
        for statement in statements(name)
        if "secretsmanager:GetSecretValue" in listed(statement["Action"]) and tokens in str(statement["Resource"])
    ]
    assert sorted(readers) == ["BotPolicy", "ExecutionRole"]


def test_programs_may_do_exactly_what_they_do() -> None:
    assert allowed("JobRole") == actions(calls("../../pipelines/common/results.py")) | {"s3:AbortMultipartUpload"}


@pytest.mark.parametrize("name", ["ExecutionRole", "JobRole", "BotExecutionRole", "BotRole", "InstanceRole"])
def test_a_role_is_taken_by_its_service_alone_and_a_container_s_for_this_account_alone(name: str) -> None:
    found = [one for s in properties(name)["AssumeRolePolicyDocument"]["Statement"] for one in branches(s)]
    machines, containers = (
        {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}, "Action": "sts:AssumeRole"}
        for service in ("ec2", "ecs-tasks")
    )
    containers |= {"Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}}
    assert found == {"InstanceRole": [machines], "BotRole": [containers, machines]}.get(name, [containers])


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `NOMADS_AWS_([A-Z_]+)` \| ?(.*?) ?\|", DOCUMENT, re.M))
    assert set(rows) == {name.upper() for name in AwsConfig.model_fields}
    for name, field in AwsConfig.model_fields.items():
        said = rows[name.upper()].strip("`")
        if name in ("region",):
            assert said
        elif field.default in ("", ()):
            assert said == ""
        else:
            assert said.lower() == str(field.default).lower()
