"""Merges candidates that come section by section, in little memory, as `chance.merged` merges all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.unsupervised.chance import MERGE_NM, Lengths, best_kept, pairs_near, unbeaten

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Settled:
    """Candidates of which it is known what becomes of them: n of them, in order, those that follow the last ones."""

    places: NDArray[np.int32]
    """(n, 3): z, y, x in pixels."""
    scores: NDArray[np.float32]
    kept: NDArray[np.bool_]
    to: NDArray[np.int64]
    """The kept candidate that each counts to, numbered over all that were added: itself, where there is none."""
    below: int | None
    """The section below which all candidates are settled; None: all of them are."""


@dataclass(frozen=True, slots=True)
class _Pool:
    """Candidates of which something may still be asked."""

    rows: NDArray[np.int64]
    places: NDArray[np.int32]
    scores: NDArray[np.float32]
    kept: NDArray[np.bool_]
    """Of those below the section up to which that is known."""

    def of(self, some: Array) -> _Pool:
        return _Pool(*(getattr(self, each.name)[some] for each in fields(self)))


class Merging:
    """The candidates of a volume are added by sections, in order; the result does not depend on how many at a time.

    `in_nm(places)` gives the places (n, 3) of candidates in nanometres, in the frame in which they are compared by
    `lengths`; sections `deep_nm` apart stay so.
    """

    def __init__(
        self,
        in_nm: Callable[[NDArray[np.int32]], NDArray[np.float64]],
        *,
        deep_nm: float,
        lengths: Lengths | None = None,
        copies: int = 1,
    ) -> None:
        self._in_nm, self._lengths, self._copies = in_nm, lengths, copies
        self.reach = int(MERGE_NM / deep_nm)
        """Sections to which a candidate may reach."""
        self._count = 0
        self._known = 0
        """The section below which it is known which candidates are kept."""
        none = np.zeros(0, np.bool_)
        self._pool = _Pool(np.zeros(0, np.int64), np.zeros((0, 3), np.int32), np.zeros(0, np.float32), none)

    def add(self, places: NDArray[np.int32], scores: NDArray[np.float32], *, upto: int | None) -> Settled:
        """Add candidates in the order of their places: all that lie below the section `upto`; None: the last ones.

        Returns those of which it is known now what becomes of them, in order, each once.
        """
        pool = self._with(places, scores)
        at = self._in_nm(pool.places)
        better, worse = pairs_near(at, pool.scores, lengths=self._lengths, copies=self._copies)
        z = pool.places[:, 0]
        # the neighbours of those below are not all in the pool any more
        kept = np.where(z < self._known, pool.kept, unbeaten(worse, len(z)))
        to = pool.rows[best_kept(better, worse, kept, pool.scores)]
        pool = _Pool(pool.rows, pool.places, pool.scores, kept)
        due, below = z >= self._settled, None
        if upto is not None:
            self._known = max(self._known, upto - self.reach)
            below = self._settled
            due &= z < below
            self._pool = pool.of(z >= below - self.reach)
        some = pool.of(due)
        return Settled(some.places, some.scores, some.kept, to[due], below)

    @property
    def _settled(self) -> int:
        """The section below which it is known to which ones candidates count: what is near them is known as well."""
        return max(0, self._known - self.reach)

    @property
    def oldest(self) -> int:
        """The number of the first candidate of which something may still be asked, over all that were added."""
        return int(self._pool.rows[0]) if len(self._pool.rows) else self._count

    def _with(self, places: NDArray[np.int32], scores: NDArray[np.float32]) -> _Pool:
        new = len(scores)
        rows = np.arange(self._count, self._count + new)
        self._count += new
        added = _Pool(rows, places, scores, np.zeros(new, np.bool_))
        return _Pool(
            *(np.concatenate([getattr(part, each.name) for part in (self._pool, added)]) for each in fields(_Pool))
        )
