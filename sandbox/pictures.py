"""The screenshots of README and docs, taken of the demo: `make pictures`."""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from sandbox.boss import DEMO_TOKEN
from sandbox.demo import CHANNEL, COMMAND, PATIENCE, shift
from sandbox.house import ROOT, House, bot_process

DOCS = ROOT / "docs"
CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--use-gl=angle",  # WebGL without a graphics card
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
COLOURS = 256
"""Colours of a picture: a fraction of the bytes, and no difference that is seen."""


def take(folder: Path) -> int:
    """Run a job of the demo and write viewer.png and slices.png into the folder. Returns the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nomads-pictures-") as data, House() as house:
        shift(house.boss)
        with bot_process(house.environment(Path(data) / "data"), log=Path(data) / "bot.log"):
            house.slack.wait_for_connection(30)
            view, results = _links(house)
            with sync_playwright() as playwright:
                path = shutil.which("chromium")
                browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
                _viewer(browser, view, folder / "viewer.png")
                _slices(browser, results, folder / "slices.png")
                browser.close()
    return 0


def _links(house: House) -> tuple[str, str]:
    """Submit the demo's job; the addresses of View in 3D and of the results page, once its card has both."""
    person = house.slack.person()
    person.slash("/nomads", COMMAND, channel=CHANNEL)
    view = house.slack.view_of(person)
    assert view
    person.submit(view, {"token": DEMO_TOKEN})
    found: dict[str, str] = {}

    def told() -> bool:
        text = str(house.slack.messages(CHANNEL))
        found.update({title: url for url, title in re.findall(r"<(http[^|>]+)\|(View in 3D|All files)>", text)})
        return len(found) == 2

    house.slack.wait_for(told, PATIENCE, "the links of the job")
    return found["View in 3D"], found["All files"]


def _viewer(browser: Browser, address: str, file: Path) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 640})
    page.goto(address, wait_until="networkidle")
    page.wait_for_function("window.viewer?.layerManager.managedLayers.length > 2 && window.viewer.isReady()")
    page.wait_for_load_state("networkidle")
    _saved(page, file)


def _slices(browser: Browser, address: str, file: Path) -> None:
    page = browser.new_page(viewport={"width": 420, "height": 860})
    page.goto(address)
    page.locator("#slices[data-shown][data-marked]").wait_for()
    page.locator(".stage").scroll_into_view_if_needed()
    scene = page.evaluate("JSON.parse(document.getElementById('slices').dataset.scene)")
    box = page.locator(".stage").bounding_box()
    assert box
    _, y, x = (
        (at + 0.5 - start) / side for at, start, side in zip(scene["at"], scene["start"], scene["shape"], strict=True)
    )
    page.locator(".stage").click(position={"x": x * box["width"], "y": y * box["height"]})
    page.locator("#slices dl div").first.wait_for()
    page.locator("#slices").evaluate("section => scrollTo(0, section.offsetTop)")
    _saved(page, file)


def _saved(page: Page, file: Path) -> None:
    """Write what is on the screen, in few colours."""
    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shown.quantize(COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    print(f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}: {file.stat().st_size:,} bytes")
