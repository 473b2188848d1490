"""Merges candidates that come section by section, in little memory, as `chance.merged` merges all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
    """Candidates of which something may still be asked, in the order of their places."""

    first: int
    """The number of the first one, over all that were added."""
    places: NDArray[np.int32]
    scores: NDArray[np.float32]
    kept: NDArray[np.bool_]
    """Of those below the section up to which that is known."""

    def __len__(self) -> int:
        return len(self.scores)

    def below(self, section: int) -> int:
        """How many lie below a section."""
        return int(np.searchsorted(self.places[:, 0], section))

    def since(self, row: int) -> _Pool:
        """Those from a row on."""
        return _Pool(self.first + row, self.places[row:].copy(), self.scores[row:].copy(), self.kept[row:].copy())


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
        self._known = 0
        """The section below which it is known which candidates are kept."""
        self._pool = _Pool(0, np.zeros((0, 3), np.int32), np.zeros(0, np.float32), np.zeros(0, np.bool_))

    def add(self, places: NDArray[np.int32], scores: NDArray[np.float32], *, upto: int | None) -> Settled:
        """Add candidates in the order of their places: all that lie below the section `upto`; None: the last ones.

        Returns those of which it is known now what becomes of them, in order, each once.
        """
        self._add(places, scores)
        pool, known = self._pool, self._pool.below(self._known)
        pairs = pairs_near(self._in_nm(pool.places), pool.scores, lengths=self._lengths, copies=self._copies)
        kept = unbeaten(pairs, len(pool))
        kept[:known] = pool.kept[:known]  # the neighbours of these are not all in the pool any more
        to = pool.first + best_kept(pairs, kept, pool.scores)
        pool = replace(pool, kept=kept)
        due, below = slice(pool.below(self._settled), None), None
        if upto is not None:
            self._known = max(self._known, upto - self.reach)
            below = self._settled
            due = slice(due.start, pool.below(below))
            self._pool = pool.since(pool.below(below - self.reach))
        return Settled(pool.places[due], pool.scores[due], kept[due], to[due], below)

    @property
    def _settled(self) -> int:
        """The section below which it is known to which ones candidates count: what is near them is known as well."""
        return max(0, self._known - self.reach)

    @property
    def oldest(self) -> int:
        """The number of the first candidate of which something may still be asked, over all that were added."""
        return self._pool.first

    def _add(self, places: NDArray[np.int32], scores: NDArray[np.float32]) -> None:
        pool, new = self._pool, np.zeros(len(scores), np.bool_)
        self._pool = _Pool(
            pool.first,
            np.concatenate([pool.places, places]),
            np.concatenate([pool.scores, scores]),
            np.concatenate([pool.kept, new]),
        )
