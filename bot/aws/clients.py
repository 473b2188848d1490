"""boto3's clients, made once and when first needed, and botocore's errors turned into the domain's."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from bot.aws.config import AwsConfig
from bot.domain.errors import Busy, NomadsError, NotFound, Refused, Unavailable, patience

if TYPE_CHECKING:
    from boto3.session import Session
    from types_boto3_batch import BatchClient
    from types_boto3_iam import IAMClient
    from types_boto3_logs import CloudWatchLogsClient
    from types_boto3_s3 import S3Client
    from types_boto3_secretsmanager import SecretsManagerClient
    from types_boto3_sesv2 import SESV2Client
    from types_boto3_sqs import SQSClient
    from types_boto3_sts import STSClient

CONNECTIONS = 32
"""Connections of a client; further threads wait for one."""

SOON = 8.0
"""Seconds for an answer of SQS, which may itself wait for events."""

WEEK = 7 * 24 * 3600
"""Seconds for which AWS lets an address be signed at most."""

_PATIENCE = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "OverLimit",
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
"""Error codes after which the same call may succeed, and with which AWS says that it did nothing."""
_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
"""Error codes of credentials or a clock that are not right just now: AWS did nothing, and the call may succeed once
they are renewed or set."""
_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
_REFUSALS = _DENIED | {
    # common to AWS's services
    "InvalidAction",
    "InvalidParameterCombination",
    "InvalidParameterValue",
    "MissingParameter",
    "NotAuthorized",
    "OptInRequired",
    "UnknownOperationException",
    "ValidationError",
    "ValidationException",
    # AWS Batch, CloudWatch Logs, Secrets Manager
    "ClientException",
    "DecryptionFailure",
    "EncryptionFailure",
    "InvalidParameterException",
    "InvalidRequestException",
    "ResourceAlreadyExistsException",
    "ResourceExistsException",
    # S3
    "AllAccessDisabled",
    "BucketAlreadyExists",
    "BucketAlreadyOwnedByYou",
    "EntityTooLarge",
    "IllegalLocationConstraintException",
    "InvalidArgument",
    "InvalidBucketAclWithObjectOwnership",
    "InvalidBucketName",
    "InvalidObjectState",
    "InvalidRequest",
    "KeyTooLongError",
    "MalformedPolicy",
    # SES; an account that is paused or suspended needs an admin, so that people should hear of it at once
    "AccountSuspendedException",
    "BadRequestException",
    "MailFromDomainNotVerifiedException",
    "MessageRejected",
    "NotFoundException",
    "SendingPausedException",
}
"""Error codes with which AWS's documentation says that the request is the caller's mistake."""
_BAD_TIMES = ("expired", "clock", "request time", "current time", "signature")
"""Words in AWS's text by which access is denied for the time or the signature of a request, not for a missing right."""
_CONSOLES = {"cn-": "console.amazonaws.cn", "us-gov-": "console.amazonaws-us-gov.com"}
"""Partitions of AWS whose console lives elsewhere, by how their regions' names begin."""
_REQUEST_IDS = ("x-amz-request-id", "x-amzn-requestid")
"""Headers in which AWS's services name a request: S3 the first, others the second."""
_ABSENT = frozenset(
    {
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchBucket",
        "NoSuchEntity",
        "NoSuchKey",
        "NoSuchUpload",
        "ResourceNotFoundException",
    }
)


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

    def credentials_end(self) -> datetime | None:
        """When the credentials in use end, to a second and never too late; None: in more than a week, or not known.

        Credentials that end soon are renewed first, as before any request, so what is signed next ends no earlier.
        """
        credentials: Any = self.session.get_credentials()
        if not hasattr(credentials, "refresh_needed"):  # keys without an end, or temporary ones that tell none
            return None
        credentials.get_frozen_credentials()
        at = datetime.now(UTC)
        # botocore does not tell the time itself, but whether it is nearer than any number of seconds.
        if not credentials.refresh_needed(WEEK):
            return None
        lasts = bisect_left(range(WEEK), True, key=lambda seconds: bool(credentials.refresh_needed(seconds + 1)))
        return at.replace(microsecond=0) + timedelta(seconds=lasts)

    @property
    def untold_end(self) -> bool:
        """Whether the credentials in use are temporary ones that tell no end, such as keys that were set by hand."""
        credentials: Any = self.session.get_credentials()
        return bool(getattr(credentials, "token", None)) and not hasattr(credentials, "refresh_needed")

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
    def lister(self) -> BatchClient:
        """AWS Batch for looks at listings, which gives up soon: whoever looks waits for events too."""
        return cast("BatchClient", self._client("batch", tries=1, read_timeout=SOON))

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
    def sqs(self) -> SQSClient:
        """The client of SQS, which gives up soon: whoever waits for events has other work too."""
        return cast("SQSClient", self._client("sqs", tries=1, read_timeout=SOON))

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

    @property
    def cloudformation(self) -> Any:
        """The client of CloudFormation."""
        return self._client("cloudformation")

    @property
    def ssm(self) -> Any:
        """The client of Systems Manager, which has AWS's public parameters."""
        return self._client("ssm")

    def _client(
        self, service: str, *, tries: int | None = None, region: str = "", read_timeout: float | None = None
    ) -> Any:
        key = f"{service}/{tries or ''}/{region}/{read_timeout or ''}"
        made = self._made.get(key)
        if made is not None:
            return made
        from botocore.config import Config

        options = Config(
            retries={"mode": "adaptive", "total_max_attempts": tries or self._config.tries},
            connect_timeout=self._config.connect_timeout,
            read_timeout=read_timeout or self._config.read_timeout,
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
                    made = session.client(service, region_name=region, config=options)
                if "json" in made.meta.service_model.metadata["protocol"]:
                    made.meta.events.register("before-parse", _expect_json, unique_id="nomads-json")
                self._made[key] = made
            return self._made[key]


def wanted(answer: Mapping[str, Any], field: str) -> Any:
    """A field that AWS's answer always has. Raises Unanswered where it is missing: the answer is not AWS's own."""
    found = answer.get(field)
    if found is None:
        raise Unanswered(f"An answer of AWS lacks {field}, so it may not be AWS's own.")
    return found


@contextmanager
def translated(what: str, *, quiet: bool = False) -> Iterator[None]:
    """Turn botocore's errors into Unavailable, Refused or NotFound; `what` begins the text, as in "X did not do Y".

    AWS's own words follow unless `quiet`, which calls with a secret set, since AWS might quote the secret.

    A refusal (Refused, NotFound) is an error answer with a code of _REFUSALS or _ABSENT, a 403 or 404 to a HEAD request
    with AWS's id of the request, or a request that botocore itself refuses to send. Everything else is in doubt:
    unknown codes, credentials or a clock that are wrong just now, throttling, 5xx, what a proxy answers, and no answer.
    Of these, Unanswered says that AWS may have done its work.
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
        return _answer(error.response, what, quiet=quiet, operation=error.operation_name)
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
    if isinstance(
        error,
        exceptions.ConfigNotFound
        | exceptions.ConfigParseError
        | exceptions.InvalidRegionError
        | exceptions.NoRegionError
        | exceptions.ParamValidationError
        | exceptions.ProfileNotFound
        | exceptions.ValidationError,
    ):
        return Refused(f"{what}: the request or the AWS settings are wrong ({name}).")
    if isinstance(error, exceptions.BotoCoreError):
        return Unavailable(f"{what}: AWS could not be asked ({name}).")
    return None


def _answer(response: Any, what: str, *, quiet: bool, operation: str) -> NomadsError:
    """The domain error that an error answer of AWS means."""
    code = str(response.get("Error", {}).get("Code", ""))
    said = " ".join(str(response.get("Error", {}).get("Message", "")).split())
    metadata = response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 400))
    text = f"{what}: {code or status}" if quiet or not said else f"{what}: {said[:500]} ({code or status})"
    wait = patience(metadata.get("HTTPHeaders", {}).get("retry-after"))
    if code.startswith("ExpiredToken"):
        text = f"{what}: AWS does not take NOMADS's credentials (expired)."
    if code in _PATIENCE or status == 429:
        return Busy(text, retry_after=wait)
    if status >= 500:
        return Unanswered(text, retry_after=wait)
    if code in _CREDENTIALS or (code in _DENIED and any(word in said.lower() for word in _BAD_TIMES)):
        return Unavailable(text)
    if operation.startswith("Head") and status in (403, 404):  # such an answer has no body, and so no code
        if not _named(metadata):
            return Unanswered(f"{what}: an answer was not AWS's own (HTTP status {status}).")
        return NotFound(text) if status == 404 else Refused(text)
    if code in _ABSENT:
        return NotFound(text)
    if code in _DENIED:
        return Denied(text)
    return Refused(text) if code in _REFUSALS else Unanswered(text)


def _named(metadata: Mapping[str, Any]) -> bool:
    """Whether the answer has the id that AWS gives to each request: a proxy's answer has none."""
    headers = metadata.get("HTTPHeaders", {})
    return any(headers.get(name) for name in _REQUEST_IDS)


def _expect_json(response_dict: dict[str, Any], **_: Any) -> None:
    """Raise Unanswered where an answer is no JSON object: botocore takes HTML for an answer without any fields.

    An answer in XML, as of S3, is checked by botocore's parser.
    """
    body = response_dict["body"]
    if isinstance(body, bytes) and body.strip()[:1] not in (b"", b"{"):
        raise Unanswered(f"An answer was not AWS's own (HTTP status {response_dict['status_code']}).")
