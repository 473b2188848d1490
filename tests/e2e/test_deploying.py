"""`python -m bot deploy` as a process of its own, on an account that a server of moto's plays."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest
from moto.core.config import default_user_config
from moto.server import ThreadedMotoServer

from bot.settings import ROOT
from bot.terminal.images import content_tag
from sandbox.aws import CREDENTIALS, REGION, client
from sandbox.slack import SlackStandIn
from tests.support.stack import complete
from tests.support.waiting import PATIENCE


@pytest.fixture
def address() -> Iterator[str]:
    """Where the account is."""
    requests = logging.getLogger("werkzeug")  # a line for each
    level = requests.level
    requests.setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with (
        patch.dict(os.environ, CREDENTIALS | {"AWS_ENDPOINT_URL": url}),
        patch.dict(default_user_config, {"batch": {"use_docker": False}}),
        complete(),
    ):
        httpx.post(f"{url}/moto-api/reset").raise_for_status()
        yield url
        httpx.post(f"{url}/moto-api/reset").raise_for_status()
    server.stop()
    requests.setLevel(level)


def nomads(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """One command in that folder, on a machine without Docker and buildah, with nobody at the terminal."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    environment = kept | {"PATH": str(folder), "PYTHONPATH": str(ROOT), "NOMADS_AWS_REGION": REGION}
    return subprocess.run(
        [sys.executable, "-m", "bot", *argv],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def test_an_account_is_made_used_and_left_by_the_command_alone(address: str, tmp_path: Path) -> None:
    with SlackStandIn() as slack:
        lines = (f"SLACK_BOT_TOKEN={slack.bot_token}", f"SLACK_APP_TOKEN={slack.app_token}")
        (tmp_path / ".env").write_text("\n".join([*lines, f"SLACK_API_URL={slack.api_url}", ""]))

        unasked = nomads(tmp_path, "deploy", "--bot", "elsewhere")
        made = nomads(tmp_path, "deploy", "--bot", "elsewhere", "--yes")
        ecr = client("ecr", REGION, address)
        manifest = json.dumps({"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []})
        for name in ("unsupervised", "classifier"):
            ecr.put_image(repositoryName=f"nomads-{name}", imageManifest=manifest, imageTag=content_tag(ROOT))
        again = nomads(tmp_path, "deploy", "--yes")
        gone = nomads(tmp_path, "deploy", "--destroy", "--yes")

    assert (unasked.returncode, unasked.stderr) == (
        2,
        f"Make the stack nomads in {REGION}? Nobody is here to answer: add --yes.\n",
    )
    assert (made.returncode, made.stderr) == (1, "")
    assert "CREATE_COMPLETE  nomads\n" in made.stdout
    assert "There is neither Docker nor buildah here, so the images are yours to build and push" in made.stdout
    assert (again.returncode, again.stderr) == (0, ""), again.stdout
    assert "UPDATE_COMPLETE  nomads\n.env: NOMADS_IMAGES changed.\n" in again.stdout
    assert "\nimages: ok\n" in again.stdout
    assert (gone.returncode, gone.stderr) == (0, ""), gone.stderr
    assert gone.stdout.endswith("The stack nomads is gone.\n")
    [bucket] = client("s3", REGION, address).list_buckets()["Buckets"]
    assert f"  the results, in the bucket {bucket['Name']}\n" in gone.stdout
