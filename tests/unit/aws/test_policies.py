"""The template's policies against the code: each call is covered by a policy, none allows what no call needs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import botocore.loaders
import pytest
from botocore import xform_name

from bot.aws.config import AwsConfig
from tests.support.template import listed, properties, statements, whole

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "aws-reference.md").read_text(encoding="utf-8")
CODE = ROOT / "bot" / "aws"
SERVICES = ("batch", "s3", "sesv2", "secretsmanager", "logs", "sts", "iam", "ecr", "sqs")
POLICIES = ("BotPolicy", "DoctorPolicy", "StartPolicy", "ExecutionRole", "JobRole")
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


@pytest.mark.parametrize("name", POLICIES)
def test_no_policy_has_a_wildcard_action_or_reaches_beyond_its_own_things(name: str) -> None:
    boundless = {  # AWS knows no resource for these
        *("batch:DescribeJobs", "batch:DescribeJobDefinitions", "batch:ListJobs"),
        *("batch:DescribeComputeEnvironments", "batch:DescribeJobQueues", "logs:DescribeLogGroups"),
        *("ecr:GetAuthorizationToken", "ses:GetAccount"),
    }
    given_by_aws = ("job/*", "identity/*")  # a job's id is AWS's; whose mail it is, the admin says later
    for statement in statements(name):
        assert not [action for action in listed(statement["Action"]) if "*" in action]
        for resource in map(whole, listed(statement["Resource"])):
            if resource == "*":
                assert set(listed(statement["Action"])) <= boundless
            elif "Fn::Sub" in resource and not resource["Fn::Sub"].endswith(given_by_aws):
                own = resource["Fn::Sub"].replace("${AWS::", "")
                assert re.search(r"\$\{\w", own), resource


def test_only_those_who_hand_over_or_keep_tokens_read_them() -> None:
    tokens = "secret:${Name}/*"
    readers = [
        name
        for name in POLICIES
        for statement in statements(name)
        if "secretsmanager:GetSecretValue" in listed(statement["Action"]) and tokens in str(statement["Resource"])
    ]
    assert readers == ["BotPolicy", "ExecutionRole"]


def test_programs_may_do_exactly_what_they_do_and_read_nothing_but_blocks() -> None:
    assert allowed("JobRole") == actions(calls("../../pipelines/common/results.py")) | {"s3:AbortMultipartUpload"}
    reads = [one for one in statements("JobRole") if {"s3:GetObject", "s3:ListBucket"} & set(listed(one["Action"]))]
    objects, names = reads
    arn = "${Bucket.Arn}/*"
    assert objects["Resource"] == [{"Fn::Sub": f"{arn}/blocks/*"}, {"Fn::Sub": f"{arn}/ro-crate-metadata.json"}]
    assert names["Condition"] == {"StringLike": {"s3:prefix": "*/blocks/*"}}


def test_a_role_of_containers_is_taken_for_this_account_alone() -> None:
    for name in ("ExecutionRole", "JobRole", "BotExecutionRole", "BotRole"):
        [statement] = map(whole, properties(name)["AssumeRolePolicyDocument"]["Statement"])
        assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


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
