"""The page behind a link to results as people see it: under its own policy, on a telephone, in the dark."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from bot.application.visits import Visits
from bot.domain.health import Health
from bot.domain.links import Audience
from bot.domain.states import JobState
from bot.local.results import LocalResults
from bot.storage.engine import Database, connect
from bot.web.site import web
from pipelines.common.program import run
from pipelines.unsupervised.driver import program
from sandbox.boss import DEMO_TOKEN, BossStandIn
from tests.support.app import Door
from tests.support.databases import new_sqlite
from tests.support.stories import a_summary
from tests.support.world import World

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page_s_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the results of a box of demo/cortex are shown, with a long name and notes among them."""
    folder = tmp_path_factory.mktemp("lab")
    store = Database(connect(new_sqlite(folder / "nomads.db")))
    world = World(store)
    world.clock.run()
    job = world.accept()
    home = folder / "results" / job.folder
    with BossStandIn() as boss:
        argv = ["--host", boss.url, "--col", "demo", "--exp", "cortex", "--results-uri", home.as_uri()]
        argv += ["--z-range", "0,8", "--y-range", "0,256", "--x-range", "0,256"]
        assert run(program, argv=argv, environ={"BOSS_TOKEN": DEMO_TOKEN}, err=io.StringIO()) == 0
    (home / ("a-very-long-name" * 12)).write_bytes(b"x")
    summary = a_summary(preview="preview.png", notes=["W" * 400])
    with store.begin() as transaction:
        transaction.jobs.change(job.id, state=JobState.SUCCEEDED.value, summary=summary.model_dump(mode="json"))
    visits = Visits(
        links=world.links,
        queries=world.queries,
        catalog=world.catalog,
        results=LocalResults(folder=folder / "results"),
        output=world.output,
        addresses=world.addresses,
        sees=lambda person, job: True,
    )
    with Door() as door, door.leads_to(web(slack=None, shared=visits, health=Health)):
        link = world.links.to_results(job, Audience.person("U01DEMO"))
        assert link
        yield door.url + link.url.removeprefix("https://nomads.test")
    store.close()


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (360, "light"), (1200, "light")])
def test_the_page_is_whole_and_fits_its_reader(
    browser: Browser, page_s_address: str, width: int, scheme: Literal["dark", "light"]
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: hosts.add(request.url.split("/results/")[0]))
    page.goto(page_s_address)

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.images[0].naturalWidth") >= 256
    expect(page.get_by_text("1,234 synapses")).to_be_visible()
    expect(page.get_by_role("img", name="Preview of the detections")).to_be_visible()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light"), "the page's own style is let in by its policy"
    assert complaints == []
    assert len([host for host in hosts if host.startswith("http")]) == 1
    page.close()


def test_a_person_reads_the_report_and_takes_everything_home(
    browser: Browser, page_s_address: str, tmp_path: Path
) -> None:
    page = browser.new_page()
    page.goto(page_s_address)
    with page.expect_download() as taken:
        page.get_by_role("link", name="All files in one zip").click()
    taken.value.save_as(tmp_path / "all.zip")
    assert {Path(name).name for name in zipfile.ZipFile(tmp_path / "all.zip").namelist()} >= {
        "synapses.csv",
        "predictions.npz",
        "report.html",
        "results.json",
    }
    page.get_by_role("link", name="Read the report").click()
    expect(page.get_by_role("img", name="The box from above")).to_be_visible()
    page.close()
