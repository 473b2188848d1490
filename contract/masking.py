"""The BOSS token: what can be one, and how it is hidden in texts that people read.

A program may print its token whole, with colour codes in it (as by `grep --color`), or across the places where a log is
cut. In every function an empty token means that nothing is to be hidden, as does PUBLIC_TOKEN.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

PUBLIC_TOKEN = "public"  # noqa: S105  it is no secret: BossDB publishes it
"""The token that reads public data; programs may print it."""
MAX_TOKEN = 512
"""Characters of the longest token taken; BOSS's own have 40."""
MASK = "•••"
"""What replaces a token in a log."""
SHORT_MASK = "…"
"""What replaces a token in a sentence."""
PIECE = 2**20
"""Bytes of a log that are in memory at once, at most."""
_TOKEN = re.compile(rf"[!-~]{{1,{MAX_TOKEN}}}")  # RFC 9110, 5.5: what a header may hold
_COLOURS = rb"(?:\x1b\[[0-9;?]{0,16}[ -/]{0,2}[@-~]){0,4}"
_COLOURED = 256
"""Bytes of colour codes within a token that are allowed for at a cut."""
_TOLD = 4
"""Characters of a token, at a cut, from which on they are hidden."""


def is_token(text: str) -> bool:
    """Whether the text can be a BOSS token: 1 to MAX_TOKEN visible ASCII characters, as an HTTP header takes them."""
    return bool(_TOKEN.fullmatch(text))


def hidden(text: str, token: str, *, mask: str = MASK) -> str:
    """The text with every token in it replaced by `mask`."""
    if not _is_secret(token):
        return text
    found = _spellings(token.encode(errors="surrogatepass"))  # Python prints odd file names with surrogates
    return found.sub(mask.encode(), text.encode(errors="surrogatepass")).decode(errors="surrogatepass")


def hidden_in_lines(lines: Sequence[str], token: str) -> list[str]:
    """The last lines of a log, with the token, and four or more of its characters at a cut, replaced by MASK.

    The first line may begin within a token, since only the end of a long line is read; the last line may end within
    one, since the program may still be writing it.
    """
    texts = list(lines)
    if texts and _is_secret(token):
        texts[0] = _without_rest(texts[0], token)
        texts[-1] = _without_beginning(texts[-1].encode(), token).decode()
    return [hidden(text, token) for text in texts]


def hidden_in_pieces(pieces: Iterable[bytes], token: str) -> Iterator[bytes]:
    """The pieces of a log with every token replaced by MASK, also one across two pieces; memory holds about one piece.

    The pieces that come out are cut elsewhere than those that went in. A token that the log's end cuts is masked too.
    """
    if not _is_secret(token):
        yield from pieces
        return
    word, mask, kept = token.encode(), MASK.encode(), b""
    coloured, shared = _spellings(word), _shared(word)
    for piece in pieces:
        text = kept + piece
        text = coloured.sub(mask, text) if b"\x1b" in text else text.replace(word, mask)
        # A token may end in the next piece: as many bytes as it may take are held back.
        yield text[:-shared]
        kept = text[-shared:]
    yield _without_beginning(kept, token)


def strike_out(log: Path, token: str) -> None:
    """Overwrite every token in the file with as many asterisks; the file's length and times stay.

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
    """A pattern of the word as programs may print it: with colour codes, unless the word is too long for a token."""
    if len(word) > MAX_TOKEN:  # the pattern would take seconds to make
        return re.compile(re.escape(word))
    return re.compile(_COLOURS.join(re.escape(bytes([letter])) for letter in word))


def _shared(word: bytes) -> int:
    """Bytes by which two pieces of a log overlap, so that a word across both is found."""
    return 2 * len(word) + _COLOURED


def _without_rest(text: str, token: str) -> str:
    rests = (token[-n:] for n in range(len(token) - 1, _TOLD - 1, -1))
    rest = next((rest for rest in rests if text.startswith(rest)), "")
    return MASK + text[len(rest) :] if rest else text


def _without_beginning(text: bytes, token: str) -> bytes:
    beginnings = (token[:n].encode() for n in range(len(token) - 1, _TOLD - 1, -1))
    begun = next((begun for begun in beginnings if text.endswith(begun)), b"")
    return text[: len(text) - len(begun)] + MASK.encode() if begun else text
