"""What people do reaches the app as from Slack, over Socket Mode and over HTTP, and its answers show on screen."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from slack_bolt import Ack, App
from slack_sdk import WebClient
from slack_sdk.signature import SignatureVerifier
from slack_sdk.webhook import WebhookClient

from sandbox.slack import SlackStandIn
from tests.integration.sandbox.conftest import (
    MANIFEST,
    Serving,
    modal,
    new_app,
    new_client,
    over_http,
    over_sockets,
    plain,
    question,
    tiny_app,
)

OPTIONS = [{"text": plain("One"), "value": "1"}, {"text": plain("Two"), "value": "2"}]


def opened(slack: SlackStandIn) -> dict[str, Any]:
    """The modal on the first person's screen."""
    view = slack.view_of("U01DEMO")
    assert view is not None
    return view


def show(slack: SlackStandIn, view: dict[str, Any], *, channel: str = "C01SYNAPSES") -> dict[str, Any]:
    """Open a modal without an interaction before it."""
    new_client(slack).views_open(trigger_id=slack.workspace.give_trigger("U01DEMO", channel), view=view)
    return opened(slack)


def test_a_command_opens_a_modal_which_is_corrected_and_sent(slack: SlackStandIn, served: Serving) -> None:
    with served(tiny_app(slack), slack):
        person = slack.person()
        assert person.slash("/tiny", "submit").ok
        view = opened(slack)

        refused = person.submit(view, {"name": "wrong"})
        assert refused.errors == {"name": "Not this one."}
        assert slack.errors_of(person) == {"name": "Not this one."}
        assert opened(slack)["id"] == view["id"]

        taken = person.submit(view, {"name": "right"})

    assert taken.ok
    assert 0 < taken.seconds < 2
    assert slack.view_of(person) is None
    assert [m["text"] for m in slack.messages("#synapses")] == ["right"]


def test_a_commands_answer_is_shown_to_the_one_who_typed_it(slack: SlackStandIn, served: Serving) -> None:
    with served(tiny_app(slack), slack):
        slack.person().slash("/tiny", "help")

    assert [m["text"] for m in slack.ephemerals("U01DEMO")] == ["Usage: `/tiny submit`"]
    assert slack.ephemerals("U01LAB") == []


def test_slack_checks_required_fields_itself(slack: SlackStandIn) -> None:
    """An empty required field never reaches the app, unless a broken client sends it."""
    seen: list[dict[str, Any]] = []
    app = new_app(slack)

    @app.view("tiny")
    def submitted(ack: Ack, view: dict[str, Any]) -> None:
        seen.append(view["state"]["values"])
        ack()

    with over_http(app, slack):
        mail = {"type": "email_text_input"}
        view = show(slack, modal(question("name", {"type": "plain_text_input"}), question("mail", mail)))
        unsent = slack.person().submit(view, {"mail": "nobody"})
        assert (unsent.error, sorted(unsent.errors)) == ("not_sent", ["mail", "name"])
        assert seen == []

        assert slack.person().submit(view, {"mail": "nobody"}, checked=False).ok

    assert seen[0]["mail"]["value"] == {"type": "email_text_input", "value": "nobody"}
    assert seen[0]["name"]["value"]["value"] is None


def test_every_kind_of_field_arrives_in_its_own_shape(slack: SlackStandIn, served: Serving) -> None:
    seen: list[dict[str, Any]] = []
    app = new_app(slack)

    @app.options("value")
    def suggestions(ack: Ack, payload: dict[str, Any]) -> None:
        ack(options=[{"text": plain(payload["value"].upper()), "value": payload["value"]}])

    @app.view("tiny")
    def submitted(ack: Ack, view: dict[str, Any]) -> None:
        seen.append(view["state"]["values"])
        ack()

    view = modal(
        question("text", {"type": "plain_text_input"}),
        question("kept", {"type": "plain_text_input", "initial_value": "as it was"}),
        question("select", {"type": "static_select", "options": OPTIONS}),
        question("external", {"type": "external_select", "min_query_length": 0}),
        question("here", {"type": "conversations_select", "default_to_current_conversation": True}),
        question("channel", {"type": "channels_select"}),
        question("boxes", {"type": "checkboxes", "options": OPTIONS}, optional=True),
        question("radio", {"type": "radio_buttons", "options": OPTIONS, "initial_option": OPTIONS[1]}),
    )
    with served(app, slack):
        shown = show(slack, view, channel="C01PILOT")
        person = slack.person()
        values = {"text": "x", "select": "2", "external": "demo", "channel": "#general", "boxes": ["1", "2"]}
        assert person.submit(shown, values).ok

    assert {block: entry["value"] for block, entry in seen[0].items()} == {
        "text": {"type": "plain_text_input", "value": "x"},
        "kept": {"type": "plain_text_input", "value": "as it was"},
        "select": {"type": "static_select", "selected_option": OPTIONS[1]},
        "external": {"type": "external_select", "selected_option": {"text": plain("DEMO"), "value": "demo"}},
        "here": {"type": "conversations_select", "selected_conversation": "C01PILOT"},
        "channel": {"type": "channels_select", "selected_channel": "C01GENERAL"},
        "boxes": {"type": "checkboxes", "selected_options": OPTIONS},
        "radio": {"type": "radio_buttons", "selected_option": OPTIONS[1]},
    }


def test_nobody_chooses_what_is_not_offered(slack: SlackStandIn) -> None:
    chooser = {"type": "conversations_select", "filter": {"include": ["public"]}}
    view = show(
        slack, modal(question("select", {"type": "static_select", "options": OPTIONS}), question("to", chooser))
    )
    person = slack.person()

    with pytest.raises(ValueError, match="'3' is not among the options"):
        person.fill(view, {"select": "3"})
    with pytest.raises(ValueError, match="'#pilot-data' is not offered"):
        person.fill(view, {"to": "#pilot-data"})
    with pytest.raises(ValueError, match="no blocks"):
        person.fill(view, {"elsewhere": "x"})
    assert opened(slack)["state"]["values"]["select"]["value"]["selected_option"] is None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"response_action": "errors", "errors": {"elsewhere": "x"}}, "invalid_errors"),
        ({"response_action": "dance"}, "invalid_response_action"),
        ({"response_action": "update", "view": {"type": "drawer"}}, "unsupported type: drawer"),
    ],
    ids=["errors elsewhere", "unknown action", "bad view"],
)
def test_an_answer_slack_cannot_use_leaves_the_modal_with_an_error(
    slack: SlackStandIn, body: dict[str, Any], error: str
) -> None:
    app = new_app(slack)

    @app.view("tiny")
    def submitted(ack: Ack) -> None:
        ack(**body)

    with over_http(app, slack):
        answered = slack.person().submit(show(slack, modal()), {"name": "x"})

    assert error in answered.error
    assert slack.errors_of("U01DEMO") == {"": "We had some trouble connecting. Try again?"}


def test_a_submission_can_update_push_and_clear(slack: SlackStandIn) -> None:
    app = new_app(slack)
    name = {"type": "plain_text_input"}

    @app.view("first")
    def update(ack: Ack) -> None:
        ack(response_action="update", view=modal(question("name", name), callback_id="second"))

    @app.view("second")
    def push(ack: Ack) -> None:
        ack(response_action="push", view=modal(question("name", name), callback_id="third"))

    @app.view("third")
    def clear(ack: Ack) -> None:
        ack(response_action="clear")

    with over_http(app, slack):
        person = slack.person()
        first = show(slack, modal(question("name", name), callback_id="first"))
        assert person.submit(first, {"name": "x"}).ok
        second = opened(slack)
        assert (second["id"], second["callback_id"]) == (first["id"], "second")
        assert person.submit(second).ok
        third = opened(slack)
        assert (third["root_view_id"], third["callback_id"]) == (first["id"], "third")
        assert person.submit(third, {"name": "x"}).ok

    assert slack.view_of("U01DEMO") is None


def test_a_button_of_a_message_tells_where_it_is(slack: SlackStandIn, served: Serving) -> None:
    seen: list[dict[str, Any]] = []
    app = new_app(slack)

    @app.action("cancel")
    def pressed(ack: Ack, body: dict[str, Any]) -> None:
        ack()
        seen.append(body)

    press = {"type": "button", "action_id": "cancel", "text": plain("Cancel"), "value": "job 1"}
    new_client(slack).chat_postMessage(
        channel="C01PILOT", text="card", blocks=[{"type": "actions", "block_id": "b", "elements": [press]}]
    )
    (message,) = slack.messages("#pilot-data")

    with served(app, slack):
        assert slack.person().click(message, "cancel").ok

    (body,) = seen
    assert body["container"] == {
        "type": "message",
        "message_ts": message["ts"],
        "channel_id": "C01PILOT",
        "is_ephemeral": False,
    }
    assert body["channel"] == {"id": "C01PILOT", "name": "privategroup"}
    assert body["message"]["text"] == "card"
    assert body["actions"][0] | {"action_ts": ""} == {
        "action_id": "cancel",
        "block_id": "b",
        "type": "button",
        "action_ts": "",
        "text": plain("Cancel"),
        "value": "job 1",
    }


def test_a_choice_in_a_modal_is_told_with_all_that_was_typed(slack: SlackStandIn) -> None:
    seen: list[dict[str, Any]] = []
    app = new_app(slack)

    @app.action("value")
    def chosen(ack: Ack, body: dict[str, Any]) -> None:
        ack()
        seen.append(body)

    select = question("select", {"type": "static_select", "options": OPTIONS}, dispatch_action=True)
    with over_http(app, slack):
        person = slack.person()
        view = show(slack, modal(question("name", {"type": "plain_text_input"}), select))
        person.fill(view, {"name": "typed"})
        assert person.click(view, "value", "2", block_id="select").ok

    (body,) = seen
    assert body["container"] == {"type": "view", "view_id": view["id"]}
    assert body["actions"][0]["selected_option"] == OPTIONS[1]
    assert body["view"]["state"]["values"]["name"]["value"]["value"] == "typed"


def test_shortcut_home_and_close_reach_the_app(slack: SlackStandIn, served: Serving) -> None:
    app = new_app(slack)
    heard: list[str] = []

    @app.shortcut("tiny")
    def shortcut(ack: Ack, body: dict[str, Any], client: WebClient) -> None:
        client.views_open(trigger_id=body["trigger_id"], view=modal(notify_on_close=True))
        ack()

    @app.event("app_home_opened")
    def home(event: dict[str, Any], client: WebClient) -> None:
        client.views_publish(user_id=event["user"], view={"type": "home", "blocks": [{"type": "divider"}]})

    @app.view_closed("tiny")
    def closed(ack: Ack, body: dict[str, Any]) -> None:
        ack()
        heard.append(body["type"])

    with served(app, slack):
        person = slack.person()
        assert person.shortcut("tiny").ok
        told = person.close(opened(slack))
        assert person.open_home().ok
        published = slack.wait_for(lambda: slack.home_of(person), 5)

    assert published is not None
    assert published["type"] == "home"
    assert told is not None
    assert told.ok
    assert heard == ["view_closed"]
    assert slack.view_of(person) is None


def test_a_late_acknowledgement_is_a_timeout_for_the_person() -> None:
    late = threading.Event()
    with SlackStandIn(ack_timeout=0.2) as slack:
        app = new_app(slack)

        @app.command("/tiny")
        def command(ack: Ack) -> None:
            late.wait(5)
            ack()

        with over_sockets(app, slack):
            answered = slack.person().slash("/tiny")
            late.set()

        assert (answered.status, answered.error) == (None, "operation_timeout")
        (notice,) = slack.ephemerals("U01DEMO")
    assert notice["user"] == "USLACKBOT"
    assert "operation_timeout" in notice["text"]


def test_nobody_listening_is_told_at_once(slack: SlackStandIn) -> None:
    assert slack.person().slash("/tiny").error == "dispatch_failed"


@pytest.mark.parametrize("signature", ["forged", "stale"])
def test_the_app_can_be_tried_with_bad_signatures(slack: SlackStandIn, signature: Any) -> None:
    with over_http(tiny_app(slack), slack):
        answered = slack.person(signature=signature).slash("/tiny", "submit")

    assert (answered.status, answered.error) == (401, "dispatch_failed")
    assert slack.view_of("U01DEMO") is None


def test_anything_can_be_delivered_again(slack: SlackStandIn) -> None:
    with over_http(tiny_app(slack), slack):
        slack.person().slash("/tiny", "submit")
        first = slack.person().submit(opened(slack), {"name": "twice"})
        again = slack.redeliver(first)

    assert again.status == 200
    assert [m["text"] for m in slack.messages("#synapses")] == ["twice", "twice"]


def test_connections_are_shared_out_and_can_be_refreshed(slack: SlackStandIn) -> None:
    app = tiny_app(slack)
    with over_sockets(app, slack), over_sockets(app, slack):
        slack.wait_for_connection(count=2)
        assert [slack.person().slash("/tiny", "help").ok for _ in range(4)] == [True] * 4

        slack.refresh_connections()
        slack.wait_for_connection(count=2)
        assert slack.person().slash("/tiny", "help").ok


def test_a_response_url_works_five_times(slack: SlackStandIn) -> None:
    seen: list[str] = []
    app = new_app(slack)

    @app.command("/tiny")
    def command(ack: Ack, body: dict[str, Any]) -> None:
        seen.append(body["response_url"])
        ack()

    with over_sockets(app, slack):
        slack.person().slash("/tiny")
    webhook = WebhookClient(seen[0])
    answers = [webhook.send(text=str(i)).body for i in range(6)]

    assert answers == ["ok"] * 5 + ["used_url"]
    assert [m["text"] for m in slack.ephemerals("U01DEMO")] == ["0", "1", "2", "3", "4"]


def test_only_what_the_manifest_declares_can_be_done() -> None:
    with SlackStandIn(manifest=MANIFEST) as slack:
        person = slack.person()
        assert person.slash("/other").error == "invalid_command"
        with pytest.raises(ValueError, match="declares no global shortcut"):
            person.shortcut("other")
        assert person.event({"type": "reaction_added", "user": person.id}).error == "not_subscribed"


def test_a_bolt_app_starts_against_the_stand_in_unchanged(slack: SlackStandIn) -> None:
    """App() asks auth.test in its constructor."""
    App(client=new_client(slack), signing_secret=slack.signing_secret, token_verification_enabled=True)

    assert [call.error for call in slack.calls_of("auth.test")] == [""]


def test_what_the_stand_in_signs_slack_s_own_sdk_accepts(slack: SlackStandIn) -> None:
    headers = slack.sign(b"command=%2Fnomads")
    verifier = SignatureVerifier(slack.signing_secret)
    assert verifier.is_valid_request(b"command=%2Fnomads", headers)
    assert not verifier.is_valid_request(b"command=%2Fother", headers)
