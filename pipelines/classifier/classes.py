"""Classes of synapses by a model, and the results that have them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipelines.classifier import cubes, model
from pipelines.classifier.model import Weights
from pipelines.classifier.outputs import Outputs
from pipelines.common.boxes import shape
from pipelines.common.channels import Part
from pipelines.common.npz import Slabs, npz
from pipelines.common.program import WrongRequest
from pipelines.common.run import MOST, Found, Run
from pipelines.common.sparse import slabs
from pipelines.unsupervised.extension import Extension


class Classes(Extension):
    """The marks of a synapse are its label, as `model` numbers them, and the probability of GABA."""

    marks = 2

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        # a voxel more: where two make a pixel, a centre may lie on the box's face, and its cube round the voxel before
        z, y, x = (side // 2 + 1 for side in weights.cube)
        self.reach = z, y, x

    def check(self, roles: Collection[str]) -> None:
        """As `Extension.check`: each role of the model needs a channel."""
        if strange := [role for role in self._weights.roles if role not in roles]:
            raise WrongRequest(f"The weights want a {strange[0][:60]} channel, which this pipeline does not know.")

    def results(self, uri: str) -> Outputs:
        """Where the results are written; all of them name the model."""
        return Outputs(uri, model=self._weights.name)

    def begin(self, run: Run) -> None:
        """Say which model it is, and whether channels are scaled for it."""
        run.note(self._weights.about)
        if any(channel.dtype != np.uint8 for channel in run.channels.values()):
            run.note("Channels deeper than 8 bits were scaled to grey levels 0 to 255, which is what the model knows.")

    def mark(
        self,
        centres: NDArray[np.float64],
        parts: Mapping[str, Part],
        *,
        told: Callable[[float], None] = lambda part: None,
    ) -> NDArray[np.float64]:
        """As `Extension.mark`."""
        extent = parts[self._weights.roles[0]].shape
        return np.column_stack(cubes.classify(self._weights, centres, parts, shape=extent, told=told))

    def finish(self, run: Run, found: Found, marks: NDArray[np.float64]) -> None:
        """Write classes beside what is written of other synapses. Raises Failure."""
        weights, labels = self._weights, marks[:, 0].astype(np.uint8)
        size = " × ".join(map(str, weights.cube))
        if any(n < side for n, side in zip(shape(run.volume.bounds), weights.cube, strict=True)):
            run.warn(f"No synapse was classified: that takes an experiment of at least {size} voxels (z, y, x).")
        elif left := int(np.count_nonzero(labels == model.NOT_CLASSIFIED)):
            border = "border, or that of a channel that was moved," if any(found.lies.values()) else "border"
            run.note(
                f"Not classified: {left:,}, too near the experiment's {border} for a cube of {size} voxels (z, y, x)."
            )
        codes = model.codes(labels)
        classes = {"classes": Slabs(found.labels.shape, codes.dtype, slabs(found.labels, lambda ids: codes[ids]))}
        large = found.labels.size > MOST
        run.results.add(
            "classes.npz",
            npz(
                {
                    **({} if large else classes),
                    "meaning": np.array(model.MEANING),
                    "gaba": marks[:, 1],
                    "model": np.array(weights.about),
                    "start": np.array(run.request.start),
                    "voxel_nm": np.array(run.volume.voxel_nm),
                },
                runs=True,
            ),
            title="Classes",
            about="The probability of each synapse, in the order of synapses.csv, to be GABAergic."
            if large
            else f"{', '.join(f'{code} {name}' for code, name in enumerate(model.MEANING))}; axes z, y, x.",
            media_type="application/x-npz",
        )
        run.finish(
            replace(
                found,
                kinds=model.NAMES[::-1],
                kind=model.GABA - labels.astype(np.int64),
                facts={**found.facts, "Model": weights.name, "Classes": weights.about},
            )
        )
