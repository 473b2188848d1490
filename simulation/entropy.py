"""Randomness that a seed decides, whoever asks for it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """While the block runs, `secrets`, `os.urandom` and `random`'s own functions draw from the seed."""
    draw, before = random.Random(f"entropy {seed}"), random.getstate()
    random.seed(seed)
    try:
        with patch.object(random, "_urandom", draw.randbytes), patch.object(os, "urandom", draw.randbytes):
            yield
    finally:
        random.setstate(before)


def stream(seed: int, what: str) -> random.Random:
    """Draws for one purpose, which do not depend on those for another."""
    return random.Random(f"{what} {seed}")
