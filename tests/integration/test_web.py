"""Local results over HTTP: readable with the link, and in no other way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest
from starlette.applications import Starlette

from bot.domain.health import Health
from bot.local.results import LocalResults
from bot.web.site import web
from tests.support.app import Door
from tests.support.waiting import until

FOLDER = "nomads-unsupervised_demo_cortex_z_0_16_y_0_512_x_0_512/abcd1234"
BASE = "http://testserver"


@pytest.fixture
def results(tmp_path: Path) -> LocalResults:
    results = LocalResults(folder=tmp_path / "results", base_url=BASE, key=b"k" * 32)
    home = tmp_path / "results" / FOLDER
    (home / "deep").mkdir(parents=True)
    (home / "synapses.csv").write_text("id,z,y,x\n")
    (home / "deep" / "a b.txt").write_text("deep")
    (home / "report.html").write_text("<script>alert(1)</script>")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "results" / "other").mkdir()
    return results


class Client:
    """Asks for exactly the path it is given: httpx and browsers tidy `..` away first."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
        """One request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode(), dict(answer.getheaders()))
        finally:
            connection.close()


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    text: str
    headers: dict[str, str]


@contextmanager
def serving(site: Starlette) -> Iterator[Client]:
    """The site, on loopback."""
    with Door() as door, door.leads_to(site):
        yield Client(door.port)


@pytest.fixture
def client(results: LocalResults) -> Iterator[Client]:
    with serving(web(app=None, results=results, health=Health)) as client:
        yield client


def test_the_address_shows_the_folder_and_its_links_lead_to_the_files(client: Client, results: LocalResults) -> None:
    address = results.address(FOLDER).removeprefix(BASE)
    page = client.get(address)
    assert page.status == 200
    assert '<a href="deep/a%20b.txt">deep/a b.txt</a>' in page.text
    assert client.get(f"{address}deep/a%20b.txt").text == "deep"


def test_a_link_leads_to_its_file(client: Client, results: LocalResults) -> None:
    assert client.get(results.link(FOLDER, "synapses.csv").url.removeprefix(BASE)).text == "id,z,y,x\n"


def test_a_written_log_is_shown_as_plain_text_whatever_stands_in_it(client: Client, results: LocalResults) -> None:
    results.write(FOLDER, "log.txt", ["<script>alert('µ')</script>\n".encode()])

    answer = client.get(results.link(FOLDER, "log.txt").url.removeprefix(BASE))

    assert answer.text == "<script>alert('µ')</script>\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-disposition" not in answer.headers  # shown, not kept as a file


def test_a_page_that_a_program_wrote_runs_nothing(client: Client, results: LocalResults) -> None:
    answer = client.get(results.link(FOLDER, "report.html").url.removeprefix(BASE))
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-downloads; default-src 'none'")
    assert "script" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_part_of_a_file_and_its_head_are_sent_as_asked(client: Client, results: LocalResults) -> None:
    path = results.link(FOLDER, "synapses.csv").url.removeprefix(BASE)

    part = client.get(path, headers={"Range": "bytes=3-4"})
    head = client.get(path, method="HEAD")

    assert (part.status, part.text, part.headers["content-range"]) == (206, "z,", "bytes 3-4/9")
    assert (head.status, head.text, head.headers["content-length"]) == (200, "", "9")


def test_every_file_that_was_sent_is_closed(client: Client, results: LocalResults) -> None:
    path = results.link(FOLDER, "synapses.csv").url.removeprefix(BASE)

    for method in ("GET", "HEAD"):
        assert client.get(path, method=method).status == 200
    assert client.get(path, headers={"Range": "bytes=100-"}).status == 416

    until(lambda: not _is_open("synapses.csv"), what="the files to be closed")


def _is_open(name: str) -> bool:
    """Whether this process has a file of that name open."""
    found = []
    for descriptor in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the listing's own is gone by now
            found.append(descriptor.readlink().name)
    return name in found


def test_a_hard_link_to_the_bots_key_is_not_served(client: Client, results: LocalResults, tmp_path: Path) -> None:
    """Seen: a program that ran as the bot's user linked `secret.key` into its results and read it over HTTP."""
    (tmp_path / "secret.key").write_text("a key")
    (tmp_path / "results" / FOLDER / "innocent.csv").hardlink_to(tmp_path / "secret.key")

    answer = client.get(results.link(FOLDER, "innocent.csv").url.removeprefix(BASE))

    assert answer.status == 404
    assert "a key" not in answer.text
    assert "innocent.csv" not in client.get(results.address(FOLDER).removeprefix(BASE)).text


@pytest.mark.parametrize(
    "path",
    [
        "/results/",
        "/results/0123456789abcdef/{folder}/",
        "/results/0123456789abcdef/{folder}/synapses.csv",
        "/results/{signature}/{folder}",
        "/results/{signature}/other/",
        "/results/{signature}/{folder}/../../../secret",
        "/results/{signature}/{folder}/%2e%2e/%2e%2e/%2e%2e/secret",
        "/results/{signature}/{folder}/..%2f..%2f..%2fsecret",
        "/results/{signature}/{folder}//etc/passwd",
        "/results/{signature}/{folder}/absent.csv",
        "/results/{signature}/{folder}/deep",
    ],
)
def test_no_other_path_leads_anywhere(client: Client, results: LocalResults, path: str) -> None:
    answer = client.get(path.format(signature=results.signature(FOLDER), folder=FOLDER))
    assert answer.status == 404
    assert "secret" not in answer.text


def test_a_process_whose_database_is_away_is_not_ready() -> None:
    with serving(web(app=None, results=None, health=lambda: Health("The database does not answer."))) as client:
        answer = client.get("/ready")
        assert (answer.status, answer.text) == (503, "The database does not answer.\n")
        assert client.get("/health").status == 200
        assert client.get("/results/x/").status == 404
        assert client.get("/slack/events", method="POST").status == 404
