"""boto3's clients, made once and when first needed, and botocore's errors turned into the domain's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from bot.aws.config import AwsConfig
from bot.domain.errors import NomadsError, NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from boto3.session import Session
    from types_boto3_batch import BatchClient
    from types_boto3_iam import IAMClient
    from types_boto3_logs import CloudWatchLogsClient
    from types_boto3_s3 import S3Client
    from types_boto3_secretsmanager import SecretsManagerClient
    from types_boto3_sesv2 import SESV2Client
    from types_boto3_sts import STSClient

CONNECTIONS = 32
"""Connections of a client; further threads wait for one."""

_PATIENCE = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "ExpiredToken",
        "ExpiredTokenException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
"""Error codes after which the same call may succeed; credentials that ran out are renewed by their provider."""
_CONSOLES = {"cn-": "console.amazonaws.cn", "us-gov-": "console.amazonaws-us-gov.com"}
"""Partitions of AWS whose console lives elsewhere, by how their regions' names begin."""
_ABSENT = frozenset({"404", "NoSuchBucket", "NoSuchKey", "NotFound", "ResourceNotFoundException"})
_DENIED = frozenset({"403", "AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})


class Unanswered(Unavailable):
    """The request may have reached AWS, but no answer came back: whether AWS performed it is not known."""


class Denied(Refused):
    """These credentials may not make the call."""


class Clients:
    """One client a service, shared by all threads, with timeouts and adaptive retries."""

    def __init__(self, config: AwsConfig) -> None:
        self._config = config
        self._lock = threading.RLock()  # making a client is not thread-safe; using one is
        self._session: Session | None = None
        self._made: dict[str, Any] = {}

    @property
    def session(self) -> Session:
        """The boto3 session behind the clients; event handlers registered on it reach clients made later."""
        with self._lock:
            if self._session is None:
                import boto3

                # botocore's debug log prints whole requests and responses, a secret's value among them.
                log = logging.getLogger("botocore")
                log.setLevel(max(log.getEffectiveLevel(), logging.WARNING))
                with translated("AWS settings cannot be read"):
                    self._session = boto3.session.Session(region_name=self._config.region or None)
            return self._session

    @property
    def region(self) -> str:
        """The region in use. Raises Refused where neither our settings nor AWS's name one."""
        region = self.session.region_name
        if not region:
            raise Refused("No AWS region is set: set NOMADS_AWS_REGION.")
        return region

    @property
    def console(self) -> str:
        """The address of the region's console, `https://host`, for people who may sign in to the account."""
        region = self.region
        host = next((host for start, host in _CONSOLES.items() if region.startswith(start)), "console.aws.amazon.com")
        return f"https://{region}.{host}"

    @property
    def batch(self) -> BatchClient:
        """The client of AWS Batch, for all calls but SubmitJob."""
        return cast("BatchClient", self._client("batch"))

    @property
    def submitter(self) -> BatchClient:
        """AWS Batch for SubmitJob, without retries: SubmitJob has no idempotency token."""
        return cast("BatchClient", self._client("batch", tries=1))

    @property
    def s3(self) -> S3Client:
        """The client of S3, which signs links for the bucket's own region."""
        return cast("S3Client", self._client("s3"))

    @property
    def ses(self) -> SESV2Client:
        """The client of SES, version 2."""
        return cast("SESV2Client", self._client("sesv2"))

    @property
    def secrets(self) -> SecretsManagerClient:
        """The client of Secrets Manager."""
        return cast("SecretsManagerClient", self._client("secretsmanager"))

    @property
    def logs(self) -> CloudWatchLogsClient:
        """The client of CloudWatch Logs."""
        return cast("CloudWatchLogsClient", self._client("logs"))

    @property
    def iam(self) -> IAMClient:
        """The client of Identity and Access Management."""
        return cast("IAMClient", self._client("iam"))

    def ecr(self, region: str) -> Any:
        """The client of the container registry of a region, which need not be ours."""
        return self._client("ecr", region=region)

    @property
    def sts(self) -> STSClient:
        """The client of the Security Token Service, which tells whose credentials are in use."""
        return cast("STSClient", self._client("sts"))

    def _client(self, service: str, *, tries: int | None = None, region: str = "") -> Any:
        key = f"{service}/{tries or ''}/{region}"
        made = self._made.get(key)
        if made is not None:
            return made
        from botocore.config import Config

        options = Config(
            retries={"mode": "adaptive", "total_max_attempts": tries or self._config.tries},
            connect_timeout=self._config.connect_timeout,
            read_timeout=self._config.read_timeout,
            max_pool_connections=CONNECTIONS,
        )
        if service == "s3":
            # Without these a presigned link may name the global host, which fails for a new bucket elsewhere. A bucket
            # with dots in its name fits no certificate as a host, so it stays in the path.
            style: Any = {
                "addressing_style": "path" if "." in self._config.bucket else "virtual",
                "us_east_1_regional_endpoint": "regional",
            }
            options = options.merge(Config(signature_version="s3v4", s3=style))
        region = region or self.region
        with self._lock:
            if key not in self._made:
                session = cast("Any", self.session)
                with translated("AWS settings cannot be read"):
                    self._made[key] = session.client(service, region_name=region, config=options)
            return self._made[key]


@contextmanager
def translated(what: str, *, quiet: bool = False) -> Iterator[None]:
    """Turn botocore's errors into Unavailable, Refused or NotFound; `what` begins the text, as in "X did not do Y".

    AWS's own words follow unless `quiet`, which calls with a secret set, since AWS might quote the secret.
    """
    try:
        yield
    except NomadsError:
        raise
    except Exception as error:
        meaning = _meaning(error, what, quiet=quiet)
        if meaning is None:
            raise
        raise meaning from None


def _meaning(error: Exception, what: str, *, quiet: bool) -> NomadsError | None:
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    name = type(error).__name__
    if isinstance(error, exceptions.ClientError):
        return _answer(error.response, what, quiet=quiet)
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        # Not a refusal: an instance's credentials may be missing for moments, and a forgotten setting may be set.
        return Unavailable(f"{what}: no AWS credentials were found.")
    if isinstance(error, exceptions.CredentialRetrievalError):
        return Unavailable(f"{what}: the AWS credentials could not be fetched.")
    # Texts of the errors below may quote parameters or a proxy's password, so only their names are told.
    if isinstance(
        error,
        exceptions.ConnectTimeoutError
        | exceptions.EndpointConnectionError
        | exceptions.ProxyConnectionError
        | exceptions.SSLError,
    ):
        return Unavailable(f"{what}: AWS cannot be reached ({name}).")
    if isinstance(
        error,
        exceptions.HTTPClientError
        | exceptions.ConnectionError
        | exceptions.IncompleteReadError
        | exceptions.ResponseStreamingError
        | ResponseParserError,
    ):
        return Unanswered(f"{what}: the connection to AWS broke ({name}).")
    if isinstance(error, exceptions.BotoCoreError):
        return Refused(f"{what}: the request or the AWS settings are wrong ({name}).")
    return None


def _answer(response: Any, what: str, *, quiet: bool) -> NomadsError:
    """The domain error that an error answer of AWS means."""
    code = str(response.get("Error", {}).get("Code", ""))
    said = " ".join(str(response.get("Error", {}).get("Message", "")).split())
    metadata = response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 400))
    text = f"{what}: {code}" if quiet or not said else f"{what}: {said[:500]} ({code})"
    if code in _PATIENCE or status == 429:
        return Unavailable(text, retry_after=_seconds(metadata.get("HTTPHeaders", {}).get("retry-after")))
    if status >= 500:
        return Unanswered(text, retry_after=_seconds(metadata.get("HTTPHeaders", {}).get("retry-after")))
    if code in _ABSENT or status == 404:
        return NotFound(text)
    return Denied(text) if code in _DENIED else Refused(text)


def _seconds(header: str | None) -> float | None:
    """A Retry-After header in seconds; a date, which AWS does not send, counts as none."""
    return float(header) if header and header.isdecimal() else None
