"""Trains the demonstration model of nomads-classifier on synthetic volumes: `python -m sandbox.demonstration`.

The script writes `pipelines/classifier/demonstration.npz`, and `demonstration.json` with the model's accuracy on a
volume that was not used for training. Synapses are cut out at their true places, moved by up to a voxel, as a detector
would do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.classifier.cubes import project
from pipelines.classifier.model import CUBE_2018, DEMONSTRATION, GABA, NON_GABA, ROLES_2018, Weights
from pipelines.classifier.training import contrasts, train
from sandbox.volumes import Synthetic, cortex

CHANNELS = {
    "gaba": "GABA",
    "gad": "GAD65",
    "gephyrin": "Gephyrin",
    "glun": "GluN1",
    "postsynaptic": "PSD95",
    "presynaptic": "Synapsin",
    "tdtomato": "TdTomato",
    "vglut": "VGluT1",
}
SHAPE = (64, 512, 512)
TRAINED_ON = 1
"""Seed of the volume for training, not that of demo/cortex."""
HELD_OUT = 2
"""Seed of the volume for testing, not that of demo/cortex."""
NAME = "demonstration model"
ABOUT = "The classes come from a demonstration model, trained on synthetic data; on other volumes they mean nothing."


@dataclass
class _Whole:
    """A channel of a synthetic volume, read by sections."""

    volume: Synthetic
    name: str

    def read(self, start: int, stop: int, top: int, bottom: int) -> NDArray[Any]:
        """The rows `[top, bottom)` of the sections `[start, stop)`, (z, y, x)."""
        return self.volume.bricks(self.name).read((start, top, 0), (stop, bottom, self.volume.shape[2]))


def examples(seed: int, components: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Features (n, features) and labels (n,) of a synthetic volume's true synapses, except those near its border."""
    volume = cortex(seed=seed, shape=SHAPE)
    random = np.random.Generator(np.random.Philox(seed))
    places = np.rint(volume.truth).astype(np.int64) + random.integers(-1, 2, volume.truth.shape)
    half = np.array(CUBE_2018) // 2
    inside = np.all((places >= half) & (places + half < SHAPE), axis=1)
    channels = {role: _Whole(volume, name) for role, name in CHANNELS.items()}
    labels = np.where(volume.classes == "GABA", GABA, NON_GABA).astype(np.uint8)
    features = project(components, places[inside], channels, roles=ROLES_2018, cube=CUBE_2018, shape=SHAPE)
    return features, labels[inside]


def demonstration() -> tuple[Weights, dict[str, object]]:
    """The model, and its accuracy on the volume that was held out."""
    components = contrasts(ROLES_2018, CUBE_2018, core=(3, 5, 5))
    features, labels = examples(TRAINED_ON, components)
    model = train(
        features,
        labels,
        components=components,
        roles=ROLES_2018,
        cube=CUBE_2018,
        name=NAME,
        about=ABOUT,
        demonstration=True,
    )
    held_out, truth = examples(HELD_OUT, components)
    said = model.predict(held_out)
    return model, {
        "about": ABOUT,
        "made by": "python -m sandbox.demonstration",
        "trained on": {"seed": TRAINED_ON, "synapses": len(labels), "GABA": int((labels == GABA).sum())},
        "held out": {"seed": HELD_OUT, "synapses": len(truth), "GABA": int((truth == GABA).sum())},
        "held-out accuracy": round(float((said == truth).mean()), 4),
        "held-out precision of GABA": round(float((truth[said == GABA] == GABA).mean()), 4),
        "held-out recall of GABA": round(float((said[truth == GABA] == GABA).mean()), 4),
    }


def main(folder: Path = DEMONSTRATION.parent) -> None:
    """Train the model and write both files."""
    model, figures = demonstration()
    (folder / DEMONSTRATION.name).write_bytes(model.to_bytes())
    text = json.dumps(figures, indent=2) + "\n"
    (folder / DEMONSTRATION.with_suffix(".json").name).write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
