"""AWS and a mail server, which answer at once with as little as the bot needs, or (`--hang`) not at all.

The servers are asyncio on bare sockets, since benchmarks share their two cores with them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from collections import Counter
from contextlib import suppress
from typing import Any

from bench.processes import say

ACCOUNT, REGION = "123456789012", "eu-west-2"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NOMADS_COMPUTE": "aws",
    "NOMADS_AWS_REGION": REGION,
    "NOMADS_AWS_BUCKET": "nomads-results-for-benchmarks",
    "NOMADS_AWS_EXECUTION_ROLE": f"arn:aws:iam::{ACCOUNT}:role/nomads-execution",
    "NOMADS_AWS_JOB_ROLE": f"arn:aws:iam::{ACCOUNT}:role/nomads-job",
    "NOMADS_IMAGES": json.dumps({"nomads-unsupervised": "registry.test/nomads-unsupervised:1"}),
}
"""Settings of a bot that uses these services, but for their addresses."""

calls: Counter[str] = Counter()
"""The number of calls of each AWS operation."""


def main() -> None:
    """Serve until standard input ends; answer every question with the calls so far."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hang", type=float, default=0, help="seconds to keep silent before hanging up")
    asyncio.run(_serve(parser.parse_args().hang))


async def _serve(hang: float) -> None:
    async def silence(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # the end of the benchmark
            await asyncio.sleep(hang)
        writer.close()

    aws, smtp = (silence, silence) if hang else (_aws, _smtp)
    first = await asyncio.start_server(aws, "127.0.0.1", 0, backlog=1024)
    second = await asyncio.start_server(smtp, "127.0.0.1", 0, backlog=1024)
    ports = [server.sockets[0].getsockname()[1] for server in (first, second)]
    say(aws=f"http://127.0.0.1:{ports[0]}", smtp=f"smtp://127.0.0.1:{ports[1]}", boss=f"http://127.0.0.1:{ports[0]}")
    while await asyncio.to_thread(sys.stdin.readline):
        say(**calls)


async def _aws(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if headers.get("expect"):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
            operation = headers.get("x-amz-target", first.split(" ")[1]).rpartition("." if first[5:7] == "/ " else "/")[
                2
            ]
            calls[operation] += 1
            content = json.dumps(_answer(operation, body)).encode()
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                + content
            )
    except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
        writer.close()


def _answer(operation: str, asked: dict[str, Any]) -> dict[str, Any]:
    match operation:
        case "describejobdefinitions":
            return {"jobDefinitions": []}
        case "registerjobdefinition":
            name = asked["jobDefinitionName"]
            return {
                "jobDefinitionName": name,
                "jobDefinitionArn": _arn("batch", f"job-definition/{name}:1"),
                "revision": 1,
            }
        case "submitjob":
            return {"jobName": asked["jobName"], "jobId": str(uuid.uuid4())}
        case "describejobs":
            return {"jobs": [_job(job) for job in asked["jobs"]]}
        case "listjobs":
            return {"jobSummaryList": []}
        case "CreateSecret":
            return {"ARN": _arn("secretsmanager", f"secret:{asked['Name']}-AbCdEf"), "Name": asked["Name"]}
    raise ValueError(f"the benchmarks' AWS knows no {operation}")


def _job(identity: str) -> dict[str, Any]:
    """A running job as DescribeJobs shows it, in its usual length of some 3 kB."""
    return {
        "jobArn": _arn("batch", f"job/{identity}"),
        "jobId": identity,
        "jobName": f"nomads-unsupervised_demo_cortex_z_0_16_y_0_512_x_0_512-{identity[:8]}",
        "jobQueue": _arn("batch", "job-queue/nomads-queue"),
        "jobDefinition": _arn("batch", "job-definition/nomads_nomads-unsupervised_0123456789ab:7"),
        "status": "RUNNING",
        "shareIdentifier": "default",
        "schedulingPriority": 0,
        "createdAt": 1767225600123,
        "startedAt": 1767225660456,
        "attempts": [],
        "retryStrategy": {
            "attempts": 3,
            "evaluateOnExit": [
                {"onStatusReason": "Host EC2*", "action": "RETRY"},
                {"onReason": "*", "action": "EXIT"},
            ],
        },
        "dependsOn": [],
        "parameters": {},
        "container": {
            "image": "registry.test/nomads-unsupervised:1",
            "command": [
                *("python3", "-m", "pipelines.unsupervised", "--host", "api.bossdb.io", "--col", "demo"),
                *("--exp", "cortex", "--z-range", "0,16", "--y-range", "0,512", "--x-range", "0,512"),
                *("--results-uri", "s3://nomads-results-for-benchmarks/demo_cortex_z_0_16_y_0_512_x_0_512/abcdefgh/"),
            ],
            "jobRoleArn": f"arn:aws:iam::{ACCOUNT}:role/nomads-job",
            "executionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/nomads-execution",
            "volumes": [],
            "environment": [{"name": "AWS_DEFAULT_REGION", "value": REGION}],
            "mountPoints": [],
            "ulimits": [],
            "containerInstanceArn": _arn(
                "ecs", "container-instance/nomads-ce_Batch_0123/0123456789abcdef0123456789abcdef"
            ),
            "taskArn": _arn("ecs", "task/nomads-ce_Batch_0123/fedcba9876543210fedcba9876543210"),
            "logStreamName": f"nomads_nomads-unsupervised/default/{identity.replace('-', '')}",
            "networkInterfaces": [],
            "resourceRequirements": [{"value": "2", "type": "VCPU"}, {"value": "1280", "type": "MEMORY"}],
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {"awslogs-group": "/aws/batch/job", "awslogs-region": REGION},
                "secretOptions": [],
            },
            "secrets": [
                {
                    "name": "BOSS_TOKEN",
                    "valueFrom": _arn("secretsmanager", f"secret:nomads/{'0' * 32}/{'1' * 32}-AbCdEf"),
                }
            ],
        },
        "timeout": {"attemptDurationSeconds": 3600},
        "tags": {
            "job": identity[:8],
            "user": "U01DEMO",
            "pipeline": "nomads-unsupervised",
            "resourceArn": _arn("batch", f"job/{identity}"),
        },
        "propagateTags": True,
        "platformCapabilities": ["EC2"],
        "eksAttempts": [],
        "isCancelled": False,
        "isTerminated": False,
    }


def _arn(service: str, name: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"


async def _smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        writer.write(b"220 benchmarks\r\n")
        while line := (await reader.readline()).upper():
            match line[:4].strip():
                case b"DATA":
                    writer.write(b"354 go on\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    writer.write(b"250 taken\r\n")
                case b"QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                case _:
                    writer.write(b"250 fine\r\n")
    except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
        pass
    writer.close()


if __name__ == "__main__":
    main()
