"""nomads-classifier: detects synapses in a box and classifies them as GABAergic or not by cubes of eight channels."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipelines.common.program import Request, main
from pipelines.unsupervised.driver import OPTIONS as METHOD
from pipelines.unsupervised.driver import ROLES, around, chosen, detected, registered, searched

if TYPE_CHECKING:
    from pipelines.common.boxes import Box
    from pipelines.common.volume import Volume

OPTIONS = METHOD | {"--weights": "a model: a file or s3://bucket/key; without it, the demonstration model"}


def program(request: Request) -> None:
    """Do one run. Raises pipelines.common.program.Failure and its subclasses."""
    # imported here, so that wrong arguments are refused at once
    from pipelines.classifier import model
    from pipelines.classifier.classes import Classes
    from pipelines.common.boxes import grown, placed, union
    from pipelines.common.run import Run

    options = chosen(request)
    classes = Classes(model.load(request.options.get("weights") or str(model.DEMONSTRATION)))
    entry = Path(__file__).with_name("pipeline.toml")
    if request.stage:
        from pipelines.unsupervised import whole

        whole.program(request, request.stage, entry=entry, extension=classes)
        return

    def cubed(volume: Volume) -> Box:
        """What the cubes round the synapses of the box reach."""
        return grown((request.z, request.y, request.x), classes.reach, volume.bounds)

    def near(volume: Volume, roles: Collection[str]) -> dict[str, Box]:
        there = union(cubed(volume), around(request, volume, options, reach=classes.reach))
        return dict.fromkeys(roles, there) | dict.fromkeys(ROLES, union(there, searched(request, volume, options)))

    def aside(volume: Volume) -> Box:
        return registered(request, volume, options, further=True, reach=classes.reach)

    with Run(request, entry=entry, near=near, witnesses=options.witnesses, aside=aside, results=classes.results) as run:
        classes.check(run.channels)
        classes.begin(run)
        run.fetch()
        further = [role for role in run.channels if role != "postsynaptic"]
        found = detected(run, options, further=further, reach=classes.reach)
        cubes_in = cubed(run.volume)
        marks = classes.mark(
            found.centres + placed(run.box, cubes_in)[0],
            {role: channel.part(cubes_in, found.lies.get(role)) for role, channel in run.channels.items()},
            told=lambda part: run.progress(0.7 + 0.02 * part, "classifying"),
        )
        classes.finish(run, found, marks)


def run() -> NoReturn:
    """Run the program as a process; never returns."""
    main(program, options=OPTIONS)


if __name__ == "__main__":
    run()
