"""What Slack says of people and channels: asked quickly, cached for a minute, in doubt where there is no answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from bot.domain.people import NO_SUCH_CHANNEL, Privacy, Standing
from bot.slack.client import PooledWebClient
from bot.slack.workspace import KEEP, SlackWorkspace
from sandbox.slack import SlackStandIn
from sandbox.slack.workspace import Channel, Member
from tests.support.app import MANIFEST

PERSON, PUBLIC, PRIVATE, WITHOUT_BOT = "U01DEMO", "C01SYNAPSES", "C01PILOT", "C01DRAFTS"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def slack() -> Iterator[SlackStandIn]:
    with SlackStandIn(manifest=MANIFEST) as slack:  # with the scopes that the app has
        yield slack


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workspace(slack: SlackStandIn, clock: Clock) -> Iterator[SlackWorkspace]:
    client = PooledWebClient(token=slack.bot_token, base_url=slack.api_url, timeout=5)
    yield SlackWorkspace(client=client, clock=clock)
    client.close()


def leave(slack: SlackStandIn, channel: str, person: str = PERSON) -> None:
    with slack.workspace.change():
        slack.workspace.channel(channel).members.discard(person)


@pytest.mark.parametrize(
    ("change", "standing"),
    [
        ({}, Standing.MEMBER),
        ({"guest": True}, Standing.GUEST),
        ({"team": "T02ELSEWHERE"}, Standing.STRANGER),
        ({"deleted": True}, Standing.STRANGER),
        ({"is_bot": True}, Standing.STRANGER),
    ],
)
def test_people_are_members_guests_or_strangers(
    slack: SlackStandIn, workspace: SlackWorkspace, change: dict[str, object], standing: Standing
) -> None:
    slack.add_person(replace(Member("U02", "second", "Second person"), **change))  # type: ignore[arg-type]
    assert workspace.standing_of("U02") is standing


def test_a_person_slack_does_not_know_is_a_stranger_in_no_channel(workspace: SlackWorkspace) -> None:
    assert workspace.standing_of("U404") is Standing.STRANGER
    assert workspace.channels_of("U404") == frozenset()


def test_channels_are_public_or_private_and_one_without_the_bot_counts_as_private(
    slack: SlackStandIn, workspace: SlackWorkspace
) -> None:
    assert workspace.privacy_of(PUBLIC) is Privacy.PUBLIC
    assert workspace.privacy_of(PRIVATE) is Privacy.PRIVATE
    assert workspace.privacy_of(WITHOUT_BOT) is Privacy.PRIVATE
    assert workspace.trouble_with(WITHOUT_BOT) == NO_SUCH_CHANNEL
    slack.invite("#drafts")
    assert workspace.trouble_with(WITHOUT_BOT) == "", "a refusal is asked for anew"


def test_a_person_s_channels_are_those_that_the_bot_may_know_of(workspace: SlackWorkspace) -> None:
    assert workspace.channels_of(PERSON) == {PUBLIC, "C01GENERAL", PRIVATE}


def test_the_channels_of_a_person_who_is_in_very_many_are_read_to_the_end(
    slack: SlackStandIn, workspace: SlackWorkspace
) -> None:
    for number in range(400):
        slack.add_channel(Channel(f"C9{number:04}", f"room-{number}", members={PERSON}))

    channels = workspace.channels_of(PERSON)
    assert channels is not None
    assert len(channels) == 403
    assert len(slack.calls_of("users.conversations")) == 3


def test_answers_hold_for_a_minute(slack: SlackStandIn, workspace: SlackWorkspace, clock: Clock) -> None:
    assert PRIVATE in (workspace.channels_of(PERSON) or ())
    leave(slack, PRIVATE)

    clock.now += KEEP - 1
    assert PRIVATE in (workspace.channels_of(PERSON) or ())
    clock.now += 2
    assert PRIVATE not in (workspace.channels_of(PERSON) or ())


def test_a_person_who_has_just_joined_is_not_kept_waiting_for_a_minute(
    slack: SlackStandIn, workspace: SlackWorkspace
) -> None:
    leave(slack, PRIVATE)
    assert PRIVATE not in (workspace.channels_of(PERSON) or ())
    with slack.workspace.change():
        slack.workspace.channel(PRIVATE).members.add(PERSON)

    assert PRIVATE not in (workspace.channels_of(PERSON) or ())
    assert PRIVATE in (workspace.channels_of(PERSON, wanted=PRIVATE) or ())


@pytest.mark.parametrize("fault", ["internal_error", "ratelimited", "missing_scope", "broken", "no answer"])
def test_what_slack_does_not_answer_is_in_doubt_and_asked_again(
    slack: SlackStandIn, workspace: SlackWorkspace, fault: str
) -> None:
    for method in ("users.info", "conversations.info", "users.conversations"):
        match fault:
            case "broken":
                slack.break_down(method)
            case "no answer":
                slack.lose_answer(method)
            case _:
                slack.fail(method, fault)

    assert workspace.standing_of(PERSON) is None
    assert workspace.privacy_of(PUBLIC) is None
    assert workspace.channels_of(PERSON) is None

    assert workspace.standing_of(PERSON) is Standing.MEMBER
    assert workspace.privacy_of(PUBLIC) is Privacy.PUBLIC
    assert PUBLIC in (workspace.channels_of(PERSON) or ())


STRANGE = {
    "users.info": [
        "{}",
        '{"user": null}',
        '{"user": "U01DEMO"}',
        '{"user": {"team_id": ["T"]}}',
        '{"user": {"team_id": "T", "profile": []}}',
        '{"user": {"team_id": "T", "profile": {"email": {}}}}',
        '{"user": {"team_id": "T", "enterprise_user": {"teams": [[]]}}}',
        '{"user": {"team_id": "T", "is_restricted": "no"}}',
        '{"error": ["user_not_found"]}',
    ],
    "conversations.info": ['{"channel": []}', '{"channel": {"is_private": "no"}}', '{"channel": {"is_im": 0}}', "{}"],
    "users.conversations": [
        "{}",
        '{"channels": [null]}',
        '{"channels": [{"id": 5}]}',
        '{"channels": [{}]}',
        '{"channels": [], "response_metadata": []}',
    ],
    "chat.getPermalink": ["{}", '{"permalink": {}}'],
    "auth.test": ["{}", '{"team_id": {}}'],
}
"""Answers that have other types than Slack documents, as a proxy may give."""


@pytest.mark.parametrize(
    ("method", "answer"), [(method, answer) for method, answers in STRANGE.items() for answer in answers]
)
def test_an_answer_of_other_types_than_slack_s_is_in_doubt_and_asked_again(
    slack: SlackStandIn, workspace: SlackWorkspace, method: str, answer: str
) -> None:
    said = {"ok": "error" not in answer} | json.loads(answer)
    asks: dict[str, Callable[[], object]] = {
        "users.info": lambda: workspace.mail_of(PERSON) or workspace.name_of(PERSON) or workspace.standing_of(PERSON),
        "conversations.info": lambda: workspace.privacy_of(PUBLIC),
        "users.conversations": lambda: workspace.channels_of(PERSON),
        "chat.getPermalink": lambda: workspace.link_to(PUBLIC, "1.1"),
        "auth.test": lambda: workspace.standing_of(PERSON),
    }
    ask = asks[method]
    slack.answer_otherwise(method, json.dumps(said).encode(), times=3 if method == "users.info" else 1)
    assert not ask()
    if method != "chat.getPermalink":
        assert ask()


def test_an_address_that_is_in_no_profile_is_told_from_one_that_slack_does_not_tell_now(
    slack: SlackStandIn, workspace: SlackWorkspace
) -> None:
    slack.answer_otherwise("users.info", b'{"ok": false, "error": "internal_error"}')
    assert workspace.mail_of(PERSON) is None
    said = {"ok": True, "user": {"team_id": "T1", "profile": {}}}
    slack.answer_otherwise("users.info", json.dumps(said).encode())
    assert workspace.mail_of(PERSON) == ""


def test_the_address_and_the_standing_of_a_person_are_one_question(
    slack: SlackStandIn, workspace: SlackWorkspace
) -> None:
    assert workspace.mail_of(PERSON) == "demo@example.org"
    assert workspace.standing_of(PERSON) is Standing.MEMBER
    assert len(slack.calls_of("users.info")) == 1
