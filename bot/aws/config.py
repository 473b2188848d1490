"""The settings of the AWS module, each named in the environment as NOMADS_AWS_ and its name.

Nothing that belongs to one account, region or network has a default.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

BatchName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,127}$",
        description="3 to 128 letters, digits, - and _, that begin with a letter or digit",
    ),
]
RoleArn = Annotated[
    str,
    Field(
        pattern=r"^$|^arn:[a-z-]+:iam::[0-9]{12}:(role|instance-profile)/.+$",
        description="the ARN of a role, such as arn:aws:iam::123456789012:role/nomads",
    ),
]
Bucket = Annotated[
    str,
    Field(
        pattern=r"^$|^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        description="a bucket's name: 3 to 63 lower-case letters, digits, dots and dashes",
    ),
]
Region = Annotated[str, Field(pattern=r"^$|^[a-z]+(-[a-z]+)+-[0-9]+$", description="a region, such as eu-west-2")]
InstanceRole = Annotated[
    str,
    Field(
        pattern=r"^$|^[A-Za-z0-9+=,.@_-]{1,128}$|^arn:[a-z-]+:iam::[0-9]{12}:instance-profile/.+$",
        description="the name of an instance profile, or its ARN",
    ),
]
LOG_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731),
    *(1096, 1827, 2192, 2557, 2922, 3288, 3653),
)
"""Days for which CloudWatch can retain lines (API reference, PutRetentionPolicy)."""


class AwsConfig(BaseSettings):
    """Names and places in the AWS account; credentials come from boto3's usual chain."""

    model_config = SettingsConfigDict(
        env_prefix="NOMADS_AWS_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        enable_decoding=False,
    )

    region: Region = ""
    """Empty: boto3's usual chain decides."""
    queue: BatchName = "nomads-queue"
    queue_on_demand: Annotated[
        str, Field(pattern=r"^$|^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$", description="a queue's name")
    ] = ""
    """A queue on machines that are not taken back, for what was reclaimed from the other; empty: there is none."""
    events_queue: Annotated[
        str,
        Field(
            pattern=r"^$|^https?://[^/\s]+/\S+$",
            description="the URL of a queue of SQS, such as https://sqs.eu-west-2.amazonaws.com/123456789012/nomads",
        ),
    ] = ""
    """The SQS queue that AWS Batch's events come to; empty: AWS Batch is asked about every job every ten seconds."""
    fair_share: bool = False
    """Whether the queues share machines fairly among people: such a queue takes no job without a share identifier."""
    compute_environment: BatchName = "nomads-ce"
    bucket: Bucket = ""
    """Where results go. Bucket names are shared by all of AWS, so there is no default."""
    prefix: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,31}$",
            description="1 to 32 letters, digits and dashes, that begin with a letter or digit",
        ),
    ] = "nomads"
    """Begins the names of job definitions (`nomads_…`) and secrets (`nomads/…`); the IAM policies rely on that."""

    execution_role: RoleArn = ""
    """The role that starts a container: it reads the token's secret and writes the log."""
    job_role: RoleArn = ""
    """The role of the program: it writes results to the bucket."""
    instance_role: InstanceRole = ""
    """The instance profile of the machines, by name or ARN, at which `doctor` looks."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Starts of a job before the loss of its machine, or a container that could not be started, is its failure."""
    stuck_seconds: Annotated[int, Field(ge=600, le=86_400)] = 86_400
    """Seconds that a job which cannot start may block the queue; AWS takes ten minutes to a day."""
    log_group: Annotated[
        str,
        Field(
            pattern=r"^[.\-_/#A-Za-z0-9]{1,512}$",
            description="the name of a log group: letters, digits and . - _ / #, 512 at most",
        ),
    ] = "/aws/batch/job"
    log_days: Annotated[int, Field(ge=1, le=100_000)] = 90
    """Days that the log group retains its lines; one of LOG_DAYS."""
    link_lifetime: Annotated[int, Field(ge=60, le=604_800)] = 604_800
    """Seconds a link to a result works; AWS takes at most seven days."""

    tries: Annotated[int, Field(ge=1, le=20)] = 4
    """Tries of one call to AWS, at growing intervals, before AWS counts as unavailable."""
    connect_timeout: Annotated[float, Field(gt=0, le=300)] = 5
    """Seconds to wait for a connection."""
    read_timeout: Annotated[float, Field(gt=0, le=900)] = 20
    """Seconds to wait for an answer, or for the next part of it."""

    @field_validator("log_days")
    @classmethod
    def _offered(cls, days: int) -> int:
        if days not in LOG_DAYS:
            nearest = min(LOG_DAYS, key=lambda offered: abs(offered - days))
            raise ValueError(
                f"CloudWatch does not offer {days} days; the nearest that it offers is {nearest}. It offers "
                f"{', '.join(map(str, LOG_DAYS))}"
            )
        return days


class ToRun(AwsConfig):
    """The settings where jobs run on AWS: those without which none can are needed."""

    bucket: Bucket
    execution_role: RoleArn
    job_role: RoleArn
