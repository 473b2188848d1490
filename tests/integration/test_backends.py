"""A compute backend is a module and a line: the one of docs/adding-a-backend.md, as it stands there, runs a job."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot.app import build_core
from bot.backends import BACKENDS
from bot.domain.errors import NomadsError
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.states import FINAL, JobState
from bot.settings import ROOT, Settings, read
from sandbox.boss import DEMO_TOKEN, BossStandIn
from tests.support.app import PROGRAMS
from tests.support.databases import new_sqlite
from tests.support.memory import MemoryChat
from tests.support.waiting import until

ACTOR = "cli:test"


@pytest.fixture
def direct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page's backend, registered by the line that the page adds; its name."""
    page = (ROOT / "docs" / "adding-a-backend.md").read_text(encoding="utf-8")
    adapters, table = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:2]
    name, module = re.findall(r'"(\w+)": "([\w.]+)"', table)[-1]
    assert module == f"bot.{name}.backend"
    here = f"documented_{name}_backend"
    (tmp_path / f"{here}.py").write_text(adapters)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BACKENDS, name, here)
    yield name
    sys.modules.pop(here, None)


def test_a_job_runs_from_its_acceptance_to_its_results_on_the_documented_backend(direct: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    new_sqlite(data / "nomads.db")
    values = dict.fromkeys("xyz", "0,8") | {"pipeline": "quick", "collection": "demo", "experiment": "cortex"}
    with BossStandIn() as boss:
        given = {"compute": direct, "data": str(data), "pipelines": str(PROGRAMS), "boss_host": boss.url}
        core = build_core(Settings.model_validate(given))
        reviewed = core.submission.review(values | {"email": "a@example.org"}, SecretStr(DEMO_TOKEN))
        proposal = core.submission.ask(reviewed, actor=ACTOR, within=5)
        job = core.submission.accept(proposal, actor=ACTOR, key="one")

        def moved() -> Job:
            core.worker.lanes.drain()
            core.worker.watcher.watch_once()
            return core.queries.find(job.id)

        until(lambda: moved().state in FINAL, what="the program's end")
        core.worker.lanes.drain()
        ended = core.queries.find(job.id)
        core.close()

    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, "")
    assert ended.summary
    assert ended.summary.counts == {"synapses": 7}
    assert core.output.address(ended, Audience.person(ACTOR)).startswith((data / "results").as_uri())


def test_an_unknown_backend_is_named_with_those_there_are(direct: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMADS_COMPUTE", "nowhere")
    with pytest.raises(NomadsError, match=f"NOMADS_COMPUTE: .*no nowhere; there is local, aws, slurm, {direct}\\.$"):
        read(Settings)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_knows_the_domain_the_settings_and_the_contract_and_nothing_else_of_the_project(name: str) -> None:
    """Whether or not the import rules in pyproject.toml name its folder."""
    spec = find_spec(BACKENDS[name])
    assert spec
    assert spec.origin
    package = BACKENDS[name].rpartition(".")[0]
    known = {package, "bot.files", "bot.domain", "bot.settings", "contract"}
    for file in Path(spec.origin).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module in (
                "bot",
                package,
            ):  # `from bot.local import supervise`
                found = [f"{node.module}.{alias.name}" for alias in node.names]
            ours = [module for module in found if module.split(".")[0] in ("bot", "handlers", "pipelines", "contract")]
            foreign = [m for m in ours if not any(m == room or m.startswith(f"{room}.") for room in known)]
            assert foreign == [], f"{file.relative_to(ROOT)} imports {foreign}"


def test_events_are_read_by_the_process_that_serves_slack_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command's worker would take away those of the bot's."""
    for name, value in {
        "NOMADS_AWS_REGION": "eu-west-2",
        "NOMADS_AWS_BUCKET": "results",
        "NOMADS_AWS_EXECUTION_ROLE": "arn:aws:iam::123456789012:role/nomads-execution",
        "NOMADS_AWS_JOB_ROLE": "arn:aws:iam::123456789012:role/nomads-job",
        "NOMADS_AWS_EVENTS_QUEUE": "https://sqs.eu-west-2.amazonaws.com/123456789012/nomads-events",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings.model_validate({"data": tmp_path, "compute": "aws"})
    for chat in (None, MemoryChat()):
        core = build_core(settings, chat=chat)
        assert (core.worker.watcher._events is not None) is (chat is not None)
        core.close()
