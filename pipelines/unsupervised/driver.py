"""nomads-unsupervised: reads two channels of a box, detects synapses, and writes what it found."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from pipelines.common.program import Progress, Request, Stopwatch, main

NAME = "nomads-unsupervised"


def program(request: Request) -> None:
    """One run. Raises pipelines.common.program.Failure and its kinds."""
    watch, progress = Stopwatch(), Progress(out=sys.stdout)
    progress(0, "starting")

    # imported here, so that arguments that are wrong are refused at once
    import numpy as np

    from pipelines.common import preview, viewer
    from pipelines.common.boss import Boss, pick
    from pipelines.common.results import Results, npz, table
    from pipelines.unsupervised import detector

    results = Results(request.results_uri)
    entry = tomllib.loads((Path(__file__).parent / "pipeline.toml").read_text(encoding="utf-8"))
    boss = Boss(request)
    volume = boss.describe()
    boss.check_box(volume)
    names = pick(entry["roles"], volume.channels)
    roles = {role: boss.channel(name) for role, name in names.items()}
    watch.lap("describing")

    data = {}
    for done, (role, channel) in enumerate(roles.items()):

        def told(part: float, done: int = done) -> None:
            progress(0.05 + 0.65 * (done + part) / len(roles), "reading")

        data[role] = boss.read(channel, told=told)
    psd, synapsin = data["postsynaptic"], data["presynaptic"]
    watch.lap("reading")

    progress(0.7, "detecting")
    window = detector.window_for(volume.voxel_nm)
    seen = detector.evidence(psd, synapsin, window=window)
    mask = detector.select(seen, window=window)
    synapses = detector.measure(mask, seen)
    watch.lap("detecting")

    progress(0.85, "writing")
    start, voxel_nm = np.array(request.start), np.array(volume.voxel_nm)
    results.add(
        "predictions.npz",
        npz({"predictions": mask.astype(np.uint8) * 255, "start": start, "voxel_nm": voxel_nm}),
        title="Predictions: 255 where a synapse is, else 0; axes z, y, x",
        media_type="application/x-npz",
    )
    places = synapses.centres + start
    results.add(
        "synapses.csv",
        table(
            ("id", "z", "y", "x", "z_nm", "y_nm", "x_nm", "voxels", "volume_um3", "score"),
            (
                (number, *(f"{v:.2f}" for v in (*place, *(place * voxel_nm))), count, f"{cubic:.6f}", f"{score:.3f}")
                for number, (place, count, cubic, score) in enumerate(
                    zip(places, synapses.voxels, synapses.voxels * voxel_nm.prod() / 1e9, synapses.scores, strict=True),
                    start=1,
                )
            ),
        ),
        title="Synapses: centre in voxels and in nm, volume, score",
        media_type="text/csv",
    )
    results.add(
        "preview.png",
        preview.draw(
            psd,
            synapsin,
            centres=synapses.centres,
            radius=max(4.0, 300 / volume.voxel_nm[2]),
            voxel_nm=volume.voxel_nm,
        ),
        title="Preview: postsynaptic magenta, presynaptic green, a circle round each synapse",
        media_type="image/png",
    )
    watch.lap("writing")

    notes = [f"{names['postsynaptic']} was taken as postsynaptic and {names['presynaptic']} as presynaptic."]
    if not len(synapses):
        notes.append("No place was found where both markers stand out from their background.")
    if len(synapses) > preview.MAX_MARKS:
        notes.append(f"The preview marks {preview.MAX_MARKS} of the {len(synapses)} synapses.")
    results.finish(
        {
            "contract": "1",
            "pipeline": NAME,
            "request": request.public(),
            "counts": {"synapses": len(synapses), "voxels in synapses": int(synapses.voxels.sum())},
            "preview": "preview.png",
            "viewer": viewer.link(request, channels=list(names.values()), voxel_nm=volume.voxel_nm),
            "notes": notes,
            "versions": {
                "pipeline": entry["version"],
                **{package: version(package) for package in ("intern", "numpy", "connected-components-3d", "pillow")},
            },
            "timings": watch.seconds,
        }
    )
    print(f"{len(synapses)} synapses in {psd.size:,} voxels; results at {request.results_uri}", flush=True)


def run() -> NoReturn:
    """The program as a process: never returns."""
    main(program)


if __name__ == "__main__":
    run()
