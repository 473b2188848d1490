"""How further channels lie on the postsynaptic one: measured section by section and together, and moved back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.common.boxes import Box, Triple, shape
from pipelines.common.channels import Channel, Part, Plane
from pipelines.unsupervised.alignment import Alignment, Cut, aligned, registered_in, surroundings, whole_sections
from pipelines.unsupervised.found import Size
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.registration import NOWHERE, Warp

Array = NDArray[Any]
VOXEL: Size = (70, 100, 100)
CORNER = (10, 100, 200)
OFF = (7, -5)


@dataclass
class Held:
    """A channel of which a box is held in memory."""

    data: Array
    near: Box

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def cut(self, box: Box) -> Array:
        return self.data[tuple(slice(a - low, b - low) for (a, b), (low, _) in zip(box, self.near, strict=True))]


def part(data: Array, lies: dict[int, Plane] | None = None, box: Box | None = None) -> Part:
    """A channel that begins at CORNER."""
    near = cast("Box", tuple((low, low + n) for low, n in zip(CORNER, data.shape, strict=True)))
    return Part(cast("Channel", Held(data, near)), box or near, lies or {})


def lie(
    post: Array, other: Array, *, role: str = "gaba", known: dict[int, Warp] | None = None, before: int = 0
) -> Alignment:
    """How a channel lies on the postsynaptic one."""
    one, two = part(post), part(other)
    return aligned(
        one.channel.cut,
        {role: two.channel.cut},
        one.box,
        known={role: known} if known else {},
        along={},
        voxel_nm=VOXEL,
        before=before,
    )


def still(*by: float) -> Plane:
    """One shift for a whole section."""
    return np.array([by, (0, 0), (0, 0)], np.float64)


def dots(random: np.random.Generator, places: Array, sides: tuple[int, int]) -> Array:
    """A section with puncta at places (n, 2), in noise."""
    section = random.normal(20, 3, sides)
    rows, columns = np.mgrid[-3:4, -3:4]
    for y, x in places:
        section[y - 3 : y + 4, x - 3 : x + 4] += 90 * np.exp(-0.5 * (rows**2 + columns**2) / 1.5**2)
    return np.clip(np.rint(section), 0, 255).astype(np.uint8)


def pair(*, shared: int, depth: int = 1) -> tuple[Array, Array]:
    """Two channels, the second off by OFF; of 400 puncta in a section of the first it shows `shared` and 200 others."""
    random, sides = np.random.default_rng(1), (500, 500)
    sections = []
    for _ in range(depth):
        places = random.integers(20, 480, (400, 2))
        others = np.concatenate([places[:shared], random.integers(20, 480, (200, 2))]) - OFF
        sections.append((dots(random, places, sides), dots(random, others, sides)))
    one, other = (np.stack(channel) for channel in zip(*sections, strict=True))
    return one, other


def test_sections_are_moved_back_as_they_are_read() -> None:
    data = np.random.default_rng(0).integers(0, 255, (3, 40, 50), np.uint8)
    box: Box = ((10, 13), (110, 130), (210, 240))

    moved = part(data, {11: still(3, -4)}, box).read(0, 3, 5, 15)

    assert np.array_equal(moved[0], data[0, 15:25, 10:40])
    assert np.array_equal(moved[1], data[1, 12:22, 14:44])
    assert np.array_equal(moved[2], data[2, 15:25, 10:40])


def test_a_turn_moves_each_voxel_by_its_own_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 255, (1, 60, 60), np.uint8)
    plane = np.array([(-2.0, 8.0), (0.03, 0.0), (0.0, -0.04)])
    box: Box = ((10, 11), (110, 150), (210, 250))

    moved = part(data, {10: plane}, box).read()
    monkeypatch.setattr("pipelines.common.channels.STRIP", 1)

    for y, x in ((110, 210), (149, 249), (120, 240)):
        down, right = np.rint(plane[0] + y * plane[1] + x * plane[2]).astype(int)
        assert moved[0, y - 110, x - 210] == data[0, y - down - 100, x - right - 200]
    assert np.array_equal(moved, part(data, {10: plane}, box).read()), "row by row"


def test_what_lies_beyond_what_is_read_is_not_held_and_shows_the_border() -> None:
    data = np.arange(3 * 30 * 30, dtype=np.uint16).reshape(3, 30, 30)
    places = np.array([(1, 4, 15), (1, 11, 15), (1, 15, 15), (0, 4, 15), (1, 28, 15)])
    moved = part(data, {11: still(8, 0)})

    assert moved.holds(places, (0, 3, 3)).tolist() == [False, True, True, True, False]
    assert moved.holds(places, (1, 3, 3)).tolist() == [False, True, True, False, False]
    assert np.array_equal(moved.read(1, 2, 0, 1)[0, 0], data[1, 0])


def test_a_channel_is_registered_in_each_section() -> None:
    post, other = pair(shared=300, depth=2)

    found = lie(post, other)

    assert found.warps["gaba"].keys() == {0, 1}
    for warp in found.warps["gaba"].values():
        assert warp.sure
        assert np.allclose(warp.middle(found.plane), OFF, atol=0.5)
    lies = found.lies("gaba")
    assert lies.keys() == {10, 11}
    moved = part(other, lies).read()
    inside = np.s_[:, 20:-20, 20:-20]
    assert np.corrcoef(post[inside].ravel(), moved[inside].ravel())[0, 1] > 0.4


def test_many_sections_are_read_together_of_one_channel_after_another() -> None:
    """A server is asked, and blocks are unpacked, as seldom as for one channel, however many channels there are."""
    post = np.zeros((20, 500, 500), np.uint8)
    asked: list[tuple[int, tuple[int, int]]] = []

    def cut(number: int) -> Cut:
        def told(box: Box) -> Array:
            asked.append((number, box[0]))
            return one.channel.cut(box)

        return told

    one = part(post)
    others = {f"marker {number}": cut(number) for number in range(1, 7)}
    aligned(cut(0), others, one.box, known={}, along={}, voxel_nm=VOXEL)

    assert asked == [(number, slab) for slab in ((10, 16), (16, 30)) for number in range(7)]


def test_sections_that_are_not_sure_lie_as_all_together_say() -> None:
    """Ten puncta in a hundred say little in one section, and enough in twenty."""
    post, other = pair(shared=40, depth=20)

    found = lie(post, other)

    unsure = [n for n, warp in found.warps["gaba"].items() if not warp.sure]
    assert len(unsure) > 5
    (together,) = found.together["gaba"].values()
    assert together.sure
    assert all(found.warp("gaba", n) is together for n in unsure)
    assert np.allclose(together.middle(found.plane), OFF, atol=0.7)
    assert found.lies("gaba").keys() == set(range(10, 30))


def test_a_channel_that_is_the_negative_of_another_is_not_moved() -> None:
    """It lies nowhere: the best shift is one by which its bright surroundings of a punctum lie on another punctum."""
    post, _ = pair(shared=40, depth=20)

    found = lie(post, 255 - np.minimum(post, 127) * 2)

    assert not found.lies("gaba")


def test_a_stack_is_of_the_experiment_s_sections_whatever_box_is_registered() -> None:
    """A box that begins 30 sections below the first one has two in one stack, and two in the next."""
    post, other = pair(shared=40, depth=4)

    found = lie(post, other, before=30)

    assert found.together["gaba"].keys() == {0, 1}
    assert [found.stack(n) for n in range(4)] == [0, 0, 1, 1]
    assert [found.stacked(n) for n in (0, 1)] == [range(10, 12), range(12, 14)]
    assert whole_sections(((41, 43), (5, 6), (5, 6)), ((10, 60), (0, 90), (0, 80)), VOXEL, stacks=True) == (
        (10, 60),
        (0, 90),
        (0, 80),
    )


def test_what_the_method_measured_is_not_measured_again() -> None:
    post, other = pair(shared=300, depth=2)
    known = Warp(still(40, 0), 1.0, True)

    found = lie(post, other, role="presynaptic", known={1: known})

    assert found.warp("presynaptic", 1) is known
    assert np.allclose(found.warps["presynaptic"][0].middle(found.plane), OFF, atol=0.5)
    assert not found.together


def test_channels_without_anything_in_common_are_left_where_they_are() -> None:
    post, other = pair(shared=0, depth=4)

    found = lie(post, other)

    assert found.lies("gaba") == {}


def test_a_shift_of_pixels_is_one_of_the_voxels_that_make_them() -> None:
    """Two voxels make a pixel along z and y, and three along x."""
    box: Box = ((10, 15), (100, 160), (200, 260))
    warp = Warp(np.array([(3.0, -2.0), (0.02, 0.0), (0.0, 0.03)]), 1.0, True)
    found = Alignment(
        box=box, voxel_nm=(33, 33, 22), warps={"gaba": {0: warp, 2: warp, 1: NOWHERE}}, along={}, together={}
    )

    lies = found.lies("gaba")

    assert lies.keys() == {10, 11, 14}, "the last section of pixels is a part of one"
    for y, x in ((100, 200), (121, 245)):
        pixel = np.array([(y - 100 + 0.5) / 2 - 0.5, (x - 200 + 0.5) / 3 - 0.5])
        assert np.allclose(lies[10][0] + y * lies[10][1] + x * lies[10][2], warp.shift(pixel) * (2, 3))


@pytest.mark.parametrize("voxel_nm", [(70, 100, 100), (20, 100, 100)])
def test_channels_are_registered_on_sections_as_wide_as_those_that_are_searched(voxel_nm: Size) -> None:
    bounds: Box = ((1, 200), (0, 4000), (0, 4000))
    box: Box = ((50, 60), (2000, 2200), (1000, 1300))
    reach: Triple = (7, 4, 4)

    around = surroundings(box, reach, bounds, voxel_nm)

    assert around[0][0] <= 43
    assert around[0][1] >= 67
    assert min(shape(around)[1:]) > 600
    assert (around[0][0] - 1) % Grid.of(voxel_nm).bins[0] == 0, "where a section of pixels begins"


@pytest.mark.parametrize(
    ("box", "plane", "voxel_nm", "wide"),
    [
        (((0, 10), (100, 200), (100, 200)), 1900, (70, 100, 100), True),  # all of small sections
        (((0, 10), (100, 200), (100, 200)), 20_000, (70, 100, 100), True),  # tiles of large ones
        (((0, 900), (100, 200), (100, 200)), 20_000, (70, 100, 100), False),  # too many sections for so small a box
        (((0, 900), (0, 4000), (0, 4000)), 20_000, (70, 100, 100), True),
        (((0, 10), (100, 200), (100, 200)), 20_000, (4, 4, 4), False),  # a tile has 25 million voxels
    ],
)
def test_whole_sections_are_looked_at_unless_that_is_too_much_for_the_box(
    box: Box, plane: int, voxel_nm: Size, wide: bool
) -> None:
    bounds: Box = ((0, 1000), (0, plane), (0, plane))

    where = registered_in(box, box, bounds, voxel_nm, stacks=False)

    assert where == ((box[0], (0, plane), (0, plane)) if wide else box)
