"""The whole way in a real browser: the bot as its own process, all stand-ins, one person."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from sandbox.boss import DEMO_TOKEN
from sandbox.house import House, bot_process
from tests.support import options
from tests.support.app import PROGRAMS, with_endings
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.browser


@contextmanager
def at_work(browser: Browser, folder: Path, **env: str) -> Iterator[Page]:
    """The workspace in a browser, with the bot in it."""
    often = {"NOMADS_WATCH_INTERVAL": "0.1", "NOMADS_EDIT_INTERVAL": "0.1"}
    with (
        House(ack_timeout=PATIENCE) as house,
        bot_process(house.environment(folder / "data") | often | env, log=folder / "bot.log"),
    ):
        with_endings(house.boss)
        house.slack.wait_for_connection(30)
        page = browser.new_page()
        page.set_default_timeout(20_000)
        expect.set_options(timeout=20_000)
        page.goto(house.slack.url)
        yield page
        page.close()
        house.slack.drop_connections()  # the bot, asked to end, would otherwise wait for a word on its connection


def test_a_person_submits_is_corrected_follows_the_thread_and_opens_the_results(
    browser: Browser, tmp_path: Path
) -> None:
    with at_work(browser, tmp_path) as page:
        page.get_by_placeholder("/nomads submit").fill("/nomads submit nomads-unsupervised demo/cortex x=0,256 y=0,256")
        page.keyboard.press("Enter")
        form = page.get_by_role("dialog")
        expect(form.get_by_text("PSD95 (uint8)")).to_be_visible()  # what comes late would wipe an error away
        form.get_by_label("BOSS token").fill(DEMO_TOKEN)
        form.get_by_label("Z range").fill("16, 0")
        form.get_by_role("button", name="Submit").click()
        expect(form.get_by_text("start (16) must be smaller than stop (0)")).to_be_visible()
        form.get_by_label("Z range").fill("0, 16")
        form.get_by_role("button", name="Submit").click()
        expect(form).to_be_hidden()
        page.get_by_role("button", name=re.compile("repl")).first.click()
        expect(page.get_by_text(re.compile(r"^\d+ synapses, [0-9.]+ per µm³; .* Finished after ")).first).to_be_visible(
            timeout=60_000
        )
        expect(page.get_by_role("img", name=re.compile("Preview")).first).to_be_visible()
        href = page.get_by_role("link", name="All files").first.get_attribute("href")
        assert href
        page.goto(href)
        expect(page.get_by_role("link", name="synapses.csv")).to_be_visible()


def test_a_person_finds_an_experiment_by_typing_and_sees_what_it_has(browser: Browser, tmp_path: Path) -> None:
    with at_work(browser, tmp_path) as page:
        page.get_by_placeholder("/nomads submit").fill("/nomads submit")
        page.keyboard.press("Enter")
        form = page.get_by_role("dialog")
        form.get_by_label("BOSS token").fill(DEMO_TOKEN)
        form.get_by_label("X range").fill("7, 77")
        form.get_by_label("Collection").fill("dem")
        form.get_by_role("option", name="demo", exact=True).click()
        form.get_by_label("Experiment").fill("c")
        form.get_by_role("option", name="cortex", exact=True).click()
        expect(form.get_by_text("PSD95 (uint8)")).to_be_visible()
        expect(form.get_by_text("This experiment has 0, 1024;").first).to_be_visible()
        expect(form.get_by_label("X range")).to_have_value("7, 77")
        expect(form.get_by_label("BOSS token")).to_have_value(DEMO_TOKEN)
        form.get_by_label("Y range").fill("0, 64")
        form.get_by_label("Z range").fill("60, 65")
        form.get_by_text("Remember this token").click()
        form.get_by_role("button", name="Submit").click()
        expect(form.get_by_text("This experiment has z 0, 64; choose a range within that.")).to_be_visible()
        form.get_by_label("Z range").fill("0, 8")
        form.get_by_role("button", name="Submit").click()
        expect(form).to_be_hidden()
        page.get_by_placeholder("/nomads submit").fill("/nomads submit")
        page.keyboard.press("Enter")
        expect(form.get_by_label("Experiment")).to_have_value("cortex")
        expect(form.get_by_text("/nomads token replaces or forgets that")).to_be_visible()


def test_a_person_reads_the_log_of_a_running_job_and_cancels_it_in_the_home_tab(
    browser: Browser, tmp_path: Path
) -> None:
    with at_work(browser, tmp_path, NOMADS_PIPELINES=str(PROGRAMS)) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_placeholder("/nomads submit").fill("/nomads submit quick waits/cortex x=0,8 y=0,8 z=0,8")
        page.keyboard.press("Enter")
        window = page.get_by_role("dialog")
        window.get_by_label("BOSS token").fill(DEMO_TOKEN)
        window.get_by_role("button", name="Submit").click()
        expect(window).to_be_hidden()
        page.get_by_role("button", name="Logs").first.click()
        expect(window.get_by_text("progress 0.50 reading")).to_be_visible()
        window.get_by_role("button", name="The whole log").click()
        expect(window.get_by_role("link", name="The whole log")).to_be_visible()
        window.get_by_role("button", name="Close").first.click()
        expect(window).to_be_hidden()
        page.get_by_role("button", name="Home tab").click()
        expect(page.get_by_text("No token is saved for you.")).to_be_visible()
        expect(page.get_by_label("Send me mail")).to_be_checked()
        expect(page.get_by_label("nomads_steps")).to_have_value("all")
        page.get_by_label("nomads_steps").select_option("failures only")
        page.get_by_role("button", name="Cancel").first.click()
        expect(page.get_by_text(re.compile("Cancelled by")).first).to_be_visible()
        expect(page.get_by_role("button", name="Edit and rerun").first).to_be_visible()
        page.get_by_role("button", name="Details").first.click()
        expect(window.get_by_text("What happened")).to_be_visible()


def test_a_person_chooses_a_pipeline_and_sets_its_options(browser: Browser, tmp_path: Path) -> None:
    pipelines = str(options.write(tmp_path / "pipelines"))
    with at_work(browser, tmp_path, NOMADS_PIPELINES=pipelines) as page:
        page.get_by_placeholder("/nomads submit").fill("/nomads submit plain demo/cortex x=0,256 y=0,256 z=0,16")
        page.keyboard.press("Enter")
        form = page.get_by_role("dialog")
        expect(form.get_by_text("PSD95 (uint8)")).to_be_visible()
        form.get_by_label("BOSS token").fill(DEMO_TOKEN)
        form.get_by_label("Pipeline").select_option("optional")
        expect(form.get_by_label("False discovery rate")).to_have_value("0.25")
        form.get_by_label("False discovery rate").fill("2")
        form.get_by_role("button", name="Submit").click()
        expect(form.get_by_text("2 is too large; write a number from 0.01 to 0.9, such as 0.25.")).to_be_visible()
        form.get_by_label("False discovery rate").fill("10 %")
        form.get_by_role("button", name="Submit").click()
        expect(form).to_be_hidden()
        expect(page.get_by_text("False discovery rate 0.1").first).to_be_visible()
