"""What the bot and the programs agree on, and that it needs the standard library alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import channels, masking, names, ranges, units
from contract.masking import MASK, PUBLIC_TOKEN
from contract.program import progress_line, read_progress

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
def test_a_token_is_masked_wherever_a_log_is_cut_into_pieces(seed: int) -> None:
    chance = random.Random(seed)
    token = "abab-token-abab"
    whole = "".join(chance.choice(["ab", "a", token, "\n", "x", token[:-1], token[1:]]) for _ in range(300)).encode()
    pieces, rest = [], whole
    while rest:
        size = chance.randrange(1, 40)
        pieces.append(rest[:size])
        rest = rest[size:]
    whole += b"\n"
    seen = b"".join(masking.hidden_in_pieces([*pieces, b"\n"], token))
    assert seen == whole.replace(token.encode(), MASK.encode())
    assert token.encode() not in seen


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
