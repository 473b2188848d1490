"""nomads-unsupervised: reads two channels of a box, detects synapses, and writes what it found."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from pipelines.common.program import Request, main


def program(request: Request) -> None:
    """One run. Raises pipelines.common.program.Failure and its kinds."""
    # imported here, so that arguments that are wrong are refused at once
    from pipelines.common.run import Found, Run
    from pipelines.unsupervised import detector

    with Run(request, entry=Path(__file__).with_name("pipeline.toml")) as run:
        psd, synapsin = (run.channels[role].read() for role in ("postsynaptic", "presynaptic"))
        run.progress(0.65, "detecting")
        window = detector.window_for(run.volume.voxel_nm)
        seen = detector.evidence(psd, synapsin, window=window)
        synapses = detector.measure(detector.select(seen, window=window), seen)
        run.finish(
            Found(labels=synapses.labels, centres=synapses.centres, voxels=synapses.voxels, scores=synapses.scores),
            facts={"Window (z, y, x)": " × ".join(map(str, window)) + " voxels"},
        )


def run() -> NoReturn:
    """The program as a process: never returns."""
    main(program)


if __name__ == "__main__":
    run()
