"""The stand-in's Web API behaves as Slack's, as `slack_sdk` sees it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from http.client import RemoteDisconnected
from typing import Any

import httpx
import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from sandbox.slack import SlackStandIn
from sandbox.slack.workspace import Member
from tests.integration.sandbox.conftest import MANIFEST, modal, new_client, plain, question

BOT_IS_IN, BOT_IS_OUT = "C01SYNAPSES", "C01GENERAL"
PRIVATE, PRIVATE_WITHOUT_BOT = "C01PILOT", "C01DRAFTS"


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(clock: Clock) -> Iterator[SlackStandIn]:
    """A workspace whose time passes when told."""
    with SlackStandIn(clock=clock) as stand_in:
        yield stand_in


@pytest.fixture
def limited() -> Iterator[WebClient]:
    """The Web API as an app with the manifest's scopes sees it."""
    with SlackStandIn(manifest=MANIFEST) as stand_in:
        yield new_client(stand_in)


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    """The error a call is answered with."""
    with pytest.raises(SlackApiError) as caught:
        call(*args, **kwargs)
    return str(caught.value.response["error"])


def test_a_wrong_token_is_refused(slack: SlackStandIn) -> None:
    assert refusal(WebClient(token="demo-wrong", base_url=slack.api_url).auth_test) == "invalid_auth"
    assert refusal(WebClient(base_url=slack.api_url).auth_test) == "not_authed"


def test_each_token_opens_its_own_doors(slack: SlackStandIn, client: WebClient) -> None:
    assert refusal(client.apps_connections_open, app_token=slack.bot_token) == "not_allowed_token_type"
    assert client.apps_connections_open(app_token=slack.app_token)["url"].startswith("ws://127.0.0.1:")
    assert client.auth_test()["user_id"] == "U01NOMADSBOT"


def test_a_missing_scope_is_named(limited: WebClient) -> None:
    with pytest.raises(SlackApiError) as caught:
        limited.conversations_join(channel=BOT_IS_OUT)

    assert caught.value.response["error"] == "missing_scope"
    assert caught.value.response["needed"] == "channels:join"
    assert "chat:write" in caught.value.response["provided"]


def test_a_scope_is_needed_for_each_kind_of_channel(limited: WebClient) -> None:
    assert limited.conversations_history(channel=BOT_IS_IN)["messages"] == []
    assert refusal(limited.conversations_history, channel=PRIVATE) == "missing_scope"


def test_addresses_are_shown_only_to_those_who_may_read_them(limited: WebClient, client: WebClient) -> None:
    assert "email" not in limited.users_info(user="U01DEMO")["user"]["profile"]
    assert client.users_info(user="U01DEMO")["user"]["profile"]["email"] == "demo@example.org"
    assert "email" not in client.users_info(user="U01GUEST")["user"]["profile"]


def test_a_public_channel_takes_posts_of_strangers_only_with_the_scope(client: WebClient, limited: WebClient) -> None:
    assert client.chat_postMessage(channel=BOT_IS_OUT, text="hello")["ok"]
    assert refusal(limited.chat_postMessage, channel=BOT_IS_OUT, text="hello") == "not_in_channel"
    assert refusal(client.conversations_history, channel=BOT_IS_OUT) == "not_in_channel"


def test_a_private_channel_without_the_app_does_not_exist_for_it(slack: SlackStandIn, client: WebClient) -> None:
    assert refusal(client.chat_postMessage, channel=PRIVATE_WITHOUT_BOT, text="hello") == "channel_not_found"
    assert refusal(client.conversations_info, channel=PRIVATE_WITHOUT_BOT) == "channel_not_found"

    slack.invite("#drafts")

    assert client.conversations_info(channel=PRIVATE_WITHOUT_BOT)["channel"]["is_private"]


def test_an_archived_channel_takes_nothing(slack: SlackStandIn, client: WebClient) -> None:
    slack.archive(BOT_IS_IN)

    assert refusal(client.chat_postMessage, channel=BOT_IS_IN, text="hello") == "is_archived"


def test_an_app_can_join_a_public_channel(slack: SlackStandIn, client: WebClient) -> None:
    client.conversations_join(channel=BOT_IS_OUT)

    assert client.conversations_info(channel=BOT_IS_OUT)["channel"]["is_member"]
    assert refusal(client.conversations_join, channel=PRIVATE) == "method_not_supported_for_channel_type"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, "no_text"),
        ({"text": "x" * 40_001}, "msg_too_long"),
        ({"text": "x", "thread_ts": "1.000001"}, "thread_not_found"),
        ({"text": "x", "blocks": "[not json"}, "invalid_blocks_format"),
        ({"text": "x", "metadata": {"event_type": "x"}}, "invalid_metadata_format"),
        ({"text": "x", "blocks": [{"type": "section", "text": plain("x" * 2700)}] * 5}, "msg_blocks_too_long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:The top-level `text` argument is missing")
def test_a_message_slack_does_not_take_is_refused(client: WebClient, arguments: dict[str, Any], error: str) -> None:
    assert refusal(client.chat_postMessage, channel=BOT_IS_IN, **arguments) == error


def test_invalid_blocks_are_explained(slack: SlackStandIn, client: WebClient) -> None:
    with pytest.raises(SlackApiError) as caught:
        client.chat_postMessage(channel=BOT_IS_IN, text="x", blocks=[{"type": "carpet"}])

    assert caught.value.response["error"] == "invalid_blocks"
    assert "unsupported type: carpet" in caught.value.response["response_metadata"]["messages"][0]
    assert slack.messages(BOT_IS_IN) == []


def test_an_edit_keeps_blocks_and_metadata_it_does_not_mention(slack: SlackStandIn, client: WebClient) -> None:
    metadata = {"event_type": "card", "event_payload": {"key": "1"}}
    blocks = [{"type": "divider", "block_id": "line"}]
    ts = client.chat_postMessage(channel=BOT_IS_IN, text="first", blocks=blocks, metadata=metadata)["ts"]

    client.chat_update(channel=BOT_IS_IN, ts=ts, text="second")

    (message,) = slack.messages("#synapses")
    assert (message["text"], message["blocks"], message["metadata"]) == ("second", blocks, metadata)
    assert message["edited"]["user"] == "U01NOMADSBOT"


def test_only_the_apps_own_messages_can_be_edited(slack: SlackStandIn, client: WebClient) -> None:
    with slack.workspace.change():
        place = slack.workspace.channel("#synapses")
        ts = slack.workspace.post(place, {"user": "U01DEMO", "text": "mine"})["ts"]

    assert refusal(client.chat_update, channel=BOT_IS_IN, ts=ts, text="x") == "cant_update_message"
    assert refusal(client.chat_delete, channel=BOT_IS_IN, ts=ts) == "cant_delete_message"
    assert refusal(client.chat_update, channel=BOT_IS_IN, ts="1.000001", text="x") == "message_not_found"
    assert refusal(client.chat_update, channel=BOT_IS_IN, ts=ts, text="x" * 4001) in ("cant_update_message",)


def test_an_ephemeral_message_is_seen_by_one_person(slack: SlackStandIn, client: WebClient) -> None:
    client.chat_postEphemeral(channel=BOT_IS_IN, user="U01DEMO", text="psst")

    assert [m["text"] for m in slack.ephemerals("U01DEMO")] == ["psst"]
    assert slack.ephemerals("U01LAB") == []
    assert slack.messages(BOT_IS_IN) == []


def test_metadata_comes_back_only_when_asked_for(client: WebClient) -> None:
    metadata = {"event_type": "reply", "event_payload": {"key": "1"}}
    parent = client.chat_postMessage(channel=BOT_IS_IN, text="card", metadata=metadata)["ts"]
    client.chat_postMessage(channel=BOT_IS_IN, text="reply", thread_ts=parent, metadata=metadata)

    without = client.conversations_replies(channel=BOT_IS_IN, ts=parent)["messages"]
    with_it = client.conversations_replies(channel=BOT_IS_IN, ts=parent, include_all_metadata=True)["messages"]

    assert [m.get("metadata") for m in without] == [None, None]
    assert [m["metadata"] for m in with_it] == [metadata, metadata]
    assert with_it[0]["reply_count"] == 1


def test_replies_come_in_pages_the_parent_first(client: WebClient) -> None:
    parent = client.chat_postMessage(channel=BOT_IS_IN, text="card")["ts"]
    for i in range(5):
        client.chat_postMessage(channel=BOT_IS_IN, text=str(i), thread_ts=parent)

    pages = client.conversations_replies(channel=BOT_IS_IN, ts=parent, limit=2)

    assert [[m["text"] for m in page["messages"]] for page in pages] == [["card", "0", "1"], ["2", "3"], ["4"]]
    assert refusal(client.conversations_replies, channel=BOT_IS_IN, ts="1.000001") == "thread_not_found"


def test_history_is_newest_first_within_its_bounds_and_without_replies(client: WebClient) -> None:
    stamps = [client.chat_postMessage(channel=BOT_IS_IN, text=str(i))["ts"] for i in range(4)]
    client.chat_postMessage(channel=BOT_IS_IN, text="reply", thread_ts=stamps[0])

    history = client.conversations_history(channel=BOT_IS_IN, oldest=stamps[0], latest=stamps[3])["messages"]

    assert [m["text"] for m in history] == ["2", "1"]


def test_a_file_arrives_in_its_thread(slack: SlackStandIn, client: WebClient) -> None:
    parent = client.chat_postMessage(channel=BOT_IS_IN, text="card")["ts"]

    client.files_upload_v2(channel=BOT_IS_IN, thread_ts=parent, filename="a.png", title="A", content=b"picture")

    (reply,) = slack.thread("#synapses", parent)
    assert [(f["name"], f["title"], f["mimetype"]) for f in reply["files"]] == [("a.png", "A", "image/png")]
    assert [f.content for f in slack.files] == [b"picture"]
    with urllib.request.urlopen(reply["files"][0]["url_private"], timeout=5) as answer:
        assert answer.read() == b"picture"


def test_a_file_is_not_shared_where_the_app_is_not(client: WebClient) -> None:
    share = {"filename": "a.txt", "content": "text", "request_file_info": False}

    assert refusal(client.files_upload_v2, channel=BOT_IS_OUT, **share) == "not_in_channel"
    assert refusal(client.files_completeUploadExternal, files=[{"id": "F0"}]) == "file_not_found"


def test_a_view_opens_with_the_ids_slack_gives(slack: SlackStandIn, client: WebClient) -> None:
    trigger = slack.workspace.give_trigger("U01DEMO")

    view = client.views_open(trigger_id=trigger, view=modal())["view"]

    assert view["id"] == view["root_view_id"]
    assert view["hash"]
    shown = slack.view_of("U01DEMO")
    assert shown is not None
    assert shown["id"] == view["id"]
    assert shown["state"]["values"] == {"name": {"value": {"type": "plain_text_input", "value": None}}}


def test_a_trigger_works_once(slack: SlackStandIn, client: WebClient) -> None:
    trigger = slack.workspace.give_trigger("U01DEMO")
    client.views_open(trigger_id=trigger, view=modal())

    assert refusal(client.views_open, trigger_id=trigger, view=modal()) == "exchanged_trigger_id"
    assert refusal(client.views_open, trigger_id="1.2.x", view=modal()) == "invalid_trigger_id"


def test_a_trigger_lives_three_seconds(timed: SlackStandIn, clock: Clock) -> None:
    early, late = timed.workspace.give_trigger("U01DEMO"), timed.workspace.give_trigger("U01DEMO")

    clock.now += 3.0
    assert new_client(timed).views_open(trigger_id=early, view=modal())["ok"]
    clock.now += 0.1
    assert refusal(new_client(timed).views_open, trigger_id=late, view=modal()) == "expired_trigger_id"


def test_a_refused_view_does_not_spend_the_trigger(slack: SlackStandIn, client: WebClient) -> None:
    trigger = slack.workspace.give_trigger("U01DEMO")

    assert refusal(client.views_open, trigger_id=trigger, view=modal(title=plain("x" * 25))) == "invalid_arguments"
    assert client.views_open(trigger_id=trigger, view=modal())["ok"]


def test_a_view_may_have_250_kilobytes(slack: SlackStandIn, client: WebClient) -> None:
    big = modal(*[{"type": "section", "text": plain("x" * 2900)}] * 90)

    trigger = slack.workspace.give_trigger("U01DEMO")
    assert refusal(client.views_open, trigger_id=trigger, view=big) == "view_too_large"


def test_three_modals_lie_on_one_another_and_no_more(slack: SlackStandIn, client: WebClient) -> None:
    first = client.views_open(trigger_id=slack.workspace.give_trigger("U01DEMO"), view=modal())["view"]
    second = client.views_push(trigger_id=slack.workspace.give_trigger("U01DEMO"), view=modal())["view"]
    client.views_push(trigger_id=slack.workspace.give_trigger("U01DEMO"), view=modal())

    assert (second["root_view_id"], second["previous_view_id"]) == (first["id"], first["id"])
    trigger = slack.workspace.give_trigger("U01DEMO")
    assert refusal(client.views_push, trigger_id=trigger, view=modal()) == "push_limit_reached"


def test_an_update_may_insist_on_the_version_it_knows(slack: SlackStandIn, client: WebClient) -> None:
    trigger = slack.workspace.give_trigger("U01DEMO")
    view = client.views_open(trigger_id=trigger, view=modal(external_id="mine"))["view"]

    updated = client.views_update(external_id="mine", hash=view["hash"], view=modal(external_id="mine"))["view"]

    assert updated["id"] == view["id"]
    assert updated["hash"] != view["hash"]
    assert refusal(client.views_update, view_id=view["id"], hash=view["hash"], view=modal()) == "hash_conflict"
    assert refusal(client.views_update, view_id="V0", view=modal()) == "not_found"
    trigger = slack.workspace.give_trigger("U01LAB")
    assert refusal(client.views_open, trigger_id=trigger, view=modal(external_id="mine")) == "duplicate_external_id"


def test_an_update_keeps_what_was_typed_in_fields_that_stay(slack: SlackStandIn, client: WebClient) -> None:
    text = {"type": "plain_text_input"}
    trigger = slack.workspace.give_trigger("U01DEMO")
    view = client.views_open(trigger_id=trigger, view=modal(question("a", text), question("b", text)))["view"]
    slack.person().fill(view, {"a": "one", "b": "two"})

    client.views_update(view_id=view["id"], view=modal(question("a", text), question("c", text)))

    shown = slack.view_of("U01DEMO")
    assert shown is not None
    assert {block: v["value"]["value"] for block, v in shown["state"]["values"].items()} == {"a": "one", "c": None}


def test_a_home_tab_is_published_to_one_person(slack: SlackStandIn, client: WebClient) -> None:
    client.views_publish(user_id="U01DEMO", view={"type": "home", "blocks": [{"type": "divider"}]})

    home = slack.home_of("U01DEMO")
    assert home is not None
    assert home["type"] == "home"
    assert slack.home_of("U01LAB") is None


def test_no_home_tab_without_the_manifests_leave() -> None:
    features = {"features": {"app_home": {"home_tab_enabled": False}}}
    with SlackStandIn(manifest=features) as stand_in:
        publish = new_client(stand_in).views_publish
        assert refusal(publish, user_id="U01DEMO", view={"type": "home", "blocks": []}) == "not_enabled"


def test_no_direct_message_without_the_manifests_leave() -> None:
    features = {
        "features": {"app_home": {"messages_tab_enabled": False}},
        "oauth_config": {"scopes": {"bot": ["chat:write"]}},
    }
    with SlackStandIn(manifest=features) as stand_in:
        assert refusal(new_client(stand_in).chat_postMessage, channel="U01DEMO", text="x") == "messages_tab_disabled"


def test_a_rate_limit_names_the_seconds(slack: SlackStandIn, client: WebClient) -> None:
    slack.rate_limit("chat.postMessage", retry_after=7)

    with pytest.raises(SlackApiError) as caught:
        client.chat_postMessage(channel=BOT_IS_IN, text="hello")

    assert caught.value.response.status_code == 429
    assert caught.value.response.headers["retry-after"] == "7"
    assert slack.messages(BOT_IS_IN) == []
    assert client.chat_postMessage(channel=BOT_IS_IN, text="hello")["ok"]


def test_failures_can_be_ordered(slack: SlackStandIn, client: WebClient) -> None:
    slack.fail("chat.postMessage", "fatal_error", times=2)
    slack.break_down("chat.postMessage", status=503)

    assert refusal(client.chat_postMessage, channel=BOT_IS_IN, text="x") == "fatal_error"
    assert refusal(client.chat_postMessage, channel=BOT_IS_IN, text="x") == "fatal_error"
    assert refusal(client.chat_postMessage, channel=BOT_IS_IN, text="x") == "internal_error"
    assert [call.error for call in slack.calls_of("chat.postMessage")] == ["fatal_error"] * 2 + ["internal_error"]


def test_an_answer_can_be_lost_after_the_deed(slack: SlackStandIn, client: WebClient) -> None:
    slack.lose_answer("chat.postMessage")

    with pytest.raises((RemoteDisconnected, ConnectionResetError)):
        client.chat_postMessage(channel=BOT_IS_IN, text="hello")

    assert [m["text"] for m in slack.messages(BOT_IS_IN)] == ["hello"]
    assert slack.calls[-1].error == "lost"


def test_calls_are_recorded_without_the_token(slack: SlackStandIn, client: WebClient) -> None:
    client.chat_postMessage(channel=BOT_IS_IN, text="hello")

    (call,) = slack.calls_of("chat.postMessage")
    assert call.arguments == {"channel": BOT_IS_IN, "text": "hello"}
    assert slack.bot_token not in repr(call)


def test_latency_can_be_set(slack: SlackStandIn, client: WebClient) -> None:
    slack.latency = 0.05

    client.api_test()
    answer = httpx.post(f"{slack.api_url}auth.test", headers={"Authorization": f"Bearer {slack.bot_token}"})

    assert answer.elapsed.total_seconds() >= 0.05


def test_forms_json_gets_and_pieces_are_all_understood(slack: SlackStandIn) -> None:
    """One connection carries calls in every shape HTTP has, read by either of the two readers."""
    headers = {"Authorization": f"Bearer {slack.bot_token}"}
    message = {"channel": BOT_IS_IN, "text": "ü & <"}
    url = f"{slack.api_url}chat.postMessage"

    def pieces() -> Iterator[bytes]:
        yield b'{"channel": "C01SYNAPSES",'
        yield ' "text": "ü & <"}'.encode()

    with httpx.Client(headers=headers) as http:
        answers = [
            http.post(url, json=message),
            http.post(url, data=message),
            http.get(url, params=message),
            http.post(url, content=pieces(), headers={"Content-Type": "application/json"}),
            http.post(url, params=message),
            http.post(url, content=b"{", headers={"Content-Type": "application/json"}),
        ]

    assert [json.loads(answer.content)["ok"] for answer in answers] == [True] * 5 + [False]
    assert [m["text"] for m in slack.messages(BOT_IS_IN)] == ["ü & <"] * 5


def test_an_unknown_method_is_named(client: WebClient) -> None:
    assert refusal(client.api_call, "chat.sing") == "unknown_method"


def test_waiting_ends_with_the_condition_or_says_what_it_waited_for(slack: SlackStandIn, client: WebClient) -> None:
    client.chat_postMessage(channel=BOT_IS_IN, text="hello")

    assert slack.wait_for(lambda: slack.messages(BOT_IS_IN), 5)[0]["text"] == "hello"
    with pytest.raises(TimeoutError, match="a second message"):
        slack.wait_for(lambda: len(slack.messages(BOT_IS_IN)) > 1, 0.01, "a second message")


def test_a_person_s_channels_are_told_page_by_page_and_private_ones_only_where_the_app_is(
    slack: SlackStandIn, client: WebClient
) -> None:
    both: dict[str, Any] = {"user": "U01DEMO", "types": "public_channel,private_channel"}
    first = client.users_conversations(**both, limit=2)
    second = client.users_conversations(**both, limit=2, cursor=first["response_metadata"]["next_cursor"])
    found = [channel["id"] for page in (first, second) for channel in page["channels"]]

    assert found == [BOT_IS_IN, BOT_IS_OUT, PRIVATE]
    assert not second["response_metadata"]["next_cursor"]
    public = client.users_conversations(user="U01DEMO")
    assert [channel["id"] for channel in public["channels"]] == [BOT_IS_IN, BOT_IS_OUT]


def test_what_slack_refuses_of_a_question_for_a_person_s_channels(client: WebClient, limited: WebClient) -> None:
    ask = client.users_conversations
    assert refusal(ask, user="U404") == "user_not_found"
    assert refusal(ask, user="U01DEMO", types="secret_channel") == "invalid_types"
    assert refusal(ask, user="U01DEMO", limit=1000) == "invalid_limit"
    assert refusal(ask, user="U01DEMO", cursor="made-up") == "invalid_cursor"
    assert refusal(limited.users_conversations, user="U01DEMO", types="im") == "missing_scope"


def test_guests_and_people_of_other_workspaces_are_told_apart(slack: SlackStandIn, client: WebClient) -> None:
    slack.add_person(Member("U02GUEST", "visitor", "Visitor", guest=True))
    slack.add_person(Member("U02OUT", "partner", "Partner", team="T02PARTNER"))

    assert client.users_info(user="U02GUEST")["user"]["is_restricted"]
    assert client.users_info(user="U02OUT")["user"]["team_id"] != client.auth_test()["team_id"]
