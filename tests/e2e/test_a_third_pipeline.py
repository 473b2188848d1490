"""Adding a pipeline is adding a folder: the one of docs/adding-a-pipeline.md, as it stands there, end to end."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

from bot.domain.states import JobState
from bot.settings import ROOT
from sandbox.house import House
from tests.support.processes import Lab
from tests.support.waiting import PATIENCE


def walked_through(folder: Path) -> None:
    """Write what the page tells its reader to write. Its module lies in this folder, not in the checkout."""
    text = (ROOT / "docs" / "adding-a-pipeline.md").read_text(encoding="utf-8")
    entry, program = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)[0] for kind in ("toml", "python"))
    assert "pipelines.bright.driver" in entry
    (folder / "bright").mkdir(parents=True)
    (folder / "bright" / "__init__.py").touch()
    (folder / "bright" / "pipeline.toml").write_text(entry.replace("pipelines.bright.driver", "bright.driver"))
    (folder / "bright" / "driver.py").write_text(program)


def test_a_folder_with_two_files_is_a_pipeline_that_people_can_run(tmp_path: Path) -> None:
    pipelines = tmp_path / "pipelines"
    for entry in (ROOT / "pipelines").glob("*/pipeline.toml"):
        (pipelines / entry.parent.name).mkdir(parents=True)
        shutil.copy(entry, pipelines / entry.parent.name)
    walked_through(pipelines)
    with (
        House(ack_timeout=PATIENCE) as house,
        Lab(house, tmp_path, NOMADS_PIPELINES=str(pipelines), PYTHONPATH=f"{pipelines}:{ROOT}") as lab,
    ):
        lab.start()
        lab.submit(pipeline="nomads-bright", x="0,256", y="0,256", z="0,8")
        lab.settle()

        job = lab.newest
        assert job.state is JobState.SUCCEEDED, (job.reason, job.log_tail)
        assert job.summary is not None
        with (lab.results(job) / "synapses.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        assert len(found) == job.summary.counts["synapses"] > 10
        assert any(f"{len(found)} synapses" in reply for reply in lab.thread(job))
        assert "Threshold" in (lab.results(job) / "report.html").read_text()
        assert house.boss.cortex is not None
        written = f"collman_nomads/nomads_predictions/{job.request.results_key}"
        assert job.summary.written_back == written
        assert any("|Detections in BOSS>" in reply for reply in lab.thread(job))
