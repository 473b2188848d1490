"""Results of a real run, behind links that a browser opens."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.application.ports import Results
from bot.application.visits import Visits
from bot.domain.health import Health
from bot.domain.links import Audience
from bot.domain.states import JobState
from bot.domain.summary import Summary
from bot.files.results import FolderResults
from bot.storage.engine import Database, connect
from bot.web.site import web
from pipelines.common.program import run
from pipelines.unsupervised.driver import program
from sandbox.boss import DEMO_TOKEN, BossStandIn
from tests.support.app import Door
from tests.support.databases import new_sqlite
from tests.support.world import World

BOX = {"z": "0,8", "y": "0,256", "x": "0,256"}


@dataclass(frozen=True)
class Shown:
    """A job's results on the web."""

    home: Path
    """The folder of the results."""
    page: str
    """The address of the results page."""
    view: str
    """The address of View in 3D."""


@contextmanager
def shown(
    folder: Path,
    *,
    box: Mapping[str, str] = BOX,
    made: bool = True,
    extra: Mapping[str, Any] | None = None,
    kept: Callable[[Path, str], Results] | None = None,
) -> Iterator[Shown]:
    """The results of a box of demo/cortex on the web; `extra` replaces fields of their summary.

    Not `made`: the folder is empty and a test fills it; it has no summary but `extra`. `kept` takes the folder of the
    results, and the job's folder, elsewhere, and gives what reads them there.
    """
    store = Database(connect(new_sqlite(folder / "nomads.db")))
    world = World(store)
    world.clock.run()
    job = world.accept(x=box["x"], y=box["y"], z=box["z"])
    home = folder / "results" / job.folder
    summary = Summary()
    if made:
        detect(home, box)
        summary = Summary.read((home / "results.json").read_bytes())
    summary = Summary.model_validate(summary.model_dump(mode="json") | dict(extra or {}))
    with store.begin() as transaction:
        transaction.jobs.change(job.id, state=JobState.SUCCEEDED.value, summary=summary.model_dump(mode="json"))
    visits = Visits(
        links=world.links,
        queries=world.queries,
        catalog=world.catalog,
        results=kept(home, job.folder) if kept else FolderResults(folder=folder / "results"),
        output=world.output,
        addresses=world.addresses,
        sees=lambda person, job: True,
    )
    reader = Audience.person("U01DEMO")
    page, view = world.links.to_results(job, reader), world.links.to_view(job, reader)
    assert page
    assert view
    with Door() as door, door.leads_to(web(slack=None, shared=visits, health=Health)):
        yield Shown(home, *(link.url.replace("https://nomads.test", door.url) for link in (page, view)))
    store.close()


def detect(home: Path, box: Mapping[str, str], *more: str, pipeline: Any = program) -> None:
    """Run the default method on a box in the corner of demo/cortex, with results in that folder."""
    with BossStandIn() as boss:
        assert boss.cortex  # whose sections are registered whole: those of its corner take a tenth of the time
        channels = {name: boss.cortex.bricks(name) for name in boss.cortex.channels}
        boss.add("demo", "corner", shape=(64, 320, 320), voxel_nm=boss.cortex.voxel_nm, channels=channels)
        argv = ["--host", boss.url, "--col", "demo", "--exp", "corner", "--results-uri", home.as_uri(), *more]
        argv += [word for axis, said in box.items() for word in (f"--{axis}-range", said)]
        assert run(pipeline, argv=argv, environ={"BOSS_TOKEN": DEMO_TOKEN}, err=io.StringIO()) == 0
