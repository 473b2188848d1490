"""The form: opened while BOSS hangs, filled from 2,000 collections, acknowledged in every state of BOSS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.figures import Figure
from bench.processes import Part, bot, part, slack_environment, workplace

STATES: dict[str, dict[str, float]] = {
    "prompt": {"delay": 0, "status": 200},
    "slow": {"delay": 1.2, "status": 200},
    "hanging": {"delay": -1, "status": 200},
    "failing": {"delay": 0, "status": 500},
}
"""States of BOSS: seconds until it answers (-1: never), and with what."""
FEW, CONNECTIONS, OPTIONS = 40, 10, 400


def measure() -> Iterator[Figure]:
    """The figures, with a new bot for each state of BOSS, so that no answer is cached."""
    with part("slack") as slack, part("load") as load, part("boss") as boss:
        boss.ask(**STATES["hanging"])
        with _bot(slack, boss) as url:
            body = slack.ask(url=url, opening="submit demo/cortex x=0,512 y=0,512 z=0,16")["slash"]
            run = _load(load, slack, url, body, FEW, 1)
        yield Figure(name="forms, opening while BOSS hangs, p95", value=run["p95"] * 1000, unit="ms", at_most=300)
        yield Figure(name="forms, opening while BOSS hangs, failed", value=run["failed"], unit="requests", at_most=0)

        boss.ask(**STATES["prompt"])
        with _bot(slack, boss) as url:
            body = slack.ask(url=url, typing="collection_1")["suggestion"]
            run = _load(load, slack, url, body, OPTIONS, CONNECTIONS, bodies=True)
        yield Figure(name="forms, options of 2,000 collections, p95", value=run["p95"] * 1000, unit="ms", at_most=400)
        yield Figure(name="forms, options, failed", value=run["failed"], unit="requests", at_most=0)

        for state, how in STATES.items():
            boss.ask(**STATES["prompt"])
            with _bot(slack, boss) as url:
                asked = slack.ask(url=url)
                boss.ask(**how)
                # another experiment for each, so that no answer is cached
                body = asked["submission"].replace(asked["view"], "V########").replace("cortex", "cortex########")
                run = _load(load, slack, url, body, FEW, CONNECTIONS, mark="########")
            name = f"forms, acknowledged with BOSS {state}"
            yield Figure(name=f"{name}, slowest", value=run["slowest"] * 1000, unit="ms", at_most=2500)
            yield Figure(name=f"{name}, failed", value=run["failed"], unit="requests", at_most=0)


def _load(
    load: Part, slack: Part, url: str, body: str, count: int, connections: int, *, bodies: bool = False, mark: str = ""
) -> dict[str, Any]:
    requests = {"url": url, "body": body, "count": count, "secret": slack.ready["secret"], "mark": mark}
    return load.ask(connections=connections, requests=requests, bodies=bodies)


@contextmanager
def _bot(slack: Part, boss: Part) -> Iterator[str]:
    """Run a bot; yields the address at which it serves Slack."""
    with workplace() as folder:
        environment = slack_environment(slack, folder) | {"NOMADS_BOSS_HOST": boss.ready["url"]}
        with bot(environment, log=folder / "log") as url:
            yield f"{url}/slack/events"
