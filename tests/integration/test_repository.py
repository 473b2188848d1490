"""What surrounds the code: licence, workflow, templates, hooks, wheel, and where documents point.

A test reads no copy of a rule where it can read the rule: targets come from the Makefile, words from the command line.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from packaging.requirements import Requirement

from bot.__main__ import main as command
from bot.settings import ROOT
from handlers.commands import HELP

APACHE = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of the licence's text as the Apache Software Foundation publishes it."""
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
DOCUMENTS = [*PAGES, *sorted(ROOT.glob("docs/decisions/*.md"))]
FOLDERS = "bot|handlers|pipelines|contract|sandbox|bench|tests|docs|deploy|requirements|[.]github"


def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def yml(path: str) -> Any:
    """A YAML file of the repository."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def prose(document: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def codes(document: Path) -> list[str]:
    """The lines of its blocks of code, and what stands between backticks."""
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```.*?\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines()] + re.findall(
        r"`([^`\n]+)`", prose(document)
    )


def made_by(page: Path) -> list[str]:
    """The files that a walkthrough says are new."""
    return re.findall(r"^\| `([^`]+)` \| new: ", prose(page), flags=re.MULTILINE)


def recipe(target: str) -> list[str]:
    """The commands of a target in the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert found, f"there is no target {target}"
    return [line.removeprefix("\t") for line in found[1].splitlines()]


KEPT = '"PATH=$PATH" "LD_LIBRARY_PATH=${LD_LIBRARY_PATH-}"'
"""What sudo would take from a command, and where the workflow's Python is."""


def test_the_licence_is_apache_s_second_word_for_word_and_pyproject_names_it() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE
    assert project()["project"]["license"] == "Apache-2.0"
    assert project()["project"]["license-files"] == ["LICENSE"]


def test_the_workflow_runs_what_everybody_can_run_and_may_only_read() -> None:
    workflow = yml(".github/workflows/ci.yml")
    job = workflow["jobs"]["ci"]
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert (job["runs-on"], job["timeout-minutes"]) == ("ubuntu-latest", 60)
    [commands] = [step["run"].splitlines() for step in job["steps"] if "run" in step]
    assert commands == ['chmod o+x "$HOME"', f"sudo env {KEPT} .ci/run"], "as root, without which many are left out"
    assert [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")] == [
        "3.11"
    ]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_every_action_of_the_workflow_is_pinned_to_a_commit() -> None:
    used = re.findall(r"uses: (\S+) *(#.*)?", (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) and tag for action, tag in used)


def test_the_hook_runs_make_lint_and_fetches_nothing() -> None:
    (repository,) = yml(".pre-commit-config.yaml")["repos"]
    (hook,) = repository["hooks"]
    assert repository["repo"] == "local"
    assert (hook["language"], hook["entry"], hook["pass_filenames"]) == ("system", "make lint", False)
    assert recipe("lint")


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_an_issue_form_is_one_that_github_takes(form: str) -> None:
    written = yml(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert set(written) == {"name", "description", "labels", "body"}
    fields = [element for element in written["body"] if element["type"] != "markdown"]
    assert {element["type"] for element in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    names = [element["id"] for element in fields]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names)
    assert all(element["attributes"]["label"] for element in fields)
    assert all(element["attributes"]["options"] for element in fields if element["type"] in ("dropdown", "checkboxes"))
    assert any(element.get("validations", {}).get("required") for element in fields)


def test_a_pull_request_is_asked_for_its_reason_tests_and_changelog() -> None:
    text = (ROOT / ".github/pull_request_template.md").read_text(encoding="utf-8")
    assert all(word in text for word in ("## Why", "## How it was tested", ".ci/run", "CHANGELOG.md"))


def test_the_manifest_hints_at_every_word_that_the_command_knows() -> None:
    (slash,) = yml("manifest.yml")["features"]["slash_commands"]
    assert set(slash["usage_hint"].split(" | ")) == {example.split()[1] for example, _ in HELP}
    assert len(slash["usage_hint"]) <= 1000  # Slack's schema of manifests


def test_the_changelog_tells_of_the_version_and_of_what_follows() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(re.escape(project()["project"]["version"]) + r" - \d{4}-\d\d-\d\d", headings[1])


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in DOCUMENTS
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)[^)]*\)", prose(document))
        if not (document.parent / unquote(target)).exists()
    ]
    assert broken == []


def test_files_that_a_page_names_are_there() -> None:
    """Decisions may name what there was when they were made; a walkthrough names the files that it makes."""
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        for name in re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", prose(page))
        if name not in made_by(page) and not (ROOT / name).exists()
    ]
    assert missing == []


def test_make_targets_and_commands_that_a_document_names_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    named = "\n".join(code for document in DOCUMENTS for code in codes(document))
    for target in sorted(set(re.findall(r"^make ([a-z]+)", named, re.MULTILINE))):
        assert recipe(target)
    words = set(
        re.findall(r"^(?:\S+=\S+ )?(?:(?:\S*/)?python -m bot|(?:\.venv/bin/)?nomads) ([a-z]+)", named, re.MULTILINE)
    )
    assert {"submit", "jobs", "run"} <= words
    added = set(re.findall(r'add_parser\("([a-z]+)"', named))  # by a walkthrough
    for word in sorted(words - added):
        with pytest.raises(SystemExit) as end:
            command([word, "--help"])
        assert end.value.code == 0, capsys.readouterr().err


def test_the_index_of_the_documentation_has_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([\w-]+\.md)\)", index))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built as anybody's installer builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("nomads-*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_has_the_command_the_catalogue_and_the_migrations(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    packages = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    wanted = {
        str(path.relative_to(ROOT))
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix in {".py", ".toml", ".mako", ".npz", ".json", ".html", ".css", ".js"}
    }
    assert wanted <= names
    assert {"bot/storage/migrations/script.py.mako", "pipelines/unsupervised/pipeline.toml"} <= wanted
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} <= set(packages)
    (entries,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "nomads = bot.__main__:main" in wheel.read(entries).decode()
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_s_command_lists_jobs_in_an_empty_folder(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    site, folder = tmp_path / "site", tmp_path / "empty"
    wheel.extractall(site)
    folder.mkdir()
    program = (
        "import sys, bot.__main__ as m; sys.exit(m.main(sys.argv[1:]) if m.__file__.startswith(sys.path[1]) else 9)"
    )
    listed = subprocess.run(
        [sys.executable, "-c", program, "jobs"],
        cwd=folder,
        env={"PYTHONPATH": str(site), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr
    assert (folder / "var" / "nomads.db").exists()


def test_setting_up_installs_the_command_from_what_is_pinned_alone() -> None:
    (install,) = (line for line in recipe(r"\$\(STAMP\)") if line.endswith("-e ."))
    assert {"--no-deps", "--no-build-isolation", "--offline"} <= set(shlex.split(install))
    locked = (ROOT / "requirements/dev.txt").read_text(encoding="utf-8")
    for needed in project()["build-system"]["requires"]:
        name = Requirement(needed).name
        (pinned,) = re.findall(rf"^{name}==(\S+)", locked, re.MULTILINE)
        assert Requirement(needed).specifier.contains(pinned)
