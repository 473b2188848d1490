"""Whether a process can work, in words for an admin."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """Why the process cannot work (empty: it can), and what an admin may want to know all the same."""

    problem: str = ""
    note: str = ""
