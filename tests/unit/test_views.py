"""What a program tells of a view is checked, and a viewer's state is made of it."""

from __future__ import annotations

from typing import Any

import pytest

from bot.domain.summary import Summary
from bot.domain.views import colours, layers_of, neuroglancer

TOLD: dict[str, Any] = {
    "voxel_nm": [70, 4, 4.5],
    "start": [0, 5, 6],
    "shape": [3, 100, 4000],
    "at": [1.5, 7, 8],
    "ranges": {"postsynaptic": [1, 2.5], "witness 2": [3, 4]},
}
FILES = [{"name": f"{layer}/info"} for layer in ("annotations", "image/gaba", "image/witness-2", "mine", "image/a/b")]


def read(**changes: Any) -> Summary:
    """The summary of a results.json with a view, but for the changes."""
    return Summary.model_validate({"counts": {"synapses": 3}, "files": FILES, "view": TOLD | changes})


def test_layers_are_the_folders_that_a_viewer_knows_images_first() -> None:
    assert read().layers == ["image/gaba", "image/witness-2", "annotations"]
    assert layers_of(["segmentation/", "image/z/", "image/presynaptic/", "image/postsynaptic/"]) == [
        "image/postsynaptic",
        "image/presynaptic",
        "image/z",
        "segmentation",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"voxel_nm": [0, 1, 1]},
        {"voxel_nm": [1, 1]},
        {"shape": [1, 2, 2.5]},
        {"at": [float("nan"), 0, 0]},
        {"at": "here"},
        {"start": [True, "1", None]},
        {"ranges": {"a": [1]}},
        {"ranges": {str(i): [1, 2] for i in range(31)}},
    ],
)
def test_a_view_that_makes_no_sense_is_none_and_costs_no_count(changes: dict[str, Any]) -> None:
    summary = read(**changes)

    assert summary.view is None
    assert summary.layers == []
    assert summary.counts == {"synapses": 3}


def test_a_view_is_kept_as_it_was_told() -> None:
    stored = read().model_dump(mode="json")

    assert Summary.model_validate(stored).view == read().view
    assert "view" not in Summary().model_dump(mode="json")


def test_a_range_is_the_role_s_and_never_empty() -> None:
    view = read(ranges={"witness 2": [3, 3], "postsynaptic": [1, 2]}).view
    assert view
    shaders = [layer["shader"] for layer in neuroglancer(view, ["image/witness-2", "image/gaba"], title="")["layers"]]
    assert "range=[3, 4]" in shaders[0]
    assert "range=[0, 255]" in shaders[1]


def test_the_state_shows_ten_micrometres_however_fine_the_voxels_are_and_all_of_the_box() -> None:
    view = read().view
    assert view
    state = neuroglancer(view, ["annotations"], title="a box")
    assert state["position"] == [8.5, 7.5, 2]
    assert state["crossSectionScale"] == 4
    assert state["projectionScale"] == pytest.approx(1.2 * 4000 * 4.5 / 4)
    assert colours(["image/a", "image/b", "image/c", "annotations"]) == {
        "image/a": "#ff00ff",
        "image/b": "#00ff00",
        "image/c": "#c0c0c0",
    }
