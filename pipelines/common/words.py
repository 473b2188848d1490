"""Numbers and lists in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def counted(count: int, what: str) -> str:
    """1 synapse; 2,481 synapses."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def listed(sections: Sequence[int]) -> str:
    """Sections, in order and not none, in words: section 3; sections 1, 3 and 5; sections 0 to 7."""
    if len(sections) == 1:
        return f"section {sections[0]}"
    if len(sections) > 2 and sections[-1] - sections[0] == len(sections) - 1:
        return f"sections {sections[0]} to {sections[-1]}"
    if len(sections) > 10:
        return f"{len(sections)} sections from {sections[0]} to {sections[-1]}"
    return f"sections {joined([str(section) for section in sections])}"


def joined(words: Sequence[str], most: int | None = None) -> str:
    """Words, not none: one; one and two; one, two and three. Where there are more than `most`: one, two and 7 more."""
    if most is not None and len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def fitting(say: Callable[[int], str], most: int, limit: int) -> str:
    """What `say` says of as many things, `most` at most and one at least, as `limit` characters hold."""
    return next((said for count in range(most, 1, -1) if len(said := say(count)) <= limit), say(1))
