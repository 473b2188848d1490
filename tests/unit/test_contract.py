"""What the bot and the programs agree on, and that it needs the standard library alone."""

from __future__ import annotations

import base64
import hashlib
import random
import string
from itertools import repeat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import channels, masking, names, ranges, units
from contract.masking import MASK, PUBLIC_TOKEN
from contract.program import WrongIndex, part_uri, progress_line, read_index, read_progress

ROOT = Path(__file__).parents[2]
TOKEN = "canary-token"


# Names


@pytest.mark.parametrize(("text", "known"), [("M247514_Rorb-1", True), ("", False), ("a b", False), ("é", False)])
def test_a_name_is_letters_digits_dashes_and_underscores(text: str, known: bool) -> None:
    assert names.is_name(text) is known


def test_a_name_has_at_most_255_characters() -> None:
    assert names.is_name("n" * 255)
    assert not names.is_name("n" * 256)
    assert names.is_name("n" * 256, longest=None)


def test_a_text_for_an_error_is_cut_and_shows_what_cannot_be_printed() -> None:
    assert names.short("as it is") == "as it is"
    assert names.short("n" * 40) == "n" * 40
    assert names.short("n" * 41) == "n" * 39 + "…"
    assert names.short("a\x1b[31m\u202eb") == "a�[31m�b"
    assert names.quoted("n" * 70) == f"“{'n' * 59}…”"


# Ranges


@pytest.mark.parametrize("text", ["5, 5", "9:3"])
def test_a_range_without_a_voxel_tells_its_ends(text: str) -> None:
    with pytest.raises(ranges.NotAscending) as caught:
        ranges.parse(text)

    assert [caught.value.start, caught.value.stop] == [int(end) for end in text.replace(":", ",").split(",")]


@pytest.mark.parametrize("text", ["0, 2147483648", f"0, {'9' * 5000}"])
def test_a_coordinate_beyond_any_volume_is_too_large(text: str) -> None:
    with pytest.raises(ranges.TooLarge, match=r"^.{1,40} is beyond any volume"):
        ranges.parse(text)


# Channels


ROLES = {"post": ["psd"], "pre": ["synapsin", "vglut"]}
NAMES = st.lists(st.sampled_from(["PSD95", "psd", "Synapsin", "synapsin2", "VGluT1", "vglut", "GABA"]), unique=True)


def test_the_best_candidate_has_an_earlier_part_then_a_shorter_name_then_the_alphabet() -> None:
    assert channels.candidates(ROLES["pre"], ["vglut", "Synapsin2", "SYNAPSIN", "synapsin", "GABA"]) == [
        "SYNAPSIN",
        "synapsin",
        "Synapsin2",
        "vglut",
    ]


@given(there=NAMES)
def test_the_order_of_the_channels_does_not_change_the_choice(there: list[str]) -> None:
    chosen = channels.choose(ROLES, there)

    assert chosen == channels.choose(ROLES, there[::-1])
    assert set(chosen) == {role for role, parts in ROLES.items() if channels.candidates(parts, there)}


def test_one_channel_of_two_roles_is_told_with_both() -> None:
    assert channels.shared(channels.choose(ROLES, ["PSD_Synapsin"])) == ("post", "pre")
    assert channels.shared(channels.choose(ROLES, ["PSD95", "Synapsin"])) is None


# Units


def test_boss_s_units_are_known_in_whatever_case() -> None:
    sizes = [units.nanometres(name) for name in ("nanometers", "Micrometers", "MILLIMETERS", "centimeters")]

    assert sizes == [1, 1000, 1_000_000, 10_000_000]


@pytest.mark.parametrize("unit", ["parsecs", "", None, 7])
def test_what_is_no_unit_of_boss_s_is_refused(unit: object) -> None:
    with pytest.raises(ValueError, match="no unit"):
        units.nanometres(unit)


# Masking


@pytest.mark.parametrize(
    ("text", "right"),
    [("demo-token", True), ("!~" * 256, True), ("", False), ("a b", False), ("a\n", False), ("ü", False)],
)
def test_a_token_is_what_a_header_can_hold(text: str, right: bool) -> None:
    assert masking.is_token(text) is right
    assert not masking.is_token("x" * 513)


@pytest.mark.parametrize("seed", range(20))
def test_a_token_is_masked_wherever_a_log_is_cut_into_pieces(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_BATCH", 1)
    chance = random.Random(seed)
    token = "abab-token-abab"
    pick = ["ab", "a", token, "\n", "x", token[:-1], token[1:], token[::-1], token.encode().hex(":"), "%61", "\x1b[0m"]
    whole = "".join(chance.choice(pick) for _ in range(300)).encode() + b"\n"
    pieces, rest = [], whole
    while rest:
        size = chance.randrange(1, 40)
        pieces.append(rest[:size])
        rest = rest[size:]

    seen = b"".join(masking.hidden_in_pieces(pieces, token))

    assert seen == b"".join(masking.hidden_in_pieces([whole], token))
    assert token.encode() not in seen
    assert seen.count(b"\n") == whole.count(b"\n")


SECRET = "c0ffee0123456789abcdefABCDEF-_42"
"""As long as tokens are, with both cases and with what differs between the alphabets of base64."""


def in_base64(text: str, before: int = 0) -> str:
    return base64.b64encode(b"=" * before + text.encode() + b"=====").decode()


def wrapped(text: str, columns: int) -> str:
    return "\n".join(text[at : at + columns] for at in range(0, len(text), columns))


SPELLINGS = {
    "as it is": SECRET,
    "in capitals": SECRET.upper(),
    "in small letters": SECRET.lower(),
    "backwards": SECRET[::-1],
    "split by a line end": f"{SECRET[:9]}\n{SECRET[9:]}",
    "split by CR LF": f"{SECRET[:9]}\r\n{SECRET[9:]}",
    "a letter a line": "\n".join(SECRET),
    "split by an indented line": f"{SECRET[:9]}\n    {SECRET[9:]}",
    "split by a line end after blanks": f"{SECRET[:9]}   \n{SECRET[9:]}",
    "a letter a line, with blanks": "  \n \t  ".join(SECRET),
    "split by blanks and colours": f"{SECRET[:9]} \x1b[0m  \r\n \x1b[31m {SECRET[9:]}",
    "split by blank lines of blanks": f"{SECRET[:9]}\n      \n\n  {SECRET[9:]}",
    "with a blank after each character": " ".join(SECRET),
    "with a blank after each character, in capitals and backwards": " ".join(SECRET.upper()[::-1]),
    "split by blanks that are no spaces": "\u00a0\u2003\u3000".join(SECRET),
    "in base64, wrapped and indented": wrapped(in_base64(SECRET, 60), 76).replace("\n", "\n        "),
    "in hexadecimal, wrapped and indented": wrapped(SECRET.encode().hex(" "), 48).replace("\n", "\n   "),
    "split by carriage returns": "\r".join(SECRET),
    "split by NULs": "\0".join(SECRET),
    "in UTF-16": SECRET.encode("utf-16-le").decode(),
    "split by backspaces and tabs": "\b\t".join(SECRET),
    "coloured": "\x1b[01;31m\x1b[K".join(SECRET),
    "split by zero-width characters": "\u200b\u2060\ufeff\u00ad".join(SECRET),
    "backwards, a letter a line": "\n".join(SECRET[::-1]),
    "in hexadecimal": SECRET.encode().hex(),
    "in hexadecimal capitals": SECRET.encode().hex().upper(),
    "in hexadecimal with colons": SECRET.encode().hex(":"),
    "in hexadecimal with spaces": SECRET.encode().hex(" "),
    "in hexadecimal with hyphens": SECRET.encode().hex("-"),
    "in hexadecimal, escaped": "".join(f"\\x{byte:02x}" for byte in SECRET.encode()),
    "in hexadecimal as numbers": ", ".join(f"0x{byte:02X}" for byte in SECRET.encode()),
    "in hexadecimal, wrapped": wrapped(SECRET.encode().hex(" "), 48),
    "in hexadecimal, of capitals": SECRET.upper().encode().hex(),
    "in hexadecimal, backwards": SECRET[::-1].encode().hex(),
    **{f"in base64 after {before} bytes": in_base64(SECRET, before) for before in range(3)},
    **{
        f"in base64 for addresses after {before} bytes": in_base64(SECRET, before).replace("+", "-").replace("/", "_")
        for before in range(3)
    },
    "in base64 of a longer text, wrapped at 76 columns": wrapped(in_base64(SECRET, 60), 76),
    "in base64, wrapped as MIME is": wrapped(in_base64(SECRET, 61), 76).replace("\n", "\r\n"),
    "in base64, printed as bytes": repr(base64.encodebytes(b"x" * 50 + SECRET.encode())),
    "in base64 of capitals": in_base64(SECRET.upper()),
    "in base64, backwards": in_base64(SECRET[::-1]),
    "in base64, percent-encoded": in_base64(SECRET).replace("=", "%3D").replace("+", "%2B").replace("/", "%2F"),
    "percent-encoded": "".join(f"%{byte:02X}" for byte in SECRET.encode()),
    "percent-encoded in small letters": "".join(f"%{byte:02x}" for byte in SECRET.encode()),
    "percent-encoded in part": SECRET.replace("-", "%2D").replace("c", "%63"),
    "percent-encoded twice": "".join(f"%25{byte:02X}" for byte in SECRET.encode()),
    "percent-encoded thrice, in part": SECRET.replace("-", "%25252d"),
    "percent-encoded with line ends": "%0D%0A".join(SECRET),
    "escaped as in JSON": "".join(f"\\u{byte:04x}" for byte in SECRET.encode()),
    "escaped in part": SECRET.replace("c", "\\u0063").replace("-", "\\x2D"),
    "escaped twice": "".join(f"\\\\u{byte:04X}" for byte in SECRET.encode()),
    "split by escaped control characters": "\\u001b".join(SECRET),
    "split by a window's title": f"{SECRET[:9]}\x1b]0;title\x07{SECRET[9:]}",
    "split by links": "\x1b]8;;https://example.org/a\x1b\\".join((SECRET[:3], SECRET[3:9], SECRET[9:])),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_token_is_hidden_however_it_is_spelled(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = SPELLINGS[spelling]
    text = f"before it [{written}] after it\n"

    hidden = masking.hidden(text, SECRET)

    assert hidden.startswith("before it [")
    assert hidden.endswith("] after it\n")
    assert MASK in hidden
    left = hidden.removeprefix("before it [").removesuffix("] after it\n").split(MASK)
    assert not any(len(part) > 4 and part in written[len(written) // 2 - 8 : len(written) // 2 + 8] for part in left)
    if "base64" not in spelling:  # of that, the neighbours of the token are left
        beside = hidden.replace("\0", "").replace("[\\x", "[").replace("[0x", "[")
        assert beside == f"before it [{MASK}] after it\n"

    lines = masking.hidden_in_lines(text.split("\n"), SECRET)
    assert len(lines) == text.count("\n") + 1
    assert masking.hidden("\n".join(lines), SECRET) == "\n".join(lines)

    monkeypatch.setattr(masking, "_BATCH", 1)
    whole = text.encode()
    for cut in range(len(whole)):
        seen = b"".join(masking.hidden_in_pieces([whole[:cut], whole[cut:]], SECRET))
        assert seen.decode() == "\n".join(lines)

    log = tmp_path / "log"
    log.write_bytes(whole)
    masking.strike_out(log, SECRET)
    struck = log.read_bytes()
    assert (len(struck), struck.count(b"\n")) == (len(whole), whole.count(b"\n"))
    assert masking.hidden(struck.decode(), SECRET) == struck.decode()
    assert b"*" in struck


def test_a_token_that_is_spelled_within_a_control_sequence_is_hidden_too() -> None:
    """What splits a token is passed over, but is read as text as well."""
    assert masking.hidden(f"\x1b]0;{SECRET.encode().hex()}\x07", SECRET) == f"\x1b]0;{MASK}\x07"


def test_blanks_before_a_line_end_that_a_later_piece_brings_split_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_BATCH", 1)
    pieces = [SECRET[:9].encode(), *[b" " * 500] * 4, b"\n", b" " * 500, SECRET[9:].encode(), b" is all\n"]
    assert b"".join(masking.hidden_in_pieces(pieces, SECRET)).decode() == f"{MASK}\n{MASK} is all\n"


def test_a_token_that_is_cut_beside_blanks_is_masked_at_the_cut() -> None:
    assert masking.hidden_in_lines([f"   {SECRET[9:]} read", f"using {SECRET[:9]}   "], SECRET) == [
        f"   {MASK} read",
        f"using {MASK}   ",
    ]


def test_a_token_with_a_backslash_is_not_taken_for_escaped_characters() -> None:
    assert masking.hidden(r"(\0000000)", "0000000\\") == f"({MASK})"


@pytest.mark.parametrize("token", ["A0000%00", "%41b%0a%0d%20", "00%0000a"])
def test_a_token_with_a_percent_sign_is_not_taken_for_encoded_characters(token: str) -> None:
    first = f"%{ord(token[0]):02x}{token[1:]}"
    for written in (token, token.swapcase(), token[::-1], token[::-1].swapcase(), first):
        assert masking.hidden(f"({written})", token) == f"({MASK})", written


TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=masking.LONG, max_size=64)
UNSEEN = st.text(st.sampled_from("\0\b\t\n\r\x1b\x7f\x9f\u200b\u200d\u2028\ufeff"), min_size=1, max_size=3)
BLANKS = st.sampled_from(["", " ", "   "])
NOISE = st.just("") | st.tuples(BLANKS, UNSEEN, BLANKS, UNSEEN, BLANKS).map("".join)


@settings(deadline=None)
@given(token=TOKENS, data=st.data())
def test_any_token_is_hidden_in_any_mixture_of_spellings(token: str, data: st.DataObject) -> None:
    """Each character in its own way, with anything between them that a reader does not see."""
    letters = [
        data.draw(st.sampled_from([letter, letter.swapcase(), f"%{ord(letter):02x}", f"%25{ord(letter):02X}"]))
        + data.draw(NOISE)
        for letter in data.draw(st.sampled_from([token, token[::-1]]))
    ]
    written = "".join(letters)

    hidden = masking.hidden(f"({written})", token)

    assert MASK in hidden
    assert len(hidden) <= len(MASK) + len(letters[-1]) + len("()")


@settings(deadline=None)
@given(token=TOKENS, before=st.binary(max_size=80), after=st.binary(max_size=80))
def test_any_token_is_hidden_in_any_longer_text_in_base64(token: str, before: bytes, after: bytes) -> None:
    encoded = base64.b64encode(before + token.encode() + after).decode()

    left = masking.hidden(encoded, token)

    assert MASK in left
    for part in (part.rstrip("=") for part in left.split(MASK)):
        assert token.encode() not in base64.b64decode(f"{part}AAA"[: (len(part) + 3) // 4 * 4])


@pytest.mark.parametrize("token", [string.hexdigits[:16] * 2 + string.digits[:8], "demo-token", "canary-token", SECRET])
def test_the_words_of_an_ordinary_log_are_left_alone(token: str) -> None:
    pages = [path.read_text(encoding="utf-8").replace(token, "") for path in sorted((ROOT / "docs").glob("*.md"))]
    digests = [hashlib.sha1(page.encode(), usedforsecurity=False).hexdigest() for page in pages]
    text = "\n".join([*pages, *digests, "demo_token", "a token of a demo", "reading demo/token 12:34:56 50%", "%7B%7D"])

    assert masking.hidden(text, token) == text
    assert b"".join(masking.hidden_in_pieces([text.encode()], token)) == text.encode()


def test_of_a_short_token_no_word_is_taken_for_a_spelling() -> None:
    assert masking.hidden("no, on, NO, 6e6f, %6e%6f, n\no", "no") == f"{MASK}, on, NO, 6e6f, {MASK}, {MASK}"


@pytest.mark.parametrize(
    "line",
    [
        b"2026-01-01 reading block 17 of 1200\n",
        b"\0" * 35 + b"\n",
        b"%2525252525%25%41%\n",
        b"63 30 66 66 65 63 30 66\n",
    ],
)
def test_a_long_log_is_searched_hardly_more_than_once(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cost grows with its length, however small its pieces are and whatever is in them."""
    searched: list[int] = []
    look = masking._View.__init__

    def counted(view: masking._View, text: bytes) -> None:
        searched.append(len(text))
        look(view, text)

    monkeypatch.setattr(masking._View, "__init__", counted)
    for length in (2**19, 2**21):
        searched.clear()
        count = length // len(line)
        seen = sum(len(piece) for piece in masking.hidden_in_pieces(repeat(line, count), SECRET))
        assert seen == count * len(line)
        assert sum(searched) < 3 * length
        assert max(searched) <= 2 * masking.PIECE


def test_a_token_that_the_last_piece_begins_is_masked() -> None:
    begun = f"using {TOKEN[:-1]}".encode()

    assert b"".join(masking.hidden_in_pieces([begun[:10], begun[10:]], TOKEN)).decode() == f"using {MASK}"


def test_a_token_with_colour_codes_in_it_is_masked_wherever_it_is_cut() -> None:
    printed = f"a \x1b[01;31m\x1b[K{TOKEN[:4]}\x1b[m\x1b[K{TOKEN[4:]} z"

    assert masking.hidden(printed, TOKEN) == f"a \x1b[01;31m\x1b[K{MASK} z"
    for cut in range(len(printed)):
        pieces = [printed[:cut].encode(), printed[cut:].encode()]
        assert b"".join(masking.hidden_in_pieces(pieces, TOKEN)).decode() == f"a \x1b[01;31m\x1b[K{MASK} z"


@pytest.mark.parametrize("token", ["", PUBLIC_TOKEN])
def test_where_nothing_is_secret_nothing_is_changed_or_kept_back(token: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"public data")
    masking.strike_out(log, token)

    assert log.read_bytes() == b"public data"
    assert list(masking.hidden_in_pieces([b"public", b" data"], token)) == [b"public", b" data"]
    assert masking.hidden_in_lines(["public data"], token) == ["public data"]
    assert masking.hidden("public data", token) == "public data"


def test_a_text_that_is_no_unicode_is_masked_as_well() -> None:
    """Python names files so whose names are no UTF-8."""
    assert masking.hidden(f"\udcff {TOKEN}", TOKEN, mask="…") == "\udcff …"


def test_a_whole_file_taken_for_a_token_is_masked_at_once() -> None:
    mistaken = "line\n" * 50_000

    assert masking.hidden(f"<{mistaken}>", mistaken) == f"<{MASK}>"


# Programs


@given(part=st.floats(-1, 2), phase=st.from_regex(r"[A-Za-z][A-Za-z ]{0,28}[a-z]", fullmatch=True))
def test_progress_reads_back_as_it_was_said(part: float, phase: str) -> None:
    told = read_progress(progress_line(part, phase))

    assert told is not None
    assert told[0] == pytest.approx(min(max(part, 0), 1), abs=0.0051)
    assert told[1] == phase


# Arrays


@pytest.mark.parametrize("name", ["NOMADS_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX", "SLURM_ARRAY_TASK_ID"])
def test_a_program_reads_its_number_within_an_array_from_any_engine_s_variable(name: str) -> None:
    assert read_index({name: "0", "PATH": "/bin"}) == 0
    assert read_index({name: "9999"}) == 9999


def test_a_program_that_is_no_part_of_an_array_has_no_number() -> None:
    assert read_index({"PATH": "/bin"}) is None
    assert read_index({"NOMADS_INDEX": ""}) is None


def test_the_number_that_nomads_tells_counts_before_the_engine_s() -> None:
    assert read_index({"SLURM_ARRAY_TASK_ID": "7", "NOMADS_INDEX": "3"}) == 3


@pytest.mark.parametrize("value", ["x", "-1", "1.0", "٣", "1234567", " 1", "1\n"])
def test_a_number_that_is_none_is_an_error_that_names_the_variable(value: str) -> None:
    with pytest.raises(WrongIndex, match="SLURM_ARRAY_TASK_ID has to be this program's number"):
        read_index({"SLURM_ARRAY_TASK_ID": value})


def test_each_program_of_an_array_writes_a_folder_of_its_own() -> None:
    assert part_uri("s3://bucket/key/job/", 12) == "s3://bucket/key/job/12/"
