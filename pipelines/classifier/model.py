"""The model that tells GABAergic synapses from others: a forest over projections of cubes, stored in an .npz file.

The cubes of a synapse, one of each role's channel, are flattened (z, y, x), concatenated in the order of `roles`, and
projected on the components; the projections are the forest's features.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from pipelines.common.boxes import Triple
from pipelines.common.npz import npz
from pipelines.common.program import Failure, WrongRequest

Array = NDArray[Any]

NOT_CLASSIFIED = 0
"""Label of a synapse that was not classified, as in 2018."""
NON_GABA = 1
"""Label of a synapse that is not GABAergic, as in 2018."""
GABA = 2
"""Label of a GABAergic synapse, as in 2018."""
NAMES = ("not classified", "non-GABA", "GABA")
"""Names of the labels, by label."""
MEANING = ("no synapse", "non-GABA", "GABA", "not classified")
"""Meaning of the values in a volume of classes, by value; 1 and 2 as in 2018."""
ROLES_2018 = ("gaba", "gad", "gephyrin", "glun", "postsynaptic", "presynaptic", "tdtomato", "vglut")
"""The roles of the published components, in order."""
CUBE_2018: Triple = (15, 9, 9)
"""Extent of the published cubes in voxels, (z, y, x)."""
DEMONSTRATION = Path(__file__).parent / "demonstration.npz"
"""The model that is used without `--weights`; `python -m sandbox.demonstration` makes it."""
LARGEST = 64 * 2**20
"""Bytes of the largest file of weights, unpacked. The published ones take 0.4 MB."""
FORMAT = "nomads-classifier weights 1"
_ROWS = 2**14
_KINDS = {
    "format": "U",
    "name": "U",
    "about": "U",
    "demonstration": "b",
    "roles": "U",
    "cube": "iu",
    "components": "f",
    "roots": "iu",
    "left": "iu",
    "right": "iu",
    "feature": "iu",
    "threshold": "f",
    "frequencies": "f",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """A model. Node i of the forest is a leaf where `left[i]` is negative; children have larger numbers than parents.

    `left`, `right`, `feature` and `threshold` are (nodes,). Raises ValueError, in words, where the arrays do not make
    a model.
    """

    name: str
    """The model's name in a few words, for tables."""
    about: str
    """A sentence about the model, for results and reports."""
    demonstration: bool
    """Whether the model was trained on synthetic data, so that its answers mean nothing on real data."""
    roles: tuple[str, ...]
    cube: Triple
    """Extent of a cube in voxels, (z, y, x), all odd."""
    components: NDArray[np.float64]
    """(features, roles x voxels of the cube)."""
    roots: NDArray[np.int64]
    """(trees,): each tree's first node."""
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    """(nodes, 2): the fractions of non-GABA and of GABA among a node's training examples."""

    def __post_init__(self) -> None:
        nodes, features = self.threshold.size, len(self.components)
        _must(
            all(side > 0 and side % 2 for side in self.cube) and len(set(self.roles)) == len(self.roles) > 0,
            "the cube has odd sides and every role is named once",
        )
        _must(
            self.components.shape == (features, len(self.roles) * math.prod(self.cube)) and features > 0,
            "the components have one number for each voxel of each role's cube",
        )
        one_each = (self.left, self.right, self.feature, self.threshold)
        _must(nodes > 0 and all(a.shape == (nodes,) for a in one_each), "every node has all its numbers")
        _must(self.frequencies.shape == (nodes, 2), "every node has two frequencies")
        numbers = np.arange(nodes)
        for side in (self.left, self.right):  # so every path ends at a leaf
            _must(bool(np.all((side < 0) | ((side > numbers) & (side < nodes)))), "children stand behind their parents")
        inner = self.left >= 0
        _must(bool(np.all(inner == (self.right >= 0))), "a node has two children or none")
        _must(bool(np.all((self.feature[inner] >= 0) & (self.feature[inner] < features))), "a node asks for a feature")
        _must(
            self.roots.ndim == 1 and self.roots.size > 0 and bool(np.all((self.roots >= 0) & (self.roots < nodes))),
            "every tree begins at a node",
        )
        finite = all(bool(np.isfinite(a).all()) for a in (self.components, self.threshold[inner], self.frequencies))
        _must(finite and bool((self.frequencies >= 0).all()), "all numbers are finite and no frequency is negative")
        _must(bool(np.allclose(self.frequencies.sum(axis=1), 1)), "a node's frequencies sum to 1")

    def probabilities(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probabilities of non-GABA and GABA, (n, 2), for features (n, features): the mean over the trees.

        As in scikit-learn 0.19, a float32 feature goes left where it is not above the float64 threshold.
        """
        seen = np.ascontiguousarray(features, np.float32)
        out = np.zeros((len(seen), 2))
        leaf = self.left < 0
        stay = np.arange(len(leaf))
        left, right = np.where(leaf, stay, self.left), np.where(leaf, stay, self.right)
        asked = np.where(leaf, 0, self.feature)
        for first in range(0, len(seen), _ROWS):
            part = seen[first : first + _ROWS]
            row = np.arange(len(part))[:, None]
            node = np.repeat(self.roots[None, :], len(part), axis=0)
            while not leaf[node].all():
                node = np.where(part[row, asked[node]] <= self.threshold[node], left[node], right[node])
            for tree in range(len(self.roots)):  # one after another, as a sum of doubles depends on the order
                out[first : first + _ROWS] += self.frequencies[node[:, tree]]
        out /= len(self.roots)
        return out

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.uint8]:
        """NON_GABA or GABA for each row of (n, features), as (n,); NON_GABA where both are equally probable."""
        return label(self.probabilities(features))

    def to_bytes(self) -> bytes:
        """The model as an .npz file. The same model gives the same bytes."""
        arrays = {name: getattr(self, name) for name in _KINDS if name != "format"}
        return npz({"format": np.array(FORMAT), **{name: np.asarray(value) for name, value in arrays.items()}})


def label(probabilities: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The more probable of NON_GABA and GABA for each row of (n, 2), as (n,); NON_GABA where both are equal."""
    labels: NDArray[np.uint8] = (np.argmax(probabilities, axis=1) + NON_GABA).astype(np.uint8)
    return labels


def codes(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values in a volume of classes, (n + 1,): for the background, 0, and for objects 1 to n with these labels (n,)."""
    classified = np.where(labels == NOT_CLASSIFIED, MEANING.index("not classified"), labels)
    found: NDArray[np.uint8] = np.concatenate([[0], classified]).astype(np.uint8)
    return found


def parse(content: bytes) -> Weights:
    """The model in an .npz file's bytes, read without pickle. Raises ValueError, in words, where there is none."""
    arrays = dict(_members(content))
    if missing := [name for name in _KINDS if name not in arrays]:
        raise ValueError(f"it has no {', '.join(missing)}")
    for name, kinds in _KINDS.items():
        _must(arrays[name].dtype.kind in kinds, f"{name} is of its kind")
    for name in ("format", "name", "about", "demonstration"):
        _must(arrays[name].size == 1, f"{name} is one value")
    _must(arrays["format"].item() == FORMAT, f"its format is “{FORMAT}”")
    _must(arrays["roles"].ndim == 1 and arrays["cube"].shape == (3,), "the roles and the cube are listed")
    _must(arrays["components"].ndim == 2, "the components are rows")
    return Weights(
        name=arrays["name"].item(),
        about=arrays["about"].item(),
        demonstration=arrays["demonstration"].item(),
        roles=tuple(map(str, arrays["roles"])),
        cube=(int(arrays["cube"][0]), int(arrays["cube"][1]), int(arrays["cube"][2])),
        components=arrays["components"].astype(np.float64),
        threshold=arrays["threshold"].astype(np.float64),
        frequencies=arrays["frequencies"].astype(np.float64),
        **{name: arrays[name].astype(np.int64) for name in ("roots", "left", "right", "feature")},
    )


def load(where: str) -> Weights:
    """The model in a file, `path` or `file:///path`, or in S3, `s3://bucket/key`.

    Raises WrongRequest where there is no model, and Failure where S3 does not give it.
    """
    parts = urlsplit(where)
    if parts.scheme == "s3":
        content = _from_s3(parts.netloc, parts.path.lstrip("/"))
    else:
        content = read(Path(unquote(parts.path) if parts.scheme == "file" else where))
    try:
        return parse(content)
    except ValueError as error:
        raise WrongRequest(
            f"The weights cannot be used: {error}. Make them with: python -m pipelines.classifier convert."
        ) from None


def read(path: Path) -> bytes:
    """A file's bytes. Raises WrongRequest where the file cannot be read or is larger than LARGEST."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise WrongRequest(f"{path} cannot be read: {error.strerror}.") from None
    if len(content) > LARGEST:
        raise WrongRequest(f"{path} is larger than {LARGEST // 2**20} MiB, so it is not what it should be.")
    return content


def array(content: bytes) -> Array:
    """The array in an .npy file's bytes, read without pickle. Raises ValueError where there is none."""
    file = io.BytesIO(content)
    try:
        reader = np.lib.format.read_array_header_1_0
        if np.lib.format.read_magic(file) == (2, 0):
            reader = np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(file)
        # numpy would allocate whatever the header promises
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
            raise ValueError
        found: Array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OverflowError, EOFError, MemoryError, RecursionError):
        raise ValueError("it is not an array in numpy's format, without pickled objects") from None
    return found


def _members(content: bytes) -> Iterator[tuple[str, Array]]:
    """The arrays that a model needs in an .npz file, by name. Raises ValueError."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in _KINDS]
            if sum(info.file_size for info in entries) > LARGEST:
                raise ValueError(f"it unpacks to more than {LARGEST // 2**20} MiB")
            for info in entries:  # never more than file_size is unpacked
                yield info.filename.removesuffix(".npy"), array(archive.read(info))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError):
        raise ValueError("it is not an .npz file") from None


def _from_s3(bucket: str, key: str) -> bytes:
    import boto3  # a fifth of a second, which only S3 needs
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    if not bucket or not key:
        raise WrongRequest("--weights is neither a file nor s3://bucket/key.")
    config = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5})
    try:
        body = boto3.client("s3", config=config).get_object(Bucket=bucket, Key=key)["Body"]
        with body:
            content: bytes = body.read(LARGEST + 1)
    except (BotoCoreError, ClientError) as error:
        code = getattr(error, "response", {}).get("Error", {}).get("Code") or type(error).__name__
        kind = WrongRequest if code in ("NoSuchKey", "NoSuchBucket") else Failure
        raise kind(f"The weights cannot be read from s3://{bucket}: {code}.") from None
    if len(content) > LARGEST:
        raise WrongRequest(f"The weights are larger than {LARGEST // 2**20} MiB, so they are not what they should be.")
    return content


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"it does not hold that {what}")
