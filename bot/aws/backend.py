"""NOMADS_COMPUTE=aws: programs run on AWS Batch, which takes tokens from Secrets Manager and writes to S3."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.aws.batch import BatchCompute
from bot.aws.clients import Clients
from bot.aws.config import AwsConfig, ToRun
from bot.aws.events import BatchEvents
from bot.aws.logs import CloudWatchLogs
from bot.aws.s3 import S3Results
from bot.aws.secrets import AwsSecrets
from bot.settings import Settings, read

if TYPE_CHECKING:
    from bot.aws.doctor import Program

SERVED_BY_THE_BOT = False
SETTINGS = ToRun
ACCOUNT = AwsConfig
"""The settings of what needs the account alone, such as SES."""
WATCH_INTERVAL = 10.0
"""Seconds between two looks at running jobs: a look is one call for every hundred jobs."""
SUBMISSIONS = 50.0
"""Calls of SubmitJob that an account may make in any second (AWS Batch, “Service quotas”)."""

NO_WEB = (
    "NOMADS_PUBLIC_URL is not set: links to results are S3's own, one for each file, and end with the credentials that "
    "sign them, often after hours. Set it to the address at which people reach this bot, and its own pages show the "
    "results for NOMADS_LINK_DAYS."
)


@dataclass(frozen=True, kw_only=True)
class AwsBackend:
    """The adapters of one AWS account."""

    compute: BatchCompute
    logs: CloudWatchLogs
    results: S3Results
    secrets: AwsSecrets
    events: BatchEvents | None
    watch_interval: float = WATCH_INTERVAL
    submissions: float | None = SUBMISSIONS
    announcement: str
    config: AwsConfig
    clients: Clients


def backend(settings: Settings, *, tokens: object, key_for: Callable[[str], bytes]) -> AwsBackend:
    """The adapters for the account that NOMADS_AWS_… names. No call to AWS is made.

    Raises NomadsError, which names every missing and wrong setting.
    """
    config = read(SETTINGS)
    clients = Clients(config)
    compute = BatchCompute(config=config, clients=clients)
    return AwsBackend(
        compute=compute,
        logs=CloudWatchLogs(config=config, stream_of=compute.stream_of, clients=clients),
        results=S3Results(config=config, clients=clients),
        secrets=AwsSecrets(config=config, clients=clients, key=key_for("fingerprints")),
        events=BatchEvents(config=config, clients=clients) if config.events_queue else None,
        announcement="" if settings.public_url else NO_WEB,
        config=config,
        clients=clients,
    )


def checks(made: AwsBackend, pipelines: Iterable[Program]) -> Mapping[str, Callable[[], str]]:
    """What `doctor` tries of this backend: see `Doctor`."""
    from bot.aws.doctor import Doctor

    return Doctor(made.config, made.clients, secrets=made.secrets, pipelines=pipelines).checks


def check_ses(sender: str) -> str:
    """What `doctor` tries of SES: see `bot.aws.doctor.check_ses`."""
    from bot.aws.doctor import check_ses as check

    return check(read(ACCOUNT), sender)
