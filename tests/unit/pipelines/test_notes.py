"""Notes of a run: which come first, and what becomes of those that results.json has no room for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.program import MAX_NOTE, MAX_NOTES
from pipelines.common.boxes import Triple
from pipelines.common.notes import CUT, Note, in_short
from pipelines.common.words import fitting, joined
from pipelines.unsupervised import witness
from pipelines.unsupervised.witness import Share
from tests.support import puncta

SENTENCES = st.lists(st.text("ab ", max_size=3 * MAX_NOTE).map(lambda text: Note(text=text)), max_size=3 * MAX_NOTES)


def test_as_many_notes_as_there_is_room_for_are_told_as_they_are() -> None:
    said = [f"Note {n}." for n in range(MAX_NOTES)]

    assert in_short([Note(text=text) for text in said]) == said


def test_where_notes_are_left_out_the_last_one_says_how_many_and_where_they_are() -> None:
    said = in_short([Note(text=f"Note {n}.") for n in range(MAX_NOTES + 3)])

    assert said[:-1] == [f"Note {n}." for n in range(MAX_NOTES - 1)]
    assert said[-1] == "4 further notes are left out here; the report has all of them."


@given(SENTENCES)
def test_notes_in_short_are_never_more_or_longer_than_there_is_room_for(notes: list[Note]) -> None:
    said = in_short(notes)

    assert len(said) == min(len(notes), MAX_NOTES)
    assert all(len(text) <= MAX_NOTE for text in said)


def test_a_note_that_is_too_long_is_told_in_short_or_cut_between_words_with_a_word_of_it() -> None:
    long = "word " * 200

    assert Note(text=long, brief="In short.").short == "In short."
    cut = Note(text=long).short
    assert cut.endswith(f"word{CUT}")
    assert MAX_NOTE - 10 < len(cut) <= MAX_NOTE


def test_names_are_told_as_far_as_there_is_room() -> None:
    names = [f"channel{n}" for n in range(9)]

    assert joined(names[:3], 3) == "channel0, channel1 and channel2"
    assert joined(names, 2) == "channel0, channel1 and 7 more"
    assert fitting(lambda count: joined(names, count), 9, 40) == "channel0, channel1, channel2 and 6 more"
    assert fitting(lambda count: joined(names, count), 9, 1) == "channel0 and 8 more"


# Witnesses


def test_the_bounds_of_a_share_hold_it_and_are_wide_where_places_are_few() -> None:
    for hits, places in ((0, 1), (1, 1), (0, 3), (2, 3), (240, 1000), (1000, 1000)):
        share = Share.of(hits, places)
        assert 0 <= share.low <= share.part == hits / places <= share.high <= 1
    assert Share.of(0, 3).high > 0.5
    assert Share.of(240, 1000).high - Share.of(240, 1000).low < 0.06


def seen(light: np.ndarray, places: np.ndarray) -> witness.Witness:
    shape: Triple = (light.shape[0], light.shape[1], light.shape[2])
    found = witness.Witness.of(
        witness.counted(
            lambda start, stop: light[start:stop], shape, places.astype(np.float64), voxel_nm=puncta.VOXEL_NM
        )
    )
    assert found
    return found


@pytest.mark.parametrize(("many", "sure"), [(1, False), (60, True)])
def test_that_a_channel_is_at_synapses_is_sure_where_they_are_enough(many: int, sure: bool) -> None:
    drawn = puncta.puncta(2, shape=(4, 300, 300), level=2)
    places = np.array(np.unravel_index(np.argsort(drawn.psd, axis=None)[::-1][: 40 * many : 40], drawn.psd.shape)).T

    assert seen(drawn.psd, places).sure == sure


def test_a_channel_that_is_nowhere_is_no_more_at_synapses_than_elsewhere() -> None:
    nothing = seen(np.zeros((4, 300, 300), np.uint8), np.full((50, 3), 2))

    assert (nothing.there.part, nothing.elsewhere.part, nothing.sure) == (0, 0, False)
