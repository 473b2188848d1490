"""Jobs on AWS, from the form to the mail, where `AWS_ENDPOINT_URL` alone says that AWS is on this machine."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from email import message_from_string, policy
from pathlib import Path

import httpx
import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ses.models import ses_backends

from bot.domain.states import JobState
from bot.settings import ROOT
from sandbox.aws import REGION, AwsStandIn
from sandbox.boss import DEMO_TOKEN
from sandbox.house import House
from sandbox.volumes import cortex
from tests.support.processes import Lab
from tests.support.waiting import PATIENCE, until

SMALL = cortex(shape=(32, 288, 288))
"""The usual volume's sections take ten times as long to be registered."""
CALLS = 4
"""DescribeJobs calls over a job's life."""


@pytest.fixture
def aws() -> Iterator[AwsStandIn]:
    with AwsStandIn() as aws:
        aws.client("sesv2").create_email_identity(EmailIdentity="nomads@example.org")
        yield aws


@pytest.fixture
def lab(aws: AwsStandIn, tmp_path: Path) -> Iterator[Lab]:
    settings = aws.environment | {
        "NOMADS_PIPELINES": str(ROOT / "pipelines"),
        "NOMADS_IMAGES": json.dumps({"nomads-unsupervised": "example/nomads-unsupervised:1"}),
        "NOMADS_MAIL": "ses://",
        "NOMADS_WATCH_INTERVAL": "10",  # as on AWS, where events tell sooner how a job is
    }
    with House(ack_timeout=PATIENCE, demo=SMALL) as house, Lab(house, tmp_path, **settings) as lab:
        yield lab


def operations(aws: AwsStandIn) -> list[str]:
    """The calls that AWS Batch got."""
    return [operation.removeprefix("/v1/") for operation, _ in aws.heard if operation.startswith("/v1/")]


def test_a_job_runs_on_aws_from_the_form_to_the_mail(aws: AwsStandIn, lab: Lab) -> None:
    lab.start()
    lab.submit(pipeline="nomads-unsupervised", x="0,256", y="0,256", z="0,16")
    lab.settle()
    job = lab.newest
    sent = ses_backends[DEFAULT_ACCOUNT_ID][REGION].sent_messages
    subjects = [message_from_string(mail.raw_data, policy=policy.SMTP)["Subject"] for mail in sent]
    told = lab.thread(job)[-1]
    found = re.search(r"<(http[^|>]+/synapses\.csv[^|>]*)", told)
    assert found, told
    rows = list(csv.DictReader(io.StringIO(httpx.get(found[1].replace("&amp;", "&")).text)))

    assert job.state is JobState.SUCCEEDED, (job.reason, job.log_tail)
    assert job.summary
    assert f"{job.summary.counts['synapses']} synapses" in told
    assert len(rows) == job.summary.counts["synapses"] > 0
    assert subjects == [f"NOMADS job {job.id}: accepted", f"NOMADS job {job.id}: finished"]
    assert [file.name for file in lab.slack.files if file.shared] == [f"{job.id}-preview.png"]
    assert operations(aws).count("submitjob") == 1
    assert operations(aws).count("describejobs") <= CALLS
    holding = {operation for operation, body in aws.heard if DEMO_TOKEN.encode() in body}
    assert holding == {"secretsmanager.CreateSecret"}


def test_a_job_whose_machine_was_taken_back_gives_its_results_from_one_that_is_not(aws: AwsStandIn, lab: Lab) -> None:
    order = [{"order": 1, "computeEnvironment": "nomads-ce"}]
    aws.client("batch").create_job_queue(
        jobQueueName="steady", state="ENABLED", priority=1, computeEnvironmentOrder=order
    )
    lab.start(NOMADS_AWS_QUEUE_ON_DEMAND="steady")
    lab.submit(pipeline="nomads-unsupervised", x="0,256", y="0,256", z="0,16")
    until(lambda: aws.jobs and aws.jobs[0].status == "RUNNING", what="the program on the machine that is taken back")
    aws.take_back(aws.jobs[0].job_id)
    lab.settle()
    job = lab.newest
    asked = [json.loads(body) for operation, body in aws.heard if operation == "/v1/submitjob"]

    assert job.state is JobState.SUCCEEDED, (job.reason, job.log_tail)
    assert job.summary
    assert job.summary.counts["synapses"] > 0
    assert [one["jobQueue"] for one in asked] == ["nomads-queue", "steady"]
    assert [one.get("retryStrategy", {}).get("attempts") for one in asked] == [2, None]
    assert asked[0]["containerOverrides"] == asked[1]["containerOverrides"]
    said = [text for text in lab.thread(job) if "begins again on a machine that is not taken back" in text]
    assert len(said) == 1


def test_a_volume_in_blocks_runs_on_aws_as_one_array_between_two_jobs(aws: AwsStandIn, lab: Lab) -> None:
    box = ("--col", "demo", "--exp", "cortex", "--x", "0,256", "--y", "0,256", "--z", "0,12")
    wanted = (*box, "--pipeline", "nomads-unsupervised", "--wait", "--json")

    code, out, err = lab.here(
        "submit", *wanted, NOMADS_BLOCK_VOXELS="300000", NOMADS_MAIL="off", NOMADS_WATCH_INTERVAL="0.5"
    )

    assert code == 0, err
    told = json.loads(out.splitlines()[-1])
    assert told["blocks"]["all"] > 2
    assert told["blocks"]["missing"] == 0
    assert operations(aws).count("submitjob") == 3
