"""The whole way in a real browser: the bot as its own process, all stand-ins, one person."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from sandbox.boss import DEMO_TOKEN
from sandbox.house import House, bot_process

pytestmark = pytest.mark.browser


def test_a_person_submits_is_corrected_follows_the_thread_and_opens_the_results(
    browser: Browser, tmp_path: Path
) -> None:
    log = tmp_path / "bot.log"
    with House() as house, bot_process(house.environment(tmp_path / "data"), log=log):
        house.slack.wait_for_connection(30)
        page = browser.new_page()
        page.set_default_timeout(20_000)
        page.goto(house.slack.url)
        page.get_by_placeholder("/nomads submit").fill("/nomads submit nomads-unsupervised demo/cortex x=0,256 y=0,256")
        page.keyboard.press("Enter")
        form = page.get_by_role("dialog")
        form.get_by_label("BOSS token").fill(DEMO_TOKEN)
        form.get_by_label("Z range").fill("16, 0")
        form.get_by_role("button", name="Submit").click()
        expect(form.get_by_text("start (16) must be smaller than stop (0)")).to_be_visible()
        form.get_by_label("Z range").fill("0, 16")
        form.get_by_role("button", name="Submit").click()
        expect(form).to_be_hidden()
        page.get_by_role("button", name=re.compile("repl")).first.click()
        expect(page.get_by_text(re.compile(r"Finished after .*: \d+ synapses")).first).to_be_visible(timeout=60_000)
        expect(page.get_by_role("img", name=re.compile("Preview")).first).to_be_visible()
        href = page.get_by_role("link", name="All files").first.get_attribute("href")
        assert href
        page.goto(href)
        expect(page.get_by_role("link", name="synapses.csv")).to_be_visible()
        page.close()
