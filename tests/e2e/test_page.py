"""The page in a real browser: a person types the command, fills the modal, is corrected and sees the result."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from slack_bolt import Ack
from slack_sdk import WebClient

from sandbox.mail import MailServer
from sandbox.slack import SlackStandIn
from tests.integration.sandbox.conftest import MANIFEST, modal, new_app, over_http, plain, question

pytestmark = pytest.mark.browser

CARD: list[dict[str, Any]] = [
    {"type": "header", "text": plain("A card")},
    {"type": "section", "fields": [{"type": "mrkdwn", "text": "*State*\nRunning"}, plain("<b>not bold</b>")]},
    {
        "type": "actions",
        "elements": [{"type": "button", "action_id": "cancel", "text": plain("Cancel job"), "style": "danger"}],
    },
]
FORM = modal(
    question(
        "pipeline",
        {"type": "static_select", "options": [{"text": plain("Detector"), "value": "nomads-unsupervised"}]},
        label=plain("Pipeline"),
    ),
    question("collection", {"type": "external_select", "min_query_length": 1}, label=plain("Collection")),
    question("x", {"type": "plain_text_input"}, label=plain("X range"), hint=plain("start, stop")),
    question(
        "channel", {"type": "conversations_select", "default_to_current_conversation": True}, label=plain("Channel")
    ),
    question("email", {"type": "email_text_input"}, label=plain("Email")),
    question(
        "extras",
        {"type": "checkboxes", "options": [{"text": plain("Tell everybody"), "value": "all"}]},
        label=plain("Extras"),
        optional=True,
    ),
)


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture
def slack(mail: MailServer) -> Iterator[SlackStandIn]:
    """A workspace with a tiny app behind it that has one of everything."""
    with SlackStandIn(manifest=MANIFEST, mailbox=lambda: mail.messages) as stand_in:
        mail.listen(stand_in.touch)
        app = new_app(stand_in)

        @app.command("/tiny")
        def command(ack: Ack, body: dict[str, Any], client: WebClient) -> None:
            client.views_open(trigger_id=body["trigger_id"], view=FORM)
            ack()

        @app.shortcut("tiny")
        def shortcut(ack: Ack, body: dict[str, Any], client: WebClient) -> None:
            client.views_open(trigger_id=body["trigger_id"], view=FORM)
            ack()

        @app.options("value")
        def suggestions(ack: Ack, payload: dict[str, Any]) -> None:
            names = [name for name in ("collman", "kasthuri") if payload["value"] in name]
            ack(options=[{"text": plain(name), "value": name} for name in names])

        @app.view("tiny")
        def submitted(ack: Ack, view: dict[str, Any], client: WebClient) -> None:
            values = {block: entry["value"] for block, entry in view["state"]["values"].items()}
            if values["x"]["value"] != "0, 512":
                ack(response_action="errors", errors={"x": "Write two whole numbers."})
                return
            channel = values["channel"]["selected_conversation"]
            card = client.chat_postMessage(channel=channel, text="A card", blocks=CARD)["ts"]
            told = f"On {values['collection']['selected_option']['value']}, <https://example.org/|the results>"
            client.chat_postMessage(channel=channel, thread_ts=card, text=told)
            ack()

        @app.action("cancel")
        def cancel(ack: Ack, body: dict[str, Any], client: WebClient) -> None:
            ack()
            where = {"channel": body["channel"]["id"], "ts": body["message"]["ts"]}
            client.chat_update(text="Cancelled", blocks=[{"type": "header", "text": plain("Cancelled")}], **where)

        @app.event("app_home_opened")
        def home(event: dict[str, Any], client: WebClient) -> None:
            client.views_publish(user_id=event["user"], view={"type": "home", "blocks": CARD[:1]})

        with over_http(app, stand_in):
            yield stand_in


@pytest.fixture(params=[(1180, 760, "light"), (360, 740, "dark")], ids=["wide", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, slack: SlackStandIn) -> Iterator[Page]:
    """The page, open. Whatever the browser complains of fails the test."""
    width, height, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    opened.set_default_timeout(10_000)
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
    opened.goto(slack.url)
    yield opened
    opened.close()
    # a script in a mail is to be blocked, and Chromium says when it did
    assert [text for text in complaints if "Blocked script execution" not in text] == []


def type_command(page: Page, text: str) -> None:
    page.get_by_label("Command").fill(text)
    page.get_by_label("Command").press("Enter")


def test_a_command_typed_before_the_page_knows_its_channels_is_sent_all_the_same(
    browser: Browser, slack: SlackStandIn
) -> None:
    opened = browser.new_page()
    opened.set_default_timeout(10_000)
    complaints: list[str] = []
    typed = False
    held: list[Route] = []

    def hold_until_it_is_typed(route: Route) -> None:
        # the page may ask once more as soon as the first answer has come; the route stays and lets that request through
        if typed:
            route.continue_()
        else:
            held.append(route)

    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.route("**/page/state*", hold_until_it_is_typed)
    with opened.expect_request("**/page/state*"):
        opened.goto(slack.url)
    type_command(opened, "/tiny submit")
    typed = True
    for route in held:
        route.continue_()
    expect(opened.get_by_role("dialog").get_by_label("Pipeline")).to_be_visible()
    opened.close()
    assert complaints == []


def test_a_job_is_submitted_from_the_page(page: Page, slack: SlackStandIn) -> None:
    type_command(page, "/tiny submit")
    form = page.get_by_role("dialog")
    form.get_by_label("Pipeline").select_option("nomads-unsupervised")
    form.get_by_label("Collection").fill("coll")
    form.get_by_role("option", name="collman").click()
    form.get_by_label("X range").fill("5, 2")
    expect(form.get_by_label("Channel")).to_have_value("C01SYNAPSES")

    form.get_by_role("button", name="Go").click()
    expect(form.get_by_text("Please complete this required field.")).to_be_visible()
    form.get_by_label("Email").fill("demo@example.org")
    form.get_by_role("button", name="Go").click()
    expect(form.locator("[data-field=x]").get_by_role("alert")).to_have_text("Write two whole numbers.")
    expect(form.get_by_label("X range")).to_have_value("5, 2")

    form.get_by_label("X range").fill("0, 512")
    form.get_by_role("button", name="Go").click()

    expect(form).to_be_hidden()
    expect(page.get_by_role("heading", name="A card")).to_be_visible()
    expect(page.get_by_text("<b>not bold</b>")).to_be_visible()
    page.get_by_role("button", name="1 reply").click()
    thread = page.get_by_label("Thread", exact=True)
    expect(thread.get_by_role("link", name="the results")).to_have_attribute("href", "https://example.org/")
    expect(thread.get_by_text("On collman")).to_be_visible()
    assert slack.calls_of("chat.postMessage")[0].arguments["channel"] == "C01SYNAPSES"


def test_a_button_acts_and_the_card_follows(page: Page, slack: SlackStandIn) -> None:
    client = WebClient(token=slack.bot_token, base_url=slack.api_url)
    client.chat_postMessage(channel="C01SYNAPSES", text="A card", blocks=CARD)

    page.get_by_role("button", name="Cancel job").click()

    expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
    expect(page.get_by_text("(edited)")).to_be_visible()


def test_escape_closes_the_modal_of_the_shortcut(page: Page, slack: SlackStandIn) -> None:
    page.get_by_role("button", name="Tiny").click()
    expect(page.get_by_role("dialog")).to_be_visible()

    page.keyboard.press("Escape")

    expect(page.get_by_role("dialog")).to_be_hidden()
    assert slack.view_of("U01DEMO") is None


def test_what_slack_says_is_shown_only_to_the_one_it_concerns(page: Page, slack: SlackStandIn) -> None:
    type_command(page, "/other")
    expect(page.get_by_text("/other is not a valid command.")).to_be_visible()

    page.get_by_label("You are").select_option("U01LAB")

    expect(page.get_by_text("/other is not a valid command.")).to_be_hidden()


def test_the_home_tab_and_received_mail_have_their_places(page: Page, slack: SlackStandIn, mail: MailServer) -> None:
    page.get_by_role("button", name="Home tab").click()
    expect(page.get_by_role("heading", name="A card")).to_be_visible()

    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "nomads@example.org", "demo@example.org", "Ready"
    message.set_content("In words")
    message.add_alternative("<h1>In colour</h1><script>parent.document.title = 'taken'</script>", subtype="html")
    with smtplib.SMTP("127.0.0.1", mail.port, timeout=5) as client:
        client.send_message(message)
    page.get_by_role("button", name="Mailbox").click()
    page.get_by_text("Ready").click()

    expect(page.frame_locator("iframe").get_by_role("heading", name="In colour")).to_be_visible()
    expect(page.get_by_text("In words")).to_be_visible()
    expect(page).to_have_title("NOMADS sandbox")


def test_nothing_is_wider_than_the_screen(page: Page, slack: SlackStandIn) -> None:
    client = WebClient(token=slack.bot_token, base_url=slack.api_url)
    client.chat_postMessage(
        channel="C01SYNAPSES", text="x" * 300, blocks=[*CARD, {"type": "section", "text": plain("y" * 300)}]
    )
    expect(page.get_by_text("y" * 300)).to_be_visible()

    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate(
        "document.getElementById('stream').scrollWidth <= document.getElementById('stream').clientWidth"
    )
