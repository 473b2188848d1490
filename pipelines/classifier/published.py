"""Reads the classifier published in 2018, components.npy and model.pkl, without running anything in them.

model.pkl is a pickle of scikit-learn 0.19.1, which no current scikit-learn loads. Here each class of the forest is a
stub that stores its arguments, any other name is refused, and the arrays are made of their bytes and checked.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.classifier.model import CUBE_2018, ROLES_2018, Weights, array

Array = NDArray[Any]

NAME = "nomads-classifier 2018"
ABOUT = "The classes come from the forest published with nomads-classifier in 2018, trained on about 1000 synapses."
_NODE = np.dtype(
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
"""The type of a node of a scikit-learn 0.19 tree."""


class Refused(ValueError):
    """The file is not the published model. The text says what is wrong with it."""


class _Stub:
    """Stands for a class: stores its arguments and its state, and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Forest(_Stub):
    arguments = ()


class _DecisionTree(_Stub):
    arguments = ()


class _Tree(_Stub): ...


class _Array(_Stub):
    """Made by `numpy.core.multiarray._reconstruct`; its state is version, shape, dtype, Fortran order, bytes."""


class _ArrayType(_Stub): ...


class _Scalar(_Stub): ...


class _Type(_Stub): ...


_KNOWN = {
    ("sklearn.ensemble.forest", "RandomForestClassifier"): _Forest,
    ("sklearn.tree.tree", "DecisionTreeClassifier"): _DecisionTree,
    ("sklearn.tree._tree", "Tree"): _Tree,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _Type,
}


class _Reader(pickle._Unpickler):
    """The unpickler written in Python: the one in C allocates memory up to any memo index that a file names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise Refused(f"it names {module[:60]}.{name[:60]}, which a forest has no need of")
        return _KNOWN[module, name]


def convert(components: bytes, model: bytes) -> Weights:
    """The published classifier from its two files. Raises Refused where they are not the published ones.

    Nothing named in the files is imported or called.
    """
    try:
        rows = array(components)
    except ValueError as error:
        raise Refused(f"components: {error}") from None
    if rows.dtype != np.float64 or rows.ndim != 2 or rows.shape[1] != len(ROLES_2018) * math.prod(CUBE_2018):
        raise Refused(
            f"components: they are {rows.dtype} of shape {rows.shape}, not float64 in rows of "
            f"{len(ROLES_2018) * math.prod(CUBE_2018)}"
        )
    trees = [_nodes(tree) for tree in _trees(model)]
    nodes, values = (np.concatenate(parts) for parts in zip(*trees, strict=True))
    sizes = [len(tree) for tree, _ in trees]
    first = np.cumsum([0, *sizes[:-1]])
    shift = np.repeat(first, sizes)

    def child(side: str) -> NDArray[np.int64]:
        return np.where(nodes[side] < 0, -1, nodes[side] + shift)

    with np.errstate(invalid="ignore", divide="ignore"):  # Weights refuses NaN
        frequencies = values / values.sum(axis=1, keepdims=True)
    try:
        for (tree, _), start in zip(trees, first, strict=True):
            if max(tree["left_child"].max(), tree["right_child"].max()) >= len(tree):
                raise ValueError(f"a child of the tree at node {start} is not in the tree")
        return Weights(
            name=NAME,
            about=ABOUT,
            demonstration=False,
            roles=ROLES_2018,
            cube=CUBE_2018,
            components=np.ascontiguousarray(rows),
            roots=first.astype(np.int64),
            left=child("left_child"),
            right=child("right_child"),
            feature=nodes["feature"].astype(np.int64),
            threshold=nodes["threshold"].astype(np.float64),
            frequencies=frequencies,
        )
    except ValueError as error:
        raise Refused(f"model: {error}") from None


def _trees(model: bytes) -> list[_Tree]:
    """The forest's trees. Raises Refused unless the classes are two, non-GABA before GABA."""
    try:
        forest = _Reader(io.BytesIO(model)).load()
    except Refused as refusal:
        raise Refused(f"model: {refusal}; nothing was read") from None
    except Exception as error:  # a broken pickle may raise anything
        raise Refused(f"model: it is not a pickle of a forest ({type(error).__name__})") from None
    if not isinstance(forest, _Forest) or not isinstance(forest.state, dict):
        raise Refused("model: it is a pickle of something else than a forest")
    try:
        classes = _array(forest.state["classes_"])
        trees = [tree.state["tree_"] for tree in forest.state["estimators_"]]
    except (KeyError, TypeError, AttributeError):
        raise Refused("model: the forest has no trees or no classes") from None
    if classes.tolist() not in ([0, 1], [1, 2]):
        raise Refused("model: the forest does not part two classes")
    if not trees or not all(isinstance(tree, _Tree) and isinstance(tree.state, dict) for tree in trees):
        raise Refused("model: the forest has no trees")
    return trees


def _nodes(tree: _Tree) -> tuple[Array, NDArray[np.float64]]:
    """A tree's nodes, and the examples of each class that reached a node, (nodes, 2). Raises Refused."""
    try:
        nodes, values = _array(tree.state["nodes"]), _array(tree.state["values"])
    except KeyError:
        raise Refused("model: a tree has no nodes or no values") from None
    if nodes.dtype != _NODE or nodes.ndim != 1 or values.shape != (len(nodes), 1, 2) or values.dtype != np.float64:
        raise Refused("model: a tree's nodes are not those of scikit-learn 0.19")
    if not (values >= 0).all():
        raise Refused("model: a node was reached by less than no example")
    return nodes, values[:, 0, :]


def _array(stub: object) -> Array:
    """The array a stub stands for, made of its bytes. Raises Refused."""
    try:
        if not isinstance(stub, _Array):
            raise TypeError
        _, shape, type_, fortran, content = stub.state
        dtype = _dtype(type_)
        return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    except (TypeError, ValueError, LookupError, OverflowError, RecursionError):
        raise Refused("model: an array in it is damaged") from None


def _dtype(stub: object) -> np.dtype[Any]:
    if not isinstance(stub, _Type):
        raise TypeError
    code, order, names = stub.arguments[0], stub.state[1], stub.state[3]
    if code in ("i8", "f8") and order == "<":
        return np.dtype(f"<{code}")
    if code == f"V{_NODE.itemsize}" and names == _NODE.names:
        fields = stub.state[4]
        found = [(name, _dtype(fields[name][0]), fields[name][1]) for name in names]
        if found == [(name, *_NODE.fields[name][:2]) for name in names if _NODE.fields]:
            return _NODE
    raise ValueError
