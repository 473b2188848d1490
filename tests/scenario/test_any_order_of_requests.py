"""Whatever people do, in any order, and whatever comes in Slack's name: all is answered, and nothing with a fault.

Requests are signed, and go through the whole application; the stand-in refuses what Slack would refuse. `FUZZ=5000` has
this tried longer.
"""

from __future__ import annotations

import json
import logging
import os
import random
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from bot.domain.outbox import Lane
from sandbox import blocks
from sandbox.slack import Ack
from sandbox.slack.person import Person
from tests.support.app import PROGRAMS, RIGHT, Serve

PEOPLE = ("U01DEMO", "U01LAB", "U01GUEST")
PLACES = ("#synapses", "#general", "#pilot-data", "#drafts")
TOKEN = "demo-token"
WORDS = st.one_of(
    st.sampled_from(
        [
            "submit",
            "submit demo/cortex x=0,512 y=0,512 z=0,16",
            "submit zarr://s3://lab/v x=0,9",
            "status",
            "jobs",
            "help",
            "retry",
            "cancel",
            "token",
            "settings",
            "look demo",
        ]
    ),
    st.text(max_size=40),
    st.builds("{} {}".format, st.sampled_from(["status", "cancel", "retry", "logs", "submit"]), st.text(max_size=20)),
)
TYPED = st.one_of(
    st.sampled_from(["", "0,512", "demo", "cortex", TOKEN, "lab@example.org", "all", "-1,2"]), st.text(max_size=30)
)
PERSON, NUMBER = st.sampled_from(PEOPLE), st.integers(0, 2**16)
FIELDS = st.lists(st.none() | TYPED, min_size=12, max_size=12)
EXAMPLES = max(1, int(os.environ.get("FUZZ", "100")) // 10)


class Anybody(RuleBasedStateMachine):
    """People who do anything; and somebody who knows the signing secret, and sends anything."""

    def __init__(self, serve: Serve, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._stack, self._records = ExitStack(), records
        records.clear()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._served = self._stack.enter_context(serve(folder, pipelines=str(PROGRAMS)))
        self._slack = self._served.slack
        self._acks: list[Ack] = []

    def teardown(self) -> None:
        self._stack.close()
        self._slack.reset()

    def _answered(self, ack: Ack | None) -> None:
        """What a person does is acknowledged, and its answer is one that Slack takes."""
        if ack is None or ack.error == "not_sent":
            return
        self._acks.append(ack)
        assert (ack.status, ack.error) == (200, ""), ack

    # What people do. What is drawn may not depend on what is on the screen: some of that comes a little later.

    @rule(who=PERSON, words=WORDS, place=st.sampled_from(PLACES))
    def types_a_command(self, who: str, words: str, place: str) -> None:
        self._answered(self._slack.person(who).slash("/nomads", words, channel=place))

    @rule(who=PERSON)
    def opens_the_home_tab(self, who: str) -> None:
        self._answered(self._slack.person(who).open_home())

    @rule(who=PERSON)
    def submits_the_right_form(self, who: str) -> None:
        person = self._slack.person(who)
        self._answered(person.slash("/nomads", "submit"))
        if view := person.view():
            with _what_the_screen_allows():
                self._answered(person.submit(view, RIGHT, checked=False))

    @rule(who=PERSON, typed=FIELDS)
    def submits_what_is_open(self, who: str, typed: list[str | None]) -> None:
        person = self._slack.person(who)
        view = person.view()
        if view is None or not view["submit"]:
            return
        fields = [block["block_id"] for block in view["blocks"] if block["type"] == "input"]
        values = {name: text for name, text in zip(fields, typed, strict=False) if text is not None}
        with _what_the_screen_allows():
            self._answered(person.submit(view, values, checked=False))

    @rule(who=PERSON, several=st.lists(NUMBER, min_size=4, max_size=4), typed=TYPED)
    def uses_whatever_can_be_clicked(self, who: str, several: list[int], typed: str) -> None:
        person = self._slack.person(who)
        for which in several:
            if found := self._clickable(person):
                target, block, element = found[which % len(found)]
                with _what_the_screen_allows():
                    value = self._chosen(person, target, element, which, typed)
                    self._answered(person.click(target, element["action_id"], value, block_id=block["block_id"]))

    @rule(who=PERSON, query=TYPED)
    def looks_for_a_name(self, who: str, query: str) -> None:
        person = self._slack.person(who)
        view = person.view() or {}
        for block in view.get("blocks", []):
            for element in blocks.elements_of(block):
                if element["type"] == "external_select":
                    person.suggest(view, element["action_id"], query)

    @rule(who=PERSON)
    def closes_what_is_open(self, who: str) -> None:
        person = self._slack.person(who)
        if view := person.view():
            self._answered(person.close(view))

    @rule(which=NUMBER)
    def a_delivery_comes_again(self, which: int) -> None:
        if self._acks:
            again = self._slack.redeliver(self._acks[which % len(self._acks)])
            assert again.status == 200, again

    # What others send

    @rule(which=NUMBER, how=NUMBER)
    def something_spoilt_comes_in_slack_s_name(self, which: int, how: int) -> None:
        if not self._acks:
            return
        envelope = self._acks[which % len(self._acks)].envelope
        assert envelope
        payload = _spoilt(envelope.payload, random.Random(how))
        answer = self._slack._courier.deliver(replace(envelope, payload=payload if isinstance(payload, dict) else {}))
        assert answer.status in (200, 400, 404), answer
        assert "Traceback" not in str(answer.body)

    @rule()
    def the_worker_does_what_is_due(self) -> None:
        for lane in Lane:
            if lane is not Lane.COMPUTE:
                self._served.nomads.core.worker.lanes.turn(lane)

    # What holds

    @invariant()
    def nothing_went_wrong_that_nobody_foresaw(self) -> None:
        wrong = [record for record in self._records if record.exc_info or record.levelno >= logging.ERROR]
        assert [record.getMessage() for record in wrong] == []

    @invariant()
    def no_token_is_shown(self) -> None:
        for call in self._slack.calls:
            assert TOKEN not in json.dumps(call.arguments)
        for ack in self._acks:
            assert ack.errors or TOKEN not in json.dumps(ack.body)  # what is wrong with a field names what stands there

    def _chosen(self, person: Person, target: Any, element: dict[str, Any], which: int, typed: str) -> Any:
        """What a person chooses of what an element offers; None: nothing."""
        offered = [option["value"] for option in blocks.choices_of(element)]
        match element["type"]:
            case "button":
                return None
            case "checkboxes":
                return [value for number, value in enumerate(offered) if which >> number & 1]
            case "external_select":
                offered = [option["value"] for option in person.suggest(target, element["action_id"], typed)]
            case "conversations_select":
                return ("C01SYNAPSES", "C01GENERAL")[which % 2]
        return offered[which % len(offered)] if offered else None

    def _clickable(self, person: Person) -> list[tuple[Any, dict[str, Any], dict[str, Any]]]:
        """What a person sees that can be clicked: where, its block and element."""
        view, home = person.view(), self._slack.home_of(person)
        places: list[Any] = [one for one in (view, home) if one]
        for channel in ("#synapses", "#pilot-data"):
            places += self._slack.messages(channel)
        places += self._slack.ephemerals(person)
        return [
            (place, block, element)
            for place in places
            for block in place.get("blocks", [])
            if block["type"] != "input"
            for element in blocks.elements_of(block)
            if "action_id" in element and "url" not in element
        ]


def _spoilt(value: Any, draw: random.Random) -> Any:
    """What is right, with some of its parts taken away, or replaced by something else."""
    if draw.random() < 0.05:
        return draw.choice(
            [None, True, 0, -1, 2.5, "", "x", "<!channel>", "\x00", "a" * 3000, [], {}, [[]], {"id": {}}]
        )
    if isinstance(value, dict):
        return {name: _spoilt(part, draw) for name, part in value.items() if draw.random() < 0.97}
    return [_spoilt(part, draw) for part in value] if isinstance(value, list) else value


class _what_the_screen_allows:  # noqa: N801 - reads as what it is
    """A block that ends where Slack's client would not let a person do so."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, ValueError | LookupError)


def test_whatever_is_done_in_whatever_order_is_answered_without_a_fault(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    machine: Any = partial(Anybody, serve, caplog.records)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            deadline=None,
            phases=[Phase.generate],  # to make a failure smaller takes minutes, and some answers come a little later
            suppress_health_check=list(HealthCheck),
        ),
    )
