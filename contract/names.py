"""Names as BOSS takes them, the results key made of them, and how a name that somebody typed is quoted in an error."""

from __future__ import annotations

import re

MAX_NAME = 255
"""The longest collection, experiment or channel name BOSS takes."""
PATTERN = rf"[a-zA-Z0-9_-]{{1,{MAX_NAME}}}"
"""A regular expression of a name BOSS takes, without anchors."""
_LETTERS = re.compile(r"[a-zA-Z0-9_-]+")


def is_name(text: str, *, longest: int | None = MAX_NAME) -> bool:
    """Whether BOSS takes that text as a name: letters, digits, `-` and `_` of ASCII, one to `longest` of them.

    `longest` None leaves the length unchecked.
    """
    return bool(_LETTERS.fullmatch(text)) and (longest is None or len(text) <= longest)


def results_key(
    pipeline: str, collection: str, experiment: str, *, z: tuple[int, int], y: tuple[int, int], x: tuple[int, int]
) -> str:
    """The name of a pipeline's results on a box, as in 2018.

    Ranges are half-open `(start, stop)` in voxels at resolution 0. Made of names, the key is in BOSS's alphabet, but it
    may be longer than MAX_NAME.
    """
    return f"{pipeline}_{collection}_{experiment}_z_{z[0]}_{z[1]}_y_{y[0]}_{y[1]}_x_{x[0]}_{x[1]}"


def short(text: str, limit: int = 40) -> str:
    """A text for an error: at most `limit` characters, a cut marked with `…`, and `�` for unprintable characters.

    So no character is invisible or changes the direction of writing.
    """
    clean = "".join(c if c.isprintable() else "�" for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def quoted(name: str, limit: int = 60) -> str:
    """A name within a sentence: `short`, in quotation marks, which do not count towards `limit`."""
    return f"“{short(name, limit)}”"
