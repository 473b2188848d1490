"""The BOSS token: what may be one, and how it is kept out of what people read.

A program may print its token whole, with colour codes in it (as `grep --color` puts them there), or across the places
where a log is cut. Every function here takes an empty token for nothing to hide, and leaves PUBLIC_TOKEN alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

PUBLIC_TOKEN = "public"  # noqa: S105  it is no secret: BossDB publishes it
"""The token that reads public data; a word that programs may print."""
MAX_TOKEN = 512
"""The longest BOSS token taken; BOSS's own have 40 characters."""
MASK, SHORT_MASK = "•••", "…"
"""What stands in a token's place in a log, and in a sentence."""
PIECE = 2**20
"""The most bytes of a log that are in memory at once."""
_TOKEN = re.compile(rf"[!-~]{{1,{MAX_TOKEN}}}")  # RFC 9110, 5.5: what a header may hold
_COLOURS = rb"(?:\x1b\[[0-9;?]{0,16}[ -/]{0,2}[@-~]){0,4}"
_COLOURED = 256
"""Bytes of colour codes within a token that are looked through."""
_TOLD = 4
"""So many characters of a token say too much, where it is cut."""


def is_token(text: str) -> bool:
    """Whether a BOSS token may look so: one to MAX_TOKEN visible ASCII characters, which an HTTP header can hold."""
    return bool(_TOKEN.fullmatch(text))


def hidden(text: str, token: str, *, mask: str = MASK) -> str:
    """The text with `mask` wherever the token stands in it."""
    if not _is_secret(token):
        return text
    found = _spellings(token.encode(errors="surrogatepass"))  # what Python says of odd file names has surrogates in it
    return found.sub(mask.encode(), text.encode(errors="surrogatepass")).decode(errors="surrogatepass")


def hidden_in_lines(lines: Sequence[str], token: str) -> list[str]:
    """The last lines of a log with MASK wherever the token, or four or more of its characters at a cut, stands.

    The first line may begin within the token, since only the end of a long line is read; the last may end within it,
    since it is being written just now.
    """
    texts = list(lines)
    if texts and _is_secret(token):
        texts[0] = _without_rest(texts[0], token)
        texts[-1] = _without_beginning(texts[-1].encode(), token).decode()
    return [hidden(text, token) for text in texts]


def hidden_in_pieces(pieces: Iterable[bytes], token: str) -> Iterator[bytes]:
    """The pieces of a log with MASK wherever the token stands, also across two of them; memory stays a piece's.

    What is given out is cut elsewhere than what came in. A token that the last piece only begins is masked too.
    """
    if not _is_secret(token):
        yield from pieces
        return
    word, mask, kept = token.encode(), MASK.encode(), b""
    coloured, shared = _spellings(word), _shared(word)
    for piece in pieces:
        text = kept + piece
        text = coloured.sub(mask, text) if b"\x1b" in text else text.replace(word, mask)
        # The token may end in the next piece, so as much as it may take waits for that.
        yield text[:-shared]
        kept = text[-shared:]
    yield _without_beginning(kept, token)


def strike_out(log: Path, token: str) -> None:
    """Overwrite the token with as many asterisks wherever it stands in the file, which keeps its length and its times.

    Nothing happens where there is no such file. Raises OSError.
    """
    if not _is_secret(token) or not log.exists():
        return
    word, before = token.encode(), log.stat()
    at, found = 0, False
    plain, coloured = re.compile(re.escape(word)), _spellings(word)
    with log.open("r+b", buffering=0) as file:
        number = file.fileno()
        while len(piece := os.pread(number, PIECE, at)) >= len(word):
            for place in (coloured if b"\x1b" in piece else plain).finditer(piece):
                found = True
                os.pwrite(number, b"*" * len(place[0]), at + place.start())
            at += max(1, len(piece) - _shared(word)) if len(piece) == PIECE else len(piece)
        if found:
            os.utime(number, ns=(before.st_atime_ns, before.st_mtime_ns))


def _is_secret(token: str) -> bool:
    return token not in ("", PUBLIC_TOKEN)


def _spellings(word: bytes) -> re.Pattern[bytes]:
    """Finds the word as programs may print it: also with colour codes in it, unless it is too long for a token."""
    if len(word) > MAX_TOKEN:  # the pattern would take seconds to make
        return re.compile(re.escape(word))
    return re.compile(_COLOURS.join(re.escape(bytes([letter])) for letter in word))


def _shared(word: bytes) -> int:
    """How many bytes two pieces of a log have in common where the word may lie across both."""
    return 2 * len(word) + _COLOURED


def _without_rest(text: str, token: str) -> str:
    rests = (token[-n:] for n in range(len(token) - 1, _TOLD - 1, -1))
    rest = next((rest for rest in rests if text.startswith(rest)), "")
    return MASK + text[len(rest) :] if rest else text


def _without_beginning(text: bytes, token: str) -> bytes:
    beginnings = (token[:n].encode() for n in range(len(token) - 1, _TOLD - 1, -1))
    begun = next((begun for begun in beginnings if text.endswith(begun)), b"")
    return text[: len(text) - len(begun)] + MASK.encode() if begun else text
