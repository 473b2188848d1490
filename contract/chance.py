"""How much of what was found is there by chance, in words: the same in a thread, a mail, a report and at a terminal."""

from __future__ import annotations


def percent(part: float) -> str:
    """A part of a whole (0 to 1) in hundredths, without the sign: `25`, and below ten also `2.5` or `0.4`."""
    hundredths = part * 100
    return f"{hundredths:.0f}" if hundredths >= 9.95 else f"{hundredths:.1f}".removesuffix(".0")


def about(count: int) -> str:
    """A count that is an estimate: `about 610`; 0 is `fewer than one`, since none is ever sure to be true."""
    return f"about {count:,}" if count else "fewer than one"


def interval(share: float, low: float, high: float) -> str:
    """A share with the bounds between which it lies, each from 0 to 1: `25 %, 23 to 27`."""
    return f"{percent(share)} %, {percent(low)} to {percent(high)}"
