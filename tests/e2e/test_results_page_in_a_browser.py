"""The page behind a link to results as people see it: under its own policy, on a telephone, in the dark."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from tests.support.shown import shown

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page_s_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the results of a box of demo/cortex are shown, with a long name and notes among them."""
    with shown(tmp_path_factory.mktemp("lab"), extra={"counts": {"synapses": 1234}, "notes": ["W" * 400]}) as found:
        (found.home / ("a-very-long-name" * 12)).write_bytes(b"x")
        yield found.page


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (360, "light"), (1200, "light")])
def test_the_page_is_whole_and_fits_its_reader(
    browser: Browser, page_s_address: str, width: int, scheme: Literal["dark", "light"]
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: hosts.add("/".join(request.url.split("/")[:3])))
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
