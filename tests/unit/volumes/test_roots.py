"""Which hosts, buckets and folders may be asked for volumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from volumes.address import Location
from volumes.errors import WrongVolume
from volumes.roots import Roots, forbidden


@pytest.mark.parametrize(
    ("root", "place"),
    [
        ("s3://lab", "s3://lab/a/b"),
        ("s3://lab/a", "s3://lab/a/b"),
        ("https://data.example.org", "https://data.example.org/a"),
        ("http://127.0.0.1:9000/a", "http://127.0.0.1:9000/a/b"),
    ],
)
def test_what_lies_below_a_root_may_be_asked(root: str, place: str) -> None:
    Roots.parse([root]).check(Location.parse(place))


@pytest.mark.parametrize(
    ("root", "place"),
    [
        ("s3://lab", "s3://lab2/a"),
        ("s3://lab/a", "s3://lab/ab"),
        ("https://data.example.org", "http://data.example.org/a"),
        ("https://data.example.org", "https://data.example.org:8443/a"),
        ("https://data.example.org", "https://data.example.org.evil.example/a"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9001/a"),
        ("file:///data", "file:///etc/passwd"),
    ],
)
def test_anything_else_is_refused_and_the_setting_is_named(root: str, place: str) -> None:
    with pytest.raises(WrongVolume, match="NOMADS_VOLUME_ROOTS"):
        Roots.parse([root]).check(Location.parse(place))


def test_files_need_a_root() -> None:
    with pytest.raises(WrongVolume, match="folder"):
        Roots().check(Location.parse("file:///data/volume"))


def test_a_link_out_of_an_allowed_folder_is_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "real").mkdir(parents=True)
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "fine").symlink_to(inside / "real")
    roots = Roots.parse([inside.as_uri()])

    roots.check(Location.parse((inside / "fine").as_uri()))
    with pytest.raises(WrongVolume, match="leads out"):
        roots.check(Location.parse((inside / "link" / "volume").as_uri()))


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "0.0.0.0", "fd00:ec2::254", "224.0.0.1"],
)
def test_addresses_at_which_clouds_hand_out_credentials_are_never_asked(address: str) -> None:
    assert forbidden(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "8.8.8.8", "2001:4860:4860::8888"])
def test_other_addresses_are_the_admins_choice(address: str) -> None:
    assert not forbidden(address)
