"""`/nomads submit` over HTTP until its modal is acknowledged, beside a bare endpoint that makes the same Slack call."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack

from bench.figures import Figure
from bench.processes import Part, bot, part, slack_environment, workplace

CONNECTIONS, REQUESTS, ROUNDS = 50, 1000, 5
LATENCY = 0.02
"""Seconds after which Slack answers."""


def measure() -> Iterator[Figure]:
    """The figures: medians over rounds, with bot and floor in turn, so that other load affects both."""
    with ExitStack() as stack:
        folder = stack.enter_context(workplace())
        slack, load = stack.enter_context(part("slack")), stack.enter_context(part("load"))
        url = stack.enter_context(bot(slack_environment(slack, folder), log=folder / "log")) + "/slack/events"
        floors = {client: stack.enter_context(_floor(slack, client)) for client in ("pooled", "sdk")}
        body = slack.ask(url=url)["slash"]
        slack.ask(latency=LATENCY)
        places = {"bot": url, **{client: floor.ready["url"] for client, floor in floors.items()}}
        rates: dict[str, list[float]] = {name: [] for name in places}
        slowest: list[float] = []
        failed = 0
        for turn in range(ROUNDS + 1):
            for name, place in places.items():
                run = load.ask(
                    connections=CONNECTIONS,
                    requests={"url": place, "body": body, "count": REQUESTS, "secret": slack.ready["secret"]},
                )
                failed += run["failed"]
                if turn:  # the first round warms up
                    rates[name].append(run["rate"])
                    if name == "bot":
                        slowest.append(run["p99"])
    rate = {name: statistics.median(values) for name, values in rates.items()}
    yield Figure(name="modals", value=rate["bot"], unit="/s", floor=rate["pooled"], ratio_at_least=0.7)
    yield Figure(name="modals, floor with slack_sdk's own client", value=rate["sdk"], unit="/s")
    yield Figure(name="modals, p99", value=statistics.median(slowest) * 1000, unit="ms", at_most=180)
    yield Figure(name="modals, failed", value=failed, unit="requests", at_most=0)


def _floor(slack: Part, client: str) -> AbstractContextManager[Part]:
    ready = slack.ready
    return part(
        "floor", "--client", client, "--api", ready["api"], "--token", ready["token"], "--secret", ready["secret"]
    )
