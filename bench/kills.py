"""Random kills of a bot at work: whether anything is lost or done twice. NOMADS_BENCH_MINUTES says for how long."""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure
from sandbox.house import House
from sandbox.slack import Person
from tests.support.app import RIGHT
from tests.support.processes import Lab

MINUTES = 2.0
"""Minutes of kills, unless NOMADS_BENCH_MINUTES says otherwise."""
BETWEEN = (0.3, 4.0)
"""Seconds from a bot's start to its end, at least and at most."""
PAUSE = 0.3
"""Seconds between two submissions, and between two presses of the button where no answer came."""


@dataclass
class Typist:
    """Somebody who submits one job after another, and presses Submit again where no answer comes, as people do."""

    lab: Lab
    end: threading.Event
    acknowledged: int = 0

    def type(self) -> None:
        """Submit until the end; every form that was opened is submitted until the bot acknowledges it."""
        person, number = self.lab.slack.person(), 0
        while not self.end.is_set():
            person.slash("/nomads", "submit")
            if view := self.lab.slack.view_of(person):
                number += 1
                box = {"x": f"0, {512 - number % 500}", "y": f"0, {512 - number // 500}"}  # no two do the same work
                self._insist(person, view, RIGHT | box)
            self.end.wait(PAUSE)

    def _insist(self, person: Person, view: dict[str, object], typed: dict[str, str]) -> None:
        while not person.submit(view, typed).ok:
            time.sleep(PAUSE)  # as a person takes a breath: there is nothing to wait for but a bot that starts
        self.acknowledged += 1


def measure() -> Iterator[Figure]:
    """How often the bot was killed, and how many of the acknowledged jobs were lost or had something done twice."""
    minutes, moments = float(os.environ.get("NOMADS_BENCH_MINUTES", MINUTES)), random.Random()
    with (
        tempfile.TemporaryDirectory(prefix="nomads-kills-") as folder,
        House() as house,
        Lab(house, Path(folder)) as lab,
    ):
        typist = Typist(lab, threading.Event())
        thread = threading.Thread(target=typist.type)
        lab.start()
        thread.start()
        until, kills = time.monotonic() + minutes * 60, 0
        while time.monotonic() < until:
            typist.end.wait(moments.uniform(*BETWEEN))
            lab.living().kill()
            lab.start()
            kills += 1
        typist.end.set()
        thread.join()
        lab.settle()
        wrong = lab.not_done_once(lab.jobs)
        for job, said in wrong.items():
            print(job, *said, sep="\n  ")
        yield Figure(name="kills", value=kills, unit="kills")
        yield Figure(name="kills, jobs", value=typist.acknowledged, unit="jobs", at_least=1)
        lost = abs(typist.acknowledged - len(lab.jobs))
        yield Figure(name="kills, acknowledged or there but not both", value=lost, unit="jobs", at_most=0)
        yield Figure(name="kills, not done, or done twice", value=len(wrong), unit="jobs", at_most=0)
        yield Figure(name="kills, tokens left", value=lab.kept_secrets, unit="tokens", at_most=0)
