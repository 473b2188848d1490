"""A request for a volume by address: how it is typed, kept, named and refused; and the admin's list of names."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.application.places import Places
from bot.domain import named
from bot.domain.errors import InvalidRequest, NomadsError
from bot.domain.named import NamedVolume
from bot.domain.request import JobRequest, read
from volumes.address import Address, parse

ADDRESS = "zarr://s3://lab/mouse.zarr"
TYPED = {"pipeline": "nomads-unsupervised", "collection": ADDRESS, "x": "0, 5", "y": "0, 5", "z": "0, 5"}


def asked(**changed: str) -> JobRequest:
    return JobRequest.parse({**TYPED, **changed})


def test_an_address_stands_for_collection_and_experiment() -> None:
    request = asked()

    assert (request.volume, request.collection) == (ADDRESS, "mouse")
    assert request.place == ADDRESS
    assert request.results_key.startswith("nomads-unsupervised_mouse_")


def test_a_request_is_the_same_however_its_address_is_written() -> None:
    assert asked(collection=" zarr3://s3://lab//mouse.zarr/ ") == asked()
    assert asked(collection="zarr://s3://lab2/mouse.zarr").results_key != asked().results_key


def test_a_request_by_address_can_be_kept_and_typed_again() -> None:
    request = asked()

    assert JobRequest.model_validate(request.model_dump(mode="json")) == request
    assert JobRequest.parse(request.typed) == request
    assert request.typed["collection"] == ADDRESS


def test_a_request_for_boss_is_kept_as_before() -> None:
    request = asked(collection="demo", experiment="cortex")

    assert "volume" not in request.model_dump(mode="json")
    assert request.place == "demo/cortex"


def test_an_address_of_boss_is_the_experiment_itself() -> None:
    assert asked(collection="boss://api.bossdb.io/demo/cortex") == asked(collection="demo", experiment="cortex")


def test_a_wrong_address_is_told_with_every_other_mistake() -> None:
    reading = read({**TYPED, "collection": "tiff://s3://lab/a", "x": "5, 0"})

    assert reading.request is None
    assert "no format" in reading.errors["collection"]
    assert reading.errors.keys() == {"collection", "x"}


def volume(name: str, address: str, *people: str) -> NamedVolume:
    found = parse(address)
    assert isinstance(found, Address)
    return NamedVolume(name=name, address=found, people=frozenset(people))


PLACES = Places(
    named=[volume("mouse", ADDRESS), volume("secret", "n5://s3://lab/secret", "U1")], boss_host="api.bossdb.io"
)


def test_a_name_stands_for_its_address_where_the_person_may_see_it() -> None:
    assert PLACES.resolve({"collection": "volume:mouse"}, "U2")["collection"] == ADDRESS
    assert PLACES.resolve({"collection": "volume:secret"}, "U1")["collection"] == "n5://s3://lab/secret"
    assert [one.name for one in PLACES.offered("U2")] == ["mouse"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("volume:secret", "There is no volume “secret”."),
        ("volume:none", "There is no volume “none”."),
        ("n5://s3://lab/secret", "not given you the right"),
        ("n5://s3://lab/secret/PSD95", "not given you the right"),
        ("n5://s3://lab", "not given you the right"),
        ("channels://A=n5://s3://lab/secret/A", "not given you the right"),
        ("boss://other.example.org/demo/cortex", "api.bossdb.io, and no other"),
    ],
)
def test_what_a_person_may_not_see_is_refused_by_name_and_by_address(typed: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        PLACES.resolve({"collection": typed}, "U2")

    assert said in refusal.value.errors["collection"]


def test_a_link_to_a_volume_for_others_is_that_volume(tmp_path: Path) -> None:
    (tmp_path / "secret.zarr").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "secret.zarr")
    address = parse(f"zarr://{(tmp_path / 'secret.zarr').as_uri()}")
    assert isinstance(address, Address)
    places = Places(named=[NamedVolume(name="Mouse", address=address, people=frozenset({"U1"}))])
    typed = {"collection": f"zarr://{(tmp_path / 'link').as_uri()}"}

    assert places.resolve(typed, "U1")["collection"] == typed["collection"]
    with pytest.raises(InvalidRequest, match="right to read this volume"):
        places.resolve(typed, "U2")


def test_names_of_boss_pass_unchanged() -> None:
    values = {"collection": "demo", "experiment": "cortex"}

    assert PLACES.resolve(values, "U2") == values


def written(folder: Path, text: str) -> Path:
    path = folder / "volumes.toml"
    path.write_text(text)
    return path


def test_the_admins_list_has_addresses_of_volumes_or_of_channels(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"""
        [[volumes]]
        name = "Mouse 3"
        address = "{ADDRESS}"
        people = ["U1"]

        [[volumes]]
        name = "apart"
        channels = {{ PSD95 = "zarr://s3://lab/a.zarr", Synapsin = "n5://s3://lab/b.n5#s1,c=1" }}
        """,
    )

    one, other = named.read(path)

    assert (one.name, str(one.address), one.people) == ("Mouse 3", ADDRESS, frozenset({"U1"}))
    assert str(other.address) == "channels://PSD95=zarr://s3://lab/a.zarr;Synapsin=n5://s3://lab/b.n5#s1,c=1"
    assert parse(str(other.address)) == other.address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[volumes]\n", "cannot be read as TOML"),
        ('[[volumes]]\nname = "a"\n', "it needs an address"),
        ('[[volumes]]\nname = "a"\naddress = "b"\n', "a: “b” is no address"),
        ('[[volumes]]\nname = "a"\naddress = "boss://h/c/e"\n', "found by its own name"),
        ('[[volumes]]\nname = "a:b"\naddress = "zarr://s3://b/a"\n', "name"),
        ('[[volumes]]\nname = "a"\nadress = "zarr://s3://b/a"\n', "adress"),
        ('[[volumes]]\nname = "a"\naddress = "zarr://s3://b/a"\n' * 2, "two volumes are named a"),
    ],
)
def test_a_list_that_cannot_be_used_says_which_entry_and_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(NomadsError) as error:
        named.read(written(tmp_path, text))

    assert said in str(error.value)
    assert "volumes.toml" in str(error.value)


def test_a_list_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NomadsError, match="NOMADS_VOLUMES"):
        named.read(tmp_path / "none.toml")
