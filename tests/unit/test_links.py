"""Links of the bot's own web: what they say, and that nobody else can make or change one."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta

import pytest

from bot.application.links import Links
from bot.domain.errors import NotFound
from bot.domain.links import Audience, LinkEnded, Reader
from tests.support.stories import a_job

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GUEST = "Guest@Example.org"


def links(*, key: bytes = b"k" * 32, days: float = 7, at: datetime = NOW, base_url: str = "https://n.test/") -> Links:
    return Links(base_url=base_url, key=key, days=days, clock=lambda: at)


def signed(audience: Audience, **how: float) -> str:
    """The signed part of a link for that audience."""
    link = links(**how).to_results(a_job(), audience)  # type: ignore[arg-type]
    assert link
    return link.url.removeprefix("https://n.test/results/").rstrip("/")


@pytest.mark.parametrize(
    ("audience", "reader"),
    [
        (Audience.person("U01DEMO"), Reader.PERSON),
        (Audience.person("cli:zoë\n"), Reader.PERSON),
        (Audience.channel("C01"), Reader.CHANNEL),
    ],
)
def test_a_link_says_for_which_job_it_is_for_whom_and_until_when(audience: Audience, reader: Reader) -> None:
    claim = links().read(signed(audience))

    assert (claim.job_id, claim.reader, claim.name) == ("abcd1234", reader, audience.name)
    assert claim.until == NOW + timedelta(days=7)


def test_a_mail_s_link_holds_no_address() -> None:
    text = signed(Audience.mail(GUEST))
    said = urlsafe_b64decode(text.split(".")[0] + "==").decode()

    assert links().read(text).reader is Reader.MAIL
    assert "example" not in said.casefold()
    assert "guest" not in said.casefold()
    assert links().digest(GUEST) == links().digest(GUEST.lower()), "one address, however it is written"
    assert links().digest(GUEST) != links(key=b"o" * 32).digest(GUEST), "nobody can try addresses without the key"


def test_a_link_ends_when_the_setting_says_and_names_its_job_then() -> None:
    text = signed(Audience.person("U01DEMO"), days=0.5)

    assert links(at=NOW + timedelta(hours=11, minutes=59)).read(text)
    with pytest.raises(LinkEnded) as ended:
        links(at=NOW + timedelta(hours=12)).read(text)
    assert ended.value.job_id == "abcd1234"


def test_nothing_of_a_link_can_be_changed() -> None:
    text = signed(Audience.person("U01DEMO"))

    for place in range(len(text)):
        for other in "AZ.-":
            if text[place] != other:
                with pytest.raises(NotFound):
                    links().read(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize("text", ["", ".", "a", "é.é", "\ud800.\ud800", "a.b.c", "WyJyZXN1bHRzIl0.", "x" * 10_000])
def test_what_was_never_signed_is_no_link(text: str) -> None:
    with pytest.raises(NotFound):
        links().read(text)
    with pytest.raises(NotFound):
        links().read_end_of_mail(text)


def test_another_installation_s_link_is_none_here() -> None:
    with pytest.raises(NotFound):
        links(key=b"o" * 32).read(signed(Audience.person("U01DEMO")))


def test_a_link_that_ended_and_was_changed_is_no_link() -> None:
    text = signed(Audience.person("U01DEMO"))

    with pytest.raises(NotFound):
        links(at=NOW + timedelta(days=30)).read(text[:-1] + ("A" if text[-1] != "A" else "B"))


def test_without_a_web_no_link_is_made() -> None:
    nowhere = links(base_url="")

    assert nowhere.to_results(a_job(), Audience.channel("C01")) is None
    assert nowhere.to_end_mail(GUEST) == ""
