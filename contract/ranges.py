"""Ranges of voxels along one axis: half-open, `[start, stop)`, in voxels at resolution 0."""

from __future__ import annotations

import re

from contract.names import short

MAX_COORDINATE = 2**31 - 1
"""The largest coordinate taken, in voxels; no BOSS coordinate frame comes near it."""
TYPED = r"[0-9０-９]+(?:\s*(?:[,:;，：；、…‥‐‑‒–—―−－ー~～〜-]|[.．]{2,3})\s*|\s+)[0-9０-９]+"
"""A regular expression of a range as people type it."""
_RANGE = re.compile(r"([0-9]+)\s*[,:]\s*([0-9]+)")
_SIGNED = re.compile(r"(?P<start>[-+]?)[0-9]+(?:\s*(?:[,:;]|-(?!-)|\.{2,3})\s*|\s+)(?P<stop>[-+]?)[0-9]+")
_UNCLEAR = re.compile(r"(?<![0-9])(?:[1-9][0-9]{0,2}(?:[,.'’_ ][0-9]{3})+(?![0-9])|0[0-9]+$)")
"""A number with thousands set apart, or a last one with zeros in front, which may be the rest of such a number."""
_EXAMPLE = "Write start, stop with a comma, such as 0, 512."
PLAIN = str.maketrans("０１２３４５６７８９，：；、－−．％\u3000", "0123456789,:;,--.% ")
"""Full-width characters, as keyboards for Chinese and Japanese type them, and the minus sign; as ASCII has them."""


class TooLarge(ValueError):
    """A coordinate is above MAX_COORDINATE."""

    def __init__(self, digits: str) -> None:
        super().__init__(f"{short(digits)} is beyond any volume; the largest coordinate is {MAX_COORDINATE}.")


class NotAscending(ValueError):
    """The start is not smaller than the stop, so that the range holds no voxel."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__(f"start ({start}) must be smaller than stop ({stop}); the stop itself is not included.")
        self.start = start
        self.stop = stop


def read(text: str) -> tuple[int, int]:
    """Start and stop, in voxels, of what a person typed: as `parse`, but also `0-512`, `0..512`, `0 512`, `０，５１２`.

    Raises ValueError as `parse` does.
    """
    plain = text.translate(PLAIN)
    if re.fullmatch(TYPED, text.strip()):
        start, stop = re.findall(r"[0-9]+", plain)
        if not _is_padded(stop):
            plain = f"{start}, {stop}"
    return parse(plain)


def parse(text: str) -> tuple[int, int]:
    """Start and stop, in voxels, of a text `start, stop` or `start:stop`, spaces allowed.

    A stop with zeros in front is refused: `1,024` may be 1024.
    Raises ValueError in words for the person who typed the text: TooLarge, NotAscending, or ValueError itself where the
    text is not two whole numbers from 0 up.
    """
    text = text.strip()
    if not text:
        raise ValueError(_EXAMPLE)
    found = _RANGE.fullmatch(text)
    if not found or _is_padded(found[2]):
        raise ValueError(_why_unreadable(text))
    for digits in found.groups():
        if len(digits) > 19:  # int() of a very long string is slow, and the answer is known
            raise TooLarge(digits)
    start, stop = int(found[1]), int(found[2])
    check(start, stop)
    return start, stop


def _is_padded(digits: str) -> bool:
    return len(digits) > 1 and digits.startswith("0")


def _why_unreadable(text: str) -> str:
    if (signed := _SIGNED.fullmatch(text)) and "-" in signed.group("start", "stop"):
        return f"{short(text)} has a negative number; coordinates count from 0."
    if _UNCLEAR.search(text):
        return (
            f"“{short(text)}” may have a thousands separator, or zeros in front of a number; "
            "write numbers without them, such as 0, 1024."
        )
    return f"“{short(text)}” is not two whole numbers. {_EXAMPLE}"


def check(start: int, stop: int) -> None:
    """Check that `0 <= start < stop <= MAX_COORDINATE`. Raises ValueError in words for a person where it is not so."""
    for end in (start, stop):
        if end < 0:
            raise ValueError(f"{end} is negative; coordinates count from 0.")
        if end > MAX_COORDINATE:
            raise TooLarge(str(end))
    if start >= stop:
        raise NotAscending(start, stop)
