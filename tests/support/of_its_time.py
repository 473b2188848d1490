"""Write a database as the code of a commit leaves it in mid-flight: jobs in every state, effects open.

Run with the code of that commit, in its folder, and kept in `databases_of_then` under the number of its schema:

    git archive COMMIT | tar -x -C FOLDER
    cd FOLDER && python -P …/tests/support/of_its_time.py …/tests/support/databases_of_then

It stands on what all commits since the schema 0005 have: `tests.support.world`, and SQLite.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, ".")  # the code of that commit

from bot.domain.errors import Unavailable
from bot.domain.states import JobState
from bot.storage.engine import Database, connect
from tests.support.world import World

AWAY = Unavailable("It is away.")


def written(path: Path) -> dict[str, object]:
    """Leave a database in mid-flight in a file; returns its schema, what compute has by name, and its dump."""
    store = Database(connect(f"sqlite:///{path}"))
    store.migrate()
    world = World(store)
    ended = world.running()
    world.results.put(ended.folder, "results.json", b'{"counts": {"synapses": 3}}')
    world.see(ended, JobState.SUCCEEDED)
    world.settle()
    failed = world.running()
    world.see(failed, JobState.FAILED, reason="Ended.", exit_code=1)
    world.settle()
    world.running()
    world.accept(x="0,256")
    world.settle()
    cancelled, over = world.running(), world.running()
    world.steering.cancel(cancelled.id, actor="U01DEMO")
    for number, checked in enumerate((True, True, False)):
        world.accept(y=f"0,{64 + number}", checked=checked)
    world.compute.fail_next(AWAY, call="submit", times=3)
    world.compute.fail_next(AWAY, call="cancel")
    for port in (world.chat, world.mailer, world.results):
        port.fail_next(AWAY, times=30)
    world.see(over, JobState.SUCCEEDED)
    world.worker.lanes.drain()
    store.close()
    with sqlite3.connect(path) as database:
        revision = database.execute("select version_num from alembic_version").fetchone()[0]
        names = {work.name: f"memory-{number}" for number, work in enumerate(world.compute.works, 1)}
        return {"revision": revision, "names": names, "dump": "\n".join(database.iterdump())}


def main() -> None:
    """Write the database of the code in this folder into the folder that is named."""
    with tempfile.TemporaryDirectory() as folder:
        made = written(Path(folder) / "nomads.db")
    path = Path(sys.argv[1]) / f"{made['revision']}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(made).encode(), mtime=0))
    print(path.name)


if __name__ == "__main__":
    main()
