"""A volume that is searched in blocks shows what it shows in one piece, to the byte, however it is cut."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.common.boxes import Box, Triple, shape, voxels
from pipelines.common.sparse import Sparse
from pipelines.unsupervised import assembly, blocks
from pipelines.unsupervised.assembly import Assembly, Objects
from pipelines.unsupervised.blocks import Found, Known, around, cores, first_look, found_in
from pipelines.unsupervised.chance import merged
from pipelines.unsupervised.detector import scan
from pipelines.unsupervised.found import Size, Synapses
from pipelines.unsupervised.merging import Merging
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.registration import Warp
from pipelines.unsupervised.search import frames_of, in_nm, lengths_of
from tests.support import puncta

Array = NDArray[Any]
NM = np.array([70.0, 100.0, 100.0])


@dataclass(frozen=True)
class Volume:
    """Two channels, of which the box `inside` is asked for; blocks that were searched are remembered."""

    psd: Array
    synapsin: Array
    voxel_nm: Size
    inside: Box
    found: dict[Box, Found] = field(default_factory=dict)

    @property
    def extent(self) -> Triple:
        return shape(self.whole)

    @property
    def whole(self) -> Box:
        z, y, x = ((0, side) for side in self.psd.shape)
        return z, y, x

    @property
    def grid(self) -> Grid:
        return Grid.of(self.voxel_nm)

    def cut(self, box: Box) -> tuple[Array, Array]:
        return self.channel(self.psd, box), self.channel(self.synapsin, box)

    def channel(self, channel: Array, box: Box) -> Array:
        return np.asarray(channel[tuple(slice(*side) for side in box)])

    @property
    def known(self) -> Known:
        return known(self)

    def block(self, core: Box) -> Found:
        if core not in self.found:
            self.found[core] = found_in(
                self.cut,
                core,
                self.extent,
                self.voxel_nm,
                self.known,
                inside=self.inside,
                channels=[lambda box: self.channel(self.psd, box), lambda box: self.channel(self.synapsin, box)],
                mark=marked,
            )
        return self.found[core]

    def in_one_piece(self) -> Synapses:
        def read(start: int, stop: int, top: int, bottom: int) -> tuple[Array, Array]:
            return self.psd[start:stop, top:bottom], self.synapsin[start:stop, top:bottom]

        z, y, x = self.inside
        return scan(read, self.extent, voxel_nm=self.voxel_nm, inside=((z[0], y[0], x[0]), (z[1], y[1], x[1])))

    def in_blocks(self, cut: Sequence[Box]) -> tuple[Objects, Array]:
        """The objects and their voxels, from cores that fill the volume; blocks of a slab come in any order."""
        laid, deep = self.known.laid if self.known.moves else None, self.grid.bins[0]
        slabs = sorted({core[0] for core in cut})
        found = [
            ([self.block(core) for core in cut if core[0] == slab], None if slab is slabs[-1] else slab[1] // deep)
            for slab in slabs
        ]
        with Sparse(shape(self.inside), once=True) as labels:
            assembly = Assembly(
                self.grid, laid, extent=self.extent, inside=self.inside, labels=labels, channels=2, marks=2
            )
            objects = assembly.objects(found)
            return objects, labels.whole()


@cache
def _known() -> dict[int, Known]:
    return {}


def known(volume: Volume) -> Known:
    if id(volume) not in _known():
        _known()[id(volume)], _ = first_look(
            volume.cut,
            volume.extent,
            volume.voxel_nm,
            inside=volume.inside,
            false_discovery=0.25,
            register="auto",
        )
    return _known()[id(volume)]


@cache
def tissue(extent: Triple, voxel_nm: Size, *, rim: bool = True) -> Volume:
    """A drawn volume, some of whose sections are shifted, of which all but a rim is asked for, or all."""
    drawn = puncta.puncta(4, shape=extent, shifted=True)
    z, y, x = ((side // 10, side - side // 20) if rim else (0, side) for side in extent)
    return Volume(drawn.psd, drawn.synapsin, voxel_nm, (z, y, x))


def marked(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two numbers that tell where a candidate is."""
    return np.column_stack([centres.sum(axis=1), centres[:, 0] * centres[:, 2]])


def assert_same(objects: Objects, labels: Array, whole: Synapses, volume: Volume) -> None:
    assert np.array_equal(labels, whole.labels)
    assert np.array_equal(objects.centres, whole.centres)
    assert np.array_equal(objects.voxels, whole.voxels)
    assert np.array_equal(objects.scores, whole.scores)
    assert np.array_equal(objects.marks, marked(objects.centres + [low for low, _ in volume.inside]))
    for channel, sums in zip((volume.psd, volume.synapsin), objects.sums.T, strict=True):
        seen = volume.channel(channel, volume.inside).reshape(-1).astype(float)
        assert np.array_equal(sums, np.bincount(whole.labels.reshape(-1), seen, len(whole) + 1)[1:])


def cuts(volume: Volume, random: random.Random) -> Iterator[Box]:
    """Cores that fill the volume: walls of slabs, and each slab's own walls, at random; blocks in any order."""
    depth, high, wide = volume.extent
    deep, down, right = volume.grid.step

    def walls(long: int, step: int, most: int) -> list[tuple[int, int]]:
        places = sorted(random.sample(range(step, long, step), random.randint(0, min(most, (long - 1) // step))))
        return list(pairwise([0, *places, long]))

    for slab in walls(depth, deep, 3):
        slabs = [(slab, y, x) for y in walls(high, 8 * down, 2) for x in walls(wide, 8 * right, 1)]
        random.shuffle(slabs)
        yield from slabs


@pytest.fixture(autouse=True)
def one_slab_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a large volume are added; small ones would be added all together."""
    monkeypatch.setattr(assembly, "TOGETHER", 1)


def test_a_thousand_random_cuts_show_the_same_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = tissue((6, 90, 72), (70, 200, 200))
    whole = volume.in_one_piece()
    assert len(whole) > 15

    for seed in range(1000):
        monkeypatch.setattr(assembly, "TOGETHER", (1, 20, 2**19)[seed % 3])  # of 50 candidates
        objects, labels = volume.in_blocks(list(cuts(volume, random.Random(seed))))

        assert np.array_equal(labels, whole.labels), seed
        assert np.array_equal(objects.scores, whole.scores), seed
    assert_same(objects, labels, whole, volume)


@pytest.mark.parametrize(
    ("extent", "voxel_nm", "most"),
    [
        ((12, 480, 464), (70, 200, 200), 40_000),  # sections that lie off are moved back, and margins end
        ((13, 241, 303), (30, 40, 33), 200_000),  # voxels are put together, and a few are left over
        ((5, 150, 333), (200, 60, 60), 40_000),  # so small that chance is told by short shifts alone
    ],
)
def test_a_volume_in_blocks_shows_what_it_shows_in_one_piece(extent: Triple, voxel_nm: Size, most: int) -> None:
    volume = tissue(extent, voxel_nm)
    whole = volume.in_one_piece()
    cut = cores(extent, volume.grid, most=most)
    assert len(cut) > 4

    assert_same(*volume.in_blocks(cut), whole, volume)


def test_so_does_one_of_which_all_is_asked_for_and_whose_last_pixels_lack_voxels() -> None:
    volume = tissue((4, 601, 601), (70, 33, 33), rim=False)
    whole = volume.in_one_piece()
    assert np.all(whole.centres < volume.extent)

    assert_same(*volume.in_blocks(cores(volume.extent, volume.grid, most=400_000)), whole, volume)


def test_a_block_reads_no_more_than_it_needs() -> None:
    volume = tissue((12, 480, 464), (70, 200, 200))
    assert any(warp.moves(volume.extent[1:]) for warp in volume.known.laid.across)
    core = cores(volume.extent, volume.grid, most=12 * 96 * 96)[0]

    read = around(core, volume.extent, volume.voxel_nm, volume.known)

    assert read[0] == core[0]
    assert core[1][1] < read[1][1] < 480


@pytest.mark.parametrize("most", [10_000, 300_000, 10**9])
@pytest.mark.parametrize("cuboid", [(1, 1, 1), (16, 128, 128)])
@pytest.mark.parametrize("before", [(0, 0, 0), (5, 24, 100)])
def test_cores_fill_the_volume_once_and_begin_where_grid_and_cuboids_do(
    most: int, cuboid: Triple, before: Triple
) -> None:
    extent, grid = (40, 500, 700), Grid.of((70, 100, 100))
    filled = np.zeros(extent, np.uint8)

    for core in cores(extent, grid, most=most, cuboid=cuboid, before=before):
        z, y, x = core
        filled[slice(*z), slice(*y), slice(*x)] += 1
        for (low, _), side, first, step in zip(core, cuboid, before, grid.step, strict=True):
            assert low % step == 0
            off = (low + first) % side if low and math.prod(cuboid) <= 2 * most else 0
            assert min(off, side - off) <= step / 2

    assert np.all(filled == 1)


@pytest.mark.parametrize("start", [(0, 0, 0), (1, 0, 0), (8, 250, 250)])
def test_the_usual_block_is_as_large_as_asked_and_as_thin_as_a_cuboid(start: Triple) -> None:
    cut = cores((128, 20_000, 30_000), Grid.of((70, 100, 100)), most=2**28, cuboid=(16, 512, 512), before=start)

    assert max(map(voxels, cut)) <= 1.01 * 2**28
    assert max(shape(core)[0] for core in cut) == 16
    assert sum(shape(core)[0] == 16 for core in cut) > 0.7 * len(cut)


@pytest.mark.parametrize(
    "voxel_nm", [(40, 4, 4), (33, 6, 6), (4, 4, 4), (70, 13, 13), (50, 96, 96), (30, 8, 8), (200, 200, 200)]
)
@pytest.mark.parametrize("cuboid", [(16, 512, 512), (64, 64, 64), (1024, 1024, 1024), (1, 1, 1)])
def test_blocks_are_about_as_large_as_asked_whatever_the_voxels(voxel_nm: Size, cuboid: Triple) -> None:
    cut = cores((1850, 100_000, 100_000), Grid.of(voxel_nm), most=2**28, cuboid=cuboid)

    assert max(map(voxels, cut)) <= 2 * 2**28


def test_a_pilot_is_where_there_is_something() -> None:
    volume = tissue((12, 480, 464), (70, 200, 200))
    z, y, x = volume.known.typical
    whole = volume.in_one_piece()
    corner = [low for low, _ in volume.inside]

    assert np.abs(whole.centres + corner - (z, y, x)).sum(axis=1).min() < 2


def test_of_a_large_volume_samples_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = tissue((12, 480, 464), (70, 200, 200))
    exact = volume.known
    monkeypatch.setattr(blocks, "WHOLE", 1000)
    monkeypatch.setattr(blocks, "SAMPLE", (8, 160, 160))

    sampled, samples = first_look(
        volume.cut, volume.extent, volume.voxel_nm, inside=volume.inside, false_discovery=0.25, register="auto"
    )

    assert [(warp.sure, warp.linear.tolist()) for warp in sampled.laid.across] == [
        (warp.sure, warp.linear.tolist()) for warp in exact.laid.across
    ]
    assert sampled.threshold == pytest.approx(exact.threshold, rel=0.1)
    assert exact.chance
    assert sampled.chance
    assert sampled.chance.low < exact.chance.share < sampled.chance.high
    objects, _ = volume.in_blocks(cores(volume.extent, volume.grid, most=500_000))
    sure = objects.centres[objects.scores >= sampled.threshold] + [low for low, _ in volume.inside]
    for sample in samples:
        low, high = (np.array(side) for side in zip(*sample.box, strict=True))
        there = sure[np.all((sure >= low) & (sure < high), axis=1)] - low
        assert len(there) > 3
        assert {tuple(centre) for centre in there} <= {tuple(centre) for centre in sample.centres}


def test_what_is_one_object_does_not_depend_on_the_sections_above() -> None:
    """Each section is turned and stretched a little against the last one; such stretches add up to a tenth."""
    draw = np.random.default_rng(3)
    along = [Warp(draw.normal(0.002, 0.003, (3, 2)) * [[900], [1], [1]], 1.0, True) for _ in range(40)]
    places = np.unique(draw.integers((0, 0, 0), (41, 120, 120), (20_000, 3)).astype(np.int32), axis=0)
    scores, grid = draw.random(len(places)).astype(np.float32), Grid.of((70, 100, 100))

    def kept(first: int, corner: tuple[int, int]) -> dict[tuple[int, ...], bool]:
        """Which candidates of the sections from `first` on are objects, of places that count from a corner."""
        some = places[:, 0] >= first
        frames = frames_of(along[first:], corner)
        at = in_nm(places[some] - np.array([first, *corner], np.int32), frames, grid)
        seen, _ = merged(at, scores[some], lengths=lengths_of(frames, grid))
        return dict(zip(map(tuple, places[some].tolist()), seen.tolist(), strict=True))

    whole, part = kept(0, (0, 0)), kept(30, (-17, 40))

    below = {place: is_one for place, is_one in part.items() if place[0] >= 36}
    assert sum(below.values()) > 100
    assert below == {place: whole[place] for place in below}
    straight = merged(in_nm(places, frames_of(along, (0, 0)), grid), scores)[0]
    assert straight.tolist() != list(whole.values()), "lengths in the first section's frame are others"


def test_candidates_that_come_by_sections_are_merged_as_all_at_once() -> None:
    for seed in range(300):
        draw = np.random.default_rng(seed)
        side = int(draw.integers(5, 60))
        places = np.unique(draw.integers(0, (20, side, side), (int(draw.integers(0, 400)), 3)).astype(np.int32), axis=0)
        scores = (draw.integers(0, 6, len(places)) / 8 if seed % 2 else draw.random(len(places))).astype(np.float32)
        kept, to = merged(places * NM, scores)
        merging = Merging(lambda some: some * NM, deep_nm=70)
        walls = [0, *sorted(set(draw.integers(1, 20, 4).tolist())), 20]

        parts = [
            merging.add(places[low:high], scores[low:high], upto=None if wall == 20 else wall)
            for wall, (low, high) in zip(walls[1:], pairwise(np.searchsorted(places[:, 0], walls)), strict=True)
        ]

        assert np.array_equal(np.concatenate([part.places for part in parts]), places)
        assert np.array_equal(np.concatenate([part.kept for part in parts]), kept)
        assert np.array_equal(np.concatenate([part.to for part in parts]), to)


def test_of_three_in_a_row_one_is_kept_whatever_lies_beyond_what_is_near() -> None:
    row = np.array([[0.0, 0, 0], [0, 0, 200], [0, 0, 400]])

    kept, to = merged(row, np.array([3.0, 2, 1]))

    assert kept.tolist() == [True, False, False]
    assert to.tolist() == [0, 0, 2]
    assert merged(row[1:], np.array([2.0, 1]))[0].tolist() == [True, False]
    assert merged(row[1:], np.array([1.0, 2]))[0].tolist() == [False, True]
