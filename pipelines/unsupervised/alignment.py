"""How the channels of a run lie on the postsynaptic one, section by section. Axes are z, y, x."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Box, Triple, grown, shape, union
from pipelines.common.copies import CORES, in_copies
from pipelines.unsupervised import search
from pipelines.unsupervised.found import Size
from pipelines.unsupervised.paired import Grid
from pipelines.unsupervised.registration import NOWHERE, Tiles, Warp, register

if TYPE_CHECKING:
    from pipelines.common.channels import Part, Plane

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How channels lie on the postsynaptic one in a box, which is in the experiment's voxels."""

    box: Box
    voxel_nm: Size
    warps: Mapping[str, Mapping[int, Warp]]
    """Of each role, the warps of the sections of pixels that were measured, by number from the box's first one."""
    along: Mapping[int, Warp]
    """How such sections of the postsynaptic channel lie on the ones before, as far as measured."""
    together: Mapping[str, Warp]
    """Of each role that was measured here, the warp of all sections together."""

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

    def warp(self, role: str, number: int) -> Warp | None:
        """How a section lies: as it says by itself where that is sure, else as all together say where that is."""
        own = self.warps[role].get(number)
        if own is None or own.sure or not self.together.get(role, NOWHERE).sure:
            return own
        return self.together[role]

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
    """Where channels are registered of which the box and `reach` voxels beyond it are looked at.

    Sections are as wide as those that `search.surroundings` gives, so that all channels are registered on the same.
    """
    (first, last), y, x = union(search.surroundings(box, bounds, voxel_nm), box)
    (low, high), *_ = grown(box, reach, bounds)
    low, deep = min(low, first), Grid.of(voxel_nm).bins[0]
    return (low - (low - bounds[0][0]) % deep, max(high, last)), y, x


def aligned(
    post: Part,
    others: Mapping[str, Part],
    *,
    known: Mapping[str, Mapping[int, Warp]],
    along: Mapping[int, Warp],
    voxel_nm: Size,
    told: Callable[[float], None] = lambda part: None,
) -> Alignment:
    """How channels, by role, lie on the postsynaptic one; all parts are of one box. What is `known` is not measured.

    A marker that few synapses have is seldom sure in one section. So the correlations of all sections are summed too,
    but for the channels of which something is known.
    """
    grid = Grid.of(voxel_nm)
    depth = -(-post.shape[0] // grid.bins[0])
    found: dict[str, dict[int, Warp]] = {role: dict(known.get(role, {})) for role in {**known, **others}}
    wanted = {n: [role for role in others if n not in found[role]] for n in range(depth)}
    wanted = {n: roles for n, roles in wanted.items() if roles}
    sums: dict[str, Tiles] = {}

    def sections() -> Iterator[list[Array]]:
        for n, roles in wanted.items():
            start, stop = n * grid.bins[0], min(post.shape[0], (n + 1) * grid.bins[0])
            yield [search.in_pixels(part.read(start, stop), grid) for part in (post, *(others[r] for r in roles))]

    def measured(seen: Sequence[Array]) -> list[tuple[Warp, Tiles | None]]:
        first, *rest = (Tiles.of(section, grid) for section in seen)
        return [(register(first, tiles), _correlated(first, tiles)) for tiles in rest]

    # a copy for a small volume costs more than it saves; one for large sections takes too much memory
    plane = math.prod(post.shape[1:])
    most = CORES if plane <= search.STRETCH and plane * len(wanted) >= search.SHORT else 1
    answers = in_copies(measured, sections(), most=most)
    for done, ((n, roles), answer) in enumerate(zip(wanted.items(), answers, strict=True), start=1):
        for role, (found[role][n], tiles) in zip(roles, answer, strict=True):
            if tiles and role not in known:
                sums[role] = replace(tiles, spectra=sums[role].spectra + tiles.spectra) if role in sums else tiles
        told(done / len(wanted))
    return Alignment(
        box=post.box,
        voxel_nm=voxel_nm,
        warps={role: dict(sorted(some.items())) for role, some in found.items()},
        along=along,
        together={
            role: register(some, replace(some, spectra=np.ones_like(some.spectra))) for role, some in sums.items()
        },
    )


def _correlated(one: Tiles | None, other: Tiles | None) -> Tiles | None:
    """The correlation of two maps' tiles, as tiles that have it with an impulse; such correlations may be summed."""
    return replace(one, spectra=one.spectra * np.conj(other.spectra)) if one and other else None
