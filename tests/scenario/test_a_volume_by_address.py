"""A volume by address from the form to its results: pasted, in a command's words, or chosen by the admin's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.domain.errors import InvalidRequest
from bot.domain.job import Job
from bot.domain.states import JobState
from sandbox import stores
from sandbox.volumes import cortex
from tests.support.app import PROGRAMS, ROOT, Serve, Served
from tests.support.waiting import until

BOX = {"x": "0, 128", "y": "0, 128", "z": "0, 16"}


@pytest.fixture
def address(tmp_path: Path) -> str:
    """A volume of two channels in a folder."""
    volume = cortex(shape=(16, 256, 256))
    channels = {name: volume.bricks(name).read((0, 0, 0), volume.shape) for name in ("PSD95", "Synapsin")}
    return stores.ome_zarr(tmp_path / "volumes" / "mouse.zarr", channels)


def settings(tmp_path: Path, **changed: object) -> dict[str, object]:
    return {
        "pipelines": str(ROOT / "pipelines"),
        "volume_roots": (tmp_path / "volumes").as_uri(),
        "predictions": "off",
    } | changed


def blocks(view: Mapping[str, Any]) -> list[str]:
    return [block.get("block_id", "") for block in view["blocks"]]


def block(view: Mapping[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in view["blocks"] if each.get("block_id") == name)


def shown(served: Served) -> dict[str, Any]:
    view = served.slack.view_of("U01DEMO")
    assert view
    return view


def saying(served: Served, text: str) -> dict[str, Any] | None:
    """The form, once it says that."""
    view = shown(served)
    return view if text in json.dumps(view) else None


def described(served: Served) -> dict[str, Any] | None:
    """The form, once it says what is at the address."""
    return saying(served, "channels: PSD95 (uint8) and Synapsin (uint8)")


def test_an_address_in_the_commands_words_fills_the_form_and_runs(serve: Serve, tmp_path: Path, address: str) -> None:
    with serve(tmp_path, working=True, **settings(tmp_path)) as served:
        served.open_form(f"submit {address} x=0,128 y=0,128 z=0,16")
        view = until(lambda: described(served), what="the volume in the form") or {}
        assert not {"token", "experiment", "remember"} & {*blocks(view)}
        assert "This volume has 0, 256" in json.dumps(view)

        job = finished(served, view)

        assert job.request.volume == address
        assert job.summary
        assert job.summary.counts["synapses"] > 0
        said = json.dumps(served.slack.messages("#synapses"))
        assert address in said


@pytest.mark.parametrize(("image_bytes", "folders"), [(2**28, ["postsynaptic", "presynaptic"]), (0, [])])
def test_how_large_an_image_lies_beside_the_results_is_a_setting(
    serve: Serve, tmp_path: Path, address: str, image_bytes: int, folders: list[str]
) -> None:
    with serve(tmp_path, working=True, **settings(tmp_path, image_bytes=image_bytes)) as served:
        served.open_form(f"submit {address} x=0,64 y=0,64 z=0,8")

        view = until(lambda: described(served), what="the volume in the form") or {}

        job = finished(served, view)

        (results,) = tmp_path.rglob("results.json")
        assert sorted(path.parent.name for path in results.parent.glob("image/*/info")) == folders
        assert (results.parent / "segmentation" / "info").exists()
        assert job.summary


def finished(served: Served, view: Mapping[str, Any]) -> Job:
    """Submit the form as it is, and wait for the end of its job, which succeeds."""
    ack = served.slack.person().submit(view, {"pipeline": "nomads-unsupervised"}, checked=False)
    assert ack.ok, ack.errors
    job = until(lambda: next((job for job in served.rows.jobs() if job.summary or job.reason), None), within=60)
    assert job
    assert job.state is JobState.SUCCEEDED, job.log_tail
    return job


def test_an_address_is_pasted_into_the_collection(serve: Serve, tmp_path: Path, address: str) -> None:
    with serve(tmp_path, **settings(tmp_path)) as served:
        served.open_form()
        person = served.slack.person()
        offered = person.suggest(shown(served), "collection", address)
        assert [option["value"] for option in offered] == [address]
        person.click(shown(served), "collection", address)
        view = until(lambda: described(served), what="the volume in the form") or {}

        ack = person.submit(view, BOX | {"pipeline": "nomads-unsupervised"}, checked=False)

        assert ack.ok, ack.errors
        assert served.rows.jobs()[0].request.volume == address


def test_what_is_wrong_with_a_volume_stands_under_its_address(serve: Serve, tmp_path: Path, address: str) -> None:
    with serve(tmp_path, **settings(tmp_path)) as served:
        for words, field, said in (
            (f"submit {address}", "x", "This volume has x 0, 256"),
            (f"submit {address}x", "collection", "There is no OME-Zarr volume"),
            ("submit zarr://s3://other/volume", "collection", "NOMADS_VOLUME_ROOTS"),
            ("submit zarr://volume", "collection", "is in none of"),
            ("submit boss://other.example.org/demo/cortex", "collection", "and no other"),
        ):
            view = served.open_form(words)
            typed = BOX | {"pipeline": "nomads-unsupervised", "x": "0, 500"}
            if "boss" in words:
                typed["token"] = "demo-token"
            ack = served.slack.person().submit(view, typed, checked=False)
            assert said in ack.errors[field], (words, ack.errors)
        assert served.jobs == 0


def test_named_volumes_are_offered_to_those_who_may_see_them(serve: Serve, tmp_path: Path, address: str) -> None:
    listed = tmp_path / "volumes.toml"
    listed.write_text(
        f'[[volumes]]\nname = "Mouse 3"\naddress = "{address}"\n'
        '[[volumes]]\nname = "Mouse 4"\naddress = "zarr://s3://lab/secret"\npeople = ["U99"]\n'
    )
    with serve(tmp_path, **settings(tmp_path, volumes=str(listed))) as served:
        served.open_form()
        person = served.slack.person()
        offered = person.suggest(shown(served), "collection", "mou")
        assert [(option["text"]["text"], option["value"]) for option in offered[:-1]] == [
            ("Mouse 3 (volume)", "volume:Mouse 3")
        ]
        person.click(shown(served), "collection", "volume:Mouse 3")
        view = until(lambda: described(served), what="the volume in the form") or {}

        ack = person.submit(view, BOX | {"pipeline": "nomads-unsupervised"}, checked=False)

        assert ack.ok, ack.errors
        assert served.rows.jobs()[0].request.volume == address


def test_edit_and_rerun_shows_the_address_again(serve: Serve, tmp_path: Path, address: str) -> None:
    with serve(tmp_path, **settings(tmp_path)) as served:
        view = served.open_form(f"submit {address} x=0,128 y=0,128 z=0,16")
        assert served.slack.person().submit(view, {"pipeline": "nomads-unsupervised"}, checked=False).ok

        again = served.open_form()

        assert address in json.dumps(again)
        assert "experiment" not in blocks(again)
        assert block(again, "x")["element"]["initial_value"] == "0, 128"


def test_a_pipeline_that_reads_boss_alone_says_so(serve: Serve, tmp_path: Path, address: str) -> None:
    with serve(tmp_path, **settings(tmp_path, pipelines=str(PROGRAMS))) as served:  # its contract is 1
        view = served.open_form(f"submit {address}")
        ack = served.slack.person().submit(view, BOX, checked=False)
        assert "reads volumes of BOSS alone" in ack.errors["pipeline"]


def test_a_volume_for_others_is_neither_described_nor_read(serve: Serve, tmp_path: Path, address: str) -> None:
    listed = tmp_path / "volumes.toml"
    listed.write_text(f'[[volumes]]\nname = "Mouse 4"\naddress = "{address}"\npeople = ["U99"]\n')
    said = "The admin of NOMADS has not given you the right to read this volume."
    with serve(tmp_path, **settings(tmp_path, volumes=str(listed))) as served:
        for typed in (address, f"{address}/0", f"channels://PSD95={address};Synapsin={address}"):
            served.open_form(f"submit {typed} x=0,128 y=0,128 z=0,16")
            view = until(lambda: saying(served, said), what="the refusal") or {}
            assert not [word for word in ("0, 256", "Synapsin (", "96 nm") if word in json.dumps(view)]

            ack = served.slack.person().submit(view, {"pipeline": "nomads-unsupervised"}, checked=False)

            assert ack.errors == {"collection": said}
        assert served.jobs == 0


def test_a_name_that_is_for_others_is_no_volume(serve: Serve, tmp_path: Path, address: str) -> None:
    listed = tmp_path / "volumes.toml"
    listed.write_text(f'[[volumes]]\nname = "Mouse 4"\naddress = "{address}"\npeople = ["U99"]\n')
    with serve(tmp_path, **settings(tmp_path, volumes=str(listed))) as served:
        served.open_form()
        person = served.slack.person()
        assert not person.suggest(shown(served), "collection", "mouse")[:-1]
        assert person.suggest(shown(served), "collection", "volume:Mouse 4")  # as it was typed
        person.click(shown(served), "collection", "volume:Mouse 4")
        view = until(lambda: saying(served, "There is no volume"), what="the refusal") or {}
        said = "There is no volume “Mouse 4”."

        ack = person.submit(view, BOX | {"pipeline": "nomads-unsupervised"}, checked=False)

        assert ack.errors == {"collection": said}
        values = BOX | {
            "pipeline": "nomads-unsupervised",
            "collection": "volume:Mouse 4",
            "channel": "C1",
            "email": "a@b.org",
        }
        with pytest.raises(InvalidRequest) as refusal:  # of a command, whose errors stand under no field
            served.nomads.core.submission.review(values, SecretStr(""), actor="U1")
        assert refusal.value.errors == {"collection": said}
        assert served.nomads.core.submission.review(values, SecretStr(""), actor="cli:ada").request.volume == address
        assert served.jobs == 0


def test_what_a_form_has_no_field_for_is_told_under_the_collection(serve: Serve, tmp_path: Path, address: str) -> None:
    with serve(tmp_path, **settings(tmp_path)) as served:
        view = served.open_form(f"submit {address}")
        assert "token" not in blocks(view)

        ack = served.slack.person().submit(
            view, BOX | {"pipeline": "nomads-unsupervised", "collection": "demo"}, checked=False
        )

        assert ack.errors.keys() == {"collection"}
