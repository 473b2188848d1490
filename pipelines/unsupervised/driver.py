"""nomads-unsupervised: reads two channels of a box, detects synapses, and writes the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipelines.common.program import Request, WrongRequest, main

if TYPE_CHECKING:
    from pipelines.common.boss import Volume
    from pipelines.common.boxes import Box
    from pipelines.common.run import Found, Run
    from pipelines.unsupervised.detector import Method

ROLES = ("postsynaptic", "presynaptic")
OPTIONS = {"--method": "how synapses are found: paired (the default), probabilistic or nomads2018"}


def program(request: Request) -> None:
    """Do one run. Raises pipelines.common.program.Failure and its subclasses."""
    # imported here, so that wrong arguments are refused at once
    from pipelines.common.run import Run

    method = chosen(request)

    def near(volume: Volume) -> dict[str, Box]:
        return dict.fromkeys(ROLES, searched(request, volume, method))

    with Run(request, entry=Path(__file__).with_name("pipeline.toml"), near=near) as run:
        run.fetch()
        run.finish(detected(run, method), facts={"Method": method})


def chosen(request: Request) -> Method:
    """The method that the request names, or the default. Raises WrongRequest for an unknown name."""
    from pipelines.unsupervised import detector

    asked = request.options.get("method", detector.DEFAULT)
    for method in detector.METHODS:
        if method == asked:
            return method
    raise WrongRequest(f"There is no method of that name; --method is one of {', '.join(detector.METHODS)}.")


def searched(request: Request, volume: Volume, method: Method) -> Box:
    """The box in which a method looks for the synapses of the request's box: what has to be read of ROLES.

    The other methods than the default measure whole sections, so that any margin would change what they find.
    """
    from pipelines.unsupervised import detector, search

    box = request.z, request.y, request.x
    return search.surroundings(box, volume.bounds, volume.voxel_nm) if method == detector.DEFAULT else box


def detected(run: Run, method: Method) -> Found:
    """The synapses in the box of a run's channels of ROLES, of which `searched` has to be read."""
    from pipelines.common.boxes import placed
    from pipelines.common.run import Found
    from pipelines.unsupervised import detector

    run.progress(0.65, "detecting")
    box = searched(run.request, run.volume, method)
    psd, synapsin = (run.channels[role].part(box) for role in ROLES)
    synapses = detector.scan(
        lambda *place: (psd.read(*place), synapsin.read(*place)),
        psd.shape,
        method=method,
        inside=placed(run.box, box),
        voxel_nm=run.volume.voxel_nm,
        told=lambda part: run.progress(0.65 + 0.05 * part, "detecting"),
    )
    return Found(labels=synapses.labels, centres=synapses.centres, voxels=synapses.voxels, scores=synapses.scores)


def run() -> NoReturn:
    """Run the program as a process; never returns."""
    main(program, options=OPTIONS)


if __name__ == "__main__":
    run()
