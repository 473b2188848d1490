"""The table in docs/aws.md of what NOMADS leans on in AWS: where that is documented, and how it is tested."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from bot.aws import batch, observations, stack
from contract.program import INDEX_VARIABLES
from tests.support.template import TEXT, template

ROOT = Path(__file__).parents[3]
SECTION = (ROOT / "docs" / "aws.md").read_text(encoding="utf-8").partition("\n## What is relied on\n")[2]
ROWS = re.findall(r"^\| (.+?) \| (.*?) \| (.*?) \|$", SECTION, re.MULTILINE)[1:]
SERVICES = {
    "Batch": "AWS Batch",
    "Budgets": "AWS Budgets",
    "EC2": "EC2",
    "ECR": "ECR",
    "ECS": "ECS",
    "Events": "EventBridge",
    "IAM": "IAM",
    "Logs": "CloudWatch",
    "RDS": "RDS",
    "S3": "S3",
    "SES": "SES",
    "SQS": "SQS",
    "SecretsManager": "Secrets Manager",
}
"""What the template calls a service, and what people do."""
WORDS = (
    *("AllocationStrategy: SPOT_PRICE_CAPACITY_OPTIMIZED", "Default: optimal", "DeploymentCircuitBreaker"),
    *("UserData", "cloud_final_modules", "EmptyOnDelete", "{{resolve:secretsmanager:", "PGPASSWORD"),
)
"""Words of the template behind each of which AWS does something by itself."""


def test_each_row_says_where_it_is_documented_and_how_it_is_tested() -> None:
    assert len(ROWS) > 30
    assert len(ROWS) == sum(line.startswith("| ") for line in SECTION.splitlines()) - 1
    assert [row for row in ROWS if not all(cell.strip() for cell in row)] == []


def test_each_service_that_the_template_makes_something_of_is_in_the_table() -> None:
    made = {resource["Type"].split("::")[1] for resource in template()["Resources"].values()}
    assert made == set(SERVICES)
    assert [name for name in SERVICES.values() if name not in SECTION] == []


@pytest.mark.parametrize("word", WORDS)
def test_what_aws_does_by_itself_is_in_the_table(word: str) -> None:
    assert word in TEXT, "the template no longer leans on it"
    assert word.rpartition(": ")[2] in SECTION


def test_what_the_code_alone_leans_on_is_in_the_table() -> None:
    assert stack.MACHINE_IMAGE.partition("{")[0] in SECTION
    assert "a share identifier and no scheduling priority" in SECTION
    assert f"An array has 2 to {batch.MAX_COUNT:,} children" in SECTION
    assert [name for name in INDEX_VARIABLES if name.startswith("AWS_")] == ["AWS_BATCH_JOB_ARRAY_INDEX"]
    assert "`AWS_BATCH_JOB_ARRAY_INDEX`" in SECTION
    assert f"people are hashed into {batch.SHARES}" in SECTION


def test_the_words_by_which_aws_says_why_a_job_waits_or_has_ended_are_in_the_table() -> None:
    assert [
        family for family in {code.partition(":")[0] for code in observations._WAITS} if family not in SECTION
    ] == []
    assert observations._TIMED_OUT in SECTION
    assert f"which is {batch.SHORTEST} s at least" in SECTION
    source = inspect.getsource(observations._words)
    words = re.findall(r'"([\w ]+)" in both', source)
    assert "OutOfMemory" in words
    assert [one for one in words if one not in SECTION] == []


def test_the_words_by_which_aws_says_why_a_job_is_tried_again_are_in_the_table() -> None:
    for condition in batch._retries(3)["evaluateOnExit"]:
        [said] = [words for name, words in condition.items() if name != "action"]
        assert said == "*" or re.split(r"[:*]", said)[0] in SECTION
