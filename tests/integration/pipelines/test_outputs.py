"""What a run leaves behind: detections in BOSS, links, and the report."""

from __future__ import annotations

import io
import json
import re
import signal
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from pipelines.common import preview, report
from pipelines.common import run as run_of
from pipelines.common.program import run
from pipelines.unsupervised.driver import program
from sandbox.boss import BossStandIn
from tests.integration.pipelines.conftest import TOKEN, arguments, start

PLACE = "collman_nomads/nomads_predictions"
KEY = "nomads-unsupervised_demo_corner_z_0_8_y_0_128_x_0_128"


def here(argv: Sequence[str], token: str = TOKEN) -> None:
    """The program within this process; it must end well."""
    err = io.StringIO()
    assert run(program, argv=argv, environ={"BOSS_TOKEN": token}, err=err) == 0, err.getvalue()


def results(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "results.json").read_bytes())
    return found


def notes(folder: Path) -> str:
    return "\n".join(map(str, results(folder)["notes"]))  # type: ignore[call-overload]


def uri(folder: Path) -> str:
    return folder.as_uri() + "/"


def channel(boss: BossStandIn, name: str = KEY) -> dict[str, object]:
    """What BOSS says of a channel among the predictions; empty where there is none."""
    found = boss._collections["collman_nomads"].experiments["nomads_predictions"].channels.get(name)
    return found.about if found else {}


def in_boss(boss: BossStandIn, name: str = KEY) -> np.ndarray:
    """The channel's voxels from the box's corner on, one section more than the box."""
    found = boss._collections["collman_nomads"].experiments["nomads_predictions"].channels[name]
    return found.bricks.read((0, 0, 0), (9, 128, 128))


@pytest.fixture(autouse=True)
def _no_predictions(boss: BossStandIn) -> None:
    boss._collections["collman_nomads"].experiments["nomads_predictions"].channels.clear()


def predictions(folder: Path) -> np.ndarray:
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        return np.asarray(file["predictions"])


# Detections in BOSS


def test_detections_stand_in_boss_afterwards_in_a_channel_named_after_the_box(
    boss: BossStandIn, tmp_path: Path
) -> None:
    here(arguments(boss, predictions=PLACE, results_uri=uri(tmp_path)))

    written = in_boss(boss)
    assert written.dtype == np.uint8
    assert np.array_equal(written[:8], predictions(tmp_path))
    assert written.any()
    assert not written[8].any()
    assert "255 where a synapse was found" in str(channel(boss)["description"])
    files = results(tmp_path)["files"]
    layers = ["Segmentation", "Annotations", "Image: postsynaptic", "Image: presynaptic"]
    titles = ["Synapses (CSV)", "Predictions", *layers, "Preview", "Report", "Crate"]
    assert [file["title"] for file in files] == titles  # type: ignore[attr-defined]
    assert all(file["about"].endswith(".") for file in files)  # type: ignore[attr-defined]
    assert results(tmp_path)["written_back"] == f"{PLACE}/{KEY}"
    assert KEY not in notes(tmp_path)  # people read a link in its place


def test_what_an_earlier_run_left_in_the_box_is_erased_and_nothing_beside_it(boss: BossStandIn, tmp_path: Path) -> None:
    here(arguments(boss, predictions=PLACE, results_uri=uri(tmp_path)))
    earlier = boss._collections["collman_nomads"].experiments["nomads_predictions"].channels[KEY].bricks
    earlier.write((0, 0, 0), np.full((9, 128, 128), 255, np.uint8))

    here(arguments(boss, predictions=PLACE, results_uri=uri(tmp_path)))

    assert np.array_equal(in_boss(boss)[:8], predictions(tmp_path))
    assert (in_boss(boss)[8] == 255).all()


def test_no_detections_at_all_are_written_too(boss: BossStandIn, tmp_path: Path) -> None:
    box = {"z_range": "10,14", "y_range": "100,132", "x_range": "200,232"}
    argv = arguments(boss, col="lab", exp="empty", **box, results_uri=uri(tmp_path), predictions=PLACE)
    here([*argv, "--results-key", "key"])
    bricks = boss._collections["collman_nomads"].experiments["nomads_predictions"].channels["key"].bricks
    bricks.write((10, 100, 200), np.full((4, 32, 32), 255, np.uint8))

    here([*argv, "--results-key", "key"])

    assert not bricks.read((10, 100, 200), (14, 132, 232)).any()


def test_a_key_longer_than_boss_takes_still_names_a_channel(boss: BossStandIn, tmp_path: Path) -> None:
    here([*arguments(boss, predictions=PLACE, results_uri=uri(tmp_path)), "--results-key", "k" * 300])

    [name] = boss._collections["collman_nomads"].experiments["nomads_predictions"].channels
    assert len(name) == 255


@pytest.mark.parametrize(
    ("place", "token", "why"),
    [
        (PLACE, "stranger", "BOSS does not let this token read collman_nomads"),
        ("demo/corner", "stranger", "BOSS does not let this token write to demo/corner"),
        ("nowhere/predictions", TOKEN, "BOSS has no collection “nowhere”"),
        ("demo/nothing", TOKEN, "The collection “demo” has no experiment “nothing”"),
        ("lab/small", TOKEN, "is not within lab/small; lab/small has x 0, 32"),
    ],
)
def test_a_run_succeeds_where_it_may_not_write_back_and_says_so(
    boss: BossStandIn, tmp_path: Path, place: str, token: str, why: str
) -> None:
    here(arguments(boss, predictions=place, results_uri=uri(tmp_path)), token)

    assert f"The detections were not written back to {place} in BOSS: " in notes(tmp_path)
    assert why in notes(tmp_path)
    assert results(tmp_path)["written_back"] is None


def test_a_box_that_is_too_large_for_one_array_is_not_written_back_and_says_so(
    boss: BossStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_of, "WRITTEN", 1000)

    here(arguments(boss, predictions=PLACE, results_uri=uri(tmp_path)))

    assert "in BOSS: of a box of more than 1,000 voxels, segmentation/ alone has the voxels of synapses." in notes(
        tmp_path
    )
    assert results(tmp_path)["written_back"] is None
    assert (tmp_path / "predictions.npz").exists()


def test_a_channel_of_another_type_is_left_alone(boss: BossStandIn, tmp_path: Path) -> None:
    argv = arguments(boss, col="lab", exp="uint16", predictions="lab/uint16", results_uri=uri(tmp_path))
    here([*argv, "--results-key", "PSD95"])

    assert "the channel lab/uint16/PSD95 is not uint8" in notes(tmp_path)


def test_trouble_while_writing_back_is_waited_out_or_told(boss: BossStandIn, tmp_path: Path) -> None:
    boss.fail_next(1, status=503, prefix="/v1/cutout/collman_nomads")
    boss.cut_next(1, prefix="/v1/collection/collman_nomads/experiment/nomads_predictions/channel")
    here(arguments(boss, predictions=PLACE, results_uri=uri(tmp_path)))
    assert np.array_equal(in_boss(boss)[:8], predictions(tmp_path))

    boss.fail_next(1, status=413, prefix="/v1/cutout/collman_nomads")
    here(arguments(boss, predictions=PLACE, results_uri=uri(tmp_path)))
    assert "BOSS refused it with status 413." in notes(tmp_path)


def test_detections_that_are_half_written_are_marked_so(boss: BossStandIn, tmp_path: Path) -> None:
    argv = arguments(boss, predictions=PLACE, results_uri=uri(tmp_path))
    with boss.hanging(prefix="/v1/cutout/collman_nomads") as hold, start(argv) as process:
        assert hold.reached.wait(30)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

    assert process.returncode == 1
    assert "not to be trusted" in str(channel(boss)["description"])
    assert not (tmp_path / "results.json").exists()


def test_nothing_is_written_back_unless_a_place_is_named(boss: BossStandIn, tmp_path: Path) -> None:
    here(arguments(boss, results_uri=uri(tmp_path)))

    assert {served.method for served in boss.requests} == {"GET"}
    assert results(tmp_path)["written_back"] is None


# Links


def test_a_configured_viewer_shows_channels_and_detections_at_the_middle_of_the_box(
    boss: BossStandIn, tmp_path: Path
) -> None:
    here(arguments(boss, predictions=PLACE, viewer="https://viewer.test/", results_uri=uri(tmp_path)))

    link = str(results(tmp_path)["viewer"])
    state = json.loads(unquote(link.removeprefix("https://viewer.test/#!")))
    assert state["position"] == [64, 64, 4]
    assert [layer["source"].removeprefix(f"boss://{boss.url}/") for layer in state["layers"]] == [
        "demo/corner/PSD95",
        "demo/corner/Synapsin",
        f"{PLACE}/{KEY}",
    ]


def test_viewers_are_told_to_begin_at_a_synapse_and_how_bright_the_channels_are(
    boss: BossStandIn, tmp_path: Path
) -> None:
    here(arguments(boss, results_uri=uri(tmp_path)))

    view = results(tmp_path)["view"]
    assert isinstance(view, dict)
    rows = (tmp_path / "synapses.csv").read_text().splitlines()[1:]
    assert view["at"] in [[float(place) for place in row.split(",")[1:4]] for row in rows]
    assert set(view["ranges"]) == {"postsynaptic", "presynaptic"}
    assert all(0 <= low < full <= 255 for low, full in view["ranges"].values())
    assert view["voxel_nm"] == list(boss.cortex.voxel_nm) if boss.cortex else False
    assert [len(view[name]) for name in ("start", "shape")] == [3, 3]


# The report


class _Outside(HTMLParser):
    """Collects what a page would fetch or run, and the tags it has."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [str(v) for k, v in attrs if k in ("src", "href", "srcset", "data", "action", "poster")]
        assert not [name for name, _ in attrs if name.startswith("on")], "no script, not even a small one"


def test_a_report_stands_by_itself_and_tells_what_was_found(boss: BossStandIn, tmp_path: Path) -> None:
    here(arguments(boss, results_uri=uri(tmp_path)))

    page = (tmp_path / "report.html").read_text()
    outside = _Outside()
    outside.feed(page)
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(outside.tags)
    assert all(address.startswith("data:image/png;base64,") for address in outside.fetched)
    assert "url(" not in page
    assert "@import" not in page
    for words in ("Per cubic micrometre", "Size", "Score", "Along z", "Values by channel", "PSD95", "Correlation"):
        assert words in page
    found = len((tmp_path / "synapses.csv").read_text().splitlines()) - 1
    assert re.search(rf"<dt>Synapses</dt><dd>{found}</dd>", page)
    assert outside.tags.count("svg") == 8
    assert len(re.findall(r'<svg [^>]*role="img" aria-label="[^"]{20,}"', page)) == 8


def numbers(page: str, title: str) -> list[list[str]]:
    """The table of numbers below a chart of that title, row by row."""
    [figure] = [part for part in page.split("<figure>") if f"<h3>{title}</h3>" in part]
    table = figure[figure.index("<tbody>") : figure.index("</tbody>")]
    return [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in table.split("</tr>") if row]


def test_a_report_counts_sections_from_the_boxs_first_to_its_last(boss: BossStandIn, tmp_path: Path) -> None:
    here(arguments(boss, z_range="20,28", results_uri=uri(tmp_path)))

    along = numbers((tmp_path / "report.html").read_text(), "Along z")
    ids = np.loadtxt(tmp_path / "synapses.csv", delimiter=",", skiprows=1, usecols=range(2), ndmin=2)
    assert [row[0] for row in along] == [f"{z} to {z + 1}" for z in range(20, 28)]
    assert [float(row[1]) for row in along] == np.bincount(np.rint(ids[:, 1]).astype(int), minlength=28)[20:].tolist()


def test_a_report_tells_the_brightness_of_synapses_from_that_of_all_voxels(boss: BossStandIn, tmp_path: Path) -> None:
    here(arguments(boss, results_uri=uri(tmp_path)))

    page = (tmp_path / "report.html").read_text()
    header, *lines = (tmp_path / "synapses.csv").read_text().splitlines()
    for name in ("PSD95", "Synapsin"):
        table = numbers(page, name)
        lowest = np.array([float(row[0].split(" to ")[0].replace(",", "")) for row in table])
        shares = np.array([[float(value) for value in row[1:]] for row in table])
        column = header.split(",").index(f"mean_{name}")
        bright = np.array([float(line.split(",")[column]) for line in lines])
        expected = np.histogram(bright, [*lowest, np.inf])[0] / len(bright) * 100
        assert np.allclose(shares[:, 1], expected, atol=0.6)
        assert not np.allclose(shares[:, 0], expected, atol=10)


# The picture


def test_circles_are_where_the_synapses_are() -> None:
    dark = np.zeros((40, 120), np.uint8)
    picture = preview.draw(
        dark, dark, shape=(40, 120), centres=np.array([[0, 10, 90]]), radius=2, voxel_nm=(70, 100, 100)
    )

    with Image.open(io.BytesIO(picture)) as image:
        zoom = image.width / 120
        pixels = np.asarray(image).astype(int)
    yellow = np.argwhere((pixels == preview.COLOURS[0]).all(axis=-1))
    assert len(yellow)
    assert np.allclose((yellow.min(axis=0) + yellow.max(axis=0)) / 2 / zoom, (10.5, 90.5), atol=0.5)


@pytest.mark.parametrize(("nm", "wide", "length"), [(100.0, 384, 10_000), (2.24, 500, 200), (100.0, 768, 20_000)])
def test_the_scale_bar_is_as_long_as_it_says(nm: float, wide: int, length: int) -> None:
    dark = np.zeros((64, wide), np.uint8)
    picture = preview.draw(dark, dark, shape=(64, wide), centres=np.zeros((0, 3)), radius=2, voxel_nm=(70, nm, nm))

    with Image.open(io.BytesIO(picture)) as image:
        line = np.asarray(image)[-11]  # the bar's middle: its bottom is ten pixels above the picture's
        zoom = image.width / wide
    assert abs(np.count_nonzero(line.min(axis=-1) == 255) - length / nm * zoom) <= 2


def test_what_names_hold_cannot_become_markup() -> None:
    nasty = "<img src=x onerror=alert(1)>'\"&"
    picture = io.BytesIO()
    Image.new("RGB", (2, 2)).save(picture, "PNG")
    chart = report.histogram([1, 2, 3], title=nasty, across=nasty, up=nasty, unit=nasty)
    table = report.Table(title=nasty, header=(nasty,), rows=[(nasty, nasty)], shades=[[0.5]])

    page = report.render(
        report.Page(
            title=nasty,
            about=nasty,
            numbers=[(nasty, nasty)],
            notes=[nasty],
            picture=picture.getvalue(),
            picture_said=nasty,
            key=[((0, 0, 0), nasty)],
            sections=[report.Section(title=nasty, text=nasty, parts=[chart, table])],
            facts={nasty: nasty},
        )
    ).decode()

    outside = _Outside()
    outside.feed(page)
    assert outside.tags.count("img") == 1
    assert nasty not in page


@pytest.mark.parametrize("values", [[], [5], [5, 5, 5], [0.001, 0.5, 90], [-3, 0, 3], list(range(1000))])
def test_every_value_is_in_the_histogram_once(values: list[float]) -> None:
    chart = report.histogram(values, title="t", across="a", up="u")

    assert chart.series[0].values.sum() == len(values)
    assert np.all(np.diff(chart.edges) > 0)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 0), (3, 7), (7, 90.5), (0, 65535), (2**50, 2**60)])
def test_whole_bins_are_equal_and_cover_everything(low: int, high: float) -> None:
    edges = report.whole_bins(low, high)

    assert edges[0] == low
    assert edges[-1] >= float(high)
    assert len(edges) <= report.BINS + 2
    assert len(set(np.diff(edges))) == 1
