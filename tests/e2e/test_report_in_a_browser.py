"""report.html as people see it: under the policy the bot serves it with, on a telephone, in the dark."""

from __future__ import annotations

import io
from typing import Literal

import pytest
from playwright.sync_api import Browser, Route

from pipelines.common.program import run
from pipelines.unsupervised.driver import program
from sandbox.boss import DEMO_TOKEN, BossStandIn
from sandbox.volumes import cortex

pytestmark = pytest.mark.browser

POLICY = "sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'"
ADDRESS = "http://127.0.0.1/report.html"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The report of a box of a small demo/cortex."""
    folder = tmp_path_factory.mktemp("results")
    with BossStandIn(demo=cortex(shape=(32, 288, 288))) as boss:
        argv = ["--host", boss.url, "--col", "demo", "--exp", "cortex", "--results-uri", folder.as_uri()]
        argv += ["--z-range", "0,8", "--y-range", "0,256", "--x-range", "0,256"]
        assert run(program, argv=argv, environ={"BOSS_TOKEN": DEMO_TOKEN}, err=io.StringIO()) == 0
    return (folder / "report.html").read_bytes()


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (360, "light"), (1200, "light")])
def test_a_report_is_whole_and_fits_its_reader(
    browser: Browser, report: bytes, width: int, scheme: Literal["dark", "light"]
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(body=report, headers={"Content-Type": "text/html", "Content-Security-Policy": POLICY})

    page.route("**/*", answer)
    page.goto(ADDRESS)

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.images[0].naturalWidth") >= 256
    assert page.get_by_role("img", name="The box from above").is_visible()
    assert page.get_by_role("img").count() == 9
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width / s.viewBox.baseVal.width)"
    )
    assert min(sizes) > 0.8, "a chart's labels would be smaller than 10 pixels"
    assert asked == [ADDRESS]
    assert complaints == []
    page.close()
