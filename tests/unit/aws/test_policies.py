"""docs/aws.md against the code: every call is covered by a policy, no policy allows what no call needs."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import botocore.loaders
import pytest
from botocore import xform_name

from bot.aws.config import AwsConfig
from tests.support.aws import aws_world

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "aws.md").read_text(encoding="utf-8")
CODE = ROOT / "bot" / "aws"
SERVICES = ("batch", "s3", "sesv2", "secretsmanager", "logs", "sts", "iam", "ecr")
ACTIONS = {
    "batch.SubmitJob": {"batch:SubmitJob", "batch:TagResource"},
    "batch.RegisterJobDefinition": {"batch:RegisterJobDefinition", "batch:TagResource", "iam:PassRole"},
    "batch.CreateComputeEnvironment": {
        "batch:CreateComputeEnvironment",
        "iam:PassRole",
        "iam:CreateServiceLinkedRole",
    },
    "s3.ListObjectsV2": {"s3:ListBucket"},
    "s3.HeadBucket": {"s3:ListBucket"},
    "s3.CreateMultipartUpload": {"s3:PutObject"},
    "s3.UploadPart": {"s3:PutObject"},
    "s3.CompleteMultipartUpload": {"s3:PutObject"},
    "s3.CreateBucket": {"s3:CreateBucket", "s3:PutBucketOwnershipControls"},
    "s3.GetPublicAccessBlock": {"s3:GetBucketPublicAccessBlock"},
    "s3.PutPublicAccessBlock": {"s3:PutBucketPublicAccessBlock"},
    "s3.GetBucketEncryption": {"s3:GetEncryptionConfiguration"},
    "s3.PutBucketEncryption": {"s3:PutEncryptionConfiguration"},
    "s3.HeadObject": {"s3:GetObject"},
    "s3.GetBucketLifecycleConfiguration": {"s3:GetLifecycleConfiguration"},
    "s3.PutBucketLifecycleConfiguration": {"s3:PutLifecycleConfiguration"},
    "sesv2.GetAccount": {"ses:GetAccount"},
    "sesv2.GetEmailIdentity": {"ses:GetEmailIdentity"},
    "sesv2.SendEmail": {"ses:SendEmail", "ses:SendRawEmail"},
}
"""What a call needs where it is not simply the action of the same name (AWS's Service Authorization Reference)."""


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


def policy(heading: str) -> list[dict[str, Any]]:
    """The statements of the JSON block under that heading."""
    section = DOCUMENT.split(f"\n### {heading}\n")[1].split("\n### ")[0]
    parsed = json.loads(section.split("```json\n")[1].split("```")[0])
    assert parsed["Version"] == "2012-10-17"
    statements: list[dict[str, Any]] = parsed["Statement"]
    return statements


def allowed(heading: str) -> set[str]:
    """The actions that policy allows."""
    statements = policy(heading)
    assert {statement["Effect"] for statement in statements} == {"Allow"}
    return {action for statement in statements for action in _list(statement["Action"])}


def _list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def test_the_bot_may_do_exactly_what_it_does() -> None:
    assert allowed("The bot") == actions(calls("batch.py", "logs.py", "s3.py", "ses.py", "secrets.py", "clients.py"))


def test_provisioning_may_do_exactly_what_it_does() -> None:
    shared = {"batch.DescribeJobDefinitions", "batch.RegisterJobDefinition"}  # through BatchCompute.ensure
    assert shared <= calls("batch.py")
    assert allowed("Provisioning") == actions(calls("provision.py", "guards.py") | shared)


def test_the_doctor_may_look_at_exactly_what_it_looks_at_beside_what_the_bot_may() -> None:
    looks = {call for call in calls("guards.py") if call.partition(".")[2].startswith(("Get", "Describe"))}
    assert allowed("Doctor") == actions(calls("doctor.py") | looks) - allowed("The bot")


def test_the_syntax_reader_sees_plain_calls_pages_and_links() -> None:
    assert {"batch.SubmitJob", "batch.ListJobs"} <= calls("batch.py")
    assert "logs.GetLogEvents" in calls("logs.py")
    assert calls("s3.py") == {"s3.ListObjectsV2", "s3.GetObject", "s3.HeadObject"} | TRANSFER


@pytest.mark.parametrize("heading", ["The bot", "Provisioning", "Doctor", "Execution role", "Job role"])
def test_no_policy_has_a_wildcard_action_or_reaches_beyond_its_own_things(heading: str) -> None:
    boundless = {  # AWS knows no resource for these, or a condition bounds them
        *("batch:DescribeJobs", "batch:DescribeJobDefinitions", "batch:ListJobs"),
        *("batch:DescribeComputeEnvironments", "batch:DescribeJobQueues", "logs:DescribeLogGroups"),
        *("sts:GetCallerIdentity", "ecr:GetAuthorizationToken", "ses:GetAccount"),
    }
    for statement in policy(heading):
        assert not [action for action in _list(statement["Action"]) if "*" in action]
        if "*" in _list(statement["Resource"]) and "Condition" not in statement:
            assert set(_list(statement["Action"])) <= boundless


def test_only_the_execution_role_and_the_bot_read_tokens() -> None:
    readers = [
        heading
        for heading in ("The bot", "Provisioning", "Doctor", "Execution role", "Job role")
        if "secretsmanager:GetSecretValue" in allowed(heading)
    ]
    assert readers == ["The bot", "Execution role"]


def test_programs_may_do_exactly_what_they_do_and_read_nothing_but_blocks() -> None:
    assert allowed("Job role") == actions(calls("../../pipelines/common/results.py")) | {"s3:AbortMultipartUpload"}
    reads = [one for one in policy("Job role") if {"s3:GetObject", "s3:ListBucket"} & set(_list(one["Action"]))]
    objects, names = reads
    arn = "arn:aws:s3:::BUCKET/*"
    assert objects["Resource"] == [f"{arn}/blocks/*", f"{arn}/ro-crate-metadata.json"]
    assert names["Condition"] == {"StringLike": {"s3:prefix": "*/blocks/*"}}


def test_the_policies_name_things_as_the_settings_do() -> None:
    with aws_world(empty=True) as world:
        config = world.config
    for heading, names in {
        "The bot": (f"job-queue/{config.queue}", f"job-definition/{config.prefix}_*", f"secret:{config.prefix}/*"),
        "Provisioning": (f"compute-environment/{config.compute_environment}", f"log-group:{config.log_group}:*"),
        "Doctor": ("role/nomads-execution", "role/nomads-job", "instance-profile/nomads-instance"),
        "Execution role": (f"secret:{config.prefix}/*", f"log-group:{config.log_group}:*"),
    }.items():
        resources = [arn for statement in policy(heading) for arn in _list(statement["Resource"])]
        for name in names:
            assert [arn for arn in resources if arn.endswith(name)], name


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `NOMADS_AWS_([A-Z_]+)` \| ?(.*?) ?\|", DOCUMENT, re.M))
    assert set(rows) == {name.upper() for name in AwsConfig.model_fields}
    for name, field in AwsConfig.model_fields.items():
        said = rows[name.upper()].strip("`")
        if name in ("region", "service_role"):
            assert said
        elif field.default in ("", ()):
            assert said == ""
        else:
            assert said.lower() == str(field.default).lower()
