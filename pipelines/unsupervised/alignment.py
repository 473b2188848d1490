"""How the channels of a run lie on the postsynaptic one, section by section. Axes are z, y, x.

Sections are registered as wide as the experiment has them, so that a box is registered as the volume is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Box, Triple, grown, shape, union, voxels
from pipelines.common.copies import CORES, in_copies
from pipelines.unsupervised import search
from pipelines.unsupervised.found import Size
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.registration import NOWHERE, Layout, Tiles, Warp, as_arrays, from_arrays, register

if TYPE_CHECKING:
    from pipelines.common.channels import Plane

Array = NDArray[Any]
Cut = Callable[[Box], Array]
"""Gives a box of a channel, in voxels: unsigned integers."""
Cuts = Callable[[Box], Iterable[Array]]
"""Gives a box of some channels, one after another, in the same order each time."""

STACK = 32
"""Sections of pixels whose correlations are summed, counted from the experiment's first one."""
SLAB = 16
"""Sections of pixels that are read together, at most: volumes are stored in blocks that hold some."""
SLAB_BYTES = 2**25, 2**26
"""Bytes that are read together, about, one section at least: of whole sections, and of tiles, whose maps are small."""
LARGE = 2**21
"""Pixels of a section whose maps are so large that one process at a time makes them."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How channels lie on the postsynaptic one in a box, which is in the experiment's voxels."""

    box: Box
    voxel_nm: Size
    warps: Mapping[str, Mapping[int, Warp]]
    """Of each role, the warps of the sections of pixels that were measured, by number from the box's first one."""
    along: Mapping[int, Warp]
    """How such sections of the postsynaptic channel lie on the ones before, as far as measured."""
    together: Mapping[str, Mapping[int, Warp]]
    """Of each role that was measured here, the warps of stacks of sections, by the stack's number."""
    before: int = 0
    """Sections of pixels that the experiment has before the box."""

    def arrays(self) -> dict[str, Array]:
        """All of it, for `restored`; names begin with `aligned`."""
        found = {
            "aligned": np.array([*self.box, (self.before, 0)]),
            "aligned_nm": np.array(self.voxel_nm),
            "aligned_roles": np.array(list(self.warps), np.str_),
        }
        mappings = [self.along, *self.warps.values(), *(self.together.get(role, {}) for role in self.warps)]
        for n, warps in enumerate(mappings):
            found[f"aligned_{n}_numbers"] = np.array(list(warps), np.int64)
            found |= as_arrays(f"aligned_{n}", list(warps.values()))
        return found

    @classmethod
    def restored(cls, arrays: Mapping[str, Array]) -> Alignment:
        """What `arrays` held."""
        roles = [str(role) for role in arrays["aligned_roles"]]
        along, *mappings = (
            dict(zip(arrays[f"aligned_{n}_numbers"].tolist(), from_arrays(f"aligned_{n}", arrays), strict=True))
            for n in range(1 + 2 * len(roles))
        )
        z, y, x, (before, _) = ((int(low), int(high)) for low, high in arrays["aligned"])
        nm = arrays["aligned_nm"]
        together = {role: warps for role, warps in zip(roles, mappings[len(roles) :], strict=True) if warps}
        return cls(
            box=(z, y, x),
            voxel_nm=(float(nm[0]), float(nm[1]), float(nm[2])),
            warps=dict(zip(roles, mappings, strict=False)),
            along=along,
            together=together,
            before=before,
        )

    @property
    def plane(self) -> tuple[int, int]:
        """A section's extent in pixels."""
        _, high, wide = shape(self.box)
        bins = Grid.of(self.voxel_nm).bins
        return -(-high // bins[1]), -(-wide // bins[2])

    @property
    def extent(self) -> tuple[int, int]:
        """A section's extent in voxels."""
        _, high, wide = shape(self.box)
        return high, wide

    def sections(self, number: int) -> range:
        """The experiment's sections that make a section of pixels."""
        (first, last), deep = self.box[0], Grid.of(self.voxel_nm).bins[0]
        return range(first + number * deep, min(last, first + (number + 1) * deep))

    def stack(self, number: int) -> int:
        """The stack that a section of pixels is in."""
        return (self.before + number) // STACK

    def stacked(self, stack: int) -> range:
        """The experiment's sections that make a stack, of those in the box."""
        first = max(0, stack * STACK - self.before)
        last = (stack + 1) * STACK - self.before - 1
        return range(self.sections(first).start, min(self.box[0][1], self.sections(last).stop))

    def warp(self, role: str, number: int) -> Warp | None:
        """How a section lies: as it says by itself where that is sure, else as its stack says where that is."""
        own, together = self.warps[role].get(number), self.together.get(role, {}).get(self.stack(number), NOWHERE)
        return own if own is None or own.sure or not together.sure else together

    def farthest(self, warp: Warp, part: Box) -> float:
        """The longest shift of a corner of a part of the experiment, in its voxels."""
        places = np.array(list(itertools.product(*part[1:])), np.float64) - [low for low, _ in self.box[1:]]
        return float(np.hypot(*self.in_voxels(warp).shift(places).T).max())

    def moved(self, role: str) -> dict[int, Warp]:
        """The sections of pixels that a sure warp moves, by number."""
        warps = ((number, self.warp(role, number)) for number in self.warps[role])
        return {number: warp for number, warp in warps if warp and warp.moves(self.plane)}

    def lies(self, role: str) -> dict[int, Plane]:
        """How the experiment's sections of a channel are shifted, of those that are moved."""
        return {z: self._lies(warp) for number, warp in self.moved(role).items() for z in self.sections(number)}

    def in_voxels(self, warp: Warp) -> Warp:
        """The warp for voxels instead of pixels, counted from the box's corner."""
        bins = np.array(Grid.of(self.voxel_nm).bins[1:])
        return replace(warp, linear=np.vstack([warp.shift(0.5 / bins - 0.5), warp.linear[1:] / bins[:, None]]) * bins)

    def _lies(self, warp: Warp) -> Plane:
        """The same plane for the experiment's voxels."""
        linear = self.in_voxels(warp).linear
        linear[0] -= np.array([low for low, _ in self.box[1:]]) @ linear[1:]
        return linear


def surroundings(box: Box, reach: Triple, bounds: Box, voxel_nm: Size) -> Box:
    """What is read of channels that are registered, of which the box and `reach` voxels beyond it are looked at.

    Sections are as wide as those that `search.surroundings` gives: what is moved back into the box is among them.
    """
    (first, last), y, x = union(search.surroundings(box, bounds, voxel_nm), box)
    (low, high), *_ = grown(box, reach, bounds)
    low, deep = min(low, first), Grid.of(voxel_nm).bins[0]
    return (low - (low - bounds[0][0]) % deep, max(high, last)), y, x


def whole_sections(sections: Box, bounds: Box, voxel_nm: Size, *, stacks: bool) -> Box:
    """The sections of a box as wide as the experiment has them, with the others of their stacks if asked."""
    (first, last), (low, high) = sections[0], bounds[0]
    if stacks:
        step = STACK * Grid.of(voxel_nm).bins[0]
        first, last = first - (first - low) % step, min(high, last + (low - last) % step)
    return (first, last), bounds[1], bounds[2]


def registered_in(box: Box, sections: Box, bounds: Box, voxel_nm: Size, *, stacks: bool) -> Box:
    """Where the sections of a box are registered: as `whole_sections`, for what is found in `box`, if that is not much.

    As many voxels as the sections have, or search.MOST, are read of a channel for it at most, and no more memory is
    taken than a search takes. Elsewhere sections are no wider than given.
    """
    wide, grid = whole_sections(sections, bounds, voxel_nm, stacks=stacks), Grid.of(voxel_nm)
    depth, *plane = (-(-side // step) for side, step in zip(shape(wide), grid.bins, strict=True))
    layout = Layout.of(plane, grid)
    if layout is None:
        return sections
    read = min(depth * _pixels(layout) * math.prod(grid.bins), voxels(wide))
    fits = layout.alone or search.held(wide, grid) <= search.room(box)
    return wide if fits and read <= max(search.MOST, voxels(sections)) else sections


def slabs_of(
    numbers: Sequence[int], box: Box, layout: Layout, grid: Grid, *, channels: int, itemsize: int
) -> Iterator[list[int]]:
    """The numbers of sections of pixels of a box, in order, as they are read together of so many channels.

    Sections count from the box's first one. Those read together follow one another. Voxels have `itemsize` bytes.
    """
    each = max(2, itemsize) * _pixels(layout) * math.prod(grid.bins) * channels  # bytes of a section
    most = max(1, min(SLAB, SLAB_BYTES[layout.alone] // each))
    slab: list[int] = []
    for n in numbers:
        # slabs end where blocks in which volumes are stored often do
        if slab and (len(slab) == most or n != slab[-1] + 1 or (box[0][0] // grid.bins[0] + n) % SLAB == 0):
            yield slab
            slab = []
        slab.append(n)
    if slab:
        yield slab


def seen_in(slab: Sequence[int], cuts: Cuts, box: Box, layout: Layout, grid: Grid) -> list[list[list[Array]]]:
    """Of each channel, of each section of pixels of a slab, the pixels in the places that `layout` has to see."""
    places = [_voxels((slice(slab[0], slab[-1] + 1), *place), box, grid) for place in layout.seen]
    deep = grid.bins[0]
    sections = [slice(n * deep, (n + 1) * deep) for n in range(len(slab))]
    # channel by channel, since voxels may be larger than what is made of them
    seen = [[[search.in_pixels(part[some], grid) for some in sections] for part in cuts(place)] for place in places]
    return [[list(parts) for parts in zip(*channel, strict=True)] for channel in zip(*seen, strict=True)]


def _pixels(layout: Layout) -> int:
    """How many pixels of a section are looked at."""
    return sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in layout.seen)


def _copies(layout: Layout, sections: int) -> int:
    """Copies of this process that register so many sections: one that is worth little is not worth itself."""
    if _pixels(layout) * sections < search.SHORT or (not layout.alone and _pixels(layout) > LARGE):
        return 1
    return CORES


def _voxels(pixels: tuple[slice, slice, slice], box: Box, grid: Grid) -> Box:
    """The experiment's voxels of pixels of a box."""
    deep, high, wide = (
        (low + side.start * step, min(end, low + side.stop * step))
        for side, step, (low, end) in zip(pixels, grid.bins, box, strict=True)
    )
    return deep, high, wide


def laid(
    cuts: Cuts,
    box: Box,
    voxel_nm: Size,
    *,
    itemsize: int = 2,
    told: Callable[[float], None] = lambda part: None,
) -> search.Laid:
    """How both channels lie on one another in the sections of a box, and each section on the last one.

    Only the tiles are read of sections that are large. Voxels have at most `itemsize` bytes.
    """
    grid = Grid.of(voxel_nm)
    depth, high, wide = (-(-side // step) for side, step in zip(shape(box), grid.bins, strict=True))
    layout = Layout.of((high, wide), grid)
    if layout is None:
        return search.Laid([NOWHERE] * depth, [NOWHERE] * (depth - 1), (0, 0), (high, wide))

    def measured(seen: tuple[list[Array], ...]) -> tuple[Tiles, Warp]:
        one, other = (layout.of_pixels(channel, grid) for channel in seen)
        return one, register(one, other)

    def seen() -> Iterator[tuple[list[Array], ...]]:
        for slab in slabs_of(range(depth), box, layout, grid, channels=2, itemsize=itemsize):
            yield from zip(*seen_in(slab, cuts, box, layout, grid), strict=True)

    across, along = [], []
    last: Tiles | None = None
    for tiles, warp in in_copies(measured, seen(), most=_copies(layout, depth)):
        if last:
            along.append(search.on_the_last(tiles, last, grid))
        across.append(warp)
        last = tiles
        told(len(across) / depth)
    return search.Laid(across, along, (0, 0), (high, wide))


def aligned(
    post: Cut,
    others: Mapping[str, Cut],
    box: Box,
    *,
    known: Mapping[str, Mapping[int, Warp]],
    along: Mapping[int, Warp],
    voxel_nm: Size,
    itemsize: int = 2,
    before: int = 0,
    told: Callable[[float], None] = lambda part: None,
) -> Alignment:
    """How channels, by role, lie on the postsynaptic one in a box. What is `known` is not measured.

    A marker that few synapses have is seldom sure in one section. So the correlations of all sections of a stack are
    summed too, but for the channels of which something is known. The experiment has so many sections of pixels `before`
    the box. Voxels have at most `itemsize` bytes.
    """
    grid = Grid.of(voxel_nm)
    depth, high, wide = (-(-side // step) for side, step in zip(shape(box), grid.bins, strict=True))
    found: dict[str, dict[int, Warp]] = {role: dict(known.get(role, {})) for role in {**known, **others}}
    sums: dict[str, dict[int, Tiles]] = {role: {} for role in others if role not in known}
    alignment = Alignment(box=box, voxel_nm=voxel_nm, warps=found, along=along, together={}, before=before)
    layout = Layout.of((high, wide), grid)
    if layout is None:
        unknown = dict.fromkeys(range(depth), NOWHERE)
        return replace(alignment, warps={role: unknown | some for role, some in found.items()})

    def seen(cut: Cut, slab: list[int]) -> list[list[Array]]:
        return seen_in(slab, lambda part: [cut(part)], box, layout, grid)[0]

    def tiled(section: list[Array]) -> Tiles:
        return layout.of_pixels(section, grid)

    def measured(firsts: list[Tiles], sections: list[list[Array]]) -> list[tuple[Warp, Tiles]]:
        pairs = zip(firsts, map(tiled, sections), strict=True)
        return [(register(first, tiles), _correlated(first, tiles)) for first, tiles in pairs]

    wanted = {n: tuple(role for role in others if n not in found[role]) for n in range(depth)}
    done, all_ = 0, sum(1 for roles in wanted.values() if roles)
    for roles, some in itertools.groupby((n for n in wanted if wanted[n]), key=lambda n: wanted[n]):
        for slab in slabs_of(list(some), box, layout, grid, channels=1, itemsize=itemsize):
            copies = _copies(layout, len(slab))
            firsts = list(in_copies(tiled, seen(post, slab), most=copies))
            parts = (seen(others[role], slab) for role in roles)
            answers = in_copies(partial(measured, firsts), parts, most=copies)
            for role, answer in zip(roles, answers, strict=True):
                for n, (found[role][n], tiles) in zip(slab, answer, strict=True):
                    if role in sums:
                        stack = sums[role]
                        at = alignment.stack(n)
                        stack[at] = replace(tiles, spectra=stack[at].spectra + tiles.spectra) if at in stack else tiles
            done += len(slab)
            told(done / all_)
    return replace(
        alignment,
        warps={role: dict(sorted(some.items())) for role, some in found.items()},
        together={
            role: {n: register(tiles, replace(tiles, spectra=np.ones_like(tiles.spectra))) for n, tiles in some.items()}
            for role, some in sums.items()
        },
    )


def _correlated(one: Tiles, other: Tiles) -> Tiles:
    """The correlation of two maps' tiles, as tiles that have it with an impulse; such correlations may be summed."""
    return replace(one, spectra=one.spectra * np.conj(other.spectra))
