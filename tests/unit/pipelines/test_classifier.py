"""The classifier: the published files are read without running them, and give the published forest's answers."""

from __future__ import annotations

import io
import os
import pickle
import runpy
import sys
import tracemalloc
import types
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws
from numpy.typing import NDArray

from pipelines.classifier import model, published
from pipelines.classifier.cubes import BYTES, classify, project
from pipelines.classifier.model import CUBE_2018, GABA, NON_GABA, NOT_CLASSIFIED, ROLES_2018, Weights
from pipelines.classifier.training import contrasts, train
from pipelines.common.program import WrongRequest

Array = NDArray[Any]
NODE = np.dtype(
    [
        ("left_child", "<i8"),
        ("right_child", "<i8"),
        ("feature", "<i8"),
        ("threshold", "<f8"),
        ("impurity", "<f8"),
        ("n_node_samples", "<i8"),
        ("weighted_n_node_samples", "<f8"),
    ]
)
FEATURES = 5


# Files as the published ones are


class _Sklearn:
    """Pickles as scikit-learn's estimators do: a class by name, and a state."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


class _Tree:
    """Pickles as scikit-learn's trees do: the class called with three arguments, and a state."""

    def __init__(self, *arguments: Any) -> None: ...

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (FEATURES, np.array([2]), 1), self.__dict__


@pytest.fixture
def sklearn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The three classes the published pickle names, where it names them."""
    names = {
        ("sklearn.ensemble.forest", "RandomForestClassifier"): _Sklearn,
        ("sklearn.tree.tree", "DecisionTreeClassifier"): _Sklearn,
        ("sklearn.tree._tree", "Tree"): _Tree,
    }
    made = {}
    for (module, name), base in names.items():
        made[name] = type(name, (base,), {"__module__": module, "__qualname__": name})
        there = types.ModuleType(module)
        setattr(there, name, made[name])
        monkeypatch.setitem(sys.modules, module, there)
    for parent in ("sklearn", "sklearn.ensemble", "sklearn.tree"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    return made


@dataclass
class Grown:
    """A tree as scikit-learn keeps it: nodes (n,) and the examples of each class that reached each, (n, 1, 2)."""

    nodes: Array
    values: Array


def tree(random: np.random.Generator, *, leaves: int = 12) -> Grown:
    """A random tree, its nodes in the order of depth first, left before right."""
    rows: list[list[float]] = []

    def grow(count: int) -> int:
        number = len(rows)
        rows.append([-1, -1, -2, -2.0, 0.0, count, float(count)])
        if count > 1:
            left = int(random.integers(1, count))
            rows[number][2:4] = [int(random.integers(FEATURES)), float(random.normal(0, 100))]
            rows[number][0] = grow(left)
            rows[number][1] = grow(count - left)
        return number

    grow(leaves)
    values = random.integers(0, 50, (len(rows), 1, 2)).astype(np.float64)
    values[:, 0, 0] += 1  # nobody reaches an empty node
    return Grown(np.array([tuple(row) for row in rows], NODE), values)


def forest_pickle(sklearn: Mapping[str, Any], trees: list[Grown], **changed: Any) -> bytes:
    """What the 2018 training script left behind: protocol 3, with the names numpy had then."""
    estimators = [
        sklearn["DecisionTreeClassifier"](
            criterion="gini",
            n_features_=FEATURES,
            classes_=np.array([0.0, 1.0]),
            n_classes_=np.int64(2),
            tree_=_made(sklearn["Tree"], max_depth=9, node_count=len(t.nodes), nodes=t.nodes, values=t.values),
            _sklearn_version="0.19.1",
        )
        for t in trees
    ]
    state = {"n_estimators": len(trees), "classes_": np.array([0, 1]), "estimators_": estimators} | changed
    dumped = pickle.dumps(sklearn["RandomForestClassifier"](**state), protocol=3)
    return dumped.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def _made(kind: Any, **state: Any) -> Any:
    made = kind()
    made.__dict__.update(state)
    return made


def npy(array: Array) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def components_file() -> bytes:
    """Five orthonormal rows, in the order of columns as the published file has them."""
    rows = np.linalg.qr(np.random.default_rng(3).normal(size=(9720, FEATURES)))[0].T
    return npy(rows)


def by_definition(trees: list[Grown], features: Array) -> Array:
    """The forest's probabilities, one synapse and one tree after the other."""
    out = np.zeros((len(features), 2))
    for row, seen in enumerate(features.astype(np.float32)):
        for t in trees:
            node = 0
            while t.nodes[node]["left_child"] != -1:
                goes_left = seen[t.nodes[node]["feature"]] <= t.nodes[node]["threshold"]
                node = t.nodes[node]["left_child" if goes_left else "right_child"]
            out[row] += t.values[node, 0] / t.values[node, 0].sum()
    return out / len(trees)


# Converting


def test_converted_weights_answer_as_the_published_forest_does(
    sklearn: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(2018)
    trees = [tree(random, leaves=n) for n in (1, 2, 40, 40)]
    for name, content in (("components.npy", components_file()), ("model.pkl", forest_pickle(sklearn, trees))):
        (tmp_path / name).write_bytes(content)
    files = [str(tmp_path / name) for name in ("components.npy", "model.pkl", "weights.npz")]

    for module in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, module)  # whoever converts has no scikit-learn
    monkeypatch.delitem(sys.modules, "pipelines.classifier.__main__", raising=False)
    monkeypatch.setattr(sys, "argv", ["pipelines.classifier", "convert", *files])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("pipelines.classifier", run_name="__main__")

    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (0, "")
    assert said.out.endswith("4 trees with 162 nodes over 5 features\n")
    weights = model.load(files[2])
    thresholds = np.concatenate([t.nodes["threshold"] for t in trees])
    features = random.choice(thresholds, (500, FEATURES))  # exactly at a threshold is where rounding shows
    features += random.choice([0, 0, 1e-9, -1e-9, 5, -5], features.shape)
    expected = by_definition(trees, features)
    assert np.array_equal(expected, weights.probabilities(features))
    assert np.array_equal(np.argmax(expected, axis=1) + 1, weights.predict(features))
    assert len(set(weights.predict(features))) == 2
    assert (weights.roles, weights.cube, weights.demonstration) == (ROLES_2018, CUBE_2018, False)
    with np.load(files[2], allow_pickle=False) as plain:
        assert plain["components"].shape == (5, 9720)


class _Evil:
    """Makes a folder when a trusting unpickler reads it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_that_names_anything_else_is_refused_and_nothing_runs(
    sklearn: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.classifier.__main__ import convert

    (tmp_path / "components.npy").write_bytes(components_file())
    evil = forest_pickle(sklearn, [tree(np.random.default_rng(0))], base_estimator_=_Evil(tmp_path / "mark"))
    (tmp_path / "model.pkl").write_bytes(evil)
    files = [str(tmp_path / name) for name in ("components.npy", "model.pkl", "weights.npz")]

    code = convert(files, out=sys.stdout, err=sys.stderr)

    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err == (
        f"This is not the published classifier: model: it names {os.name}.mkdir, which a forest has no need of; "
        "nothing was read.\n"
    )
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "weights.npz").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct.__class__\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02\x82\x01.",  # an extension code
        b"Pid\n.",  # a persistent id
        b"\x80\x03r\xff\xff\xff\x7f.",  # a memo of two thousand million places
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # more bytes than there are
        b"cnumpy\nndarray\nb.",  # a class in place of an object
        b"csklearn.tree._tree\nTree\n)R.",  # a tree, no forest
        b"csklearn.ensemble.forest\nRandomForestClassifier\n)R.",
        b"csklearn.ensemble.forest\nRandomForestClassifier\n)\x81}b.",
        pickle.dumps([1, 2, 3]),
    ],
)
def test_what_is_no_forest_is_refused_in_words(content: bytes) -> None:
    with pytest.raises(published.Refused, match=r"^model: (it|the forest) "):
        published.convert(components_file(), content)


def test_a_forest_with_damaged_trees_is_refused(sklearn: dict[str, Any]) -> None:
    def damaged(field: str, value: float, at: int = 0) -> Grown:
        grown = tree(np.random.default_rng(1))
        grown.nodes[field][at] = value
        return grown

    good = tree(np.random.default_rng(1))
    one_inner = int(np.flatnonzero(good.nodes["left_child"] > 0)[1])
    for bad in (
        damaged("left_child", 0),  # a way without end
        damaged("left_child", 1000),
        damaged("right_child", -1),
        damaged("right_child", 23),  # a node of the next tree
        damaged("feature", FEATURES),
        damaged("feature", -2),
        damaged("threshold", np.nan),
        damaged("left_child", one_inner, one_inner),
        Grown(good.nodes, good.values * 0),
        Grown(good.nodes, -good.values),
        Grown(good.nodes, good.values[:-1]),
        Grown(good.nodes, good.values.astype(np.float32)),
        Grown(good.nodes["feature"], good.values),
        Grown(good.nodes[:0], good.values[:0]),
    ):
        with pytest.raises(published.Refused, match=r"^model: "):
            published.convert(components_file(), forest_pickle(sklearn, [bad, good]))
    others: list[dict[str, Any]] = [
        {"classes_": np.array([0, 1, 2])},
        {"estimators_": []},
        {"estimators_": [1]},
        {"classes_": "ab"},
    ]
    for changed in others:
        with pytest.raises(published.Refused, match=r"^model: "):
            published.convert(components_file(), forest_pickle(sklearn, [good], **changed))
    assert published.convert(components_file(), forest_pickle(sklearn, [good, good])).roots.tolist() == [0, 23]


def promising(shape: tuple[int, ...]) -> bytes:
    """The header of an array of that shape, and next to nothing after it."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return out.getvalue() + b"few bytes"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy(np.zeros((5, 9720)))[:-1],
        npy(np.zeros((5, 9719))),
        npy(np.zeros((5, 9720), np.float32)),
        npy(np.zeros(9720)),
        promising((2**40, 9720)),
        promising((2**62, 2**62)),
        promising((-1, 9720)),
    ],
)
def test_components_that_are_none_are_refused_before_room_is_made_for_them(content: bytes) -> None:
    with pytest.raises(published.Refused, match=r"^components: "):
        published.convert(content, b"")


def test_components_with_pickled_objects_are_refused(tmp_path: Path) -> None:
    holding = np.empty(1, object)
    holding[0] = _Evil(tmp_path / "mark")
    content = io.BytesIO()
    np.save(content, holding, allow_pickle=True)

    with pytest.raises(published.Refused, match="without pickled objects"):
        published.convert(content.getvalue(), b"")

    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("files", "code", "says"),
    [
        (["a", "b"], 2, "Three files are needed"),
        (["missing.npy", "model.pkl", "w.npz"], 2, "missing.npy cannot be read: No such file or directory."),
        (["large.npy", "model.pkl", "w.npz"], 2, "is larger than 64 MiB"),
    ],
)
def test_convert_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: list[str], code: int, says: str
) -> None:
    from pipelines.classifier.__main__ import convert

    with (tmp_path / "large.npy").open("wb") as large:
        large.truncate(model.LARGEST + 1)

    assert convert([str(tmp_path / name) for name in files], out=sys.stdout, err=sys.stderr) == code
    assert says in capsys.readouterr().err


# Weights


@pytest.fixture(scope="module")
def demonstration() -> Weights:
    """The model that is shipped."""
    return model.load(str(model.DEMONSTRATION))


def test_weights_come_back_as_they_were_written_and_the_same_give_the_same_bytes(demonstration: Weights) -> None:
    content = demonstration.to_bytes()

    again = model.parse(content)

    assert content == again.to_bytes() == model.DEMONSTRATION.read_bytes()
    assert again.demonstration is True
    assert "demonstration model" in again.name
    assert "demonstration model" in again.about


def test_weights_are_read_from_s3(demonstration: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("ACCESS_KEY_ID", "testing"),
        ("SECRET_ACCESS_KEY", "testing"),
        ("DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="lab")
        client.put_object(Bucket="lab", Key="models/weights.npz", Body=demonstration.to_bytes())

        assert model.load("s3://lab/models/weights.npz").to_bytes() == demonstration.to_bytes()

        for where in ("s3://lab/models/none.npz", "s3://nobody/weights.npz", "s3://lab", "s3:///weights.npz"):
            with pytest.raises(WrongRequest, match=r"NoSuch|neither a file nor s3"):
                model.load(where)


def members(weights: Weights) -> dict[str, Array]:
    with np.load(io.BytesIO(weights.to_bytes()), allow_pickle=False) as arrays:
        return dict(arrays)


def packed(arrays: Mapping[str, Array]) -> bytes:
    out = io.BytesIO()
    np.savez(out, allow_pickle=True, **arrays)
    return out.getvalue()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"format": np.array("another")}, "its format is"),
        ({"format": np.array(["a", "b"])}, "format is one value"),
        ({"components": None}, "it has no components"),
        ({"components": np.zeros((8, 10))}, "one number for each voxel"),
        ({"components": np.zeros(9720)}, "rows"),
        ({"components": np.full((8, 9720), np.nan)}, "finite"),
        ({"roles": np.array(["gaba"] * 8)}, "named once"),
        ({"cube": np.array([14, 9, 9])}, "odd"),
        ({"cube": np.array([15, 9])}, "listed"),
        ({"left": np.zeros(3, np.int64)}, "all its numbers"),
        ({"threshold": np.zeros((), np.float64)}, "all its numbers"),
        ({"left": np.array([object()])}, "without pickled objects"),
        ({"threshold": np.array(["text"])}, "of its kind"),
        ({"roots": np.array([10**6])}, "begins at a node"),
        ({"roots": np.zeros(0, np.int64)}, "begins at a node"),
    ],
)  # fmt: skip
def test_arrays_that_make_no_model_are_refused_in_words(
    demonstration: Weights, tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    arrays = {name: array for name, array in (members(demonstration) | changed).items() if array is not None}
    (tmp_path / "weights.npz").write_bytes(packed(arrays))

    with pytest.raises(WrongRequest, match=f"^The weights cannot be used: .*{says}.*convert"):
        model.load(str(tmp_path / "weights.npz"))


def test_files_that_hold_no_model_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    for content in (b"", b"text", npy(np.zeros(3)), packed({})[:-5]):
        path.write_bytes(content)
        with pytest.raises(WrongRequest, match=r"it is not an \.npz file"):
            model.load(path.as_uri())
    torn = bytearray(model.DEMONSTRATION.read_bytes())
    torn[60:2000] = bytes(1940)
    path.write_bytes(torn)
    with pytest.raises(WrongRequest, match=r"cannot be used"):
        model.load(str(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("components.npy", bytes(model.LARGEST + 1))
    with pytest.raises(WrongRequest, match="unpacks to more than 64 MiB"):
        model.load(str(path))
    path.unlink()
    with pytest.raises(WrongRequest, match=r"weights\.npz cannot be read: No such file"):
        model.load(str(path))


# Cubes


def held(shape: tuple[int, ...], places: Array, reach: tuple[int, int, int]) -> Array:
    """Whether a channel of that shape holds the voxels within reach of each place."""
    return np.asarray(np.all((places >= reach) & (places + reach < shape), axis=1))


class Whole:
    """A channel in memory, that remembers how many sections were asked for at once."""

    def __init__(self, data: Array) -> None:
        self.data = data
        self.most = 0

    def read(self, start: int, stop: int, top: int, bottom: int) -> Array:
        assert 0 <= start < stop <= len(self.data)
        assert 0 <= top < bottom <= self.data.shape[1]
        self.most = max(self.most, stop - start)
        return self.data[start:stop, top:bottom]

    def holds(self, places: Array, reach: tuple[int, int, int]) -> Array:
        return held(self.data.shape, places, reach)


SMALL_ROLES = ("presynaptic", "gaba")


def small(components: Array | None = None) -> Weights:
    """A model over cubes of 3 x 3 x 5 that says GABA where the first feature is above 0.5."""
    voxels = len(SMALL_ROLES) * 45
    return Weights(
        name="test",
        about="A test.",
        demonstration=False,
        roles=SMALL_ROLES,
        cube=(3, 3, 5),
        components=np.eye(voxels)[[44]] if components is None else components,
        roots=np.array([0]),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        feature=np.array([0, -1, -1]),
        threshold=np.array([0.5, 0, 0]),
        frequencies=np.array([[0.5, 0.5], [1, 0], [0.25, 0.75]]),
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), slab=st.integers(1, 30), dtype=st.sampled_from(["uint8", "uint16", "uint64"]))
def test_features_are_the_cubes_of_every_channel_in_the_models_order_projected(
    seed: int, slab: int, dtype: str
) -> None:
    random = np.random.default_rng(seed)
    shape = (int(random.integers(3, 25)), 9, 12)
    largest = int(np.iinfo(dtype).max)
    volumes = {role: random.integers(0, largest, shape, dtype, endpoint=True) for role in reversed(SMALL_ROLES)}
    for volume in volumes.values():
        volume.flags.writeable = False
    components = random.normal(size=(4, 90))
    places = np.stack([random.integers(half, n - half, 50) for half, n in zip((1, 1, 2), shape, strict=True)], axis=1)

    def features(slab: int, held: int = BYTES) -> Array:
        channels = {role: Whole(volume) for role, volume in volumes.items()}
        return project(
            components, places, channels, roles=SMALL_ROLES, cube=(3, 3, 5), shape=shape, slab=slab, held=held
        )

    scaled = [volumes[role] if dtype == "uint8" else volumes[role] / largest * 255 for role in SMALL_ROLES]
    cubes = np.array(
        [[v[z - 1 : z + 2, y - 1 : y + 2, x - 2 : x + 3].astype(np.uint8) for v in scaled] for z, y, x in places]
    )
    assert np.allclose(cubes.reshape(50, -1) @ components.T, features(slab))
    assert np.array_equal(features(slab), features(16)), "where slabs end makes no difference, to the bit"
    assert np.array_equal(features(slab), features(slab, held=1)), "nor does where bands of rows end"


def test_synapses_too_near_the_border_are_not_classified() -> None:
    shape = (5, 6, 9)
    channels = {role: Whole(np.ones(shape, np.uint8)) for role in SMALL_ROLES}
    # cut to whole voxels: 1.99 lies in voxel 1
    inside = [(1, 1, 2), (3, 4, 6), (3.99, 4.99, 6.99), (1.01, 1, 2)]
    outside = [(0.99, 1, 2), (1, 0.99, 2), (1, 1, 1.99), (4, 4, 6), (3, 5, 6), (3, 4, 7)]

    labels, gaba = classify(small(), np.array(inside + outside), channels, shape=shape)

    assert labels.tolist() == [GABA] * 4 + [NOT_CLASSIFIED] * 6
    assert gaba[:4].tolist() == [0.75] * 4
    assert np.isnan(gaba[4:]).all()


def test_a_synapse_is_told_by_its_own_cube() -> None:
    volume = np.zeros((4, 8, 8), np.uint8)
    volume[2, 4, 6] = 1  # the last voxel of the first channel's cube round 1, 3, 4
    channels = {"presynaptic": Whole(volume), "gaba": Whole(np.ones_like(volume))}

    labels, gaba = classify(small(), np.array([(1, 3, 4), (1, 3, 3), (2, 4, 5)]), channels, shape=volume.shape)

    assert labels.tolist() == [GABA, NON_GABA, NON_GABA]
    assert gaba.tolist() == [0.75, 0, 0]


@pytest.mark.parametrize("shape", [(5, 6, 9), (1, 1, 1)])
def test_no_synapses_give_no_labels(shape: tuple[int, int, int]) -> None:
    channels = {role: Whole(np.zeros(shape, np.uint8)) for role in SMALL_ROLES}
    labels, gaba = classify(small(), np.zeros((0, 3)), channels, shape=shape)
    assert (labels.shape, gaba.shape) == ((0,), (0,))
    labels, _ = classify(small(), np.zeros((1, 3)), channels, shape=shape)
    assert labels.tolist() == [NOT_CLASSIFIED]


def test_a_channel_is_read_a_slab_at_a_time_and_progress_is_told() -> None:
    shape = (100, 8, 8)
    channels = {role: Whole(np.zeros(shape, np.uint16)) for role in SMALL_ROLES}
    places = np.random.default_rng(0).integers((1, 1, 2), (99, 7, 6), (3000, 3)).astype(float)
    heard: list[float] = []

    classify(small(), places, channels, shape=shape, told=heard.append)

    assert max(channel.most for channel in channels.values()) <= 18
    assert heard == sorted(heard)
    assert heard[0] == 0
    assert 0.9 < heard[-1] < 1


@dataclass
class Endless:
    """A channel whose sections are made when they are asked for."""

    shape: tuple[int, int, int]

    def read(self, start: int, stop: int, top: int, bottom: int) -> Array:
        return np.full((stop - start, bottom - top, self.shape[2]), 7, np.uint16)

    def holds(self, places: Array, reach: tuple[int, int, int]) -> Array:
        return held(self.shape, places, reach)


def test_memory_does_not_grow_with_the_box_s_depth() -> None:
    def peak(depth: int) -> int:
        shape = (depth, 256, 256)
        places = np.random.default_rng(0).integers((7, 4, 4), (depth - 7, 252, 252), (2000, 3)).astype(float)
        channels = {role: Endless(shape) for role in ROLES_2018}
        weights = model.load(str(model.DEMONSTRATION))
        tracemalloc.start()
        try:
            classify(weights, places, channels, shape=shape)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(320) < 1.2 * peak(64) < 40 * 2**20


def test_a_missing_channel_never_shifts_the_others() -> None:
    with pytest.raises(KeyError, match="presynaptic"):
        classify(small(), np.ones((1, 3)) * 2, {"gaba": Whole(np.ones((5, 6, 9), np.uint8))}, shape=(5, 6, 9))


# Training


def test_a_forest_learns_what_parts_the_classes_and_is_the_same_every_time() -> None:
    random = np.random.default_rng(4)
    features = random.normal(size=(600, 8))
    truth = np.where(features[:, 2] + features[:, 5] > 0.3, GABA, NON_GABA).astype(np.uint8)
    learned = [
        train(
            features[:400], truth[:400], components=contrasts(ROLES_2018, CUBE_2018, core=(3, 5, 5)),
            roles=ROLES_2018, cube=CUBE_2018, name="test", about="A test.", demonstration=False,
        )
        for _ in range(2)
    ]  # fmt: skip

    assert (learned[0].predict(features[400:]) == truth[400:]).mean() > 0.85
    assert learned[0].to_bytes() == learned[1].to_bytes()
    with pytest.raises(ValueError, match="both classes"):
        train(
            features, np.full(600, GABA, np.uint8), components=learned[0].components,
            roles=ROLES_2018, cube=CUBE_2018, name="test", about="A test.", demonstration=False,
        )  # fmt: skip


def test_contrasts_see_what_is_brighter_than_its_surroundings_in_each_channel() -> None:
    rows = contrasts(("a", "b"), (5, 5, 5), core=(1, 3, 3))
    cubes = np.full((2, 5, 5, 5), 7.0)
    assert np.allclose(rows @ cubes.ravel(), 0)
    cubes[1, 2, 1:4, 1:4] += 10
    assert np.allclose(rows @ cubes.ravel(), (0, 10))


def test_a_model_is_checked_whoever_makes_it() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        replace(small(), frequencies=np.ones((3, 2)))
