"""How much of what is found is found by chance: the presynaptic channel is looked up elsewhere, and found again.

Where one channel is shifted by far more than a punctum, whatever is found is chance. The chance share is the mean of
what the shifted looks find, over what is found.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipelines.common.copies import in_copies

Array = NDArray[Any]
Pairs = NDArray[np.uint32]
"""(2, m): the better ones of pairs of objects, and the worse ones; numbers of this size take half the memory."""

MERGE_NM = 250.0
"""Objects whose centres are nearer than this count once."""
SHIFT_NM = 6000.0
"""The shortest shift: farther than the surroundings in which brightness is measured. A box must be twice as long."""
TEST_NM = 1000.0
"""In a smaller box the share cannot be told. Shifts of this length still tell whether there is anything but chance."""
SURE = 5.0
"""Standard errors by which what is found must exceed chance; otherwise nothing is found."""
MOST, LEAST = 8, 2
"""Shifted looks: so many in small volumes, and so few in large ones, where each of them sees enough."""
ENOUGH = 15e6
"""Pixels that all looks see together, about."""
STEPS = 10_000
"""In which false discovery rates are counted."""
STRIP = 2**18
"""Objects among which those that lie near one another are looked for at once, about."""
_NORMAL = 1.96
"""Standard deviations on either side that hold 95 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chance:
    """How many of the objects found are there by chance, and between what shares of them that lies (95 %)."""

    count: float
    share: float
    low: float
    high: float


def share_of(found: int, by_look: Sequence[int]) -> Chance:
    """From how many were found, and how many each shifted look found."""
    looks = len(by_look)
    mean = sum(by_look) / looks
    spread = max(mean + 1, float(np.var(by_look, ddof=1)) if looks > 1 else 0.0)
    off = _NORMAL * math.sqrt(spread * (1 + 1 / looks))
    low, middle, high = (min(1.0, max(0.0, count) / max(1, found)) for count in (mean - off, mean, mean + off))
    return Chance(count=min(mean, float(found)), share=middle, low=low, high=high)


def looks_for(
    shape: tuple[int, int], pixel_nm: tuple[float, float], *, depth: int, least_nm: float = SHIFT_NM
) -> list[tuple[int, int]]:
    """Shifts (y, x) in pixels, spread evenly over a section, none shorter than `least_nm`; [] in too small a box.

    As many as `depth` sections of that shape need.
    """
    if max(shape[0] * pixel_nm[0], shape[1] * pixel_nm[1]) < 2 * least_nm:
        return []
    many = min(MOST, max(LEAST, round(ENOUGH / (shape[0] * shape[1] * depth))))
    found: list[tuple[int, int]] = []
    for n in range(1, 1000):
        y, x = ((n * step + 0.5) % 1 - 0.5 for step in (0.7548776662466927, 0.5698402909980532))  # an even sequence
        look = round(y * shape[0]), round(x * shape[1])
        if math.hypot(look[0] * pixel_nm[0], look[1] * pixel_nm[1]) >= least_nm:
            found.append(look)
        if len(found) == many:
            break
    return found


def looks_that_fit(
    shape: tuple[int, int], pixel_nm: tuple[float, float], *, depth: int
) -> tuple[list[tuple[int, int]], bool]:
    """The shifts for a box, and whether they tell the share; in a small box, they tell only whether there is more."""
    looks = looks_for(shape, pixel_nm, depth=depth)
    return (looks, True) if looks else (looks_for(shape, pixel_nm, depth=depth, least_nm=TEST_NM), False)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths between places of sections that were laid on one another, each turned and stretched into one frame.

    Each length is measured in the upper one of the two sections. So it does not depend on which section's the frame is,
    though stretches add up from section to section.
    """

    deep_nm: float
    """From a section to the next."""
    back: NDArray[np.float64]
    """(sections, 2, 2): from nanometres y, x of the frame to those of the section."""
    least: float
    """What MERGE_NM is in the frame at least."""
    reach: float
    """What it is at most."""

    @classmethod
    def of(cls, turns: NDArray[np.float64], deep_nm: float) -> Lengths | None:
        """From each section's turn and stretch (sections, 2, 2) in nanometres; None where there is none."""
        if (turns == np.eye(2)).all():
            return None
        scales = np.linalg.svd(turns, compute_uv=False)
        least, most = (MERGE_NM * float(scale) for scale in (min(1, scales.min()), max(1, scales.max())))
        back = np.asarray(np.linalg.inv(turns), np.float64)
        return cls(deep_nm, back, least * 0.999999, most * 1.000001)

    def near(self, places: Array, one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.bool_]:
        """(m,): which pairs of places (n, 3), in nanometres of the frame, are within MERGE_NM of one another."""
        found = np.empty(len(one), np.bool_)
        for first in range(0, len(one), STRIP):  # each pair takes some 100 bytes meanwhile
            some = slice(first, first + STRIP)
            away = np.square(places[one[some]] - places[other[some]]).sum(axis=1)
            found[some] = away <= self.least**2
            doubtful = first + np.flatnonzero(~found[some])
            found[doubtful] = self._near(places[one[doubtful]], places[other[doubtful]])
        return found

    def _near(self, here: Array, there: Array) -> NDArray[np.bool_]:
        upper = np.rint(np.minimum(here[:, 0], there[:, 0]) / self.deep_nm).astype(np.intp)
        away = there - here
        across = np.einsum("nij,nj->ni", self.back[upper], away[:, 1:])
        return np.asarray(away[:, 0] ** 2 + across[:, 0] ** 2 + across[:, 1] ** 2 <= MERGE_NM**2)


def merged(
    places_nm: Array, scores: Array, *, lengths: Lengths | None = None, copies: int = 1
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Which objects are kept, those that no better one lies within MERGE_NM of; and for each the one it counts to.

    A better one need not be kept itself, so that what lies beyond MERGE_NM of an object has no part in whether it is.
    `places_nm` is (n, 3). Of two of one score the first one is the better one.
    """
    pairs = pairs_near(places_nm, scores, lengths=lengths, copies=copies)
    kept = unbeaten(pairs, len(scores))
    return kept, best_kept(pairs, kept, scores)


def pairs_near(places_nm: Array, scores: Array, *, lengths: Lengths | None = None, copies: int = 1) -> list[Pairs]:
    """Each two objects within MERGE_NM of one another, in strips along y.

    Copies of the process look for them, where there are many objects.
    """
    if not len(scores):
        return []
    y, reach = places_nm[:, 1], lengths.reach if lengths else MERGE_NM
    many = len(y) // STRIP + 1
    walls = [-math.inf, *np.quantile(y[:: max(1, many // 2)], np.arange(1, many) / many).tolist(), math.inf]

    def pairs(strip: tuple[float, float]) -> Pairs:
        """The pairs, of which one at least is in a strip and none lies before it."""
        rows = np.flatnonzero((y >= strip[0]) & (y < strip[1] + reach * 1.001))
        # a tree of places in space's order, which they come in, is made several times as fast as one in scores' order
        tree = cKDTree(places_nm[rows], balanced_tree=False, compact_nodes=False)
        one, other = rows[tree.query_pairs(reach, output_type="ndarray")].T
        if lengths:
            near = lengths.near(places_nm, one, other)
            one, other = one[near], other[near]
        inside = (y[one] < strip[1]) | (y[other] < strip[1])
        one, other = one[inside], other[inside]
        first = scores[one] >= scores[other]  # `one` comes before `other`
        return np.stack([np.where(first, one, other), np.where(first, other, one)]).astype(np.uint32)

    strips = list(itertools.pairwise(walls))
    return list(in_copies(pairs, strips, most=copies if many > 1 else 1))


def unbeaten(pairs: Sequence[Pairs], count: int) -> NDArray[np.bool_]:
    """Which of so many objects are the worse one of no pair of `pairs_near`."""
    kept = np.ones(count, np.bool_)
    for _, worse in pairs:
        kept[worse] = False
    return kept


def best_kept(pairs: Sequence[Pairs], kept: NDArray[np.bool_], scores: Array) -> NDArray[np.intp]:
    """(n,): for each object the best kept one near it; itself where no better one near it is kept."""
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    rank = np.empty(len(kept), np.uint32)
    rank[rows] = np.arange(len(rows))
    best = np.full(len(kept), len(rows), np.uint32)
    for better, worse in pairs:
        some = kept[better]
        np.minimum.at(best, worse[some], rank[better[some]])
    to = np.arange(len(kept))
    beaten = np.flatnonzero(best < len(rows))
    to[beaten] = rows[best[beaten]]
    return to


@dataclass(frozen=True, slots=True)
class Judged:
    """What each threshold would find, and the one to take."""

    threshold: float
    """The lowest score at the rate asked for; infinite where no threshold has it."""
    curve: NDArray[np.float64]
    """(m, 4): threshold, found, found by chance, false discovery rate; from the highest threshold on.

    The rate is the lowest one to ask for so that the threshold is reached; 1 where none does.
    """

    def rates(self, scores: Array) -> NDArray[np.float64]:
        """For each score the lowest false discovery rate to ask for so that it is found (its q value)."""
        if not len(self.curve):
            return np.ones(len(scores))
        places = np.searchsorted(-self.curve[:, 0], -np.asarray(scores, np.float64), "left")
        return np.asarray(self.curve[np.minimum(places, len(self.curve) - 1), 3])


def judge(found: Array, by_look: Sequence[Array], false_discovery: float) -> Judged:
    """From the scores found, and those that each shifted look found.

    The rate of a threshold is the lowest chance share there or at a lower threshold, of those alone at which more is
    found than by chance. The threshold taken is the lowest one whose rate is at most `false_discovery`.
    """
    best = np.sort(np.asarray(found, np.float64))[::-1]
    shifted = np.sort(np.concatenate([np.asarray(scores, np.float64) for scores in by_look]))
    count = np.searchsorted(-best, -best, "right")  # equal scores are found together
    chance = (len(shifted) - np.searchsorted(shifted, best, "left")) / len(by_look)
    share = np.where(beyond_chance(count, chance, len(by_look)), chance / np.maximum(count, 1), 1)
    # rounded up, so that a run at a rate that is read in synapses.csv finds what has it
    rate = np.ceil(np.round(np.minimum.accumulate(share[::-1])[::-1] * STEPS, 6)) / STEPS
    good = np.flatnonzero(rate <= false_discovery)
    threshold = float(best[good[-1]]) if len(good) else math.inf
    return Judged(threshold, np.stack([best, count, chance, rate], axis=1))


def beyond_chance(found: Array, chance: Array, looks: int) -> NDArray[np.bool_]:
    """Whether so many are more than the mean `chance` of so many looks, by SURE standard errors (Poisson)."""
    return np.asarray(found - chance > SURE * np.sqrt((chance + 1) * (1 + 1 / looks)))
