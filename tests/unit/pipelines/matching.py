"""How well detections fit the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

TOLERANCE = (2, 4, 4)
"""Voxels a detection may be off along z, y, x."""


def match(found: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float]:
    """Precision and recall of the best one-to-one matching of two (n, 3) arrays of places z, y, x."""
    apart = cdist(np.divide(found, TOLERANCE), np.divide(truth, TOLERANCE), "chebyshev")
    rows, columns = linear_sum_assignment(np.where(apart <= 1, apart, 1e3))
    hits = np.count_nonzero(apart[rows, columns] <= 1)
    return hits / max(1, len(found)), hits / max(1, len(truth))
