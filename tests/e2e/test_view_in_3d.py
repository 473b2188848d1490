"""View in 3D and the sections of the results page in a real browser: what is seen where, pixel by pixel."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, expect

from bot.application.ports import Results
from pipelines.common.annotations import Points, write_annotations
from pipelines.common.boxes import Triple
from pipelines.common.precomputed import Frame, write_image, write_segmentation
from pipelines.common.results import Results as Written
from pipelines.common.scene import densest
from tests.support.aws import BUCKET, aws_world
from tests.support.shown import Shown, shown
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    with shown(tmp_path_factory.mktemp("lab"), box={"z": "3,19", "y": "40,296", "x": "60,316"}) as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1200, "height": 700})
    yield page
    page.close()


def synapses(lab: Shown) -> list[dict[str, Any]]:
    """The rows of synapses.csv."""
    return list(csv.DictReader((lab.home / "synapses.csv").read_text().splitlines()))


def view_of(lab: Shown) -> dict[str, Any]:
    """What the program tells viewers."""
    told: dict[str, Any] = json.loads((lab.home / "results.json").read_text())["view"]
    return told


def picture(page: Page) -> NDArray[np.int64]:
    """What is on the screen: (y, x, red green blue)."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(np.int64)


def soon(seen: Callable[[], object], what: str) -> None:
    """Wait until it is seen."""
    until(seen, within=PATIENCE, what=what)


def complaints_of(page: Page) -> list[str]:
    """The errors that a page will tell, breaches of its policy among them."""
    complaints: list[str] = []

    def heard(said: ConsoleMessage) -> None:
        if said.type == "error":
            complaints.append(said.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


# View in 3D


class Viewer:
    """View in 3D in a page."""

    def __init__(self, page: Page, lab: Shown, *, view: dict[str, Any] | None = None) -> None:
        self.page = page
        self.fetched: list[str] = []
        self.complaints = complaints_of(page)
        page.on("request", lambda request: self.fetched.append(request.url))
        page.goto(lab.view)
        page.locator(".neuroglancer-rendered-data-panel").first.wait_for(timeout=PATIENCE * 1000)
        box = page.locator(".neuroglancer-rendered-data-panel").first.bounding_box()
        assert box
        self.wide, self.high = box["width"], box["height"]
        self.centre = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.view = view or view_of(lab)

    def visible(self, synapse: dict[str, Any]) -> tuple[float, float] | None:
        """Where a synapse of this section lies on the screen, if it is in view and not in the middle."""
        scale = 25 / 96  # voxels per pixel, which shows 25 nm
        z, y, x = self.view["at"]
        right, down = (float(synapse["x"]) - x) / scale, (float(synapse["y"]) - y) / scale
        near = abs(float(synapse["z"]) - z) <= 0.6
        inside = max(abs(right), abs(down)) > 20 and abs(right) < self.wide / 2 - 20 and abs(down) < self.high / 2 - 20
        return (self.centre[0] + right, self.centre[1] + down) if near and inside else None

    def ring(self, place: tuple[float, float]) -> bool:
        """Whether there is a yellow circle."""
        x, y = map(round, place)
        near = picture(self.page)[y - 12 : y + 13, x - 12 : x + 13]
        rows, columns = np.mgrid[-12:13, -12:13]
        radius = np.hypot(rows, columns)
        yellow = (near[..., 0] > 150) & (near[..., 1] > 130) & (near[..., 2] < 140)
        return bool(yellow[(radius > 4) & (radius < 9)].sum() > 20 and yellow[radius > 11].sum() < 30)

    def colour(self, place: tuple[float, float]) -> NDArray[np.int64]:
        """The brightest red, green and blue about there."""
        x, y = map(round, place)
        brightest: NDArray[np.int64] = picture(self.page)[y - 3 : y + 4, x - 3 : x + 4].max(axis=(0, 1))
        return brightest

    def switch(self, layer: str) -> None:
        """Click a layer's name, as a person does."""
        self.page.locator(".neuroglancer-layer-item-label", has_text=layer).click()


def test_an_annotation_is_where_the_synapse_is_and_each_layer_can_be_switched_off(page: Page, lab: Shown) -> None:
    viewer = Viewer(page, lab)
    places = [place for synapse in synapses(lab) if (place := viewer.visible(synapse))]
    assert places, "some synapse of the densest place's section is in view"

    soon(lambda: all(map(viewer.ring, places)), "a circle round each synapse")
    for layer in ("segmentation", "synapses"):
        viewer.switch(layer)
    soon(lambda: not any(map(viewer.ring, places)), "no circle")
    soon(lambda: viewer.colour(places[0])[:2].min() > 120, "both markers where a synapse is")
    viewer.switch("postsynaptic")
    soon(lambda: viewer.colour(places[0])[[0, 2]].max() < 60, "no magenta")
    assert viewer.colour(places[0])[1] > 120, "the presynaptic marker is green"
    viewer.switch("presynaptic")
    soon(lambda: np.ptp(viewer.colour(places[0])) < 5, "no colour")

    origin = "/".join(lab.view.split("/")[:3])
    assert {"/".join(url.split("/")[:3]) for url in viewer.fetched if url.startswith("http")} == {origin}
    assert viewer.complaints == []


def test_results_on_s3_are_seen_as_those_on_this_machine_are(
    page: Page, browser: Browser, lab: Shown, tmp_path: Path
) -> None:
    """The bot hands out the layers itself: the browser cannot reach the bucket at all."""

    def kept(home: Path, folder: str) -> Results:
        for path in home.rglob("*"):
            if path.is_file():
                key = f"{folder}/{path.relative_to(home).as_posix()}"
                world.clients.s3.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        shutil.rmtree(home)
        return world.results()

    with aws_world() as world, shown(tmp_path, box={"z": "3,19", "y": "40,296", "x": "60,316"}, kept=kept) as there:
        viewer = Viewer(page, there, view=view_of(lab))
        place = next(place for row in synapses(lab) if (place := viewer.visible(row)))
        soon(lambda: viewer.ring(place), "a circle where the synapse is")
        z = round(view_of(lab)["at"][0])
        sections = browser.new_page()
        sections.goto(there.page)
        seen = drawn(sections, z)
        sections.close()

    assert np.abs(seen[..., 0] - expected(lab, "postsynaptic", z)).max() <= 1
    origin = "/".join(there.view.split("/")[:3])
    assert {"/".join(url.split("/")[:3]) for url in viewer.fetched if url.startswith("http")} == {origin}
    assert viewer.complaints == []


def test_a_view_is_kept_in_the_address(page: Page, lab: Shown, browser: Browser) -> None:
    viewer = Viewer(page, lab)

    def address() -> str:
        return str(page.evaluate("location.href"))

    viewer.switch("postsynaptic")
    soon(lambda: "%22visible%22%3Afalse" in address(), "the change in the address")
    again = browser.new_page()
    again.goto(address())
    soon(
        lambda: again.evaluate("window.viewer?.layerManager.getLayerByName('postsynaptic')?.visible === false"),
        "the view as it was",
    )
    again.close()


@contextmanager
def crowd(folder: Path, shape: Triple, where: list[float] | None) -> Iterator[Shown]:
    """A million synapses, ten to forty times as many in a µm³ as in cortex: their chunks are as full as may be.

    The box has two channels of noise, in two bytes a voxel.
    """
    frame = Frame(start=(0, 0, 0), shape=shape, voxel_nm=(70, 100, 100))
    chance, count = np.random.default_rng(1), 10**6
    places = np.sort(chance.choice(math.prod(shape), count, replace=False))
    centres = np.stack(np.unravel_index(places, frame.shape), axis=1).astype(float)
    labels = np.zeros(frame.shape, np.uint32)
    labels.flat[places] = np.arange(1, count + 1)
    scores = chance.random(count)
    points = Points(centres=centres, scores=scores, sizes=scores, kind=np.zeros(count, np.int64), kinds=("synapse",))
    noise = chance.integers(100, 400, frame.shape, np.uint16)
    told: dict[str, Any] = {
        "voxel_nm": frame.voxel_nm,
        "start": frame.start,
        "shape": frame.shape,
        "at": where or centres[densest(centres, frame.voxel_nm)].tolist(),
        "ranges": {"postsynaptic": [100, 400], "presynaptic": [100, 400]},
    }
    layers = ("image/postsynaptic", "image/presynaptic", "segmentation", "annotations")
    extra = {"view": json.loads(json.dumps(told)), "files": [{"name": f"{layer}/info"} for layer in layers]}
    with shown(folder, made=False, extra=extra) as lab:
        results = Written(lab.home.as_uri() + "/")
        for layer in layers[:2]:
            write_image(results, layer, lambda a, b, c, d: noise[a:b, c:d], noise.dtype, frame, title="", about="")
        write_segmentation(results, "segmentation", labels, frame, title="", about="")
        write_annotations(results, "annotations", points, frame, title="", about="")
        yield lab


OVERVIEW = "performance.getEntriesByName('overview')[0]?.startTime"


@pytest.mark.parametrize(
    ("shape", "where", "window"),
    [
        ((8, 2048, 2048), None, (1200, 700)),
        ((32, 2048, 2048), [16, 1024, 1024], (2560, 1400)),
        ((240, 512, 512), [120, 256, 256], (1920, 1080)),
    ],
    ids=["where most synapses are", "where chunks of all resolutions meet", "in a narrow box"],
)
def test_the_first_picture_of_a_million_synapses_takes_few_requests_and_bytes(
    browser: Browser, page: Page, tmp_path: Path, shape: Triple, where: list[float] | None, window: tuple[int, int]
) -> None:
    page.set_viewport_size({"width": window[0], "height": window[1]})
    with crowd(tmp_path, shape, where) as lab:
        first, later = looked_at(page, lab.view)
        kept = page.url
        fresh = browser.new_page()
        again, _ = looked_at(fresh, kept)
        fresh.close()

    chunks = [answer for answer in first if "/chunks/" in answer.url and not answer.url.endswith("/info")]
    layers = {answer.url.split("/")[-3] for answer in chunks}
    assert layers == {"postsynaptic", "presynaptic", "segmentation", "annotations"}
    for answers in (first, again):
        assert 10 < len(answers) <= 40
        assert sum(int(answer.headers.get("content-length", 0)) for answer in answers) <= 5e6
    assert "100_100_70" in {answer.url.split("/")[-2] for answer in later}, "what is in view is read in full"
    assert "RenderScale" not in kept
    assert "Spacing" not in kept


def looked_at(page: Page, address: str) -> tuple[list[Response], list[Response]]:
    """Open a view until all of it is there; what came for its first picture, and what came later."""
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))
    page.goto(address)
    page.wait_for_function(f"{OVERVIEW} && window.viewer.layerManager.managedLayers.length === 4")
    page.wait_for_function("window.viewer.isReady()")
    page.wait_for_load_state("networkidle")
    end = page.evaluate(f"performance.timeOrigin + {OVERVIEW}")
    first = [answer for answer in answers if answer.request.timing["startTime"] < end]
    return first, [answer for answer in answers if answer not in first]


def test_an_overview_that_does_not_come_does_not_keep_the_view_coarse(page: Page, lab: Shown) -> None:
    page.route("**/chunks/image/postsynaptic/*/*", lambda route: None)  # no answer
    page.goto(lab.view)
    scales = "window.viewer?.layerManager.managedLayers.map(l => l.layer?.sliceViewRenderScaleTarget?.value ?? 1)"

    page.wait_for_function(f"{scales}?.length === 4")
    assert page.evaluate(scales) == [2**15, 2**15, 2**15, 1]
    page.evaluate("window.viewer.layerManager.managedLayers[1].layer.sliceViewRenderScaleTarget.value = 3")

    page.wait_for_function(f"{OVERVIEW} > 5000")
    assert page.evaluate(scales) == [1, 3, 1, 1], "a resolution that somebody has chosen meanwhile stays"


# Sections on the results page


def drawn(page: Page, z: int) -> NDArray[np.int64]:
    """The section's picture, once it is drawn: (y, x, red green blue)."""
    page.locator(f"#slices[data-shown='{z}']").wait_for()
    width, height, values = page.evaluate(  # as text: a list of a quarter of a million numbers takes a second
        """() => { const c = document.querySelector("#slices canvas");
        const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
        let text = "";
        for (let i = 0; i < data.length; i += 4096) text += String.fromCharCode(...data.subarray(i, i + 4096));
        return [c.width, c.height, btoa(text)]; }"""
    )
    return np.frombuffer(base64.b64decode(values), np.uint8).reshape(height, width, 4)[..., :3].astype(np.int64)


def marks(page: Page) -> int:
    """Pixels of circles."""
    return int(
        page.evaluate(
            """() => { const c = document.querySelectorAll("#slices canvas")[1];
            const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
            return data.filter((value, i) => i % 4 == 3 && value).length }"""
        )
    )


def expected(lab: Shown, role: str, z: int) -> NDArray[np.int64]:
    """The section of a role's channel as it has to be shown, 0 to 255, read by TensorStore."""
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(lab.home / "image" / role)},
    }
    values = ts.open(spec).result()[:, :, z, 0].read().result().T.astype(float)
    low, full = view_of(lab)["ranges"][role]
    shown_as: NDArray[np.int64] = np.clip((values - low) / (full - low) * 255, 0, 255).astype(np.int64)
    return shown_as


def test_the_sections_show_what_was_read_and_channels_go_on_and_off(page: Page, lab: Shown) -> None:
    page.goto(lab.page)
    z = round(view_of(lab)["at"][0])

    seen = drawn(page, z)

    assert np.abs(seen[..., 0] - expected(lab, "postsynaptic", z)).max() <= 1
    assert np.abs(seen[..., 1] - expected(lab, "presynaptic", z)).max() <= 1
    assert (seen[..., 2] == seen[..., 0]).all()
    page.get_by_label("postsynaptic").uncheck()
    soon(lambda: drawn(page, z)[..., 0].max() == 0, "no magenta")
    assert np.abs(drawn(page, z)[..., 1] - expected(lab, "presynaptic", z)).max() <= 1


def test_keys_wheel_and_slider_go_through_the_sections(page: Page, lab: Shown) -> None:
    page.goto(lab.page)
    z = round(view_of(lab)["at"][0])
    drawn(page, z)
    stage = page.locator(".stage")

    stage.focus()
    page.keyboard.press("Home")
    assert np.abs(drawn(page, 3)[..., 0] - expected(lab, "postsynaptic", 3)).max() <= 1
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    drawn(page, 4)
    stage.hover()
    page.mouse.wheel(0, 120)
    assert np.abs(drawn(page, 7)[..., 1] - expected(lab, "presynaptic", 7)).max() <= 1
    page.get_by_label("Section", exact=True).fill("18")
    drawn(page, 18)
    expect(page.get_by_text("Section 18 of 3 to 18")).to_be_visible()


def test_a_swipe_goes_through_the_sections(browser: Browser, lab: Shown) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.goto(lab.page)
    z = round(view_of(lab)["at"][0])
    drawn(page, z)
    stage = page.locator(".stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box
    y, start = box["y"] + box["height"] / 2, box["x"] + box["width"] / 2
    fingers = page.context.new_cdp_session(page)
    back = z > 10  # towards the middle of the box's sections, 3 to 18

    def touch(what: str, *at: float) -> None:
        points = [{"x": x, "y": y} for x in at]
        fingers.send("Input.dispatchTouchEvent", {"type": what, "touchPoints": points})

    touch("touchStart", start)
    for far in range(8, 57, 8):  # 56 pixels: three sections
        touch("touchMove", start - far if back else start + far)
    touch("touchEnd")

    shown = z - 3 if back else z + 3
    assert np.abs(drawn(page, shown)[..., 0] - expected(lab, "postsynaptic", shown)).max() <= 1
    assert not page.locator("#slices dl").is_visible()  # a swipe picks no synapse
    page.close()


@pytest.mark.parametrize("phone", [False, True], ids=["mouse", "telephone"])
def test_a_circle_is_round_each_synapse_and_a_click_shows_its_row(browser: Browser, lab: Shown, phone: bool) -> None:
    size = {"width": 360, "height": 740} if phone else {"width": 1200, "height": 900}
    page = browser.new_page(viewport=size, has_touch=phone, is_mobile=phone)  # type: ignore[arg-type]
    complaints = complaints_of(page)
    page.goto(lab.page)
    view = view_of(lab)
    z = round(view["at"][0])
    drawn(page, z)
    soon(lambda: marks(page) > 100, "circles, once the synapses are read")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]

    row = next(row for row in synapses(lab) if [float(row[axis]) for axis in "zyx"] == view["at"])
    stage = page.locator(".stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box
    place = {
        "x": (float(row["x"]) + 0.5 - view["start"][2]) / view["shape"][2] * box["width"],
        "y": (float(row["y"]) + 0.5 - view["start"][1]) / view["shape"][1] * box["height"],
    }
    if phone:
        stage.tap(position=place)  # type: ignore[arg-type]
    else:
        stage.click(position=place)  # type: ignore[arg-type]
    told = page.locator("#slices dl")
    expect(told).to_be_visible()
    names, values = told.locator("dt").all_inner_texts(), told.locator("dd").all_inner_texts()
    assert dict(zip(names, values, strict=True)) == row

    page.get_by_label("synapses", exact=True).uncheck()
    soon(lambda: marks(page) == 0, "no circle")
    assert complaints == []
    page.close()
