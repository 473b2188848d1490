"""The Slack stand-in as a process: answers any trigger, keeps no record, and takes as long as it is told."""

from __future__ import annotations

from typing import Any

from bench.processes import questions, say
from sandbox.house import ROOT
from sandbox.slack import SlackStandIn
from sandbox.slack.delivery import Ack

FORM = {
    "token": "demo-token",
    "collection": "demo",
    "experiment": "cortex",
    "x": "0, 512",
    "y": "0, 512",
    "z": "0, 16",
    "email": "demo@example.org",
}
"""What the person types into the modal."""


def main() -> None:
    """Serve until standard input ends; `url` in a question is where the bot is."""
    with SlackStandIn(manifest=ROOT / "manifest.yml", any_trigger=True, record=False, ack_timeout=10) as slack:
        say(api=slack.api_url, token=slack.bot_token, secret=slack.signing_secret)
        for question in questions():
            slack.latency = question.get("latency", slack.latency)
            say(**(_walk(slack, question["url"]) if "url" in question else {}))


def _walk(slack: SlackStandIn, url: str) -> dict[str, Any]:
    """Open the form and submit it once; the two requests as Slack sent them, to be sent again."""
    slack.request_url = url
    person = slack.person()
    opened = person.slash("/nomads", "submit")
    view = person.view()
    if not opened.ok or view is None:
        raise RuntimeError(f"the form did not open: {opened}")
    taken = person.submit(view, FORM)
    if not taken.ok:
        raise RuntimeError(f"the form was not taken: {taken}")
    return {"slash": _body(slack, opened), "submission": _body(slack, taken), "view": view["id"]}


def _body(slack: SlackStandIn, ack: Ack) -> str:
    return slack.request(ack)[0].decode()


if __name__ == "__main__":
    main()
