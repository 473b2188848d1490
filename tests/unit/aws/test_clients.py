"""Clients: made once, patient within bounds, and silent about secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest
from botocore import exceptions

from bot.aws.backend import AwsBackend, backend
from bot.aws.clients import CONNECTIONS, Clients, Denied, Unanswered, translated
from bot.aws.config import AwsConfig
from bot.domain.errors import Busy, NomadsError, NotFound, Refused, Unavailable
from bot.settings import Settings
from tests.support.aws import World, aws_world


@pytest.fixture
def world() -> Iterator[World]:
    with aws_world(empty=True) as world:
        yield world


def test_threads_share_one_client(world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: id(world.clients.batch), range(32)))
    assert len(made) == 1


def test_clients_have_timeouts_and_enough_connections() -> None:
    with aws_world(empty=True, connect_timeout=3, read_timeout=7) as world:
        for client in (world.clients.s3, world.clients.secrets, world.clients.logs, world.clients.ses):
            config: Any = client.meta.config
            assert (config.connect_timeout, config.read_timeout) == (3, 7)
            assert config.max_pool_connections == CONNECTIONS
            assert config.retries["mode"] == "adaptive"


def test_a_missing_region_is_named(world: World) -> None:
    clients = Clients(AwsConfig(_env_file=None, region=""))
    with patch.dict(os.environ):
        os.environ.pop("AWS_DEFAULT_REGION", None)
        with pytest.raises(Refused, match="NOMADS_AWS_REGION"):
            _ = clients.batch


def test_an_unknown_profile_is_a_wrong_setting(world: World) -> None:
    with patch.dict(os.environ, AWS_PROFILE="nobody"), pytest.raises(Refused, match="ProfileNotFound"):
        _ = Clients(world.config).batch


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (exceptions.NoCredentialsError(), Unavailable),
        (exceptions.CredentialRetrievalError(provider="x", error_msg="canary"), Unavailable),
        (exceptions.EndpointConnectionError(endpoint_url="canary"), Unavailable),
        (exceptions.ConnectTimeoutError(endpoint_url="canary"), Unavailable),
        (exceptions.ProxyConnectionError(proxy_url="http://user:canary@proxy", error="x"), Unavailable),
        (exceptions.ReadTimeoutError(endpoint_url="canary"), Unanswered),
        (exceptions.ConnectionClosedError(endpoint_url="canary"), Unanswered),
        (exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), Unanswered),
        (exceptions.ParamValidationError(report="SecretString: canary"), Refused),
        (exceptions.TokenRetrievalError(provider="x", error_msg="canary"), Unavailable),
        (exceptions.UnauthorizedSSOTokenError(), Unavailable),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_botocore_s_own_errors_become_the_domain_s_without_their_texts(
    error: Exception, meaning: type[NomadsError]
) -> None:
    with pytest.raises(NomadsError, match=r"^X did not do Y") as caught, translated("X did not do Y"):
        raise error
    assert type(caught.value) is meaning
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "status", "meaning"),
    [
        ("ThrottlingException", 400, Busy),
        ("ExpiredToken", 400, Unavailable),
        ("Whatever", 429, Busy),
        ("InternalFailure", 500, Unanswered),
        ("NoSuchKey", 404, NotFound),
        ("ResourceNotFoundException", 400, NotFound),
        ("404", 404, Unanswered),
        ("403", 403, Unanswered),
        ("407", 407, Unanswered),
        ("302", 302, Unanswered),
        ("NeverHeardOf", 400, Unanswered),
        ("ExpiredTokenException", 400, Unavailable),
        ("UnrecognizedClientException", 400, Unavailable),
        ("InvalidClientTokenId", 403, Unavailable),
        ("RequestTimeTooSkewed", 403, Unavailable),
        ("SignatureDoesNotMatch", 403, Unavailable),
        ("InvalidSignatureException", 403, Unavailable),
        ("ServiceUnavailable", 503, Unanswered),
        ("AccessDeniedException", 403, Denied),
        ("NoSuchEntity", 404, NotFound),
        ("ClientException", 400, Refused),
    ],
)
def test_answers_of_aws_become_the_domain_s(code: str, status: int, meaning: type[NomadsError]) -> None:
    response: Any = {
        "Error": {"Code": code, "Message": "in\nAWS's words"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
    }
    with pytest.raises(NomadsError) as caught, translated("X did not do Y"):
        raise exceptions.ClientError(response, "Operation")
    assert type(caught.value) is meaning
    expired = "AWS does not take NOMADS's credentials (expired)."
    words = expired if code.startswith("ExpiredToken") else f"in AWS's words ({code})"
    assert str(caught.value) == f"X did not do Y: {words}"


@pytest.mark.parametrize(
    "said",
    [
        "Request has expired",
        "Signature expired: 20260301T120000Z is now earlier than 20260301T121000Z",
        "The difference between the request time and the current time is too large.",
    ],
)
def test_access_that_is_denied_for_the_clock_is_no_refusal(said: str) -> None:
    response: Any = {"Error": {"Code": "AccessDenied", "Message": said}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    with pytest.raises(Unavailable), translated("X did not do Y"):
        raise exceptions.ClientError(response, "Operation")


S3_S = {"x-amz-request-id": "EXAMPLE"}


@pytest.mark.parametrize(
    ("status", "headers", "meaning"),
    [(403, S3_S, Refused), (404, S3_S, NotFound), (403, {}, Unanswered), (404, {"server": "proxy"}, Unanswered)],
)
def test_an_answer_of_s3_to_a_head_has_no_code_and_means_what_its_status_means_and_a_proxy_s_means_nothing(
    status: int, headers: dict[str, str], meaning: type[NomadsError]
) -> None:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    response: Any = {"Error": {"Code": str(status)}, "ResponseMetadata": metadata}
    with pytest.raises(NomadsError) as caught, translated("X did not do Y"):
        raise exceptions.ClientError(response, "HeadBucket")
    assert type(caught.value) is meaning


def test_a_mistake_of_ours_stays_what_it_is() -> None:
    with pytest.raises(KeyError), translated("X did not do Y"):
        raise KeyError("x")


def test_settings_come_from_the_environment() -> None:
    given = {
        "NOMADS_AWS_REGION": "ap-southeast-2",
        "NOMADS_AWS_FAIR_SHARE": "true",
        "NOMADS_AWS_LINK_LIFETIME": "3600",
    }
    with patch.dict(os.environ, given):
        config = AwsConfig(_env_file=None)
    assert (config.region, config.fair_share, config.link_lifetime) == ("ap-southeast-2", True, 3600)
    assert (config.queue, config.compute_environment) == ("nomads-queue", "nomads-ce")


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": "Upper"},
        {"queue": "has space"},
        {"execution_role": "nomads-execution"},
        {"link_lifetime": 604_801},
        {"attempts": 11},
        {"prefix": "a/b"},
        {"region": "London"},
        {"instance_role": "arn:aws:iam::1:role/x"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_aws_would_refuse_are_refused_at_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AwsConfig(_env_file=None, **wrong)


def made(**settings: str) -> AwsBackend:
    """The adapters of an account, as a start makes them with these settings."""
    role = "arn:aws:iam::123456789012:role/nomads"
    given = {
        "NOMADS_AWS_BUCKET": "results",
        "NOMADS_AWS_EXECUTION_ROLE": role,
        "NOMADS_AWS_JOB_ROLE": role,
        "NOMADS_AWS_REGION": "eu-west-2",
    }
    with patch.dict(os.environ, given):
        read = Settings.model_validate({"compute": "aws", **settings})
        return backend(read, tokens=None, key_for=lambda _: b"k" * 32)


def test_an_account_is_sent_fifty_submissions_a_second_which_is_what_aws_batch_takes() -> None:
    assert made().submissions == 50


@pytest.mark.parametrize(("public_url", "says"), [("", True), ("https://nomads.example.org", False)])
def test_a_start_without_an_address_for_people_says_whose_links_they_get(public_url: str, says: bool) -> None:
    said = made(public_url=public_url).announcement

    assert ("NOMADS_PUBLIC_URL is not set: links to results are S3's own" in said) is says
    assert bool(said) is says
