"""What an address of a volume means, and what is none."""

from __future__ import annotations

import pytest

from volumes.address import Address, BossAddress, Location, is_address, parse
from volumes.errors import WrongVolume


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("precomputed://gs://bucket/volume/", "precomputed://gs://bucket/volume"),
        ("neuroglancer-precomputed://s3://bucket//a/b", "precomputed://s3://bucket/a/b"),
        (" zarr://https://Example.ORG/My.zarr ", "zarr://https://example.org/My.zarr"),
        ("zarr3://https://example.org/my%20volume.zarr", "zarr://https://example.org/my%20volume.zarr"),
        ("n5://file:///data/a.n5#s1", "n5://file:///data/a.n5#s1"),
        ("precomputed://http://127.0.0.1:9000/v/{PSD95,Synapsin}", "precomputed://http://127.0.0.1:9000/v/{PSD95,Synapsin}"),
        ("zarr://<https://example.org/a.zarr|example.org/a.zarr>", "zarr://https://example.org/a.zarr"),
    ],
)  # fmt: skip
def test_an_address_is_kept_in_one_form_however_it_is_written(typed: str, kept: str) -> None:
    found = parse(typed)

    assert str(found) == kept
    assert parse(kept) == found


def test_an_address_of_boss_names_an_experiment() -> None:
    assert parse("boss://api.bossdb.io/kharris15/apical") == BossAddress(
        host="api.bossdb.io", collection="kharris15", experiment="apical"
    )
    assert parse("boss://http://127.0.0.1:9000/demo/cortex") == BossAddress(
        protocol="http", host="127.0.0.1:9000", collection="demo", experiment="cortex"
    )


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("kharris15", "no address"),
        ("tiff://s3://bucket/a", "no format"),
        ("zarr://bucket/volume", "is in none of"),
        ("zarr://ftp://host/volume", "is in none of"),
        ("zarr://https:///volume", "names no host"),
        ("zarr://s3://user:secret@bucket/volume", "no user"),
        ("zarr://https://host/volume?token=secret", "query"),
        ("zarr://file://other/volume", "names no host"),
        ("zarr://file:///data/../etc", "leads elsewhere"),
        ("zarr://file:///data/%2e%2e/etc", "leads elsewhere"),
        ("zarr://file:///data/a volume", "%20"),
        ("zarr://https://host:99999/a", "is no address"),
        ("n5://file:///data/a#../b", "no level"),
        ("n5://file:///data/a#c=x", "no channel of an array"),
        ("n5://file:///data/a#s0,1", "no channel of an array"),
        ("n5://file:///data/{..,a}", "Channels stand at the end"),
        ("n5://file:///data/{a,a}", "twice"),
        ("n5://file:///{a}/data", "Channels stand at the end"),
        ("boss://api.bossdb.io/kharris15", "boss://host/collection/experiment"),
        ("zarr://https://host/" + "a" * 1000, "the most"),
    ],
)
def test_what_is_no_address_is_told_in_words(typed: str, said: str) -> None:
    with pytest.raises(WrongVolume) as error:
        parse(typed)

    assert said in str(error.value)
    assert "secret" not in str(error.value)


def test_results_are_named_after_the_volume_and_two_addresses_never_share_a_name() -> None:
    one, other = parse("zarr://s3://lab/mouse 3.ome.zarr".replace(" ", "%20")), parse("zarr://s3://other/mouse_3.zarr")
    assert isinstance(one, Address)
    assert isinstance(other, Address)

    assert (one.stem, other.stem) == ("mouse_3", "mouse_3")
    assert one.digest != other.digest


def test_a_place_is_within_a_folder_by_whole_segments() -> None:
    folder = Location.parse("s3://lab/public")

    assert Location.parse("s3://lab/public/volume").within(folder)
    assert Location.parse("s3://lab/public").within(folder)
    assert not Location.parse("s3://lab/public-not").within(folder)
    assert not Location.parse("s3://other/public/volume").within(folder)
    assert not Location.parse("gs://lab/public/volume").within(folder)


def test_a_name_of_boss_is_no_address() -> None:
    assert not is_address("kharris15")
    assert is_address("zarr:// whatever")
