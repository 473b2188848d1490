"""The levers of the demo's page: each breaks something, says what should happen, and that is what happens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from bot.domain.states import JobState
from sandbox.house import House
from sandbox.levers import Kept, Lever, kept, levers
from tests.support.processes import Lab

pytestmark = pytest.mark.browser


class Broken:
    """A bot with the tests' programs, and the levers of its demo."""

    def __init__(self, house: House, lab: Lab, bot: Kept, log: Path) -> None:
        self.house, self.lab, self.log = house, lab, log
        self.levers = {one.name: one for one in levers(house, bot, lab.data)}

    def pull(self, name: str) -> Lever:
        self.levers[name].pull()
        return self.levers[name]


@pytest.fixture
def broken(house: House, tmp_path: Path) -> Iterator[Broken]:
    with (
        Lab(house, tmp_path) as lab,
        kept(
            {**lab.environment, **house.environment(lab.data)} | {"NOMADS_LEASE_SECONDS": "1.5"},
            log=tmp_path / "kept.log",
        ) as bot,
    ):
        house.slack.wait_for_connection(30)
        yield Broken(house, lab, bot, tmp_path / "kept.log")


def test_each_lever_is_a_button_with_one_sentence(browser: Browser, broken: Broken) -> None:
    pulled: list[str] = []
    broken.house.slack.offer([(one.name, one.says, partial(pulled.append, one.name)) for one in broken.levers.values()])
    page = browser.new_page()
    page.goto(broken.house.slack.url)
    for lever in broken.levers.values():
        page.get_by_role("button", name=lever.name).click()
        expect(page.get_by_text(f"{lever.name}. {lever.says}")).to_be_visible()
        assert lever.says.endswith(".")
    page.close()
    assert pulled == ["Kill the bot", "Take the machine back", "Break Slack", "Break BOSS", "Break mail"]


def test_a_page_without_levers_has_no_place_for_them(browser: Browser, house: House) -> None:
    house.slack.offer([])
    page = browser.new_page()
    page.goto(house.slack.url)
    expect(page.get_by_text("Channels")).to_be_visible()
    expect(page.get_by_text("Break something")).to_be_hidden()
    page.close()


def test_a_job_ends_once_although_everything_but_its_machine_is_broken(broken: Broken) -> None:
    broken.pull("Break BOSS")
    broken.lab.submit()
    for name in ("Break mail", "Break Slack", "Kill the bot"):
        broken.pull(name)
    broken.lab.settle()
    job = broken.lab.newest
    assert job.state is JobState.SUCCEEDED
    assert "Finished" in broken.lab.card(job)
    ends = [text for text in broken.lab.thread(job) if "Finished" in text]
    assert len(ends) == 1
    assert "BOSS did not answer in time, so the request is checked before it is submitted." in broken.lab.thread(job)[0]
    log = broken.log.read_text(encoding="utf-8")
    told = ("NOMADS is ready", *(f"asked for patience with {method}" for method in ("chat.postMessage", "chat.update")))
    assert [log.count(said) for said in (*told, "SMTP 451")] == [2, 3, 3, 3]
    assert [mail["Subject"] for mail in broken.house.mail.messages] == [
        f"NOMADS job {job.id}: accepted",
        f"NOMADS job {job.id}: finished",
    ]


def test_a_machine_that_is_taken_back_is_told_and_the_job_may_be_tried_again(broken: Broken) -> None:
    broken.lab.submit(collection="waits")
    broken.lab.running(broken.lab.newest)
    broken.pull("Take the machine back")
    broken.lab.settle()
    job = broken.lab.newest
    assert job.state is JobState.FAILED
    assert job.retryable
    assert "The program was ended by signal SIGKILL." in broken.lab.thread(job)[-1]

    assert broken.lab.here("retry", job.id).code == 0
    again = broken.lab.newest
    broken.lab.running(again)
    broken.lab.let_go(again)
    assert broken.lab.ended(again).state is JobState.SUCCEEDED
