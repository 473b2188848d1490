"""Results in S3: listed, read within a limit, and linked for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.credentials import RefreshableCredentials
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from bot.aws.s3 import PART, S3Results, _Stream
from bot.domain.errors import NotFound, Refused, Unavailable
from bot.domain.results import Link, Part, ResultFile
from tests.support.aws import BUCKET, World, answer, aws_world, write_result

FOLDER = "nomads-unsupervised_demo_cortex_z_0_16_y_0_512_x_0_512/k3v9"


@pytest.fixture
def world() -> Iterator[World]:
    with aws_world() as world:
        yield world


def test_a_folder_has_a_uri_for_the_program(world: World) -> None:
    assert world.results().uri(FOLDER) == f"s3://{BUCKET}/{FOLDER}/"
    assert world.sent == []


def test_files_are_listed_by_name_with_subfolders_and_without_neighbours(world: World) -> None:
    for name in ("synapses.csv", "a/b.png", "results.json"):
        write_result(FOLDER, name, b"12345")
    write_result(FOLDER + "x", "of-another-job", b"")
    write_result(FOLDER, "folder-made-in-the-console/", b"")

    assert world.results().list(FOLDER) == [
        ResultFile("a/b.png", 5),
        ResultFile("results.json", 5),
        ResultFile("synapses.csv", 5),
    ]
    assert world.results().list("no/such") == []


def test_more_than_a_thousand_files_are_all_listed(world: World) -> None:
    bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for n in range(1001):  # not through HTTP, which takes moto 17 seconds
        bucket.put_object(BUCKET, f"{FOLDER}/{n:04}", b"")
    assert len(world.results().list(FOLDER)) == 1001
    assert world.operations.count("s3.ListObjectsV2") == 2


def test_a_file_is_read_up_to_its_limit(world: World) -> None:
    write_result(FOLDER, "results.json", b"12345")
    write_result(FOLDER, "empty", b"")
    results = world.results()
    assert results.read(FOLDER, "results.json", limit=5) == b"12345"
    assert results.read(FOLDER, "empty", limit=0) == b""
    with pytest.raises(Refused, match="has 5 bytes; at most 4 are read") as caught:
        results.read(FOLDER, "results.json", limit=4)
    assert not isinstance(caught.value, NotFound)


@pytest.mark.parametrize("name", ["missing", "../other/results.json", "", "a//b", "./x"])
def test_what_is_not_in_the_folder_is_not_found(world: World, name: str) -> None:
    write_result("other", "results.json", b"12345")
    with pytest.raises(NotFound):
        world.results().read(FOLDER, name, limit=10)


def test_a_part_is_one_ranged_call_and_is_remembered_for_whoever_asks_next(world: World) -> None:
    write_result(FOLDER, "0.shard", bytes(range(100)))
    results = world.results()

    for _ in range(3):
        assert results.part(FOLDER, "0.shard", 10, 5) == Part(bytes(range(10, 15)), 100)

    assert [sent["Range"] for sent in world.asked("s3.GetObject")] == ["bytes=10-14"]
    assert not any("HeadObject" in operation for operation in world.operations)


def test_so_much_is_remembered_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.aws.s3.KEPT", 25)
    write_result(FOLDER, "0.shard", bytes(100))
    results = world.results()

    for start in (0, 10, 20, 20, 0):
        results.part(FOLDER, "0.shard", start, 10)

    assert len(world.asked("s3.GetObject")) == 4, "the first was forgotten for the third"


def test_a_text_is_served_as_one(world: World) -> None:
    world.results().write(FOLDER, "log.txt", [b"one\n", b"two\n"])
    world.results().write(FOLDER, "log.bin", [b"one"])

    heads = [world.clients.s3.head_object(Bucket=BUCKET, Key=f"{FOLDER}/{name}") for name in ("log.txt", "log.bin")]
    assert [head["ContentType"] for head in heads] == ["text/plain; charset=utf-8", "binary/octet-stream"]


def test_a_short_file_is_one_call(world: World) -> None:
    world.results().write(FOLDER, "log.txt", [b"one\n"])

    assert world.operations == ["s3.PutObject"]


def test_a_long_file_goes_in_parts_and_no_more_than_a_few_are_held(world: World) -> None:
    given = 0

    def pieces() -> Iterator[bytes]:
        nonlocal given
        for number in range(20):
            given += 2**20
            yield bytes([number]) * 2**20

    ahead: list[int] = []
    world.clients.s3.meta.events.register("before-call.s3.UploadPart", lambda **_: ahead.append(given))
    world.results().write(FOLDER, "log.txt", pieces())

    parts = ["s3.UploadPart"] * 3
    assert world.operations == ["s3.CreateMultipartUpload", *parts, "s3.CompleteMultipartUpload"]
    assert [so_far <= (sent + 2) * PART for sent, so_far in enumerate(ahead)] == [True] * 3
    assert world.asked("s3.CreateMultipartUpload")[0]["ContentType"] == "text/plain; charset=utf-8"
    content = world.results().read(FOLDER, "log.txt", limit=20 * 2**20)
    assert content == b"".join(bytes([number]) * 2**20 for number in range(20))


def test_a_long_file_that_breaks_off_leaves_no_parts_behind(world: World) -> None:
    def broken() -> Iterator[bytes]:
        yield from [b"x" * 2**20] * 20
        raise Unavailable("CloudWatch is away")

    with pytest.raises(Unavailable, match="CloudWatch is away"):
        world.results().write(FOLDER, "log.txt", broken())

    assert world.operations[-1] == "s3.AbortMultipartUpload"
    assert world.clients.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []


@pytest.mark.parametrize("sizes", [[], [0], [1], [7, 0, 9], [20, 20, 1]])
def test_what_is_read_of_pieces_is_what_they_hold(sizes: list[int]) -> None:
    pieces = [bytes([65 + number]) * size for number, size in enumerate(sizes)]

    stream = _Stream(iter(pieces))
    read = list(iter(lambda: stream.read(8), b""))

    assert b"".join(read) == b"".join(pieces) == _Stream(pieces).read()
    assert all(len(part) == 8 for part in read[:-1])


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-2"])
def test_a_link_is_signed_for_the_bucket_s_own_region_and_says_when_it_ends(region: str) -> None:
    with aws_world(region=region, empty=True, link_lifetime=3600) as world:
        link = world.results().link(FOLDER, "a/b c.png")

        url, query = urlsplit(link.url), parse_qs(urlsplit(link.url).query)
        assert (url.scheme, url.hostname) == ("https", f"{BUCKET}.s3.{region}.amazonaws.com")
        assert url.path == f"/{FOLDER}/a/b%20c.png"
        assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
        assert f"/{region}/s3/aws4_request" in query["X-Amz-Credential"][0]
        assert query["X-Amz-Expires"] == ["3600"]
        signed = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        assert link.expires is not None
        assert timedelta(seconds=0) <= signed + timedelta(hours=1) - link.expires <= timedelta(seconds=2)


def test_a_bucket_with_dots_stays_in_the_path() -> None:
    with aws_world(empty=True, bucket="results.example.org") as world:
        url = urlsplit(world.results().link(FOLDER, "x").url)
        assert (url.hostname, url.path) == ("s3.eu-west-2.amazonaws.com", f"/results.example.org/{FOLDER}/x")


class Provider:
    """A provider of credentials that end: each time it is asked, it gives the next ones of `ends`."""

    def __init__(self, world: World, *ends: timedelta) -> None:
        self.asked = 0
        self._ends = [datetime.now(UTC).replace(microsecond=0) + end for end in ends]
        session: Any = world.clients.session
        first = self.give()
        session._session._credentials = RefreshableCredentials.create_from_metadata(
            first, refresh_using=self.give, method="for a test"
        )

    def give(self) -> dict[str, str]:
        """The next credentials."""
        end = self._ends[min(self.asked, len(self._ends) - 1)]
        self.asked += 1
        return {"access_key": f"key{self.asked}", "secret_key": "b", "token": "c", "expiry_time": end.isoformat()}

    @property
    def end(self) -> datetime:
        """When the credentials that it gave last end."""
        return self._ends[min(self.asked, len(self._ends)) - 1]


def just_before(told: datetime | None, end: datetime, *, took: timedelta = timedelta(0)) -> bool:
    """Whether the end that was told is the true one, or a moment earlier; it may have taken so long to tell it."""
    return told is not None and timedelta(0) <= end - told <= timedelta(seconds=3) + took


def lasts_from_now(signed: Callable[[], Link], lasting: timedelta) -> Link:
    """The link that is signed now, which ends when so much time has passed."""
    began = datetime.now(UTC)
    link = signed()
    now = datetime.now(UTC)
    assert just_before(link.expires, now + lasting, took=now - began)
    return link


@pytest.mark.parametrize("lasts", [timedelta(hours=6), timedelta(minutes=20), timedelta(days=3)])
def test_a_link_ends_with_the_credentials_that_signed_it(world: World, lasts: timedelta) -> None:
    provider = Provider(world, lasts)

    assert just_before(world.results().link(FOLDER, "x").expires, provider.end)


def test_credentials_that_are_about_to_end_are_renewed_first_and_the_new_end_is_told(world: World) -> None:
    provider = Provider(world, timedelta(minutes=5), timedelta(hours=6))

    link = world.results().link(FOLDER, "x")

    assert provider.asked == 2
    assert "X-Amz-Credential=key2" in link.url, "the link is signed by what was renewed"
    assert just_before(link.expires, provider.end)


def test_credentials_that_are_renewed_between_looking_and_signing_promise_nothing_too_long(world: World) -> None:
    """Whichever of the two signs, the end that is told is not after its own."""
    provider = Provider(world, timedelta(hours=12), timedelta(hours=2))
    credentials: Any = world.clients.session.get_credentials()
    world.clients.s3.meta.events.register(
        "before-parameter-build.s3.GetObject", lambda **_: credentials._protected_refresh(is_mandatory=True)
    )

    link = world.results().link(FOLDER, "x")

    assert "X-Amz-Credential=key2" in link.url
    assert link.expires is not None
    assert link.expires <= provider.end


def test_keys_without_an_end_sign_for_as_long_as_the_setting_says(world: World) -> None:
    lasts_from_now(lambda: world.results().link(FOLDER, "x"), timedelta(seconds=world.config.link_lifetime))


def test_temporary_keys_that_tell_no_end_are_promised_no_longer_than_any_last(world: World) -> None:
    session: Any = world.clients.session
    session._session.set_credentials("key", "b", token="c")  # as AWS_SESSION_TOKEN does

    assert world.config.link_lifetime == 604_800
    link = lasts_from_now(lambda: world.results().link(FOLDER, "x"), timedelta(hours=36))

    assert link.at_latest
    assert parse_qs(urlsplit(link.url).query)["X-Amz-Expires"] == ["129600"]


def test_an_end_that_is_told_is_certain(world: World) -> None:
    assert not world.results().link(FOLDER, "x").at_latest
    Provider(world, timedelta(hours=6))
    assert not world.results().link(FOLDER, "x").at_latest


@pytest.mark.parametrize(
    ("name", "kind", "disposition"),
    [
        ("report.html", "text/html; charset=utf-8", "inline"),
        ("preview.png", "image/png", "inline"),
        ("synapses.csv", "application/octet-stream", "attachment; filename*=utf-8''synapses.csv"),
        ("deep/a b.npz", "application/octet-stream", "attachment; filename*=utf-8''a%20b.npz"),
    ],
)
def test_a_browser_is_sent_to_a_short_lived_address_that_shows_or_saves_the_file(
    world: World, name: str, kind: str, disposition: str
) -> None:
    write_result(FOLDER, name, b"12345")

    link = lasts_from_now(lambda: world.results().redirect(FOLDER, name), timedelta(minutes=5))

    query = parse_qs(urlsplit(link.url).query)
    assert query["X-Amz-Expires"] == ["300"]
    assert query["response-content-type"] == [kind]
    assert query["response-content-disposition"] == [disposition]


def test_nobody_is_sent_to_a_file_that_is_not_there(world: World) -> None:
    with pytest.raises(NotFound):
        world.results().redirect(FOLDER, "missing.csv")


def test_a_file_is_read_as_it_is_asked_for(world: World) -> None:
    write_result(FOLDER, "predictions.npz", bytes(range(256)) * 4096)

    opened = world.results().open(FOLDER, "predictions.npz")

    assert opened.size == 2**20
    assert b"".join(opened.pieces()) == bytes(range(256)) * 4096


def test_a_missing_bucket_setting_is_named() -> None:
    with aws_world(empty=True, bucket="") as world, pytest.raises(Refused, match="NOMADS_AWS_BUCKET"):
        S3Results(config=world.config, clients=world.clients).uri(FOLDER)


def test_s3_errors_become_the_domain_s(world: World) -> None:
    answer(world.clients.s3, "s3.GetObject", status=503, code="SlowDown", message="reduce your rate")
    answer(world.clients.s3, "s3.ListObjectsV2", status=403, code="AccessDenied", message="no")
    answer(world.clients.s3, "s3.PutObject", status=403, code="AccessDenied", message="no")
    answer(world.clients.s3, "s3.CreateMultipartUpload", status=503, code="SlowDown", message="reduce your rate")
    with pytest.raises(Unavailable, match="reduce your rate"):
        world.results().read(FOLDER, "x", limit=1)
    with pytest.raises(Refused, match="AccessDenied"):
        world.results().list(FOLDER)
    with pytest.raises(Refused, match=r"S3 did not take log.txt: no \(AccessDenied\)"):
        world.results().write(FOLDER, "log.txt", [b"x"])
    with pytest.raises(Unavailable, match="reduce your rate"):
        world.results().write(FOLDER, "log.txt", [b"x" * 2 * PART])
