"""Trains a forest on labelled synapses with NumPy only: small, deterministic, in the form of `model.Weights`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.classifier.model import GABA, NON_GABA, Weights
from pipelines.common.boxes import Triple

Array = NDArray[Any]

TREES = 10
"""Trees of a forest."""
DEPTH = 6
"""Splits from a root to a leaf, at most."""
SMALLEST = 5
"""Examples in a leaf, at least."""


@dataclass
class _Nodes:
    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    frequencies: list[tuple[float, float]] = field(default_factory=list)


def contrasts(roles: tuple[str, ...], cube: Triple, *, core: Triple) -> NDArray[np.float64]:
    """Components (roles, roles x voxels): how much brighter the core of each role's cube is than the rest."""
    inner = tuple(slice((side - part) // 2, (side + part) // 2) for side, part in zip(cube, core, strict=True))
    is_core = np.zeros(cube, np.bool_)
    is_core[inner] = True
    kernel = np.where(is_core, 1 / is_core.sum(), -1 / (~is_core).sum())
    return np.kron(np.eye(len(roles)), kernel.reshape(1, -1))


def train(
    features: NDArray[np.float64],
    labels: NDArray[np.uint8],
    *,
    components: NDArray[np.float64],
    roles: tuple[str, ...],
    cube: Triple,
    name: str,
    about: str,
    demonstration: bool,
    seed: int = 0,
) -> Weights:
    """A forest for synapses with features (n, features), their cubes' projections, and labels (n,) NON_GABA or GABA.

    Each tree sees a sample drawn with replacement, and each split some of the features. The same arguments give the
    same model. Raises ValueError where one of the two classes has no example.
    """
    if set(np.unique(labels)) != {NON_GABA, GABA}:
        raise ValueError("examples of both classes are needed, and of no other")
    random = np.random.Generator(np.random.Philox(seed))
    seen, gaba = features.astype(np.float32), labels == GABA
    nodes, roots = _Nodes(), []
    for _ in range(TREES):
        drawn = random.integers(0, len(seen), len(seen))
        roots.append(_grow(nodes, seen[drawn], gaba[drawn], random, DEPTH))
    return Weights(
        name=name,
        about=about,
        demonstration=demonstration,
        roles=roles,
        cube=cube,
        components=components,
        roots=np.array(roots),
        left=np.array(nodes.left),
        right=np.array(nodes.right),
        feature=np.array(nodes.feature),
        threshold=np.array(nodes.threshold),
        frequencies=np.array(nodes.frequencies),
    )


def _grow(nodes: _Nodes, seen: Array, gaba: Array, random: np.random.Generator, depth: int) -> int:
    """Add a tree for these examples; returns the number of its root node."""
    number = len(nodes.left)
    part = float(gaba.mean())
    nodes.left.append(-1)
    nodes.right.append(-1)
    nodes.feature.append(-1)
    nodes.threshold.append(0.0)
    nodes.frequencies.append((1 - part, part))
    if depth == 0 or part in (0, 1) or len(gaba) < 2 * SMALLEST:
        return number
    offered = random.permutation(seen.shape[1])[: max(1, int(np.sqrt(seen.shape[1])))]
    found = _split(seen[:, offered], gaba)
    if found is None:
        return number
    column, threshold = found
    goes_left = seen[:, offered[column]] <= threshold
    nodes.feature[number], nodes.threshold[number] = int(offered[column]), threshold
    nodes.left[number] = _grow(nodes, seen[goes_left], gaba[goes_left], random, depth - 1)
    nodes.right[number] = _grow(nodes, seen[~goes_left], gaba[~goes_left], random, depth - 1)
    return number


def _split(seen: Array, gaba: Array) -> tuple[int, float] | None:
    """The column and the threshold with the least Gini impurity; None where no column splits the examples."""
    order = np.argsort(seen, axis=0, kind="stable")
    values = np.take_along_axis(seen, order, axis=0).astype(np.float64)
    count = np.arange(1, len(seen))[:, None]
    left = np.cumsum(gaba[order], axis=0)[:-1]
    right = gaba.sum() - left
    impurity = left * (1 - left / count) + right * (1 - right / (len(seen) - count))
    allowed = (values[1:] > values[:-1]) & (count >= SMALLEST) & (len(seen) - count >= SMALLEST)
    impurity = np.where(allowed, impurity, np.inf)
    row, column = np.unravel_index(int(np.argmin(impurity)), impurity.shape)
    if not np.isfinite(impurity[row, column]):
        return None
    return int(column), float((values[row, column] + values[row + 1, column]) / 2)
