"""Stand-ins that are shared by tests are, once they were reset, as if they were new; only their addresses stay."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sandbox.boss import PREDICTIONS, Access, BossStandIn
from sandbox.house import House
from sandbox.slack import SlackStandIn
from sandbox.slack.workspace import Member
from sandbox.volumes import Bricks
from tests.integration.sandbox.conftest import MANIFEST, modal, new_client, over_http, over_sockets, tiny_app
from tests.support.waiting import until


@pytest.fixture
def workspace() -> Iterator[SlackStandIn]:
    with SlackStandIn(manifest=MANIFEST) as stand_in:
        yield stand_in


def test_a_workspace_keeps_nothing_of_what_people_and_the_app_did(workspace: SlackStandIn) -> None:
    before, client = workspace.url, new_client(workspace)
    workspace.add_person(Member(id="U02OTHER", name="other", real_name="Other", email="other@example.org"))
    workspace.archive("#general")
    with over_http(tiny_app(workspace), workspace):
        assert workspace.person().slash("/tiny", "submit").ok
    client.chat_postMessage(channel="C01SYNAPSES", text="a message")
    client.chat_postEphemeral(channel="C01SYNAPSES", user="U01DEMO", text="for one")
    client.views_publish(user_id="U01DEMO", view={"type": "home", "blocks": modal()["blocks"][:0]})
    client.files_upload_v2(channel="C01SYNAPSES", content="text", filename="a.txt")

    workspace.reset()

    assert workspace.url == before
    assert (workspace.request_url, workspace.calls, workspace.files) == (None, [], [])
    assert (workspace.view_of("U01DEMO"), workspace.home_of("U01DEMO")) == (None, None)
    assert (workspace.ephemerals("U01DEMO"), workspace.messages("#synapses")) == ([], [])
    assert "U02OTHER" not in workspace.workspace.members
    assert not workspace.workspace.channel("#general").archived


def test_orders_given_to_a_workspace_are_forgotten(workspace: SlackStandIn) -> None:
    workspace.fail("auth.test")
    workspace.delay("auth.test", 30)
    workspace.latency = 30

    workspace.reset()

    assert new_client(workspace).auth_test()["ok"]


def test_a_call_that_was_under_way_changes_nothing_in_the_workspace_after_it(workspace: SlackStandIn) -> None:
    client = new_client(workspace)
    workspace.delay("chat.postMessage", 0.3)
    workspace.lose_answer("chat.postMessage")
    with ThreadPoolExecutor(1) as caller:
        late = caller.submit(client.chat_postMessage, channel="C01SYNAPSES", text="late")
        until(lambda: not workspace._faults._due["chat.postMessage"], what="the call")
        workspace.reset()
        assert isinstance(late.exception(10), OSError)
    assert (workspace.messages("#synapses"), workspace.calls) == ([], [])


def test_connections_to_a_workspace_are_closed(workspace: SlackStandIn) -> None:
    with over_sockets(tiny_app(workspace), workspace):
        workspace.reset()
        assert workspace.connections == 0


def test_a_boss_has_what_it_began_with_and_lets_go_whoever_it_kept_waiting() -> None:
    tokens = {"mine": Access(user="me", write=frozenset({"*"}))}
    with BossStandIn(tokens=tokens) as boss:
        before = boss.url, boss.experiments, set(boss.tokens)
        boss.add("lab", "one", shape=(1, 8, 8), channels={"PSD95": Bricks("uint8")})
        boss.tokens["theirs"] = Access(user="them")
        del boss._collections[PREDICTIONS[0]]
        boss.fail_next(5)

        boss.reset()

        assert (boss.url, boss.experiments, set(boss.tokens)) == before
        assert not boss.requests
        asked = httpx.get(f"{boss.url}/v1/collection//", headers={"Authorization": "Token mine"})
        assert asked.status_code == 200


def test_a_house_is_empty_and_its_mail_is_heard_of_in_slack() -> None:
    with House() as house:
        house.mail.refuse("demo@example.org")
        house.mail.put_off(3)
        house.mail.hang()
        house.reset()
        seen = house.slack.workspace.version
        with smtplib.SMTP("127.0.0.1", house.mail.port, timeout=5) as client:
            client.sendmail("nomads@example.org", ["demo@example.org"], "Subject: after\n\n")
        assert [str(mail["Subject"]) for mail in house.mail.messages] == ["after"]
        assert house.slack.workspace.version > seen
        house.reset()
        assert (house.mail.messages, house.mail.attempts) == ([], 0)
