"""The ids of jobs: short, and of characters that are not mistaken for one another."""

from __future__ import annotations

ID_LENGTH = 8
ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: without i, l, o and u, which read like others."""


def misspelt(name: str) -> list[str]:
    """Ids, in order, that one typing error turns into this name, or that read like this name."""
    read = name.translate(str.maketrans("oilu", "011v"))  # what Crockford's alphabet leaves out
    cuts = [(read[:n], read[n:]) for n in range(len(read) + 1)]
    slips = {read}
    slips |= {a + b[1:] for a, b in cuts if b}
    slips |= {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    slips |= {a + c + b[1:] for a, b in cuts if b for c in ID_ALPHABET}
    slips |= {a + c + b for a, b in cuts for c in ID_ALPHABET}
    return sorted(slip for slip in slips if len(slip) == ID_LENGTH)
