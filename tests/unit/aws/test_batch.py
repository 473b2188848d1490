"""What is asked of AWS Batch, and what its answers come to mean."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from pydantic import SecretStr

from bot.aws.batch import SHARES, BatchCompute, clean_name, clean_tags, share_of
from bot.aws.clients import SOON
from bot.aws.config import AwsConfig
from bot.domain.errors import NotFound, Refused, Unavailable
from bot.domain.states import JobState
from bot.domain.work import Cause, LogLine, Unclear, Work
from tests.contract.rigs import texts
from tests.support.aws import (
    World,
    answer,
    answer_otherwise,
    aws_world,
    forget,
    give,
    interrupt,
    moto_job,
    set_state,
    write_log,
)

ARN = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:nomads/somebody/something-AbCdEf"
NO_SUCH_JOB = "00000000-0000-0000-0000-000000000000"
WORK = Work(
    name="nomads-unsupervised_demo_cortex_z_0_16_y_0_512_x_0_512-k3v9",
    pipeline="nomads-unsupervised",
    image="registry.example.org/nomads:1",
    command=("python3", "-m", "pipelines.unsupervised"),
    arguments=("--host", "api.bossdb.io", "--col", "demo"),
    cpu=1.5,
    memory=1088,
    timeout=timedelta(hours=1),
    owner="U0DEMO",
    token=ARN,
    tags={"job": "k3v9", "user": "U0DEMO", "pipeline": "nomads-unsupervised"},
)


@pytest.fixture
def world() -> Iterator[World]:
    with aws_world() as world:
        yield world


def test_a_submission_says_everything_the_job_needs(world: World) -> None:
    world.compute().submit(WORK)

    [asked] = world.asked("batch.SubmitJob")
    assert asked == {
        "jobName": WORK.name,
        "jobQueue": "nomads-queue",
        "jobDefinition": asked["jobDefinition"],
        "containerOverrides": {
            "command": ["python3", "-m", "pipelines.unsupervised", "--host", "api.bossdb.io", "--col", "demo"],
            "resourceRequirements": [{"type": "VCPU", "value": "2"}, {"type": "MEMORY", "value": "1088"}],
        },
        "timeout": {"attemptDurationSeconds": 3600},
        "tags": {"job": "k3v9", "user": "U0DEMO", "pipeline": "nomads-unsupervised"},
    }


@pytest.mark.parametrize(
    ("count", "size", "environment"),
    [(None, None, None), (1, None, [{"name": "NOMADS_INDEX", "value": "0"}]), (2, 2, None), (10_000, 10_000, None)],
)
def test_an_array_is_one_submission_and_an_array_of_one_is_a_plain_job_that_is_told_its_number(
    world: World, count: int | None, size: int | None, environment: list[dict[str, str]] | None
) -> None:
    compute = world.compute()
    answer(world.clients.submitter, "batch.SubmitJob", status=500)  # moto would make ten thousand jobs

    with pytest.raises(Unavailable):
        compute.submit(replace(WORK, count=count))

    [asked] = world.asked("batch.SubmitJob")
    assert asked.get("arrayProperties") == (None if size is None else {"size": size})
    assert asked["containerOverrides"].get("environment") == environment


def test_an_array_whose_answer_was_lost_is_found_and_its_programs_are_not_taken_for_it(world: World) -> None:
    compute = world.compute()
    interrupt(world.clients.submitter, "batch.SubmitJob", ReadTimeoutError(endpoint_url="x"), done=True)
    with pytest.raises(Unavailable):
        compute.submit(replace(WORK, count=3))

    found = compute.submit(replace(WORK, count=3))

    assert ":" not in found
    assert sum(compute.observe([found])[found].children.values()) == 3
    assert len(world.asked("batch.SubmitJob")) == 1


def test_a_hundred_arrays_are_observed_with_one_call_whatever_their_size(world: World) -> None:
    ids = [str(uuid.uuid4()) for _ in range(100)]
    summary = {"SUCCEEDED": 4000, "FAILED": 3, "RUNNING": 500, "STARTING": 0, "RUNNABLE": 5497}
    properties = {"size": 10_000, "statusSummary": summary}
    jobs = [{"jobId": job, "status": "PENDING", "arrayProperties": properties} for job in ids]
    give(world.clients.batch, "batch.DescribeJobs", {"jobs": jobs})

    seen = world.compute().observe(ids)

    assert world.operations == ["batch.DescribeJobs"]
    assert {one.state for one in seen.values()} == {JobState.RUNNING}
    assert seen[ids[0]].children == {JobState(state): number for state, number in summary.items() if number}
    assert seen[ids[0]].attempt is None


@pytest.mark.parametrize(
    ("status", "summary", "reason", "state", "words"),
    [
        ("SUBMITTED", {}, "", "SUBMITTED", ""),
        ("PENDING", {"PENDING": 7}, "", "PENDING", ""),
        ("PENDING", {"PENDING": 4, "RUNNABLE": 2, "STARTING": 1}, "", "STARTING", ""),
        ("PENDING", {"RUNNABLE": 6, "SUCCEEDED": 1}, "", "RUNNING", ""),
        ("PENDING", {"SUCCEEDED": 6, "FAILED": 1}, "", "RUNNING", ""),  # AWS has not said yet that it has ended
        ("SUCCEEDED", {"SUCCEEDED": 7}, "", "SUCCEEDED", ""),
        ("SUCCEEDED", {"SUCCEEDED": 6, "RUNNING": 1}, "", "SUCCEEDED", ""),  # a summary that is a little late
        ("FAILED", {"SUCCEEDED": 5, "FAILED": 2}, "Array Child Job failed", "FAILED", "2 of 7 programs failed."),
        ("FAILED", {}, "Dependent Job failed", "FAILED", "Dependent Job failed"),
    ],
)
def test_an_array_is_where_its_summary_says_and_ends_when_aws_says_so(
    world: World, status: str, summary: dict[str, int], reason: str, state: str, words: str
) -> None:
    job = str(uuid.uuid4())
    properties = {"size": 7, "statusSummary": summary}
    told = {"jobId": job, "status": status, "statusReason": reason, "arrayProperties": properties}
    give(world.clients.batch, "batch.DescribeJobs", {"jobs": [told]})

    seen = world.compute().observe([job])[job]

    assert (seen.state, seen.reason) == (JobState(state), words)
    assert seen.children == {JobState(one): number for one, number in summary.items()}


def test_programs_are_listed_by_state_and_those_that_failed_are_described_a_hundred_at_a_time(world: World) -> None:
    compute = world.compute()
    job = compute.submit(replace(WORK, count=150))
    for number in range(150):
        set_state(f"{job}:{number}", JobState.FAILED, reason="Host EC2 (instance i-0) terminated.")
    world.sent.clear()

    failed = compute.children(job, states={JobState.FAILED})

    assert world.asked("batch.ListJobs") == [{"arrayJobId": job, "jobStatus": "FAILED", "maxResults": 1000}]
    assert [len(asked["jobs"]) for asked in world.asked("batch.DescribeJobs")] == [100, 50]
    assert list(failed) == list(range(150))
    assert {seen.cause for seen in failed.values()} == {Cause.MACHINE}
    assert failed[0].log


def test_a_listing_of_programs_is_read_page_by_page(world: World) -> None:
    job = str(uuid.uuid4())
    pages = [
        {"jobSummaryList": [{"jobId": f"{job}:{n}", "jobName": "n", "status": "RUNNABLE"}], "nextToken": token}
        for n, token in ((0, "more"), (1, ""))
    ]
    pages[1].pop("nextToken")

    def reply(**_: Any) -> Any:
        return SimpleNamespace(status_code=200), pages.pop(0)

    world.clients.batch.meta.events.register_first("before-call.batch.ListJobs", reply)

    seen = world.compute().children(job, states={JobState.RUNNABLE})

    assert {number: one.state for number, one in seen.items()} == dict.fromkeys((0, 1), JobState.RUNNABLE)
    assert [asked.get("nextToken") for asked in world.asked("batch.ListJobs")] == [None, "more"]


def test_an_array_is_cancelled_with_one_call(world: World) -> None:
    compute = world.compute()
    job = compute.submit(replace(WORK, count=50))
    world.sent.clear()

    compute.cancel(job, reason="cancelled by U1")

    assert world.operations == ["batch.TerminateJob"]
    assert compute.observe([job])[job].reason == "cancelled by U1"


def test_the_job_definition_carries_secret_roles_log_and_spot_aware_retries(world: World) -> None:
    world.compute().submit(WORK)

    [asked] = world.asked("batch.RegisterJobDefinition")
    container = asked["containerProperties"]
    assert asked["jobDefinitionName"].startswith("nomads_nomads-unsupervised_")
    assert container["image"] == "registry.example.org/nomads:1"
    assert container["secrets"] == [{"name": "BOSS_TOKEN", "valueFrom": ARN}]
    assert container["executionRoleArn"] == world.config.execution_role
    assert container["jobRoleArn"] == world.config.job_role
    assert container["logConfiguration"] == {
        "logDriver": "awslogs",
        "options": {"awslogs-group": "/aws/batch/job", "awslogs-region": "eu-west-2"},
    }
    assert asked["retryStrategy"] == {
        "attempts": 3,
        "evaluateOnExit": [
            {"onStatusReason": "Host EC2*", "action": "RETRY"},
            {"onReason": "CannotPullContainerError: Error response from daemon: manifest*", "action": "EXIT"},
            {"onReason": "CannotPullContainerError*", "action": "RETRY"},
            {"onStatusReason": "Task failed to start*", "action": "RETRY"},
            {"onReason": "*", "action": "EXIT"},
        ],
    }
    assert asked["propagateTags"] is True
    assert asked["tags"]["pipeline"] == "nomads-unsupervised"


def test_after_the_first_a_submission_is_one_call(world: World) -> None:
    compute = world.compute()
    compute.submit(WORK)
    before = len(world.sent)

    compute.submit(replace(WORK, name="another-name", memory=4096, arguments=("--col", "other")))

    assert world.operations[before:] == ["batch.SubmitJob"]


def test_a_restarted_bot_finds_its_definition_and_registers_nothing(world: World) -> None:
    world.compute().submit(WORK)
    before = len(world.sent)

    world.compute().submit(replace(WORK, name="another-name"))

    assert world.operations[before:] == ["batch.DescribeJobDefinitions", "batch.SubmitJob"]
    first, second = world.asked("batch.SubmitJob")
    assert first["jobDefinition"] == second["jobDefinition"]


@pytest.mark.parametrize(
    "change",
    [{"image": "registry.example.org/nomads:2"}, {"token": ARN + "2"}, {"owner": "U1OTHER"}, {"pipeline": "other"}],
    ids=lambda change: next(iter(change)),
)
def test_a_definition_is_registered_again_when_its_content_changed(world: World, change: dict[str, Any]) -> None:
    compute = world.compute()
    compute.submit(WORK)

    compute.submit(replace(WORK, name="another-name", **change))

    assert len(world.asked("batch.RegisterJobDefinition")) == 2
    first, second = world.asked("batch.SubmitJob")
    assert first["jobDefinition"] != second["jobDefinition"]


def test_going_back_to_an_earlier_content_finds_the_earlier_revision(world: World) -> None:
    newer = replace(WORK, name="newer", image="registry.example.org/nomads:2")
    for work in (WORK, newer, replace(WORK, name="back-again")):
        world.compute().submit(work)

    first, second, third = (asked["jobDefinition"] for asked in world.asked("batch.SubmitJob"))
    assert first == third != second
    assert len(world.asked("batch.RegisterJobDefinition")) == 2


def test_first_submissions_at_once_register_one_definition(world: World) -> None:
    compute = world.compute()
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(compute.submit, [replace(WORK, name=f"job-{n}") for n in range(8)]))

    assert len(set(ids)) == 8
    assert len(world.asked("batch.RegisterJobDefinition")) == 1


def test_a_definition_somebody_deregistered_is_made_again(world: World) -> None:
    compute = world.compute()
    compute.submit(WORK)
    [gone] = [asked["jobDefinition"] for asked in world.asked("batch.SubmitJob")]
    boto3.client("batch", region_name="eu-west-2").deregister_job_definition(jobDefinition=gone)
    _refuse_definition(world, gone)  # moto submits to an inactive definition; AWS does not

    compute.submit(replace(WORK, name="another-name"))

    assert [asked["jobDefinition"] == gone for asked in world.asked("batch.SubmitJob")] == [True, True, False]


def _refuse_definition(world: World, arn: str) -> None:
    def check(params: dict[str, Any], **_: Any) -> None:
        if params["jobDefinition"] == arn:
            raise world.clients.submitter.exceptions.ClientException(
                {"Error": {"Code": "ClientException", "Message": "JobDefinition is not ACTIVE"}}, "SubmitJob"
            )

    world.clients.submitter.meta.events.register("before-parameter-build.batch.SubmitJob", check)


def test_a_2018_image_gets_its_token_from_the_shell_and_no_request_holds_it(world: World) -> None:
    world.compute().submit(replace(WORK, token_argument=True))

    [asked] = world.asked("batch.SubmitJob")
    assert asked["containerOverrides"]["command"] == [
        *("sh", "-c", 'exec "$@" --token "$BOSS_TOKEN"', "sh"),
        *("python3", "-m", "pipelines.unsupervised", "--host", "api.bossdb.io", "--col", "demo"),
    ]


def test_work_without_a_token_uses_the_pipeline_s_own_definition(world: World) -> None:
    world.compute().submit(replace(WORK, token=""))

    [asked] = world.asked("batch.RegisterJobDefinition")
    assert asked["jobDefinitionName"] == "nomads_nomads-unsupervised"
    assert "secrets" not in asked["containerProperties"]


def test_small_work_is_raised_to_what_batch_takes(world: World) -> None:
    world.compute().submit(replace(WORK, cpu=0.1, memory=1, timeout=timedelta(seconds=5)))

    [asked] = world.asked("batch.SubmitJob")
    assert asked["timeout"] == {"attemptDurationSeconds": 60}
    assert asked["containerOverrides"]["resourceRequirements"] == [
        {"type": "VCPU", "value": "1"},
        {"type": "MEMORY", "value": "4"},
    ]


def test_a_token_without_an_execution_role_is_refused_before_any_call() -> None:
    with aws_world(execution_role="") as world, pytest.raises(Refused, match="NOMADS_AWS_EXECUTION_ROLE"):
        world.compute().submit(WORK)
    assert world.operations == []


def test_batch_refuses_a_pipeline_without_image_or_program(world: World) -> None:
    compute = world.compute()
    assert "NOMADS_IMAGES" in compute.refuses(image="", command=("x",))
    assert compute.refuses(image="x", command=()) == "It has no program to run yet."
    assert compute.refuses(image="x", command=("x",)) == ""
    with pytest.raises(Refused, match="no container image"):
        compute.submit(replace(WORK, image=""))


def test_a_submission_is_never_repeated_by_botocore() -> None:
    """SubmitJob has no idempotency token: a repeated one may be a second job."""
    with aws_world(tries=4) as patient:
        submitter: Any = patient.clients.submitter.meta.config
        others: Any = patient.clients.batch.meta.config
        assert submitter.retries == {"mode": "adaptive", "total_max_attempts": 1}
        assert others.retries == {"mode": "adaptive", "total_max_attempts": 4}


def test_a_submission_whose_answer_was_lost_is_looked_for_before_it_is_repeated(world: World) -> None:
    compute = world.compute()
    lost = ReadTimeoutError(endpoint_url="https://batch.example.org")
    interrupt(world.clients.submitter, "batch.SubmitJob", lost, done=True)
    with pytest.raises(Unavailable, match="ReadTimeoutError"):
        compute.submit(WORK)

    job = compute.submit(WORK)

    assert world.compute().find(WORK.name) == job
    assert len(world.asked("batch.SubmitJob")) == 1


def test_a_submission_that_never_arrived_is_repeated_without_a_search(world: World) -> None:
    compute = world.compute()
    interrupt(
        world.clients.submitter, "batch.SubmitJob", EndpointConnectionError(endpoint_url="https://batch.example.org")
    )
    for _ in range(2):
        with pytest.raises(Unavailable, match="cannot be reached"):
            compute.submit(WORK)
    assert "batch.ListJobs" not in world.operations


def test_throttling_is_unavailable_and_says_for_how_long(world: World) -> None:
    answer(
        world.clients.submitter,
        "batch.SubmitJob",
        status=429,
        code="TooManyRequestsException",
        message="slow down",
        retry_after="7",
    )
    with pytest.raises(Unavailable, match="slow down") as caught:
        world.compute().submit(WORK)
    assert caught.value.retry_after == 7


def test_credentials_that_have_expired_are_told_in_words(world: World) -> None:
    code, said = "ExpiredTokenException", "The security token included in the request is expired"
    answer(world.clients.submitter, "batch.SubmitJob", status=403, code=code, message=said)
    with pytest.raises(Unavailable) as caught:
        world.compute().submit(WORK)
    assert str(caught.value) == "AWS Batch did not take the job: AWS does not take NOMADS's credentials (expired)."


def test_a_refusal_is_refused_with_aws_s_words(world: World) -> None:
    answer(world.clients.submitter, "batch.SubmitJob", code="ClientException", message="the queue is disabled")
    with pytest.raises(Refused, match=r"did not take the job: the queue is disabled \(ClientException\)") as caught:
        world.compute().submit(WORK)
    assert not isinstance(caught.value, NotFound)


def test_a_job_is_found_by_its_exact_name_in_any_state_and_the_newest_wins(world: World) -> None:
    compute = world.compute()
    assert compute.find(WORK.name) is None
    older = compute.submit(WORK)
    set_state(older, JobState.FAILED, reason="x")
    _age(older)
    newer = compute.submit(WORK)
    compute.submit(replace(WORK, name=WORK.name.upper()))

    assert compute.find(WORK.name) == newer
    assert world.asked("batch.ListJobs")[-1] == {
        "jobQueue": "nomads-queue",
        "filters": [{"name": "JOB_NAME", "values": [WORK.name]}],
    }


def _age(compute_id: str) -> None:
    moto_job(compute_id).job_created_at -= timedelta(hours=1)


def test_finding_turns_all_pages(world: World) -> None:
    """moto gives one page; AWS gives a hundred jobs a page, and may give empty pages on the way."""
    pages: list[dict[str, Any]] = [
        {"jobSummaryList": [], "nextToken": "more"},
        {"jobSummaryList": [{"jobId": "the-id", "jobName": WORK.name, "createdAt": 5}]},
    ]
    _reply(world.clients.batch, "ListJobs", pages)
    assert world.compute().find(WORK.name) == "the-id"
    assert [asked.get("nextToken") for asked in world.asked("batch.ListJobs")] == [None, "more"]


def _reply(client: Any, operation: str, bodies: list[dict[str, Any]]) -> None:
    """Let moto's answers be replaced by these, in turn."""
    left = iter(bodies)

    def replace_body(response_dict: dict[str, Any], **_: Any) -> None:
        response_dict["body"] = json.dumps(next(left)).encode()

    client.meta.events.register_first(f"before-parse.batch.{operation}", replace_body)


AN_ID, ANOTHER = (str(uuid.UUID(int=number)) for number in (1, 2))
QUEUE = "arn:aws:batch:eu-west-2:123456789012:job-queue/nomads-queue"
RUNS = {"status": "RUNNING", "statusReason": "x", "startedAt": 5, "isCancelled": False, "isTerminated": False}


def _has(world: World, *jobs: dict[str, Any]) -> tuple[BatchCompute, list[dict[str, Any]]]:
    """AWS Batch, which has described these jobs, with what it says of them from now on."""
    plain = {"jobId": AN_ID, "jobQueue": QUEUE, "createdAt": 70, "container": {"logStreamName": "l"}}
    now = [{**plain, **job} for job in jobs]
    give(world.clients.batch, "batch.DescribeJobs", {"jobs": now})
    compute = world.compute()
    compute.glance([])  # as the first look is
    compute.observe([job["jobId"] for job in now])
    world.sent.clear()
    return compute, now


def _lists(world: World, *pages: list[dict[str, Any]]) -> None:
    """Let AWS Batch list these pages of jobs for each queue, of each what it lists of one."""
    kept = ("jobId", *RUNS, "arrayProperties")

    def reply(params: dict[str, Any], **_: Any) -> tuple[SimpleNamespace, dict[str, Any]]:
        at = int(json.loads(params["body"]).get("nextToken", 0))
        page: dict[str, Any] = {"jobSummaryList": [{one: job[one] for one in kept if one in job} for job in pages[at]]}
        return SimpleNamespace(status_code=200), page | ({"nextToken": str(at + 1)} if at + 1 < len(pages) else {})

    world.clients.lister.meta.events.register_first("before-call.batch.ListJobs", cast("Any", reply))


def test_a_glance_at_jobs_costs_a_listing_of_those_begun_since_the_oldest_of_them(world: World) -> None:
    compute, now = _has(world, RUNS, {**RUNS, "jobId": ANOTHER, "createdAt": 40})
    _lists(world, now)

    seen = compute.glance([AN_ID, ANOTHER])

    assert {one: said.state for one, said in seen.items()} == dict.fromkeys((AN_ID, ANOTHER), JobState.RUNNING)
    assert world.operations == ["batch.ListJobs"]
    assert world.asked("batch.ListJobs") == [
        {"jobQueue": QUEUE, "filters": [{"name": "AFTER_CREATED_AT", "values": ["39"]}]}
    ]
    assert seen == compute.observe([AN_ID, ANOTHER])


def test_a_glance_sees_whether_a_job_of_moto_s_has_moved(world: World) -> None:
    compute = world.compute()
    job, other = compute.submit(WORK), compute.submit(replace(WORK, name="another"))
    for one in (job, other):
        set_state(one, JobState.STARTING)
    compute.glance([job, other])
    described = compute.observe([job, other])
    set_state(other, JobState.RUNNING)
    world.sent.clear()

    assert compute.glance([job, other]) == {job: described[job]}

    assert world.operations == ["batch.ListJobs"]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "SUCCEEDED"},
        {"status": "RUNNABLE"},
        {"statusReason": "Host EC2 (instance i-0) terminated."},
        {"startedAt": 6},
        {"isCancelled": True},
        {"isTerminated": True},
        {"status": 7},
        {"arrayProperties": {"statusSummary": {"RUNNING": 1}}},
        {"arrayProperties": {"statusSummary": 7}},
    ],
)
def test_a_glance_leaves_out_what_is_listed_otherwise_than_it_was_described(
    world: World, change: dict[str, Any]
) -> None:
    compute, now = _has(world, RUNS, {**RUNS, "jobId": ANOTHER})
    _lists(world, [{**now[0], **change}, now[1]])
    assert [*compute.glance([AN_ID, ANOTHER])] == [ANOTHER]


@pytest.mark.parametrize(
    ("summary", "moved"),
    [
        ({"statusSummary": {"RUNNING": 3, "SUCCEEDED": 0}}, False),
        ({"statusSummary": {"SUCCEEDED": 1, "RUNNING": 2}}, True),
        ({}, True),
    ],
)
def test_a_glance_knows_an_array_by_its_summary(world: World, summary: dict[str, Any], moved: bool) -> None:
    array = {"status": "PENDING", "arrayProperties": {"size": 3, "statusSummary": {"RUNNING": 3}}}
    compute, now = _has(world, array)
    _lists(world, [{**now[0], "arrayProperties": {"size": 3, **summary}}])
    assert (compute.glance([AN_ID]) == {}) is moved


@pytest.mark.parametrize(
    "job",
    [
        {**RUNS, "status": "SUCCEEDED"},
        {**RUNS, "container": {}},  # its log is still to come
        {**RUNS, "container": {}, "attempts": [{"stoppedAt": 4, "container": {"logStreamName": "of the last one"}}]},
        {**RUNS, "jobQueue": None},
        {**RUNS, "createdAt": None},
    ],
)
def test_a_job_of_which_a_listing_would_not_show_all_is_described_again(world: World, job: dict[str, Any]) -> None:
    compute, now = _has(world, job)
    _lists(world, now)
    assert compute.glance([AN_ID]) == {}
    assert world.operations == []


def test_a_job_that_is_not_described_any_more_is_not_glanced_at(world: World) -> None:
    compute, now = _has(world, RUNS)
    _lists(world, [*now])
    now.clear()
    compute.observe([AN_ID])
    assert compute.glance([AN_ID]) == {}


def test_a_glance_forgets_what_it_is_not_asked_about(world: World) -> None:
    compute, now = _has(world, RUNS)
    _lists(world, now)
    assert compute.glance([ANOTHER]) == {}
    assert compute.glance([AN_ID]) == {}


@pytest.mark.parametrize(
    ("jobs", "page", "found", "turned"), [(1, 1, 1, 1), (1, 2, 1, 2), (1, 3, 0, 2), (101, 4, 0, 3)]
)
def test_a_glance_turns_pages_until_it_has_seen_all_and_no_more_than_describing_the_jobs_would_cost_and_one(
    world: World, jobs: int, page: int, found: int, turned: int
) -> None:
    ids = [str(uuid.UUID(int=number)) for number in range(3, 3 + jobs)]
    compute, now = _has(world, *({**RUNS, "jobId": one} for one in ids))
    others: list[dict[str, Any]] = [{"jobId": ANOTHER, **RUNS}, {}]
    _lists(world, *[others] * (page - 1), now, *[others] * 5)

    assert len(compute.glance(ids)) == found

    assert len(world.asked("batch.ListJobs")) == turned


def test_a_job_that_many_others_came_after_is_described_and_looked_for_no_more(world: World) -> None:
    compute, now = _has(world, RUNS, {**RUNS, "jobId": ANOTHER, "createdAt": 1})
    others: list[dict[str, Any]] = [{"jobId": str(uuid.uuid4()), **RUNS}]
    _lists(world, [now[0]], *[others] * 5)
    assert [*compute.glance([AN_ID, ANOTHER])] == [AN_ID]
    compute.observe([ANOTHER])
    world.sent.clear()

    assert [*compute.glance([AN_ID, ANOTHER])] == [AN_ID]

    assert [asked["filters"][0]["values"] for asked in world.asked("batch.ListJobs")] == [["69"]]


def test_a_glance_looks_at_the_queue_of_each_job(world: World) -> None:
    compute, now = _has(world, RUNS, {**RUNS, "jobId": ANOTHER, "jobQueue": QUEUE + "-on-demand"})
    _lists(world, now)
    assert {*compute.glance([AN_ID, ANOTHER])} == {AN_ID, ANOTHER}
    assert [asked["jobQueue"] for asked in world.asked("batch.ListJobs")] == [QUEUE, QUEUE + "-on-demand"]


@pytest.mark.parametrize("refused", [{"status": 500}, {"code": "ClientException", "message": "no such queue"}])
def test_the_jobs_of_a_queue_that_is_not_listed_are_described(
    world: World, refused: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    compute, _ = _has(world, RUNS)
    answer(world.clients.lister, "batch.ListJobs", **refused)
    assert compute.glance([AN_ID]) == {}
    assert "are described, since they are not listed: AWS Batch did not list its jobs" in caplog.text
    assert len(world.asked("batch.ListJobs")) == 1


def test_a_queue_that_is_not_listed_leaves_the_others_as_they_are(world: World) -> None:
    compute, now = _has(world, RUNS, {**RUNS, "jobId": ANOTHER, "jobQueue": QUEUE + "-on-demand"})

    def refuse(params: dict[str, Any], **_: Any) -> Any:
        if json.loads(params["body"])["jobQueue"] == QUEUE:
            return SimpleNamespace(status_code=400), {"Error": {"Code": "ClientException", "Message": "no such queue"}}
        return None

    world.clients.lister.meta.events.register_first("before-call.batch.ListJobs", refuse)
    _lists(world, now)

    assert [*compute.glance([AN_ID, ANOTHER])] == [ANOTHER]


@pytest.mark.parametrize("page", [7, None, "x", {"a": 1}])
def test_a_listing_that_is_none_is_not_believed(world: World, page: Any) -> None:
    compute, _ = _has(world, RUNS)
    give(world.clients.lister, "batch.ListJobs", {"jobSummaryList": page})
    assert compute.glance([AN_ID]) == {}


@pytest.mark.parametrize("one", [7, None, [], {"jobId": []}, {"jobId": AN_ID}, {"jobId": None}])
def test_what_makes_no_sense_in_a_listing_spoils_nothing_else(world: World, one: Any) -> None:
    compute, now = _has(world, RUNS, {**RUNS, "jobId": ANOTHER})
    give(world.clients.lister, "batch.ListJobs", {"jobSummaryList": [one, now[1]]})
    assert [*compute.glance([AN_ID, ANOTHER])] == [ANOTHER]


def test_a_job_that_is_listed_twice_counts_as_it_was_listed_first(world: World) -> None:
    compute, now = _has(world, RUNS)
    _lists(world, [{**now[0], "status": "SUCCEEDED"}, now[0]])
    assert compute.glance([AN_ID]) == {}


def test_what_events_have_brought_is_kept_for_the_next_look(world: World) -> None:
    compute, now = _has(world, RUNS)
    _lists(world, now)
    compute.observe([AN_ID])
    assert [*compute.glance([AN_ID, ANOTHER])] == [AN_ID]


def test_where_nobody_looks_at_listings_nothing_is_kept_for_it(world: World) -> None:
    give(
        world.clients.batch,
        "batch.DescribeJobs",
        {"jobs": [{"jobId": AN_ID, "jobQueue": QUEUE, "createdAt": 7, **RUNS}]},
    )
    compute = world.compute()
    compute.observe([AN_ID])
    assert compute.glance([AN_ID]) == {}
    assert "batch.ListJobs" not in world.operations


@pytest.mark.parametrize("first", ["lister", "submitter"])
def test_a_listing_that_hangs_is_given_up_soon_and_a_submission_is_not(world: World, first: str) -> None:
    getattr(world.clients, first)
    lister: Any = world.clients.lister.meta.config
    submitter: Any = world.clients.submitter.meta.config
    assert (lister.read_timeout, submitter.read_timeout) == (SOON, AwsConfig().read_timeout)
    assert SOON < 10
    assert lister.retries["total_max_attempts"] == submitter.retries["total_max_attempts"] == 1


def test_a_listing_that_breaks_off_is_told_as_what_it_is(world: World, caplog: pytest.LogCaptureFixture) -> None:
    compute, _ = _has(world, RUNS)
    interrupt(world.clients.lister, "batch.ListJobs", ReadTimeoutError(endpoint_url="x"))
    assert compute.glance([AN_ID]) == {}
    assert "did not list its jobs: " in caplog.text
    assert "does not list" not in caplog.text


@pytest.mark.parametrize("state", ["SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED"])
def test_every_state_of_batch_is_observed_as_it_is(world: World, state: str) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    set_state(job, JobState(state))

    seen = compute.observe([job])[job]

    assert seen.state is JobState(state)
    assert (seen.started_at is not None) == (state in ("RUNNING", "SUCCEEDED", "FAILED"))
    assert (seen.stopped_at is not None) == (state in ("SUCCEEDED", "FAILED"))


def test_times_come_in_utc_and_the_log_stream_and_exit_code_with_them(world: World) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    _reply(world.clients.batch, "DescribeJobs", [{"jobs": [_described(job, exitCode=2)]}])

    seen = compute.observe([job])[job]

    assert seen.started_at == datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
    assert seen.stopped_at == datetime(2026, 1, 2, 3, 5, 5, 600_000, tzinfo=UTC)
    assert seen.log == "nomads/default/abc"
    assert seen.exit_code == 2
    assert seen.reason == "The program ended with exit code 2."


def _described(job: str, **container: Any) -> dict[str, Any]:
    """A job as DescribeJobs shows one that failed, with much that nobody needs."""
    started = 1_767_323_045_600
    return {
        "jobArn": f"arn:aws:batch:eu-west-2:123456789012:job/{job}",
        "jobName": WORK.name,
        "jobId": job,
        "jobQueue": "arn:aws:batch:eu-west-2:123456789012:job-queue/nomads-queue",
        "status": "FAILED",
        "statusReason": "Essential container in task exited",
        "createdAt": started - 60_000,
        "startedAt": started,
        "stoppedAt": started + 60_000,
        "jobDefinition": "arn:aws:batch:eu-west-2:123456789012:job-definition/nomads_x:3",
        "retryStrategy": {"attempts": 3, "evaluateOnExit": [{"onStatusReason": "Host EC2*", "action": "RETRY"}]},
        "timeout": {"attemptDurationSeconds": 3600},
        "attempts": [],
        "dependsOn": [],
        "parameters": {},
        "platformCapabilities": ["EC2"],
        "propagateTags": True,
        "tags": dict(WORK.tags),
        "container": {
            "image": WORK.image,
            "command": [*WORK.command, *WORK.arguments],
            "environment": [{"name": "AWS_DEFAULT_REGION", "value": "eu-west-2"}],
            "executionRoleArn": "arn:aws:iam::123456789012:role/nomads-execution",
            "jobRoleArn": "arn:aws:iam::123456789012:role/nomads-job",
            "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "/aws/batch/job"}},
            "logStreamName": "nomads/default/abc",
            "mountPoints": [],
            "networkInterfaces": [],
            "resourceRequirements": [{"type": "VCPU", "value": "2"}, {"type": "MEMORY", "value": "2048"}],
            "secrets": [{"name": "BOSS_TOKEN", "valueFrom": ARN}],
            "taskArn": "arn:aws:ecs:eu-west-2:123456789012:task/nomads/abc",
            "ulimits": [],
            "volumes": [],
            **container,
        },
    }


def test_what_the_job_itself_does_not_say_its_last_attempt_does(world: World) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    attempts = [
        {"statusReason": "an older attempt", "container": {"logStreamName": "older", "exitCode": 9}},
        {"statusReason": "Host EC2 (instance i-0) terminated.", "container": {"logStreamName": "newer"}},
    ]
    described = {"jobId": job, "jobName": WORK.name, "status": "RUNNABLE", "attempts": attempts, "container": {}}
    _reply(world.clients.batch, "DescribeJobs", [{"jobs": [described]}])

    seen = compute.observe([job])[job]

    assert (seen.state, seen.log, seen.exit_code) == (JobState.RUNNABLE, "newer", None)
    assert "taken back" in seen.reason


TAKEN_BACK = {"statusReason": "Host EC2 (instance i-0) terminated.", "startedAt": 1, "stoppedAt": 2, "container": {}}
NOT_STARTED = {"statusReason": "Task failed to start", "container": {"reason": "CannotPullContainerError: timed out"}}


@pytest.mark.parametrize(
    ("status", "attempts", "attempt", "again"),
    [
        ("RUNNABLE", [], 1, ""),
        ("RUNNING", [], 1, ""),
        ("RUNNING", [{"startedAt": 1, "container": {}}], 1, ""),
        ("RUNNABLE", [TAKEN_BACK], 2, "Its machine was taken back; waiting for another"),
        ("STARTING", [TAKEN_BACK], 2, "Its machine was taken back; waiting for another"),
        ("RUNNING", [TAKEN_BACK], 2, "Its machine was taken back; running again on another"),
        ("RUNNING", [TAKEN_BACK, {"container": {}}], 2, "Its machine was taken back; running again on another"),
        ("RUNNABLE", [TAKEN_BACK, TAKEN_BACK], 3, "Its machine was taken back; waiting for another"),
        (
            "RUNNABLE",
            [NOT_STARTED],
            2,
            "It could not be run (Its container image could not be fetched: CannotPullContainerError: timed out); "
            "waiting to run again",
        ),
        ("FAILED", [TAKEN_BACK, TAKEN_BACK, TAKEN_BACK], None, ""),
        ("SUCCEEDED", [TAKEN_BACK, {"container": {}}], None, ""),
    ],
)
def test_attempts_are_counted_by_those_that_are_over(
    world: World, status: str, attempts: list[dict[str, Any]], attempt: int | None, again: str
) -> None:
    """moto knows of no attempts, so these are answers as AWS documents them."""
    compute = world.compute()
    job = compute.submit(WORK)
    described = _described(job) | {"status": status, "statusReason": "", "attempts": attempts}
    _reply(world.clients.batch, "DescribeJobs", [{"jobs": [described]}])

    seen = compute.observe([job])[job]

    assert (seen.attempt, seen.attempts, seen.again) == (attempt, 3, again)


@pytest.mark.parametrize(
    ("reason", "container_reason", "exit_code", "words"),
    [
        ("Host EC2 (instance i-0123456789) terminated.", "", None, "machine it ran on was taken back"),
        (
            "Task failed to start",
            "ECS was unable to assume the role 'arn:aws:iam::123456789012:role/nomads-job' that was provided.",
            None,
            "could not use the role that it is to run with",
        ),
        (
            "Essential container in task exited",
            "OutOfMemoryError: Container killed due to memory usage",
            137,
            "more memory than it was given",
        ),
        ("Essential container in task exited", "", 137, "more memory than it was given"),
        ("Job attempt duration exceeded timeout", "", 137, "longer than its pipeline allows"),
        ("Essential container in task exited", "", 3, "The program ended with exit code 3."),
        ("Cancelled by U0DEMO.", "", 137, "Cancelled by U0DEMO."),
        ("Task failed to start", "CannotPullContainerError: no such image", None, "image could not be fetched"),
        (
            "Task failed to start",
            "ResourceInitializationError: unable to pull secrets or registry auth",
            None,
            "could not hand it the token",
        ),
        ("Task failed to start", "Something new", None, "Task failed to start — Something new"),
        ("", "", None, ""),
    ],
)
def test_reasons_are_worded_for_people(
    world: World, reason: str, container_reason: str, exit_code: int | None, words: str
) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    set_state(job, JobState.FAILED, reason=reason, container_reason=container_reason, exit_code=exit_code)

    seen = compute.observe([job])[job]

    assert words in seen.reason
    assert bool(words) == bool(seen.reason)
    assert seen.exit_code == exit_code


@pytest.mark.parametrize(
    ("reason", "container_reason", "exit_code", "cause"),
    [
        ("Host EC2 (instance i-0) terminated.", "", 137, Cause.MACHINE),
        ("Essential container in task exited", "OutOfMemoryError: killed", 137, Cause.MEMORY),
        ("Essential container in task exited", "", 137, Cause.MEMORY),
        ("Job attempt duration exceeded timeout", "", 137, Cause.TIME_LIMIT),
        ("Task failed to start", "CannotPullContainerError: no such image", None, Cause.IMAGE),
        ("Task failed to start", "CannotStartContainerError: exec: python4: not found", None, Cause.IMAGE),
        ("Task failed to start", "ResourceInitializationError: unable to retrieve secret from asm", None, Cause.SECRET),
        ("Task failed to start", "ECS was unable to assume the role 'arn:aws:iam::1:role/x'.", None, Cause.ROLE),
        ("Essential container in task exited", "", 1, Cause.PROGRAM),
        ("Essential container in task exited", "", 2, Cause.REQUEST),
        ("Essential container in task exited", "", 3, Cause.VOLUME),
        ("Ended by an admin", "", 1, Cause.UNKNOWN),
        ("Task failed to start", "Something new", None, Cause.UNKNOWN),
    ],
)
def test_what_made_a_job_fail_is_told_apart(
    world: World, reason: str, container_reason: str, exit_code: int | None, cause: Cause
) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    set_state(job, JobState.FAILED, reason=reason, container_reason=container_reason, exit_code=exit_code)

    assert compute.observe([job])[job].why is cause


@pytest.mark.parametrize(
    ("status_reason", "words"),
    [
        (
            "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity requested for instance type "
            "[c5.large]",
            "AWS has no free machine of the kind it needs just now; it starts by itself once there is one. "
            "Whoever looks after the AWS account can allow more kinds of machines.",
        ),
        (
            "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - CE(s) associated with the job queue cannot meet the "
            "CPU requirement of the job.",
            "whoever looks after the AWS account has to raise the compute environment's maximum.",
        ),
        (
            "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher than "
            "that can be met by the CE(s) attached to the job queue.",
            "a smaller box may need less.",
        ),
        (
            "MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS – Batch service role has a permission issue.",
            "has to mend the permissions of AWS Batch's service role.",
        ),
        (
            "MISCONFIGURATION:EC2_INSTANCE_CONFIGURATION_UNSUPPORTED - Your compute environment associated with this "
            "job queue has an unsupported instance type configuration.",
            "whoever looks after the AWS account has to choose others.",
        ),
        (
            "MISCONFIGURATION:SOMETHING_NEW - The {queue} is odd.",
            "The queue cannot run it as it is set up (MISCONFIGURATION:SOMETHING_NEW - The {queue} is odd): "
            "whoever looks after the AWS account has to change that.",
        ),
        (
            "ACTION_REQUIRED - CE(s) associated with the job queue are invalid.",
            "(ACTION_REQUIRED - CE(s) associated with the job queue are invalid): whoever looks after the AWS account",
        ),
        ("UNDETERMINED - Batch job is blocked, root cause is undetermined.", "AWS does not know what: whoever"),
        ("Host EC2 (instance i-0) terminated.", "It starts again by itself on another one."),
        ("Waiting for\nthe\x1b[31m moon", "Waiting for the [31m moon"),
        ("capacity is a word", "capacity is a word"),
        ("x" * 1000, "x" * 299 + "…"),
        (None, ""),
    ],
)
def test_a_job_that_waits_says_why_and_who_can_help(world: World, status_reason: str | None, words: str) -> None:
    """moto gives waiting jobs no reason, so these are answers as AWS documents them."""
    compute = world.compute()
    job = compute.submit(WORK)
    described = {"jobId": job, "jobName": WORK.name, "status": "RUNNABLE", "attempts": [], "container": {}}
    if status_reason is not None:
        described["statusReason"] = status_reason
    _reply(world.clients.batch, "DescribeJobs", [{"jobs": [described]}])

    seen = compute.observe([job])[job]

    assert seen.state is JobState.RUNNABLE
    assert words in seen.reason
    assert bool(seen.reason) == bool(words)
    assert seen.reason.isprintable()
    assert len(seen.reason) < 500


def test_a_job_that_the_queue_s_limit_ended_says_that_it_could_not_start(world: World) -> None:
    job = world.compute().submit(WORK)
    set_state(job, JobState.FAILED, reason="CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - no machines.")
    moto_job(job).how_ended = "isCancelled"
    seen = world.compute().observe([job])[job]
    assert seen.state is JobState.FAILED
    assert seen.reason == (
        "It could not start, and the queue gave it up after the time that it allows "
        "(CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - no machines): ask whoever looks after the AWS account."
    )


def test_a_revision_that_somebody_made_by_hand_from_ours_is_not_taken_for_ours(world: World) -> None:
    """The console copies tags, so our fingerprint stands on content that is not ours."""
    world.compute().submit(WORK)
    [ours] = world.asked("batch.RegisterJobDefinition")
    client = boto3.client("batch", region_name="eu-west-2")
    client.register_job_definition(**{**ours, "retryStrategy": {"attempts": 1}})

    world.compute().submit(replace(WORK, name="another-name"))

    first, second = world.asked("batch.SubmitJob")
    assert first["jobDefinition"] == second["jobDefinition"], "the right revision is still there"
    assert len(world.asked("batch.RegisterJobDefinition")) == 1


@pytest.mark.parametrize("flag", ["isTerminated", "isCancelled"])
@pytest.mark.parametrize("container", [{}, {"exitCode": 143}, {"exitCode": 137, "reason": "OutOfMemoryError: killed"}])
def test_a_job_that_was_ended_has_the_reason_it_was_ended_for(
    world: World, flag: str, container: dict[str, Any]
) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    described = _described(job, **container) | {"statusReason": "Cancelled from NOMADS.", flag: True}
    _reply(world.clients.batch, "DescribeJobs", [{"jobs": [described]}])

    seen = compute.observe([job])[job]

    assert (seen.state, seen.reason) == (JobState.FAILED, "Cancelled from NOMADS.")


def test_a_job_that_aws_ended_at_its_limit_says_so_whatever_its_flags(world: World) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    ended = {"statusReason": "Job attempt duration exceeded timeout", "isTerminated": True}
    _reply(world.clients.batch, "DescribeJobs", [{"jobs": [_described(job, exitCode=137) | ended]}])

    assert "longer than its pipeline allows" in compute.observe([job])[job].reason


@pytest.mark.parametrize(
    "senseless",
    [
        {},
        {"status": "NEW_STATUS"},
        {"status": "RUNNING", "attempts": [None]},
        {"status": "RUNNING", "attempts": "two"},
        {"status": "RUNNING", "startedAt": "yesterday"},
        {"status": "RUNNING", "startedAt": 10**30},
        {"status": "RUNNING", "container": ["exitCode"]},
        {"status": "RUNNING", "container": {"logStreamName": 7}},
        {"status": "FAILED", "container": {"exitCode": 2**40}},
        {"status": "RUNNING", "retryStrategy": {"attempts": "three"}},
    ],
)
def test_a_job_of_which_aws_says_nothing_that_makes_sense_is_in_doubt_by_itself(
    world: World, senseless: dict[str, Any]
) -> None:
    strange, sound, gone = (str(uuid.uuid4()) for _ in range(3))
    told = {"jobs": [{"jobId": strange, **senseless}, {"jobId": sound, "status": "RUNNING", "attempts": None}]}
    answer_otherwise(world.clients.batch, "batch.DescribeJobs", status=200, content=json.dumps(told).encode())

    with pytest.raises(Unclear, match="makes no sense") as caught:
        world.compute().observe([strange, sound, gone])

    assert caught.value.ids == {strange}
    assert {job: seen.state for job, seen in caught.value.seen.items()} == {sound: JobState.RUNNING}


@pytest.mark.parametrize("nameless", [None, "a", 7, [], {"status": "RUNNING"}, {"jobId": 7, "status": "RUNNING"}])
def test_an_answer_about_no_job_leaves_in_doubt_every_job_that_is_missing_from_it(world: World, nameless: Any) -> None:
    missing, sound = (str(uuid.uuid4()) for _ in range(2))
    told = {"jobs": [nameless, {"jobId": sound, "status": "RUNNABLE"}]}
    answer_otherwise(world.clients.batch, "batch.DescribeJobs", status=200, content=json.dumps(told).encode())

    with pytest.raises(Unclear) as caught:
        world.compute().observe([missing, sound])

    assert caught.value.ids == {missing}
    assert list(caught.value.seen) == [sound]


def test_jobs_are_described_in_hundreds_each_once(world: World) -> None:
    compute = world.compute()
    job = compute.submit(WORK)

    seen = compute.observe([job, *(str(uuid.uuid4()) for _ in range(249)), job])

    assert list(seen) == [job]
    assert sorted(len(asked["jobs"]) for asked in world.asked("batch.DescribeJobs")) == [50, 100, 100]


def test_unknown_foreign_and_forgotten_ids_are_absent(world: World) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    forget(job)

    assert compute.observe([job, NO_SUCH_JOB, "local-17", ""]) == {}
    assert world.asked("batch.DescribeJobs") == [{"jobs": [job, NO_SUCH_JOB]}]
    assert compute.observe([]) == {}


def test_a_hundred_that_fails_fails_the_round(world: World) -> None:
    answer(world.clients.batch, "batch.DescribeJobs", status=500, code="ServerException", message="oh dear")
    with pytest.raises(Unavailable, match="oh dear"):
        world.compute().observe([str(uuid.uuid4()) for _ in range(250)])


def test_ten_thousand_jobs_are_observed_within_two_seconds_of_processor_time(world: World) -> None:
    ids = [str(uuid.uuid4()) for _ in range(10_000)]
    spent, here = 0.0, threading.local()

    def sent(**_: Any) -> None:
        """From here on it is AWS's work, which does not count."""
        here.since = time.thread_time()

    def reply(response_dict: dict[str, Any], **_: Any) -> None:
        nonlocal spent
        response_dict["body"] = json.dumps({"jobs": [_described(job) for job in next(hundreds)]}).encode()
        spent += time.thread_time() - here.since

    hundreds = iter([ids[at : at + 100] for at in range(0, len(ids), 100)])
    world.clients.batch.meta.events.register_first("before-send.batch.DescribeJobs", sent)
    world.clients.batch.meta.events.register_first("before-parse.batch.DescribeJobs", reply)
    compute = world.compute()

    begin = time.process_time()
    seen = compute.observe(ids)
    used = time.process_time() - begin - spent

    assert len(seen) == 10_000
    assert len(world.asked("batch.DescribeJobs")) == 100
    assert used < 2, f"{used:.2f} s"


@pytest.mark.parametrize("state", [JobState.SUBMITTED, JobState.RUNNABLE, JobState.RUNNING])
def test_cancelling_ends_queued_and_running_jobs_as_failed_with_the_reason(world: World, state: JobState) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    set_state(job, state)

    compute.cancel(job, reason="Cancelled by U0DEMO.")

    seen = compute.observe([job])[job]
    assert (seen.state, seen.reason) == (JobState.FAILED, "Cancelled by U0DEMO.")
    assert world.asked("batch.TerminateJob") == [{"jobId": job, "reason": "Cancelled by U0DEMO."}]


def test_cancelling_what_is_over_or_unknown_does_nothing(world: World) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    set_state(job, JobState.SUCCEEDED, exit_code=0)

    for compute_id in (job, NO_SUCH_JOB, "local-17"):
        compute.cancel(compute_id, reason="")

    assert compute.observe([job])[job].state is JobState.SUCCEEDED
    assert all(asked["reason"] for asked in world.asked("batch.TerminateJob"))


def test_a_refusal_to_cancel_counts_only_while_the_job_lives(world: World) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    answer(world.clients.batch, "batch.TerminateJob", code="ClientException", message="no")
    with pytest.raises(Refused, match="did not end the job"):
        compute.cancel(job, reason="x")

    set_state(job, JobState.FAILED)
    compute.cancel(job, reason="x")
    forget(job)
    compute.cancel(job, reason="x")
    assert len(world.asked("batch.TerminateJob")) == 3


def test_the_log_s_tail_comes_in_order_with_or_without_the_stream_s_name(world: World) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    write_log(job, *(f"line {n}" for n in range(30)))
    set_state(job, JobState.FAILED, exit_code=1)
    stream = compute.observe([job])[job].log

    expected = [f"line {n}" for n in range(10, 30)]
    assert texts(world.logs().tail(job, log=stream, lines=20)) == expected
    assert texts(world.logs().tail(job, log=None, lines=20)) == expected
    assert texts(world.logs().tail(job, log=stream, lines=100)) == [f"line {n}" for n in range(30)]
    assert world.asked("logs.GetLogEvents")[0] == {
        "logGroupName": "/aws/batch/job",
        "logStreamName": stream,
        "limit": 20,
        "startFromHead": False,
    }


def test_a_line_has_the_time_of_its_event(world: World) -> None:
    _pages(
        world, [{"events": [{"message": "a\r\nb\u2028c", "timestamp": 1_767_323_045_600}], "nextBackwardToken": "b"}]
    )

    at = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
    assert world.logs().tail(NO_SUCH_JOB, log="stream", lines=2) == [LogLine("a", at), LogLine("b\u2028c", at)]


def _pages(world: World, pages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Let CloudWatch answer with these pages, in turn, and with the last one ever after; gives those not yet asked."""
    left = iter(pages)
    last = pages[-1]
    events: Any = world.clients.logs.meta.events
    events.register(
        "before-call.cloudwatch-logs.GetLogEvents", lambda **_: (SimpleNamespace(status_code=200), next(left, last))
    )
    return left


def test_the_whole_log_is_read_from_its_head_until_the_token_repeats(world: World) -> None:
    _pages(
        world,
        [
            {"events": [{"message": "one"}, {"message": "two\nthree\n"}], "nextForwardToken": "f/1"},
            {"events": [], "nextForwardToken": "f/2"},
            {"events": [{"message": "four \x1b[0m\0 \ud800 🧠"}], "nextForwardToken": "f/3"},
            {"events": [], "nextForwardToken": "f/3"},
        ],
    )

    pieces = list(world.logs().whole(NO_SUCH_JOB, log="stream"))

    assert pieces == [b"one\ntwo\nthree\n", "four \x1b[0m\0 ? 🧠\n".encode()]
    first, *others = world.asked("logs.GetLogEvents")
    assert first == {
        "logGroupName": "/aws/batch/job",
        "logStreamName": "stream",
        "limit": 10_000,
        "startFromHead": True,
    }
    assert [asked["nextToken"] for asked in others] == ["f/1", "f/2", "f/3"]


def test_a_page_of_the_log_is_fetched_when_it_is_asked_for(world: World) -> None:
    event = {"message": "x" * 1000}
    left = _pages(world, [{"events": [event] * 1000, "nextForwardToken": f"f/{n}"} for n in range(2000)])

    pieces = world.logs().whole(NO_SUCH_JOB, log="stream")

    assert world.asked("logs.GetLogEvents") == []
    assert len(next(pieces)) <= 1_001_000
    next(pieces)
    assert len(list(left)) == 1998


@pytest.mark.parametrize("asked_before", [0, 1])
def test_an_error_of_the_log_comes_while_it_is_iterated(world: World, asked_before: int) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    write_log(job, "one")
    set_state(job, JobState.RUNNING)
    pieces = world.logs().whole(job, log=None)
    for _ in range(asked_before):
        assert next(pieces) == b"one\n"
    answer(world.clients.logs, "logs.GetLogEvents", status=400, code="ThrottlingException", message="slow down")

    with pytest.raises(Unavailable, match="CloudWatch did not show the log: slow down"):
        next(pieces)


def test_a_log_that_may_not_be_read_is_refused(world: World) -> None:
    answer(world.clients.logs, "logs.GetLogEvents", code="AccessDeniedException", message="no")
    with pytest.raises(Refused, match="AccessDenied"):
        world.logs().tail(NO_SUCH_JOB, log="stream", lines=5)
    with pytest.raises(Refused, match="AccessDenied"):
        list(world.logs().whole(NO_SUCH_JOB, log="stream"))


def test_striking_out_a_secret_asks_aws_nothing(world: World) -> None:
    world.logs().redact(NO_SUCH_JOB, SecretStr("demo-token"))

    assert world.operations == []


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-west-2", "eu-west-2.console.aws.amazon.com"),
        ("cn-north-1", "cn-north-1.console.amazonaws.cn"),
        ("us-gov-west-1", "us-gov-west-1.console.amazonaws-us-gov.com"),
    ],
)
def test_a_job_has_its_page_in_the_console_of_the_region_s_partition(region: str, host: str) -> None:
    with aws_world(region=region, empty=True) as world:
        compute = world.compute()

        page = f"https://{host}/batch/home?region={region}#jobs/detail/{NO_SUCH_JOB}"
        assert compute.console(NO_SUCH_JOB) == page
        assert compute.console("local-17") == compute.console("") == ""
        assert world.operations == []


def test_an_empty_page_of_the_log_is_turned_back(world: World) -> None:
    """CloudWatch may answer with nothing although there is more; the token that repeats itself is the end."""
    _pages(
        world,
        [
            {"events": [], "nextBackwardToken": "b/1"},
            {"events": [{"message": "two\nthree\n", "timestamp": 2}], "nextBackwardToken": "b/2"},
            {"events": [{"message": "one", "timestamp": 1}], "nextBackwardToken": "b/3"},
            {"events": [], "nextBackwardToken": "b/3"},
        ],
    )
    assert texts(world.logs().tail(NO_SUCH_JOB, log="stream", lines=20)) == ["one", "two", "three"]
    assert [asked.get("nextToken") for asked in world.asked("logs.GetLogEvents")] == [None, "b/1", "b/2", "b/3"]


def test_a_missing_log_is_an_empty_one(world: World) -> None:
    compute = world.compute()
    job = compute.submit(WORK)

    assert world.logs().tail(job, log=None, lines=20) == []
    assert world.logs().tail(job, log="no/such/stream", lines=20) == []
    assert world.logs().tail(NO_SUCH_JOB, log=None, lines=20) == []


def test_names_are_brought_into_batch_s_alphabet_and_stay_apart() -> None:
    assert clean_name("plain_name-1") == "plain_name-1"
    odd = [clean_name(name) for name in ("a b", "a/b", "-a-b", "", "é", "x" * 129, "x" * 130)]
    assert len(set(odd)) == len(odd)
    for name in odd:
        assert 1 <= len(name) <= 128
        assert name[0].isascii()
        assert name[0].isalnum()
        assert all(c.isascii() and (c.isalnum() or c in "-_") for c in name)


def test_tags_are_brought_into_aws_s_alphabet_and_lengths() -> None:
    assert clean_tags({"user": "cli:somebody@host", "aws:mine": "x", "": "x", "note": "<b>one\ntwo"}) == {
        "user": "cli:somebody@host",
        "note": "-b-one-two",
    }
    [(key, value)] = clean_tags({"k" * 200: "v" * 300}).items()
    assert (len(key), len(value)) == (128, 256)
    assert len(clean_tags({str(n): "" for n in range(60)})) == 40


def test_ids_of_two_computes_on_one_config_are_the_same_jobs(world: World) -> None:
    """Compute keeps nothing that matters: another process carries on."""
    job = world.compute().submit(WORK)
    other = BatchCompute(config=world.config)
    assert other.find(WORK.name) == job
    assert other.observe([job])[job].state is JobState.SUBMITTED


@pytest.mark.parametrize(
    ("status", "container", "cause", "words"),
    [
        (
            "Task failed to start",
            "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval "
            "failed: unable to retrieve ecr registry auth: AccessDeniedException",
            Cause.IMAGE,
            "container image could not be fetched",
        ),
        (
            "Task failed to start",
            "Fetching secret data from AWS Secrets Manager in region us-east-1: secret nomads/x: "
            "ResourceNotFoundException",
            Cause.SECRET,
            "could not hand it the token",
        ),
        (
            "Essential container in task exited",
            "CannotCreateContainerError: no space left on device",
            Cause.DISK,
            "no room left on its disk",
        ),
        (
            "Task failed to start",
            "CannotPullContainerError: failed to register layer: write /usr/lib/x: no space left on device",
            Cause.DISK,
            "no room left on its disk",
        ),
    ],
)
def test_a_failure_is_told_by_what_aws_says_failed(
    world: World, status: str, container: str, cause: Cause, words: str
) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    described = {"jobId": job, "status": "FAILED", "statusReason": status, "container": {"reason": container}}
    _reply(world.clients.batch, "DescribeJobs", [{"jobs": [described]}])

    seen = compute.observe([job])[job]

    assert seen.why is cause
    assert words in seen.reason


def test_a_person_s_own_reason_is_no_time_limit_whatever_words_it_has(world: World) -> None:
    compute = world.compute()
    job = compute.submit(WORK)
    ended = {"statusReason": "my note: it exceeded timeout of my patience", "isTerminated": True}
    _reply(world.clients.batch, "DescribeJobs", [{"jobs": [_described(job, exitCode=137) | ended]}])

    seen = compute.observe([job])[job]

    assert (seen.reason, seen.why) == ("my note: it exceeded timeout of my patience", Cause.UNKNOWN)


def test_work_that_should_last_goes_to_the_queue_on_demand_and_is_found_there() -> None:
    with aws_world(queue_on_demand="steady") as world:
        (environment,) = world.clients.batch.describe_compute_environments()["computeEnvironments"]
        world.clients.batch.create_job_queue(
            jobQueueName="steady",
            state="ENABLED",
            priority=1,
            computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment["computeEnvironmentArn"]}],
        )
        both = [replace(WORK, name=f"l-{lasting}", lasting=lasting) for lasting in (False, True)]
        usual, lasting = map(world.compute().submit, both)

        queues = [job["jobQueue"] for job in world.clients.batch.describe_jobs(jobs=[usual, lasting])["jobs"]]
        assert queues[0].endswith("/nomads-queue")
        assert queues[1].endswith("/steady")
        assert world.compute().find("l-True") == lasting
        assert world.compute().find("l-False") == usual


def test_a_submission_takes_its_turn_when_its_job_definition_is_there_right_before_submit_job(world: World) -> None:
    compute = world.compute()
    before: list[int] = []
    for number, owner in enumerate(("U0DEMO", "U0DEMO", "U0OTHER")):
        work = replace(WORK, name=f"turn-{number}", owner=owner)
        compute.submit(work, turn=lambda: before.append(len(world.operations)))

    assert len(before) == 3
    submitted = [at for at, operation in enumerate(world.operations) if operation == "batch.SubmitJob"]
    assert submitted == before


def test_a_submission_whose_job_definition_is_gone_takes_a_turn_for_each_request(world: World) -> None:
    compute = world.compute()
    compute.submit(WORK)
    [definition] = world.clients.batch.describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    world.clients.batch.deregister_job_definition(jobDefinition=definition["jobDefinitionArn"])
    answer(world.clients.submitter, "batch.SubmitJob", code="ClientException", status=400)
    turns: list[None] = []

    with pytest.raises(Refused):
        compute.submit(replace(WORK, name="again"), turn=lambda: turns.append(None))

    assert len(turns) == world.operations.count("batch.SubmitJob") - 1 == 2


def test_a_queue_with_fair_shares_is_told_whose_job_it_is_without_the_name() -> None:
    with aws_world(fair_share=True) as world:
        compute = world.compute()
        for number, owner in enumerate(("U0DEMO", "U0DEMO", "U0OTHER", "Ana María@lab")):
            compute.submit(replace(WORK, name=f"share-{number}", owner=owner))

        shares = [asked["shareIdentifier"] for asked in world.asked("batch.SubmitJob")]
        assert shares[0] == shares[1]
        assert len(set(shares)) == 3
        assert all(share.isalnum() and share.isascii() for share in shares)
        assert not [share for share in shares if "demo" in share.lower() or "ana" in share.lower()]


def test_ten_thousand_people_have_fewer_share_identifiers_than_a_queue_takes_and_nobody_has_many_beside_them() -> None:
    people = [f"U{number:09}" for number in range(10_000)]
    shares = Counter(map(share_of, people))

    assert len(shares) == SHARES == 400  # of 500 that AWS takes
    assert max(shares.values()) < 2.5 * len(people) / SHARES
    assert all(re.fullmatch(r"[A-Za-z0-9]{1,255}", share) for share in shares)
    assert share_of("U0DEMO") == "share109"  # in every process and every release


def test_a_queue_with_fair_shares_is_given_a_priority_with_each_share_as_it_refuses_one_without() -> None:
    with aws_world(fair_share=True) as world:
        world.compute().submit(WORK)

        [asked] = world.asked("batch.SubmitJob")
        assert asked["shareIdentifier"] == share_of("U0DEMO")
        assert asked["schedulingPriorityOverride"] == 0


def test_a_queue_without_fair_shares_takes_neither_a_share_identifier_nor_a_priority(world: World) -> None:
    world.compute().submit(WORK)

    assert not {"shareIdentifier", "schedulingPriorityOverride"} & set(world.asked("batch.SubmitJob")[0])


@pytest.mark.parametrize("share", [{"shareIdentifier": "share109"}, {"schedulingPriorityOverride": 0}])
def test_the_aws_of_these_tests_refuses_a_share_without_a_priority_and_a_priority_without_a_share(
    world: World, share: dict[str, Any]
) -> None:
    world.compute().submit(WORK)
    [asked] = world.asked("batch.SubmitJob")

    with pytest.raises(AssertionError, match="a share has a priority"):
        world.clients.submitter.submit_job(**asked, **share)


@pytest.mark.parametrize(
    ("count", "lasting", "queue", "attempts"),
    [
        (3, False, "steady", 2),
        (1, False, "steady", 2),
        (3, True, "steady", None),
        (3, False, "", None),
        (None, False, "steady", 2),
        (None, True, "steady", None),
        (None, False, "", None),
    ],
)
def test_work_that_lost_two_machines_is_left_to_machines_that_are_not_taken_back(
    count: int | None, lasting: bool, queue: str, attempts: int | None
) -> None:
    with aws_world(queue_on_demand=queue) as world:
        answer(world.clients.submitter, "batch.SubmitJob", status=500)
        with pytest.raises(Unavailable):
            world.compute().submit(replace(WORK, count=count, lasting=lasting))

        [asked] = world.asked("batch.SubmitJob")
        [registered] = world.asked("batch.RegisterJobDefinition")
        usual = registered["retryStrategy"]
        assert usual["attempts"] == 3
        assert asked.get("retryStrategy") == (attempts and usual | {"attempts": attempts})
