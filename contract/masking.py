"""The BOSS token: what can be one, and how it is hidden in texts that people read.

A program may print its token whole or spelled in other ways, by mistake or to get it past a filter: split by line ends,
colour codes, other sequences and characters of control, and zero-width ones, all of these with blanks beside them; with
a blank between all of its characters; backwards; in capitals or small letters;
percent-encoded or escaped as in JSON and Python, in part or twice; in hexadecimal, with separators or without; in
base64, as part of a longer text and wrapped. All of these are found, also across the places where a log is cut. Of a
token with fewer than LONG characters only spellings that are split by those, percent-encoded or escaped are looked for:
the others would be found in words that are none.
In every function an empty token means that nothing is to be hidden, as does PUBLIC_TOKEN.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
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
LONG = 8
"""Characters of a token from which on every spelling of it is looked for."""
_BATCH = 2**16
"""Bytes of a log that are searched at once, at least: what two searches share must be little beside it."""
_TOLD = 4
"""Characters of a token, at a cut, from which on they are hidden."""


def is_token(text: str) -> bool:
    """Whether the text can be a BOSS token: 1 to MAX_TOKEN visible ASCII characters, as an HTTP header takes them."""
    return bool(_TOKEN.fullmatch(text))


def hidden(text: str, token: str, *, mask: str = MASK) -> str:
    """The text with every token in it replaced by `mask`."""
    if not _is_secret(token):
        return text
    written = text.encode(errors="surrogatepass")  # Python prints odd file names with surrogates
    spans = _Spellings(token).spans(_View(written))
    return _masked(written, spans, lambda _: mask.encode()).decode(errors="surrogatepass")


def hidden_in_texts(texts: Sequence[str], token: str) -> list[str]:
    """Each text with the token in it replaced by SHORT_MASK, also where the token goes on in the next text.

    Where nothing is to be hidden, the texts are as they were; else NUL, which no text for people has, becomes a line
    feed.
    """
    if not texts or not _is_secret(token):
        return list(texts)
    written = "\0".join(text.replace("\0", "\n") for text in texts).encode(errors="surrogatepass")
    spans = _Spellings(token).spans(_View(written))
    return _masked(written, spans, _in_each_text).decode(errors="surrogatepass").split("\0")


def hidden_in_lines(lines: Sequence[str], token: str) -> list[str]:
    """The last lines of a log, with the token, and four or more of its characters at a cut, replaced by MASK.

    A token that goes over several lines is masked in each of them.
    The first line may begin within a token, since only the end of a long line is read; the last line may end within
    one, since the program may still be writing it.
    """
    if not lines or not _is_secret(token):
        return list(lines)
    written = "\n".join(line.replace("\n", " ") for line in lines).encode(errors="surrogatepass")
    view, spellings = _View(written), _Spellings(token)
    spans = _merged([*spellings.spans(view), *spellings.rest(view), *spellings.beginning(view)])
    return _masked(written, spans, _in_each_line).decode(errors="surrogatepass").split("\n")


def hidden_in_pieces(pieces: Iterable[bytes], token: str) -> Iterator[bytes]:
    """The pieces of a log with every token replaced by MASK, also one across pieces; memory holds a few of PIECE bytes.

    The pieces that come out are cut elsewhere than those that went in. A token that the log's end cuts is masked too.
    """
    if not _is_secret(token):
        yield from pieces
        return
    spellings = _Spellings(token)
    waiting, size, searched = [b""], 0, 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size < max(_BATCH, 2 * searched):
            continue
        view = _View(b"".join(waiting))
        spans, cut = spellings.spans_and_cut(view)
        yield _masked(view.text[:cut], [span for span in spans if span[1] <= cut], _in_each_line)
        waiting = [view.text[cut:]]
        size = searched = len(waiting[0])
    view = _View(b"".join(waiting))
    yield _masked(view.text, _merged([*spellings.spans(view), *spellings.beginning(view)]), _in_each_line)


def strike_out(log: Path, token: str) -> None:
    """Overwrite every token in the file with as many asterisks; the file's length, lines and times stay.

    Nothing happens where there is no such file. Raises OSError.
    """
    if not _is_secret(token) or not log.exists():
        return
    spellings, before = _Spellings(token), log.stat()
    at, found = 0, False
    with log.open("r+b", buffering=0) as file:
        number = file.fileno()
        while piece := os.pread(number, PIECE, at):
            view = _View(piece)
            spans, cut = spellings.spans_and_cut(view)
            for start, end in spans:
                found = True
                os.pwrite(number, re.sub(rb"[^\n]", b"*", piece[start:end]), at + start)
            if len(piece) < PIECE:  # the end, unless the file still grows
                break
            at += cut
        if found:
            os.utime(number, ns=(before.st_atime_ns, before.st_mtime_ns))


def _is_secret(token: str) -> bool:
    return token not in ("", PUBLIC_TOKEN)


_Span = tuple[int, int]
_PERCENT = rb"%(?:25)*"  # a percent sign that was encoded is one too
_BACKSLASH = rb"\\{1,4}(?:u00|x)"
_SEQUENCE = 256
"""Bytes in a control sequence of free text, such as a window's title, at most."""
_SEQUENCES = rb"\x1b[\]PX^_][^\x07\x1b]{0,%d}?(?:\x07|\x1b\\|\xc2\x9c)" % _SEQUENCE  # ECMA-48, 5.6


_ESCAPE = rb"(?:" + _PERCENT + rb"|" + _BACKSLASH + rb")"


def _passed(*further: bytes) -> bytes:
    """What is passed over, once: characters and sequences of control, and blanks after them."""
    return (
        rb"(?:"
        + b"".join(one + b"|" for one in further)  # before the character that a sequence begins with
        + rb"\x1b\[[0-9;?]{0,64}[ -/]{0,8}[@-~]"  # colours and the like
        rb"|[\x00-\x1f\x7f]|\xc2[\x80-\x9f\xad]"  # control characters, soft hyphens
        rb"|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf"  # nothing to see
        rb"|\xc2\xa0|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xaf]|\xe2\x81\x9f|\xe3\x80\x80"  # blanks that no token has
        rb"|" + _ESCAPE + rb"(?:[01][0-9A-Fa-f]|7[Ff])"
        rb"|\\[nrt0]"  # as in a representation of bytes
        rb") *"
    )


def _noise_of(passed: bytes) -> re.Pattern[bytes]:
    """What is passed over, and escaped characters. `_View` passes over blanks before the former."""
    return re.compile(rb"(?:" + passed + rb")+|" + _ESCAPE + rb"(?P<code>[2-7][0-9A-Fa-f])")


_NOISE = _noise_of(_passed(_SEQUENCES))
_NOISE_BUT_SEQUENCES = _noise_of(_passed())
_PASSED = re.compile(rb" *" + _passed(_SEQUENCES))
_NOISY = re.compile(rb"[\x00-\x1f\x7f\xc2\xe1-\xe3\xef\\%]")
"""What noise begins with: by it alone, ten times as many bytes are passed over in the same time."""
_FOLDED = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-_", b"abcdefghijklmnopqrstuvwxyz+/")
"""Letters without case, and the two alphabets of base64 as one."""
_BETWEEN = rb"[ :;,.+/|]{0,2}(?:0x|\\x)?"
"""What separates bytes in hexadecimal, once folded."""
_WIDEST = 6
"""Folded characters that a byte of the token takes, at most: in hexadecimal with a separator."""


class _View:
    """A text as it reads without noise and encoding, and where each of its characters stands in the text."""

    def __init__(self, text: bytes, noise: re.Pattern[bytes] = _NOISE) -> None:
        self.text, self.noise = text, noise
        self._starts, self._origins, self._widths = [0], [0], [1]
        parts, length, done = [], 0, 0
        for found in _noise(text, noise):
            start, end = found.span()
            if not found["code"]:
                start = done + len(text[done:start].rstrip(b" "))
            if start > done:
                parts.append(text[done:start])
                self._run(length, done, 1)
                length += start - done
            if code := found["code"]:
                parts.append(bytes.fromhex(code.decode()))
                self._run(length, start, end - start)
                length += 1
            done = end
        self._run(length, done, 1)
        parts.append(text[done:])
        self.plain = b"".join(parts)
        self.folded = self.plain.translate(_FOLDED)

    def _run(self, start: int, origin: int, width: int) -> None:
        self._starts.append(start)
        self._origins.append(origin)
        self._widths.append(width)

    def origin(self, index: int) -> _Span:
        """Where a character of the view stands in the text."""
        run = bisect_right(self._starts, index) - 1
        width = self._widths[run]
        at = self._origins[run] + (index - self._starts[run]) * width
        return at, at + width

    def span(self, start: int, end: int) -> _Span:
        """Where the characters from `start` to before `end` stand in the text."""
        return self.origin(start)[0], self.origin(end - 1)[1]


def _noise(text: bytes, noise: re.Pattern[bytes]) -> Iterator[re.Match[bytes]]:
    at = 0
    while maybe := _NOISY.search(text, at):
        at = maybe.start()
        if found := noise.match(text, at):
            yield found
            at = found.end()
        else:
            at += 1


class _Spellings:
    """The ways in which a token may stand in a text."""

    def __init__(self, token: str) -> None:
        self._word = word = token.encode(errors="surrogatepass")
        self._whole = len(word) > MAX_TOKEN  # no token, so it is looked for as it is
        self._long = LONG <= len(word) <= MAX_TOKEN
        # The text may end within a sequence, which then reads as text.
        self._shared = len(word) if self._whole else _WIDEST * len(word) + 2 + _SEQUENCE
        self._needles: dict[bytes, _Span] = {}
        self._patterns: list[re.Pattern[bytes]] = []
        if not self._long:
            return
        variants = dict.fromkeys((word, word.upper(), word.lower(), word[::-1]))
        for plain in (word.translate(_FOLDED), word[::-1].translate(_FOLDED)):
            self._needles |= dict.fromkeys((plain, b" ".join(plain[n : n + 1] for n in range(len(plain)))), (0, 0))
        for variant in variants:
            pairs = (b"%02x" % byte for byte in variant)
            self._patterns.append(re.compile(_BETWEEN.join(pairs)))
            for before in range(3):
                self._needles.update([_in_base64(variant, before)])

    def spans(self, view: _View) -> list[_Span]:
        """Where the token stands in the text, in ascending order and without overlaps."""
        found = [(at, at + len(self._word)) for at in _places(view.text, self._word)]
        if not self._whole:
            found += [view.span(at, at + len(self._word)) for at in _places(view.plain, self._word)]
        for needle, (left, right) in self._needles.items():
            for at in _places(view.folded, needle):
                # The characters beside it are the token's too, in part.
                found.append(view.span(max(0, at - left), min(len(view.folded), at + len(needle) + right)))
        for pattern in self._patterns:
            found += [view.span(*match.span()) for match in pattern.finditer(view.folded)]
        if view.noise is _NOISE:
            if re.search(_SEQUENCES, view.text):  # the token may also stand in such a sequence
                found += self.spans(_View(view.text, _NOISE_BUT_SEQUENCES))
            if {*b"\\%"} & {*self._word}:  # its own characters may look like an escaped one
                words = (self._word, self._word[::-1]) if self._long else (self._word,)
                found += [span for word in words for span in _readings(view.text, word, folded=self._long)]
        return _merged(found)

    def spans_and_cut(self, view: _View) -> tuple[list[_Span], int]:
        """The same, and where the text may be cut: no token begins before that byte and ends after it.

        A text of PIECE bytes is cut after half of them or later, even where noise or tokens go on for longer.
        """
        spans = self.spans(view)
        first = len(view.plain.rstrip(b" ")) - self._shared  # the next byte may be a line end
        cut = view.origin(first)[0] if first > 0 else 0
        least = len(view.text) // 2 if len(view.text) >= PIECE else 0
        cut = max(cut, least)
        for start, end in spans:
            if start < cut < end:
                cut = start if start >= least else end
        return spans, cut

    def beginning(self, view: _View) -> list[_Span]:
        """Where the text ends with _TOLD or more of the token's first characters."""
        return self._cut(view, (self._word[:n] for n in self._parts()), bytes.endswith)

    def rest(self, view: _View) -> list[_Span]:
        """Where the text begins with _TOLD or more of the token's last characters."""
        return self._cut(view, (self._word[-n:] for n in self._parts()), bytes.startswith)

    def _parts(self) -> range:
        return range(min(len(self._word), MAX_TOKEN + 1) - 1, _TOLD - 1, -1)

    def _cut(self, view: _View, parts: Iterable[bytes], lies: Callable[[bytes, bytes], bool]) -> list[_Span]:
        text = view.folded if self._long else view.plain
        blanks = len(text) - len(text.lstrip(b" "))
        text = text.rstrip(b" ") if lies is bytes.endswith else text[blanks:]
        for part in parts:
            if lies(text, part.translate(_FOLDED) if self._long else part):
                at = len(text) - len(part) if lies is bytes.endswith else blanks
                return [view.span(at, at + len(part))]
        return []


def _in_base64(word: bytes, before: int) -> tuple[bytes, _Span]:
    """What base64 has of the word after so many bytes of anything, folded, and the characters shared on each side."""
    bits = 8 * before, 8 * (before + len(word))
    start, end = -(-bits[0] // 6), bits[1] // 6
    return b64encode(bytes(before) + word)[start:end].translate(_FOLDED), (int(before > 0), int(bits[1] % 6 > 0))


def _readings(text: bytes, word: bytes, *, folded: bool) -> Iterator[_Span]:
    """Where some way to read the text has the word, each character as it is or escaped, and all kinds of noise between.

    `folded` takes capitals and small letters for the same.
    """
    forms = {character: _forms(character, folded=folded) for character in word}
    # of each place in the text, how much of the word may have been read before it, and where that begins
    open_: dict[int, dict[int, int]] = {}
    first = re.compile(rb"(?=%s|[\\%%])" % forms[word[0]][0].pattern, re.IGNORECASE)
    for found in first.finditer(text):
        open_.setdefault(found.start(), {})[0] = found.start()
    places = sorted(open_)
    heapify(places)
    while places:
        at = heappop(places)
        for count, start in open_.pop(at).items():
            if count == len(word):
                yield start, at
                continue
            ends = [match.end() for form in forms[word[count]] if (match := form.match(text, at))]
            reached = [(end, count + 1) for end in ends]
            if count and (noise := _PASSED.match(text, at)):
                reached.append((noise.end(), count))
            for end, more in reached:
                if end not in open_:
                    open_[end] = {}
                    heappush(places, end)
                open_[end][more] = min(start, open_[end].get(more, start))


def _forms(character: int, *, folded: bool) -> list[re.Pattern[bytes]]:
    """The ways in which a character may be written: as it is, and escaped, percent signs up to three times."""
    letter = re.escape(bytes([character]))
    code = b"%02x" % character
    escapes = [rb"%" + times * rb"25" for times in range(4)] + [_BACKSLASH]
    return [re.compile(letter, re.IGNORECASE if folded else 0)] + [
        re.compile(escape + code, re.IGNORECASE) for escape in escapes
    ]


def _places(text: bytes, word: bytes) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + len(word))


def _merged(spans: Iterable[_Span]) -> list[_Span]:
    found: list[_Span] = []
    for start, end in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _in_each_text(text: bytes) -> bytes:
    return b"\0".join(SHORT_MASK.encode() if part else b"" for part in text.split(b"\0"))


def _in_each_line(text: bytes) -> bytes:
    return b"\n".join(MASK.encode() if line.strip() else b"" for line in text.split(b"\n"))


def _masked(text: bytes, spans: Sequence[_Span], mask: Callable[[bytes], bytes]) -> bytes:
    parts, done = [], 0
    for start, end in spans:
        parts += [text[done:start], mask(text[start:end])]
        done = end
    return b"".join([*parts, text[done:]])
