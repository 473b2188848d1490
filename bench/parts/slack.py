"""The Slack stand-in as a process: accepts any trigger, records no calls, and answers with a set latency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.processes import questions, say
from sandbox.house import ROOT
from sandbox.slack import SlackStandIn
from sandbox.slack.delivery import Ack, Envelope

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
    """Serve until standard input ends; a question has the bot's `url`."""
    with SlackStandIn(manifest=ROOT / "manifest.yml", any_trigger=True, record=False, ack_timeout=10) as slack:
        say(api=slack.api_url, token=slack.bot_token, secret=slack.signing_secret)
        for question in questions():
            slack.latency = question.get("latency", slack.latency)
            slack.request_url = question.get("url", slack.request_url)
            if "opening" in question:
                say(slash=_body(slack, _opened(slack, question["opening"])))
            elif "typing" in question:
                say(suggestion=_typed(slack, question["typing"]))
            else:
                typed = {name: text for name, text in question.items() if name in FORM}
                say(**(walk(slack, FORM | typed) if "url" in question else {}))


def _opened(slack: SlackStandIn, words: str) -> Ack:
    """Type the command that opens the form."""
    opened = slack.person().slash("/nomads", words)
    if not opened.ok or slack.person().view() is None:
        raise RuntimeError(f"the form did not open: {opened}")
    return opened


def _typed(slack: SlackStandIn, text: str) -> str:
    """The request that Slack sends when this is typed into the collection's field."""
    _opened(slack, "submit")
    person = slack.person()
    view = person.view()
    assert view
    person.fill(view, {"token": FORM["token"]})
    sent: list[Envelope] = []
    deliver = person._deliver

    def keep(envelope: Envelope) -> Ack:
        sent.append(envelope)
        return deliver(envelope)

    person._deliver = keep  # type: ignore[method-assign]
    if not person.suggest(view, "collection", text):
        raise RuntimeError("nothing was offered")
    return slack.signed(sent[-1])[0].decode()


def walk(slack: SlackStandIn, form: Mapping[str, str]) -> dict[str, Any]:
    """Open the form and submit it once; returns the two requests as Slack sent them, to be repeated."""
    opened = _opened(slack, "submit")
    person = slack.person()
    view = person.view()
    assert view
    taken = person.submit(view, form)
    if not taken.ok or person.view() is not None:
        raise RuntimeError(f"the form was not taken: {taken}")
    return {"slash": _body(slack, opened), "submission": _body(slack, taken), "view": view["id"]}


def _body(slack: SlackStandIn, ack: Ack) -> str:
    return slack.request(ack)[0].decode()


if __name__ == "__main__":
    main()
