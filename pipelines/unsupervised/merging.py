"""Merges candidates that come section by section, in little memory, as `chance.merged` merges all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.unsupervised.chance import MERGE_NM, Lengths, best_kept, ranked_pairs, settled

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Settled:
    """Candidates of which it is known what becomes of them: n of them, in order, those that follow the last ones."""

    places: NDArray[np.int32]
    """(n, 3): z, y, x in pixels."""
    scores: NDArray[np.float32]
    kept: NDArray[np.bool_]
    to: NDArray[np.int64]
    """The kept candidate that each counts to, numbered over all that were added: its own number, where it is kept."""
    below: int | None
    """The section below which all candidates are settled; None: all of them are."""


@dataclass(frozen=True, slots=True)
class _Pool:
    """Candidates of which something may still be asked."""

    rows: NDArray[np.int64]
    places: NDArray[np.int32]
    scores: NDArray[np.float32]
    kept: NDArray[np.bool_]
    gone: NDArray[np.bool_]
    said: NDArray[np.bool_]
    """Whether what becomes of it was returned already."""

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
        self._in_nm, self._deep_nm, self._lengths, self._copies = in_nm, deep_nm, lengths, copies
        self.reach = int(MERGE_NM / deep_nm)
        """Sections to which a candidate may reach."""
        self._count = 0
        none = np.zeros(0, np.bool_)
        self._pool = _Pool(np.zeros(0, np.int64), np.zeros((0, 3), np.int32), np.zeros(0, np.float32), none, none, none)

    def add(self, places: NDArray[np.int32], scores: NDArray[np.float32], *, upto: int | None) -> Settled:
        """Add candidates in the order of their places: all that lie below the section `upto`; None: the last ones.

        Returns those of which it is known now what becomes of them, in order, each once.
        """
        pool = self._with(places, scores)
        rank = np.empty(len(pool.rows), np.intp)
        at = self._in_nm(pool.places)
        order = np.argsort(-pool.scores, kind="stable")
        rank[order] = np.arange(len(order))
        better, worse = ranked_pairs(at, rank, lengths=self._lengths, copies=self._copies)
        held = np.zeros(len(order), np.bool_)
        if upto is not None:
            held = ((upto - pool.places[:, 0]) * self._deep_nm <= MERGE_NM)[order]
        kept, gone = settled(better, worse, pool.kept[order], pool.gone[order], held)
        known = (kept | gone) & ~held
        unknown = ~(kept | gone)
        known[worse[unknown[better]]] = False
        known[better[unknown[worse]]] = False
        to = pool.rows[order[best_kept(better, worse, kept)[rank]]]
        pool = _Pool(pool.rows, pool.places, pool.scores, kept[rank], gone[rank], pool.said)
        left = pool.places[~known[rank] & ~pool.said, 0]
        first = int(left.min()) if len(left) else upto
        due = ~pool.said if first is None else ~pool.said & (pool.places[:, 0] < first)
        some = pool.of(due)
        pool.said[due] = True
        if first is not None:
            self._pool = pool.of(pool.places[:, 0] >= first - self.reach)
        return Settled(some.places, some.scores, some.kept, to[due], first)

    @property
    def oldest(self) -> int:
        """The number of the first candidate of which something may still be asked, over all that were added."""
        return int(self._pool.rows[0]) if len(self._pool.rows) else self._count

    def _with(self, places: NDArray[np.int32], scores: NDArray[np.float32]) -> _Pool:
        new = len(scores)
        rows = np.arange(self._count, self._count + new)
        self._count += new
        none = np.zeros(new, np.bool_)
        added = _Pool(rows, places, scores, none, none, none)
        return _Pool(
            *(np.concatenate([getattr(part, each.name) for part in (self._pool, added)]) for each in fields(_Pool))
        )
