"""nomads-classifier: detects synapses in a box and classifies them as GABAergic or not by cubes of eight channels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipelines.common.program import Request, WrongRequest, main
from pipelines.unsupervised.driver import OPTIONS as METHOD
from pipelines.unsupervised.driver import ROLES, around, chosen, detected, registered, searched

if TYPE_CHECKING:
    from pipelines.common.boxes import Box
    from pipelines.common.volume import Volume

OPTIONS = METHOD | {"--weights": "a model: a file or s3://bucket/key; without it, the demonstration model"}


def program(request: Request) -> None:
    """Do one run. Raises pipelines.common.program.Failure and its subclasses."""
    # imported here, so that wrong arguments are refused at once
    import numpy as np

    from pipelines.classifier import cubes, model
    from pipelines.classifier.outputs import Outputs
    from pipelines.common.boxes import grown, placed, shape, union
    from pipelines.common.results import Slabs, npz
    from pipelines.common.run import Run
    from pipelines.common.sparse import slabs

    options = chosen(request)
    weights = model.load(request.options.get("weights") or str(model.DEMONSTRATION))
    entry = Path(__file__).with_name("pipeline.toml")

    # a voxel more: where two make a pixel, a centre may lie on the box's face, and its cube round the voxel before it
    z, y, x = (side // 2 + 1 for side in weights.cube)
    reach = z, y, x

    def cubed(volume: Volume) -> Box:
        """What the cubes round the synapses of the box reach."""
        return grown((request.z, request.y, request.x), reach, volume.bounds)

    def near(volume: Volume, roles: Collection[str]) -> dict[str, Box]:
        there = union(cubed(volume), around(request, volume, options, reach=reach))
        return dict.fromkeys(roles, there) | dict.fromkeys(ROLES, union(there, searched(request, volume, options)))

    def aside(volume: Volume) -> Box:
        return registered(request, volume, options, further=True, reach=reach)

    with Run(
        request,
        entry=entry,
        near=near,
        witnesses=options.witnesses,
        aside=aside,
        results=lambda uri: Outputs(uri, model=weights.name),
    ) as run:
        if strange := [role for role in weights.roles if role not in run.channels]:
            raise WrongRequest(f"The weights want a {strange[0][:60]} channel, which this pipeline does not know.")
        run.note(weights.about)
        if any(channel.dtype != np.uint8 for channel in run.channels.values()):
            run.note("Channels deeper than 8 bits were scaled to grey levels 0 to 255, which is what the model knows.")

        run.fetch()
        found = detected(run, options, further=[role for role in run.channels if role != "postsynaptic"], reach=reach)
        cubes_in = cubed(run.volume)
        parts = {role: run.channels[role].part(cubes_in, found.lies.get(role)) for role in weights.roles}
        labels, gaba = cubes.classify(
            weights,
            found.centres + placed(run.box, cubes_in)[0],
            parts,
            shape=shape(cubes_in),
            told=lambda part: run.progress(0.7 + 0.02 * part, "classifying"),
        )
        size = " × ".join(map(str, weights.cube))
        if any(n < side for n, side in zip(shape(run.volume.bounds), weights.cube, strict=True)):
            run.warn(f"No synapse was classified: that takes an experiment of at least {size} voxels (z, y, x).")
        elif left := int(np.count_nonzero(labels == model.NOT_CLASSIFIED)):
            border = "border, or that of a channel that was moved," if any(found.lies.values()) else "border"
            run.note(
                f"Not classified: {left:,}, too near the experiment's {border} for a cube of {size} voxels (z, y, x)."
            )
        codes = model.codes(labels)
        run.results.add(
            "classes.npz",
            npz(
                {
                    "classes": Slabs(found.labels.shape, codes.dtype, slabs(found.labels, lambda ids: codes[ids])),
                    "meaning": np.array(model.MEANING),
                    "gaba": gaba,
                    "model": np.array(weights.about),
                    "start": np.array(request.start),
                    "voxel_nm": np.array(run.volume.voxel_nm),
                }
            ),
            title="Classes",
            about=f"{', '.join(f'{code} {name}' for code, name in enumerate(model.MEANING))}; axes z, y, x.",
            media_type="application/x-npz",
        )
        run.finish(
            replace(found, kinds=model.NAMES[::-1], kind=model.GABA - labels.astype(np.int64)),
            facts={"Model": weights.name, "Classes": weights.about},
        )


def run() -> NoReturn:
    """Run the program as a process; never returns."""
    main(program, options=OPTIONS)


if __name__ == "__main__":
    run()
