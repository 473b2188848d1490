"""A range that is left empty is all of the experiment: in the form, in a command's words, and by address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.domain.errors import InvalidRequest, Unavailable
from bot.domain.job import Job
from bot.domain.request import JobRequest
from bot.domain.states import JobState
from bot.storage.engine import Database
from sandbox import stores
from sandbox.volumes import cortex
from tests.support.app import ROOT, Serve, Served
from tests.support.world import TOKEN, World, a_request, in_blocks

WHOLE = {"x": "0, 1024", "y": "0, 1024", "z": "0, 64"}
"""All of demo/cortex."""
OPEN = {"x": "", "y": " ", "z": "All"}


@pytest.fixture
def world(store: Database) -> World:
    return World(store)


def reviewed(world: World, **typed: str) -> JobRequest:
    """The request that is made of what was typed."""
    values = a_request().typed | typed
    return world.submission.review(values, SecretStr(TOKEN), within=0.01).request


def mistakes(world: World, **typed: str) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        reviewed(world, **typed)
    return refused.value.errors


def ranges(request: JobRequest) -> dict[str, str]:
    return {axis: str(getattr(request, axis)) for axis in "xyz"}


def test_it_takes_the_bounds_of_the_experiment_which_the_request_has_from_then_on(world: World) -> None:
    assert ranges(reviewed(world, **OPEN)) == WHOLE


def test_what_was_typed_stays_beside_it(world: World) -> None:
    assert ranges(reviewed(world, x="", y="", z="4,12")) == WHOLE | {"z": "4, 12"}


def test_of_a_volume_that_reaches_below_0_it_takes_what_can_be_asked_for(world: World) -> None:
    world.volumes.add("demo", "deep", bounds=((-8, 8), (0, 64), (0, 64)))

    assert reviewed(world, experiment="deep", **OPEN).z.stop == 8
    assert reviewed(world, experiment="deep", **OPEN).z.start == 0


def test_a_volume_below_0_is_refused_under_the_range(world: World) -> None:
    world.volumes.add("demo", "below", bounds=((-8, -2), (0, 64), (0, 64)))

    assert list(mistakes(world, experiment="below", **OPEN)) == ["z"]


def test_where_boss_is_silent_it_is_to_be_typed(world: World) -> None:
    world.volumes.fail_next(Unavailable("BOSS is silent."), times=2)

    found = mistakes(world, x="", y="", z="0,16")

    assert found.keys() == {"x", "y"}
    assert "could not be learned in time: write start, stop" in found["x"]
    assert ranges(reviewed(world, x="0,512", y="0,512", z="0,16"))["x"] == "0, 512", "what is typed needs no answer"


def test_boss_is_asked_once_however_much_else_is_wrong(world: World) -> None:
    found = mistakes(world, x="", y="9,3", z="0,100", email="nobody")

    assert found.keys() == {"y", "z", "email"}
    assert world.volumes.calls == ["describe"]


@pytest.mark.parametrize(
    ("typed", "field"),
    [({"experiment": "none"}, "experiment"), ({"experiment": ""}, "experiment"), ({"collection": "a b"}, "collection")],
)
def test_where_the_volume_is_wrong_nothing_is_said_of_the_range(
    world: World, typed: dict[str, str], field: str
) -> None:
    assert list(mistakes(world, **typed, **OPEN)) == [field]


def test_a_volume_beyond_the_limit_is_refused_with_the_largest_box_that_fits(store: Database) -> None:
    world = World(store, pipeline=in_blocks(), block_voxels=10_000, max_voxels=2**24)

    found = mistakes(world, **OPEN)

    (text,) = found.values()
    assert "a job may have 16,777,216 voxels" in text
    assert text.endswith("The largest box from this corner that fits: x 0, 512; y 0, 512; z 0, 64.")


def test_so_is_one_that_is_too_large_for_a_pipeline_without_blocks(store: Database) -> None:
    world = World(store, max_bytes=2**24)

    (text,) = mistakes(world, **OPEN).values()

    assert "a job may read 16.8 MB" in text
    assert "The largest box from this corner that fits: x 0, 362; y 0, 362; z 0, 64." in text


# In Slack


def the_job(served: Served) -> Job:
    (job,) = served.nomads.core.queries.page_of(list(JobState), most=2).jobs
    return job


def test_a_form_without_ranges_is_accepted_and_edited_with_the_real_numbers(served: Served) -> None:
    assert served.submit(x="", y="", z="0,16").ok

    job = the_job(served)
    assert ranges(job.request) == WHOLE | {"z": "0, 16"}
    assert served.nomads.core.queries.typed(job.id, actor="U01DEMO")["x"] == "0, 1024"
    assert initial(served.open_form(), "x") == "0, 1024"


def field_of(view: dict[str, Any], axis: str) -> dict[str, Any]:
    return next(block for block in view["blocks"] if block.get("block_id") == axis)


def test_the_form_says_that_it_may_be_empty(served: Served) -> None:
    for axis in "xyz":
        field = field_of(served.open_form(), axis)
        assert field["optional"] is True
        assert field["hint"]["text"].endswith("Empty: all of it.")


def test_a_silent_boss_is_told_under_the_empty_fields_alone(served: Served) -> None:
    with served.boss.hanging(prefix="/v1"):
        ack = served.submit(x="", y="", z="0,16")

    assert set(ack.errors) == {"x", "y"}
    assert "write start, stop" in ack.errors["x"]
    assert served.jobs == 0


def test_words_that_name_another_volume_leave_the_last_ranges_out(served: Served) -> None:
    assert served.submit(x="0,8", y="0,8", z="0,8").ok

    same = served.open_form("submit demo/cortex z=0,4")
    assert [initial(same, axis) for axis in "xyz"] == ["0, 8", "0, 8", "0,4"]
    whole = served.open_form("submit demo/cortex X=all y=ALL")
    assert [initial(whole, axis) for axis in "xyz"] == ["", "", "0, 8"]
    assert "Not understood" not in str(whole["blocks"])
    other = served.open_form("submit lab/other z=0,4")
    assert [initial(other, axis) for axis in "xyz"] == ["", "", "0,4"]


def initial(view: dict[str, Any], axis: str) -> str:
    return str(field_of(view, axis)["element"].get("initial_value", ""))


def test_a_volume_by_address_is_taken_as_a_whole(serve: Serve, tmp_path: Path) -> None:
    volume = cortex(shape=(8, 64, 96))
    channels = {name: volume.bricks(name).read((0, 0, 0), volume.shape) for name in ("PSD95", "Synapsin")}
    address = stores.ome_zarr(tmp_path / "volumes" / "mouse.zarr", channels)
    roots = (tmp_path / "volumes").as_uri()
    with serve(tmp_path, pipelines=str(ROOT / "pipelines"), volume_roots=roots, predictions="off") as served:
        view = served.open_form(f"submit {address}")

        assert served.slack.person().submit(view, {}, checked=False).ok

        assert ranges(the_job(served).request) == {"x": "0, 96", "y": "0, 64", "z": "0, 8"}
