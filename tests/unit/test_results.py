"""What a program says in its results.json, and what of it is taken."""

from __future__ import annotations

import json

import pytest

from bot.domain import words
from bot.domain.results import Link
from bot.domain.states import JobState
from bot.domain.summary import Summary, Unreadable
from bot.slack import cards
from tests.support.stories import a_job, a_step, a_story


@pytest.mark.parametrize("density", ["1" + "0" * 400, "1e999", "-1", "true", '"x"'])
def test_a_number_that_can_be_no_density_costs_no_counts(density: str) -> None:
    summary = Summary.read(f'{{"counts": {{"synapses": 3}}, "density_per_um3": {density}}}'.encode())
    assert (summary.counts, summary.density_per_um3) == ({"synapses": 3}, None)


def test_a_density_of_minus_nothing_is_nothing() -> None:
    summary = Summary.read(b'{"counts": {"synapses": 0}, "density_per_um3": -0.0}')
    assert summary.found == "0 synapses, 0 per \u00b5m\u00b3"


def read(**said: object) -> Summary:
    """What is taken of a results.json that counts 7 synapses and says that besides."""
    return Summary.read(json.dumps({"counts": {"synapses": 7}} | said).encode())


LEFT = "Left out of results.json, since it cannot be used: "
NO_NUMBER = "counts that are no whole numbers from 0 to 1,000,000,000,000,000"
NO_VIEWER = "a viewer that is no address of http or https, 3,000 characters at most"


@pytest.mark.parametrize("name", ["", " ", "\u3164", "\u2800", "\u115f\u1160", "\uffa0", "x" * 65])
def test_a_count_whose_name_shows_nothing_or_too_much_is_not_taken(name: str) -> None:
    summary = read(counts={"synapses": 7, name: 1})
    assert summary.counts == {"synapses": 7}
    assert summary.notes == [f"{LEFT}counts without a name of 1 to 64 characters (1)."]


@pytest.mark.parametrize("number", [True, "12", None, [1], 1.5, -1, 10**15 + 1, float("nan"), float("inf")])
def test_a_count_is_a_whole_number_of_json_s_and_another_is_left_out_with_a_note(number: object) -> None:
    summary = read(counts={"synapses": 7, "pairs": number})
    assert summary.counts == {"synapses": 7}
    assert summary.notes == [f"{LEFT}{NO_NUMBER} (1)."]


def test_a_whole_number_with_a_point_is_a_count() -> None:
    summary = read(counts={"synapses": 12.0, "pairs": 0, "voxels": 10**15})
    assert (summary.counts, summary.notes) == ({"synapses": 12, "pairs": 0, "voxels": 10**15}, [])


def test_what_is_beyond_a_limit_is_left_out_and_told_and_the_rest_is_taken() -> None:
    summary = Summary.read(
        json.dumps(
            {
                "counts": {f"n{n}": n for n in range(21)},
                "files": [{"name": f"{n}.csv"} for n in range(103)],
                "notes": [f"Note {n}." for n in range(12)],
                "viewer": "javascript:alert(1)",
            }
        ).encode()
    )
    assert summary.counts == {f"n{n}": n for n in range(20)}
    assert [file.name for file in summary.files] == [f"{n}.csv" for n in range(100)]
    assert summary.notes == [
        *(f"Note {n}." for n in range(10)),
        f"{LEFT}counts beyond the first 20 (1); files beyond the first 100 (3); notes beyond the first 10 (2); "
        f"{NO_VIEWER}.",
    ]


@pytest.mark.parametrize(
    "viewer", ["javascript:alert(1)", "http://[/", "https://", "http://h:port/", "ftp://x", "https://x.y/|>", 7]
)
def test_a_viewer_that_no_browser_opens_costs_nothing_but_its_link(viewer: object) -> None:
    summary = read(viewer=viewer)
    assert (summary.counts, summary.viewer, summary.notes) == ({"synapses": 7}, None, [f"{LEFT}{NO_VIEWER}."])


def test_a_file_with_a_title_that_cannot_be_used_is_linked_by_its_name() -> None:
    summary = read(files=[{"name": "a.csv", "title": "x" * 256, "about": "Rows."}, {"name": "b.csv", "title": 7}])
    assert [(file.name, file.title, file.about) for file in summary.files] == [
        ("a.csv", "", "Rows."),
        ("b.csv", "", ""),
    ]
    what = "titles, descriptions or media types of files that are no texts or too long"
    assert summary.notes == [f"{LEFT}{what} (2)."]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"files": [{"name": "../x"}, "y", {"title": "z"}]}, "files whose name is no path in the results folder (3)"),
        ({"files": {}}, "a field “files” that is no list"),
        ({"notes": "none"}, "a field “notes” that is no list"),
        ({"notes": [5, "x" * 501]}, "notes that are no texts of 500 characters at most (2)"),
        ({"preview": "../../secret"}, "a preview that is no path of a file in the results folder"),
    ],
)
def test_what_is_wrong_beside_the_counts_costs_no_counts(said: dict[str, object], told: str) -> None:
    summary = read(**said)
    assert (summary.counts, summary.notes) == ({"synapses": 7}, [f"{LEFT}{told}."])


def test_a_results_json_of_which_nothing_can_be_used_is_told_as_such() -> None:
    with pytest.raises(Unreadable, match=r"^results\.json cannot be used: a field “counts” that is no object; "):
        Summary.read(json.dumps({"counts": [1], "notes": [7]}).encode())


def test_what_is_wrong_in_every_way_at_once_is_one_note_that_can_be_stored() -> None:
    wrong = {"counts": {"": 1, "a": "b", **{f"n{n}": 1 for n in range(30)}}, "preview": 1, "viewer": 1, "notes": [1]}
    summary = read(**wrong, files=[1, {"name": "a", "title": 1}])
    assert len(summary.notes) == 1
    assert len(summary.notes[0]) <= 500
    assert Summary.model_validate(summary.model_dump(mode="json")) == summary


def test_what_a_program_counts_notes_and_titles_makes_nothing_bold_italic_or_struck_in_slack() -> None:
    styled = "*bold* _it_ ~gone~"
    summary = read(counts={styled: 7}, notes=[styled], files=[{"name": "a.csv", "title": styled}])
    job = a_job(JobState.SUCCEEDED, summary=summary)
    story = a_story(job, links=[(summary.files[0].title, Link("https://results.test/a.csv"))])
    replied = cards.reply(story, [a_step(f"{summary.found}. Finished.", JobState.SUCCEEDED)])
    said = [cards.spoken(story, [a_step(f"{summary.found}.", JobState.SUCCEEDED)])]
    for blocks in (replied, cards.card(story)):
        said += [text for block in blocks for text in json.dumps(block.to_dict(), ensure_ascii=False).split("\\n")]
    told = [text for text in said if "bold" in text]
    assert len(told) == 5, "the reply's text and block, its note and its link, and the card"
    for text in told:
        assert all(f"\u2060{mark}\u2060" in text for mark in "*_~")
        assert "*bold*" not in text


def test_a_line_that_a_program_printed_makes_nothing_bold_italic_or_code_in_slack() -> None:
    shown = words.unmarked("*bold* _it_ ~gone~ ```code``` <!here> ac4_demo")
    assert "`" not in shown
    assert "<" not in shown
    assert "ac4_demo" in shown, "a name can be copied"
    assert shown.replace("\u2060", "") == "*bold* _it_ ~gone~ '''code''' &lt;!here&gt; ac4_demo"
    assert all(f"\u2060{mark}\u2060" in shown for mark in "*_~")
