"""A person in Slack who follows jobs, and Slack itself: each action is timed until its result is seen."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from bench.parts.slack import FORM, walk
from bench.processes import questions, say
from bot.slack import cards
from sandbox.house import ROOT
from sandbox.slack import SlackStandIn
from sandbox.slack.delivery import Envelope

CHANNEL = "#synapses"
STEPS = {"RUNNING": "Running, after", "SUCCEEDED": "Finished"}
"""States, and the beginnings of the texts that tell them in a thread."""
PATIENCE = 120.0
"""Seconds within which all jobs must have ended and been told."""


def main() -> None:
    """Serve until standard input ends. A question has the bot's `url` and an action.

    `command` (typed text), `page` (a place in a list) or `home` is repeated `times` times; the result must contain
    `expected`, and the answer's `seconds` has the time of each. `submit` submits that many jobs; the answer's `told`
    has the time at which each step of each job appeared in its thread, in seconds since the epoch.
    """
    with SlackStandIn(manifest=ROOT / "manifest.yml", any_trigger=True, record=False, ack_timeout=10) as slack:
        say(api=slack.api_url, token=slack.bot_token, secret=slack.signing_secret)
        follower = Follower(slack)
        for question in questions():
            slack.request_url = question["url"]
            if "submit" in question:
                say(told=follower.told(question["submit"]))
            else:
                say(seconds=[follower.time(question) for _ in range(question["times"])])


class Follower:
    """The demo person at their screen."""

    def __init__(self, slack: SlackStandIn) -> None:
        self._slack = slack
        self._person = slack.person()

    def time(self, wanted: Mapping[str, Any]) -> float:
        """Seconds until the person sees the expected result. Raises RuntimeError where the result is another."""
        if "command" in wanted:
            seconds, seen = self._type(wanted["command"])
        elif "page" in wanted:
            seconds, seen = self._turn(wanted["page"], wanted["expected"])
        else:
            seconds, seen = self._open_home()
        if wanted["expected"] not in json.dumps(seen):
            raise RuntimeError(f"{wanted} was answered with {seen}")
        return seconds

    def _type(self, text: str) -> tuple[float, Any]:
        ack = self._person.slash("/nomads", text, channel=CHANNEL)
        if not ack.ok:
            raise RuntimeError(f"{text} was answered with {ack}")
        return ack.seconds, ack.body

    def _turn(self, place: str, title: str) -> tuple[float, Any]:
        """Turn to a page: instead of 500 clicks, the click to the second page is sent again with that page's place."""
        self._type("list all")
        page = self._slack.ephemerals(self._person)[-1]
        turned = self._person.click(page, f"{cards.LIST}_older")
        self._shown(page["ts"], "page 2")
        assert turned.envelope
        payload = turned.envelope.payload
        payload = payload | {"actions": [payload["actions"][0] | {"value": place}]}
        began = time.perf_counter()
        self._slack.redeliver(replace(turned, envelope=Envelope("interactive", payload)))
        seen = self._shown(page["ts"], title)
        return time.perf_counter() - began, seen

    def _shown(self, timestamp: str, title: str) -> Any:
        """The message's blocks once they have this title: the page arrives through the click's response_url."""

        def blocks() -> Any:
            whispered = self._slack.workspace.ephemeral[self._person.id]
            message = next(message for message in reversed(whispered) if message["ts"] == timestamp)
            return message["blocks"] if title in json.dumps(message["blocks"][0]) else None

        return self._slack.wait_for(blocks, what=title)

    def _open_home(self) -> tuple[float, Any]:
        homes = self._slack.workspace.homes
        before = homes.get(self._person.id)
        began = time.perf_counter()
        self._person.open_home()
        seen = self._slack.wait_for(
            lambda: home if (home := homes.get(self._person.id)) is not before else None, what="the home tab"
        )
        return time.perf_counter() - began, seen

    def told(self, jobs: int) -> list[dict[str, Any]]:
        """Submit that many jobs and watch the channel until each step of each job is told in its thread."""
        seen: dict[tuple[str, str], float] = {}
        messages = self._slack.workspace.channel(CHANNEL).messages
        earlier = set(messages)

        def look() -> bool:
            at = time.time()
            for timestamp, message in messages.items():
                if timestamp not in earlier and "thread_ts" in message and "metadata" in message:
                    for state, words in STEPS.items():
                        if words in message["text"]:
                            seen.setdefault((message["metadata"]["event_payload"]["job"], state), at)
            if submitting.done():
                submitting.result()  # raises what went wrong
            return len(seen) == jobs * len(STEPS)

        with ThreadPoolExecutor(1) as hands:
            submitting = hands.submit(self._submit, jobs)
            self._slack.wait_for(look, PATIENCE, "every step to be told")
        return [{"job": job, "state": state, "at": at} for (job, state), at in seen.items()]

    def _submit(self, jobs: int) -> None:
        for number in range(jobs):  # each on a box of its own: the same work is not accepted twice
            walk(self._slack, FORM | {"x": f"0, {number + 1}"})


if __name__ == "__main__":
    main()
