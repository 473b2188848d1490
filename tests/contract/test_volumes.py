"""Every Volumes keeps these promises: in memory, and BOSS over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from bot.application.ports import Volumes
from bot.domain.errors import NotFound, Unavailable
from bot.domain.volume import (
    Channel,
    Experiment,
    NotAllowed,
    TokenRefused,
    UnknownCollection,
    UnknownExperiment,
    VolumesRefused,
)
from tests.contract.rigs import READER, STRANGER, WRITER, MemoryVolumesRig, VolumesRig, boss_volumes

AMPLE = 20.0
"""Seconds that nothing here needs."""
PUBLIC = SecretStr("public")

CALLS: list[Callable[..., Any]] = [
    lambda volumes, **how: volumes.collections(**how),
    lambda volumes, **how: volumes.experiments("lab", **how),
    lambda volumes, **how: volumes.describe("lab", "deep", **how),
]


@pytest.fixture(params=["memory", "boss"])
def rig(request: pytest.FixtureRequest) -> Iterator[VolumesRig]:
    """The private lab/deep, which does not start at 0, and the public demo/cortex."""
    if request.param == "memory":
        yield fill(MemoryVolumesRig())
    else:
        with boss_volumes() as rig:
            yield fill(rig)


def fill(rig: VolumesRig) -> VolumesRig:
    rig.add("demo", "cortex", public=True, channels={"PSD95": "uint8"})
    rig.add(
        "lab",
        "deep",
        bounds=((-4, 4), (100, 164), (200, 264)),
        voxel_nm=(70, 3.5, 4),
        channels={"PSD": "uint16", "EM": "uint8", "ids": "uint64", "odd": "uint32"},
    )
    rig.add("lab", "deeper")
    return rig


@pytest.fixture
def volumes(rig: VolumesRig) -> Volumes:
    return rig.volumes


def test_a_token_sees_the_collections_it_may_read(volumes: Volumes) -> None:
    assert list(volumes.collections(token=READER, within=AMPLE)) == ["demo", "lab"]
    assert list(volumes.collections(token=STRANGER, within=AMPLE)) == ["demo"]
    assert list(volumes.collections(token=PUBLIC, within=AMPLE)) == ["demo"]


def test_a_collection_lists_its_experiments(volumes: Volumes) -> None:
    assert list(volumes.experiments("lab", token=READER, within=AMPLE)) == ["deep", "deeper"]
    assert list(volumes.experiments("demo", token=PUBLIC, within=AMPLE)) == ["cortex"]


def test_an_experiment_is_described_with_its_offsets_and_data_types(volumes: Volumes) -> None:
    assert volumes.describe("lab", "deep", token=READER, within=AMPLE) == Experiment(
        collection="lab",
        name="deep",
        bounds=((-4, 4), (100, 164), (200, 264)),
        voxel_nm=(70, 3.5, 4),
        channels=(
            Channel(name="PSD", datatype="uint16"),
            Channel(name="EM", datatype="uint8"),
            Channel(name="ids", datatype="uint64"),
            Channel(name="odd", datatype="uint32"),
        ),
    )


def test_a_data_type_says_how_many_bytes_a_voxel_has(volumes: Volumes) -> None:
    found = volumes.describe("lab", "deep", token=READER, within=AMPLE)

    assert [channel.bytes for channel in found.channels] == [2, 1, 8, None]


def test_an_experiment_may_have_no_channels(volumes: Volumes) -> None:
    assert volumes.describe("lab", "deeper", token=READER, within=AMPLE).channels == ()


@pytest.mark.parametrize("call", CALLS, ids=["collections", "experiments", "describe"])
def test_an_unknown_token_is_refused_wherever_it_is_used(volumes: Volumes, call: Callable[..., Any]) -> None:
    with pytest.raises(TokenRefused) as refused:
        call(volumes, token=SecretStr("demo-nobody-canary"), within=AMPLE)

    assert refused.value.field == "token"
    assert "canary" not in str(refused.value)


def test_whether_an_unknown_token_may_write_is_refused_too(volumes: Volumes) -> None:
    with pytest.raises(TokenRefused):
        volumes.may_write("lab", "deep", token=SecretStr("demo-nobody-canary"), within=AMPLE)


def test_what_a_token_may_not_read_is_refused_by_name(volumes: Volumes) -> None:
    with pytest.raises(NotAllowed, match="“lab”") as collection:
        volumes.experiments("lab", token=STRANGER, within=AMPLE)
    with pytest.raises(NotAllowed, match="“deep” of “lab”") as experiment:
        volumes.describe("lab", "deep", token=STRANGER, within=AMPLE)

    assert (collection.value.field, experiment.value.field) == ("collection", "experiment")


def test_an_unknown_collection_is_not_found(volumes: Volumes) -> None:
    for call in (
        lambda: volumes.experiments("nowhere", token=WRITER, within=AMPLE),
        lambda: volumes.describe("nowhere", "deep", token=WRITER, within=AMPLE),
    ):
        with pytest.raises(UnknownCollection, match="“nowhere”") as unknown:
            call()
        assert isinstance(unknown.value, NotFound)
        assert unknown.value.field == "collection"


def test_an_unknown_experiment_is_not_found_and_its_neighbours_are_named(volumes: Volumes) -> None:
    with pytest.raises(UnknownExperiment, match="did you mean “deeper” or “deep”") as unknown:
        volumes.describe("lab", "deeperr", token=READER, within=AMPLE)

    assert isinstance(unknown.value, NotFound)
    assert unknown.value.field == "experiment"
    assert unknown.value.near == ("deeper", "deep")


@pytest.mark.parametrize(
    "name", ["", "..", "lab/experiment/deep", "lab?x=1", "<!channel>", "lab\n", "l%61b", "\u202ebal"]
)
def test_a_name_that_is_none_is_unknown(volumes: Volumes, name: str) -> None:
    with pytest.raises(UnknownCollection):
        volumes.experiments(name, token=WRITER, within=AMPLE)
    with pytest.raises(UnknownCollection):
        volumes.describe(name, "deep", token=WRITER, within=AMPLE)
    with pytest.raises(UnknownExperiment) as unknown:
        volumes.describe("lab", name, token=WRITER, within=AMPLE)

    assert str(unknown.value).isprintable()
    assert volumes.may_write("lab", name, token=WRITER, within=AMPLE) is False


def test_who_may_write_is_known(volumes: Volumes) -> None:
    assert volumes.may_write("lab", "deep", token=WRITER, within=AMPLE) is True
    assert volumes.may_write("lab", "deep", token=READER, within=AMPLE) is False
    assert volumes.may_write("demo", "cortex", token=PUBLIC, within=AMPLE) is False


def test_nobody_may_write_to_what_is_not_there(volumes: Volumes) -> None:
    assert volumes.may_write("lab", "nothing", token=WRITER, within=AMPLE) is False
    assert volumes.may_write("nowhere", "deep", token=WRITER, within=AMPLE) is False


@pytest.mark.parametrize("call", CALLS, ids=["collections", "experiments", "describe"])
def test_a_caller_waits_no_longer_than_it_wants_to(rig: VolumesRig, call: Callable[..., Any]) -> None:
    with rig.hanging():
        began = time.monotonic()
        with pytest.raises(Unavailable):
            call(rig.volumes, token=READER, within=0.1)
        assert time.monotonic() - began < 5


def test_whether_one_may_write_is_unknown_while_nobody_answers(rig: VolumesRig) -> None:
    with rig.hanging():
        assert rig.volumes.may_write("lab", "deep", token=WRITER, within=0.1) is None


def test_every_refusal_belongs_under_a_field() -> None:
    refusals: list[VolumesRefused] = [
        TokenRefused(),
        NotAllowed("lab"),
        NotAllowed("lab", "deep"),
        UnknownCollection("lab"),
        UnknownExperiment("lab", "deep"),
    ]

    assert [r.field for r in refusals] == ["token", "collection", "experiment", "collection", "experiment"]
