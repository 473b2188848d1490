"""Who may see a job, and who may have one told where."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator
from contextlib import nullcontext

import pytest

from bot.application.access import Access
from bot.application.ports import NoWorkspace
from bot.domain.errors import Refused, Unavailable
from bot.domain.job import Job
from bot.domain.people import NO_SUCH_CHANNEL, Privacy, Standing
from bot.settings import ROOT
from tests.support.stories import a_job

OWNER, MEMBER, OUTSIDER, GUEST, STRANGER, ADMIN = "U01DEMO", "U02IN", "U03OUT", "U04GUEST", "U05STRANGER", "U06ADMIN"
PUBLIC, PRIVATE, UNTOLD, GROUP, DIRECT = "C01PUBLIC", "C02PRIVATE", "C03UNTOLD", "G04GROUP", "D05DIRECT"


class Facts(NoWorkspace):
    """A workspace that knows these people and channels."""

    def __init__(self) -> None:
        self.standings = {GUEST: Standing.GUEST, STRANGER: Standing.STRANGER}
        self.privacies: dict[str, Privacy | None] = {
            PUBLIC: Privacy.PUBLIC,
            PRIVATE: Privacy.PRIVATE,
            GROUP: Privacy.DIRECT,
        }
        self.inside: dict[str, Collection[str]] = {MEMBER: {PRIVATE}, GUEST: {PRIVATE, PUBLIC}, STRANGER: {PRIVATE}}
        self.silent: set[str] = set()
        self.asked: list[str] = []

    def standing_of(self, user: str) -> Standing | None:
        return None if "standing" in self.silent else self.standings.get(user, Standing.MEMBER)

    def privacy_of(self, channel: str) -> Privacy | None:
        self.asked.append(channel)
        return self.privacies.get(channel)

    def channels_of(self, user: str, *, wanted: str = "") -> Collection[str] | None:
        return None if "channels" in self.silent else self.inside.get(user, ())


@pytest.fixture
def facts() -> Facts:
    return Facts()


@pytest.fixture
def access(facts: Facts) -> Iterator[Access]:
    access = Access(workspace=facts, admins=[ADMIN])
    yield access
    access.close()


def told_in(channel: str | None) -> Job:
    return a_job(channel=channel, actor=OWNER)


@pytest.mark.parametrize("channel", [PUBLIC, PRIVATE, UNTOLD, GROUP, DIRECT, None])
@pytest.mark.parametrize("person", [OWNER, ADMIN, "cli:someone"])
def test_owner_admins_and_whoever_has_a_terminal_see_every_job(
    access: Access, facts: Facts, person: str, channel: str | None
) -> None:
    assert access.may_see(person, told_in(channel))
    assert facts.asked == [], "and nobody has to be asked"


@pytest.mark.parametrize(
    ("person", "channel", "sees"),
    [
        (MEMBER, PUBLIC, True),
        (OUTSIDER, PUBLIC, True),
        (GUEST, PUBLIC, False),
        (STRANGER, PUBLIC, False),
        (MEMBER, PRIVATE, True),
        (OUTSIDER, PRIVATE, False),
        (GUEST, PRIVATE, True),
        (STRANGER, PRIVATE, True),
        (MEMBER, GROUP, False),
        (MEMBER, DIRECT, False),
        (MEMBER, None, False),
    ],
)
def test_others_see_a_job_as_they_see_its_channel(access: Access, person: str, channel: str | None, sees: bool) -> None:
    assert access.judged(person, [told_in(channel)]) == [sees]
    assert access.may_see(person, told_in(channel)) is sees


def test_what_slack_does_not_tell_is_in_doubt_and_not_seen(access: Access, facts: Facts) -> None:
    facts.silent = {"standing", "channels"}

    assert access.judged(MEMBER, [told_in(c) for c in (PUBLIC, PRIVATE, UNTOLD)]) == [None, None, None]
    assert not access.may_see(MEMBER, told_in(PUBLIC))


def test_a_process_without_chat_shows_nobody_somebody_else_s_job() -> None:
    access = Access(workspace=NoWorkspace())
    assert access.judged(MEMBER, [told_in(PUBLIC)]) == [None]
    assert access.may_see(OWNER, told_in(PUBLIC))
    access.close()


def test_an_unforeseen_error_is_no_answer(access: Access, facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> Privacy:
        raise KeyError("is_private")

    monkeypatch.setattr(facts, "privacy_of", broken)
    assert access.judged(MEMBER, [told_in(PUBLIC)]) == [None]


def test_jobs_of_many_channels_are_judged_at_once_and_within_the_time(
    access: Access, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    together = threading.Barrier(3, action=answers.set)

    def slow(channel: str) -> Privacy | None:
        if channel != UNTOLD:
            together.wait(timeout=10)  # only if all three are asked at the same time
            return Privacy.PUBLIC
        release.wait()
        return Privacy.PUBLIC

    release = threading.Event()
    monkeypatch.setattr(facts, "privacy_of", slow)
    jobs = [told_in(c) for c in (PUBLIC, "C06", "C07", PUBLIC)]

    assert access.judged(MEMBER, jobs, within=10) == [True] * 4
    assert access.judged(MEMBER, [told_in(UNTOLD)], within=0) == [None]
    release.set()


@pytest.mark.parametrize(
    ("person", "channel", "again", "may"),
    [
        (MEMBER, PUBLIC, False, True),
        (OUTSIDER, PUBLIC, False, True),
        (GUEST, PUBLIC, False, True),  # a guest who is in it
        (STRANGER, PUBLIC, False, False),
        (MEMBER, PRIVATE, False, True),
        (OUTSIDER, PRIVATE, False, False),
        (MEMBER, GROUP, False, False),
        (MEMBER, DIRECT, False, False),
        (ADMIN, PRIVATE, False, False),
        (ADMIN, PRIVATE, True, True),  # of somebody's job that was told there
        (OUTSIDER, PRIVATE, True, False),
        ("cli:someone", PRIVATE, False, True),
    ],
)
def test_a_job_is_told_only_where_whoever_asked_for_it_may_be(
    access: Access, person: str, channel: str, again: bool, may: bool
) -> None:
    said = access.posting(person, channel, again=again)(10)

    assert (said.confirmed, said.trouble) == (may, "" if may else NO_SUCH_CHANNEL)
    with nullcontext() if may else pytest.raises(Refused, match="choose one that you are in"):
        access.insist(a_job(channel=channel, actor=person, retry_of="efgh5678" if again else None))


@pytest.mark.parametrize("silent", ["standing", "channels"])
def test_no_answer_is_neither_leave_nor_refusal(access: Access, facts: Facts, silent: str) -> None:
    facts.silent = {silent}
    channel, person = (PRIVATE, MEMBER) if silent == "channels" else (PUBLIC, OUTSIDER)

    assert access.posting(person, channel)(10).trouble == ""
    assert not access.posting(person, channel)(10).confirmed
    with pytest.raises(Unavailable):
        access.insist(a_job(channel=channel, actor=person))


def test_handlers_ask_only_for_jobs_as_a_person_sees_them() -> None:
    for path in sorted((ROOT / "handlers").glob("*.py")):
        unfiltered = re.findall(r"queries\.(?:find|page_of)\(", path.read_text())
        assert not unfiltered, f"{path.name} shows jobs whoever looks"
