"""What is read from the metadata of volumes in each format, in the field's many ways of writing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.papers import Papers
from volumes.address import Address, parse
from volumes.describe import describe
from volumes.described import Volume
from volumes.errors import VolumeDamaged, VolumeError, VolumeRefused, WrongVolume

UM = {"unit": "micrometer"}


def described(address: str, files: Mapping[str, Any], *, refused: bool = False) -> Volume:
    found = parse(address)
    assert isinstance(found, Address)
    return describe(found, Papers(files, refused))


def info(*, scales: list[dict[str, Any]] | None = None, **changed: Any) -> dict[str, Any]:
    return {"data_type": "uint8", "num_channels": 1, "type": "image", "scales": scales or [scale()]} | changed


def scale(**changed: Any) -> dict[str, Any]:
    return {
        "key": "8_8_50",
        "size": [300, 200, 100],
        "voxel_offset": [3, 2, 1],
        "resolution": [8, 9, 50],
        "chunk_sizes": [[64, 64, 64]],
        "encoding": "raw",
    } | changed


def image(*, axes: str = "czyx", unit: str | None = "micrometer", **changed: Any) -> dict[str, Any]:
    sizes = {"z": 0.05, "y": 0.009, "x": 0.008}
    spaces = [{"name": a, "type": "space", **({"unit": unit} if unit and a in "zyx" else {})} for a in axes]
    levels = [
        {
            "path": str(n),
            "coordinateTransformations": [{"type": "scale", "scale": [sizes.get(a, 1) * 2**n for a in axes]}],
        }
        for n in (0, 1)
    ]
    return {"multiscales": [{"version": "0.4", "axes": spaces, "datasets": levels}]} | changed


def zarray(shape: list[int], **changed: Any) -> dict[str, Any]:
    return {"shape": shape, "chunks": [1] * (len(shape) - 2) + [64, 64], "dtype": "|u1", "zarr_format": 2} | changed


def test_precomputed_says_bounds_and_sizes_in_the_order_x_y_z() -> None:
    volume = described("precomputed://s3://lab/v", {"info": info()})

    assert volume.bounds == ((1, 101), (2, 202), (3, 303))
    assert volume.voxel_nm == (50, 9, 8)
    assert [(c.name, c.datatype) for c in volume.channels] == [("v", "uint8")]


def test_a_folder_of_datasets_has_a_channel_for_each() -> None:
    files = {"PSD95/info": info(), "Synapsin/info": info(data_type="uint16"), "notes/readme": b""}

    listed = described("precomputed://s3://lab/v", files)
    named = described("precomputed://s3://lab/v/{Synapsin}", files)

    assert [(c.name, c.datatype) for c in listed.channels] == [("PSD95", "uint8"), ("Synapsin", "uint16")]
    assert [c.name for c in named.channels] == ["Synapsin"]


def test_datasets_that_do_not_lie_on_each_other_are_no_volume() -> None:
    files = {"a/info": info(), "b/info": info(scales=[scale(size=[1, 2, 3])])}

    with pytest.raises(WrongVolume, match="different bounds"):
        described("precomputed://s3://lab/v", files)


def test_the_finest_level_is_taken_unless_one_is_named() -> None:
    coarse = scale(key="16_18_50", resolution=[16, 18, 50], size=[150, 100, 100], voxel_offset=[0, 0, 0])
    files = {"info": info(scales=[coarse, scale()])}

    assert described("precomputed://s3://lab/v", files).voxel_nm == (50, 9, 8)
    assert described("precomputed://s3://lab/v#16_18_50", files).voxel_nm == (50, 18, 16)
    with pytest.raises(WrongVolume, match="it has 16_18_50, 8_8_50"):
        described("precomputed://s3://lab/v#none", files)


@pytest.mark.parametrize("axes", ["czyx", "zyxc", "xyzc", "tczyx", "zcyx"])
def test_ome_zarr_has_its_axes_in_any_order(axes: str) -> None:
    sides = {"t": 1, "c": 2, "z": 10, "y": 20, "x": 30}
    labels = {"channels": [{"label": "PSD-95 (488)"}, {"label": "Synapsin"}]}
    files = {".zattrs": image(axes=axes, omero=labels), "0/.zarray": zarray([sides[a] for a in axes])}

    volume = described("zarr://s3://lab/v", files)

    assert volume.bounds == ((0, 10), (0, 20), (0, 30))
    assert volume.voxel_nm == (50, 9, 8)
    assert [c.name for c in volume.channels] == ["PSD-95_488", "Synapsin"]
    assert [c.source.fixed["c"] for c in volume.channels] == [0, 1]


def test_ome_zarr_five_is_read_as_four_is() -> None:
    three = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [2, 10, 20, 30],
        "data_type": "uint16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 8, 8, 8]}},
        "codecs": [{"name": "bytes"}],
    }
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": image()}}

    volume = described("zarr://s3://lab/v", {"zarr.json": group, "0/zarr.json": three})

    assert volume.bounds == ((0, 10), (0, 20), (0, 30))
    assert [(c.name, c.datatype) for c in volume.channels] == [("channel_0", "uint16"), ("channel_1", "uint16")]


def test_a_level_of_an_image_is_named_by_its_path_or_after_a_hash() -> None:
    files = {".zattrs": image(), "0/.zarray": zarray([1, 10, 20, 30]), "1/.zarray": zarray([1, 5, 10, 15])}

    by_path = described("zarr://s3://lab/v/1", files)
    by_name = described("zarr://s3://lab/v#1", files)

    assert by_path.bounds == by_name.bounds == ((0, 5), (0, 10), (0, 15))
    assert by_path.voxel_nm == by_name.voxel_nm == (100, 18, 16)


def test_a_translation_is_an_offset_in_voxels() -> None:
    placed = image(axes="zyx")
    placed["multiscales"][0]["datasets"][0]["coordinateTransformations"].append(
        {"type": "translation", "translation": [0.5, 0.09, 0.8]}
    )

    volume = described("zarr://s3://lab/v", {".zattrs": placed, "0/.zarray": zarray([10, 20, 30])})

    assert volume.bounds == ((10, 20), (10, 30), (100, 130))


def test_a_big_endian_array_has_the_type_of_any_other() -> None:
    volume = described("zarr://s3://lab/v", {".zattrs": image(axes="zyx"), "0/.zarray": zarray([9, 9, 9], dtype=">u2")})

    assert [c.datatype for c in volume.channels] == ["uint16"]


def test_a_float_image_is_described_as_what_it_is() -> None:
    volume = described("zarr://s3://lab/v", {".zattrs": image(axes="zyx"), "0/.zarray": zarray([9, 9, 9], dtype="<f4")})

    assert [c.datatype for c in volume.channels] == ["float32"]


@pytest.mark.parametrize("unit", ["pixel", None])
def test_voxels_without_a_unit_of_length_have_no_size(unit: str | None) -> None:
    files = {".zattrs": image(axes="zyx", unit=unit), "0/.zarray": zarray([9, 9, 9])}

    with pytest.raises(WrongVolume, match=r"The axis z of this volume has .*unit"):
        described("zarr://s3://lab/v", files)


def test_a_series_in_time_is_refused() -> None:
    files = {".zattrs": image(axes="tzyx"), "0/.zarray": zarray([7, 9, 9, 9])}

    with pytest.raises(WrongVolume, match="7 points in time"):
        described("zarr://s3://lab/v", files)


def test_an_array_without_ome_metadata_is_refused() -> None:
    with pytest.raises(WrongVolume, match="no OME-Zarr metadata"):
        described("zarr://s3://lab/v", {".zarray": zarray([9, 9, 9])})


def test_a_level_that_is_announced_and_not_there_is_named() -> None:
    with pytest.raises(WrongVolume, match="level 0 of this volume is not there"):
        described("zarr://s3://lab/v", {".zattrs": image()})


N5_ARRAY = {"dimensions": [30, 20, 10], "blockSize": [8, 8, 8], "dataType": "uint16", "compression": {"type": "raw"}}


@pytest.mark.parametrize(
    ("group", "array"),
    [
        ({"pixelResolution": {"unit": "nm", "dimensions": [8, 9, 50]}}, {}),
        ({}, {"pixelResolution": {"unit": "um", "dimensions": [0.008, 0.009, 0.05]}}),
        ({}, {"resolution": [8, 9, 50], "units": ["nm", "nm", "nm"]}),
        ({}, {"transform": {"axes": ["z", "y", "x"], "units": ["nm"] * 3, "scale": [50, 9, 8]}}),
        ({"resolution": [8, 9, 50], "units": ["nm", "nm", "nm"]}, {}),
    ],
)
def test_n5_says_its_voxel_size_in_many_ways(group: dict[str, Any], array: dict[str, Any]) -> None:
    volume = described("n5://s3://lab/v", {"attributes.json": group, "s0/attributes.json": N5_ARRAY | array})

    assert volume.bounds == ((0, 10), (0, 20), (0, 30))
    assert volume.voxel_nm == (50, 9, 8)


def test_a_coarser_level_of_n5_has_larger_voxels() -> None:
    group = {"pixelResolution": {"unit": "nm", "dimensions": [8, 9, 50]}}
    files = {"attributes.json": group, "s1/attributes.json": N5_ARRAY | {"downsamplingFactors": [2, 2, 1]}}

    assert described("n5://s3://lab/v#s1", files).voxel_nm == (50, 18, 16)


def test_n5_without_a_voxel_size_says_what_to_add() -> None:
    with pytest.raises(WrongVolume, match="pixelResolution"):
        described("n5://s3://lab/v", {"attributes.json": N5_ARRAY})


def test_where_there_is_nothing_the_address_is_told() -> None:
    with pytest.raises(WrongVolume, match=r"There is no N5 volume at s3://lab/v"):
        described("n5://s3://lab/v", {})


def test_where_a_bucket_hides_what_is_not_there_both_are_said() -> None:
    with pytest.raises(VolumeRefused, match="not public, or not there"):
        described("n5://s3://lab/v", {}, refused=True)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe"],
)
def test_a_document_that_is_no_json_object_is_damaged(content: bytes) -> None:
    with pytest.raises(VolumeDamaged, match="info"):
        described("precomputed://s3://lab/v", {"info": content})


@pytest.mark.parametrize(
    "changed",
    [
        {"size": [0, 1, 1]},
        {"size": [1, 1]},
        {"size": "many"},
        {"size": [True, 1, 1]},
        {"size": [2**70, 1, 1]},
        {"resolution": [0, 1, 1]},
        {"resolution": [-1, 1, 1]},
        {"resolution": None},
        {"chunk_sizes": []},
        {"chunk_sizes": [[0, 1, 1]]},
        {"chunk_sizes": [[4096, 4096, 4096]]},
        {"voxel_offset": [0.5, 0, 0]},
        {"key": "../../etc"},
        {"key": "/etc"},
        {"key": ""},
        {"key": 7},
        {"encoding": "jxl"},
        {"encoding": None},
        {"sharding": {}},
        {"sharding": {"@type": "neuroglancer_uint64_sharded_v1", "shard_bits": "many"}},
    ],
)
def test_metadata_that_makes_no_sense_is_refused_in_words(changed: dict[str, Any]) -> None:
    with pytest.raises(VolumeError):
        described("precomputed://s3://lab/v", {"info": info(scales=[scale(**changed)])})


def test_a_chunk_that_would_unpack_to_more_than_it_may_is_refused() -> None:
    with pytest.raises(WrongVolume, match="unpacks to 65,536 MiB; 512 MiB is the most"):
        described("precomputed://s3://lab/v", {"info": info(scales=[scale(chunk_sizes=[[4096, 4096, 4096]])])})


def zarr3(codecs: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
    grid = {"name": "regular", "configuration": {"chunk_shape": [64, 64, 64]}}
    about = {"zarr_format": 3, "node_type": "array", "shape": [100, 200, 300], "data_type": "uint8"}
    return {**about, "chunk_grid": grid, "codecs": codecs, **changed}


BYTES, BLOSC, GZIP = {"name": "bytes"}, {"name": "blosc"}, {"name": "gzip"}
SHARDS = {"name": "sharding_indexed", "configuration": {"chunk_shape": [32, 32, 32], "codecs": [BYTES]}}
NESTED = {"name": "sharding_indexed", "configuration": {"chunk_shape": [32, 32, 32], "codecs": [SHARDS]}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"compressor": {"id": "lz4"}}, "compressor is lz4, which NOMADS cannot read"),
        ({"compressor": "blosc"}, "compressor is nothing that is understood"),
        ({"filters": [{"id": "delta"}]}, "filters"),
        ({"fill_value": "abc"}, "fill_value is no number"),
        ({"dimension_separator": "!"}, "neither . nor /"),
        ({"zarr_format": 3}, "zarr_format"),
    ],
)
def test_what_zarr_two_is_stored_with_and_is_not_read_is_named(changed: dict[str, Any], said: str) -> None:
    files = {".zattrs": image(axes="zyx"), "0/.zarray": zarray([100, 200, 300], **changed)}

    with pytest.raises(WrongVolume, match=said):
        described("zarr://s3://lab/v", files)


@pytest.mark.parametrize(
    ("codecs", "said"),
    [
        ([BYTES, {"name": "lz4"}], "codec is lz4"),
        ([BYTES, BLOSC, GZIP], "packed twice, with blosc and gzip"),
        ([NESTED], "shards in its shards"),
        ([{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "vlen"}]}}], "codec is vlen"),
        ([], "codecs"),
    ],
)
def test_what_zarr_three_is_stored_with_and_is_not_read_is_named(codecs: list[dict[str, Any]], said: str) -> None:
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": image(axes="zyx")}}

    with pytest.raises(WrongVolume, match=said):
        described("zarr://s3://lab/v", {"zarr.json": group, "0/zarr.json": zarr3(codecs)})


@pytest.mark.parametrize("compression", [{"type": "lz4"}, {"type": "gzip", "useZlib": True}, {"type": None}])
def test_a_compression_of_n5_that_is_not_read_is_named(compression: dict[str, Any]) -> None:
    with pytest.raises(WrongVolume, match=r"compression is .*which NOMADS cannot read"):
        described("n5://s3://lab/v", {"attributes.json": n5_array(compression=compression)})


def n5_array(**changed: Any) -> dict[str, Any]:
    pixel = {"unit": "nm", "dimensions": [8, 9, 50]}
    about = {"dimensions": [300, 200, 100], "blockSize": [64] * 3, "dataType": "uint8", "pixelResolution": pixel}
    return about | changed


def test_n5_with_a_size_and_no_unit_says_that() -> None:
    with pytest.raises(WrongVolume, match="a size and no unit"):
        described("n5://s3://lab/v", {"attributes.json": n5_array(pixelResolution=[8, 9, 50])})


def test_the_finest_level_has_the_smallest_voxels_in_every_format() -> None:
    deep, flat = [10.0, 10.0, 50.0], [80.0, 80.0, 40.0]  # x, y, z
    scales = [scale(key="flat", resolution=flat, size=[9, 9, 9]), scale(key="deep", resolution=deep)]
    levels = [
        {"path": path, "coordinateTransformations": [{"type": "scale", "scale": sizes[::-1]}]}
        for path, sizes in (("flat", flat), ("deep", deep))
    ]
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    zattrs = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": levels}]}

    precomputed = described("precomputed://s3://lab/v", {"info": info(scales=scales)})
    arrays = {"flat/.zarray": zarray([9, 9, 9]), "deep/.zarray": zarray([100, 200, 300])}
    zarr = described("zarr://s3://lab/v", {".zattrs": zattrs, **arrays})

    assert precomputed.voxel_nm == zarr.voxel_nm == (50, 10, 10)


def test_the_one_channel_of_an_image_has_its_label_unless_that_only_counts() -> None:
    def name(label: str) -> str:
        omero = {"channels": [{"label": label}]}
        files = {".zattrs": image(omero=omero), "0/.zarray": zarray([1, 100, 200, 300])}
        return described("zarr://s3://lab/v", files).channels[0].name

    assert [name(label) for label in ("PSD95", "channel_0", "Channel 1", "0", "")] == ["PSD95", "v", "v", "v", "v"]


def test_a_channels_name_begins_with_no_dash() -> None:
    omero = {"channels": [{"label": "α-Synapsin"}, {"label": "PSD95"}]}
    volume = described("zarr://s3://lab/v", {".zattrs": image(omero=omero), "0/.zarray": zarray([2, 100, 200, 300])})

    assert [channel.name for channel in volume.channels] == ["Synapsin", "PSD95"]


def test_channels_without_names_are_named_one_by_one() -> None:
    files = {".zattrs": image(), "0/.zarray": zarray([2, 100, 200, 300]), "1/.zarray": zarray([2, 100, 100, 150])}
    address = "channels://PSD95=zarr://s3://lab/v#c=1;Synapsin=zarr://s3://lab/v#c=0"

    volume = described(address, files)
    coarse = described(address.replace("#", "#1,"), files)

    assert [(c.name, c.source.fixed) for c in volume.channels] == [("PSD95", {"c": 1}), ("Synapsin", {"c": 0})]
    assert coarse.channels[0].source.location.path == "v/1"
    assert described("zarr://s3://lab/v#c=1", files).channels[0].name == "channel_1"
    with pytest.raises(WrongVolume, match="lie 2 channels; say which one it is, with #c=0 to #c=1"):
        described("channels://PSD95=zarr://s3://lab/v", files)
    with pytest.raises(WrongVolume, match="no channel c=2; it has 2"):
        described("zarr://s3://lab/v#c=2", files)


def test_a_channel_has_the_name_that_the_address_gives_it() -> None:
    omero = {"channels": [{"label": "a"}, {"label": "b"}]}
    files = {".zattrs": image(omero=omero), "0/.zarray": zarray([2, 100, 200, 300])}

    assert described("channels://PSD95=zarr://s3://lab/v#c=1", files).channels[0].name == "PSD95"


def test_a_volume_below_zero_is_refused_and_one_that_reaches_zero_is_not() -> None:
    below, across = scale(voxel_offset=[3, -640, 1]), scale(voxel_offset=[3, -40, 1])

    with pytest.raises(WrongVolume, match="lies at y -640 to -440"):
        described("precomputed://s3://lab/v", {"info": info(scales=[below])})
    assert described("precomputed://s3://lab/v", {"info": info(scales=[across])}).bounds[1] == (-40, 160)
