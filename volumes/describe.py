"""What a volume by address is: bounds, voxel size, and channels with their data types and where they are stored."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from volumes import n5, ome_zarr, precomputed
from volumes.address import Address, Location
from volumes.described import MAX_CHANNELS, Dataset, Volume, joined
from volumes.errors import VolumeRefused, WrongVolume
from volumes.metadata import Documents

TOGETHER = 8
"""Datasets of a folder that are asked for at the same time."""
_NAMES = {"precomputed": "precomputed", "zarr": "OME-Zarr", "n5": "N5"}
_READERS: dict[str, Callable[[Documents, Location, str], Dataset | None]] = {
    "precomputed": precomputed.dataset,
    "zarr": ome_zarr.dataset,
    "n5": n5.dataset,
}


def describe(address: Address, documents: Documents) -> Volume:
    """The volume at the address: one dataset, or one for each channel. Raises VolumeError."""
    if address.parts:
        return joined({name: _alone(name, part, documents) for name, part in address.parts})
    found = _datasets(address, documents)
    if not found:
        if documents.refused:
            raise VolumeRefused(
                f"{address.location.host} refuses to show {address.location} (status 401 or 403): it is not public, or "
                "not there; check the address."
            )
        raise WrongVolume(
            f"There is no {_NAMES[address.format]} volume at {address.location}; check the address"
            + ("." if address.channels else ", or name its channels at the end: …/{PSD95,Synapsin}.")
        )
    return joined(found)


def _alone(name: str, address: Address, documents: Documents) -> Dataset:
    """The dataset of a channel that lies by itself."""
    found = list(_datasets(address, documents).values())
    if len(found) != 1:
        raise WrongVolume(f"At the address of the channel {name} lies no dataset.")
    if (count := len(found[0].sources)) != 1:
        raise WrongVolume(
            f"At the address of the channel {name} lie {count} channels; say which one it is, with "
            f"#c=0 to #c={count - 1} at the end of the address."
        )
    return replace(found[0], labels=())  # it has the name that the address gives it


def _taken(dataset: Dataset, channel: int | None) -> Dataset:
    """The dataset, or that one of its channels."""
    if channel is None:
        return dataset
    if channel >= len(dataset.sources):
        raise WrongVolume(f"This volume has no channel c={channel}; it has {len(dataset.sources)}, counted from 0.")
    labels = dataset.labels[channel : channel + 1]
    return replace(dataset, labels=labels, sources=(dataset.sources[channel],))


def _datasets(address: Address, documents: Documents) -> dict[str, Dataset]:
    reader, place = _READERS[address.format], address.location
    if address.channels:
        names = list(address.channels)
    else:
        whole = reader(documents, place, address.level)
        if whole is not None:
            return {place.name.partition(".")[0]: _taken(whole, address.channel)}
        names = [name for name in documents.names(place) or [] if not name.startswith(".")]
        if len(names) > MAX_CHANNELS:
            raise WrongVolume(f"This folder has {len(names)} folders: it is no volume, or its channels must be named.")

    def one(name: str) -> Dataset | None:
        return reader(documents, place.child(name), address.level)

    with ThreadPoolExecutor(TOGETHER) as threads:
        found = dict(zip(names, threads.map(one, names), strict=True))
    if missing := [name for name in address.channels if found[name] is None]:
        raise WrongVolume(f"The volume has no {_NAMES[address.format]} dataset {missing[0]}.")
    return {name: _taken(dataset, address.channel) for name, dataset in found.items() if dataset is not None}
