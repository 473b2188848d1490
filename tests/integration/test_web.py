"""Links over HTTP: what they open, for whom, until when, and that nothing else opens anything."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin

import numpy as np
import pytest
from starlette.applications import Starlette

from bot.application.ports import Results
from bot.application.visits import Visits
from bot.domain.health import Health
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.results import MAX_PART, Link, Opened, Part
from bot.domain.states import JobState
from bot.files.results import FolderResults
from bot.storage.engine import Database, connect
from bot.web.archive import zipped
from bot.web.site import web
from pipelines.common.precomputed import Frame, compressed_segmentation, write_segmentation
from pipelines.common.results import Results as Folder
from pipelines.common.sparse import Few
from tests.support.app import Door
from tests.support.aws import BUCKET, aws_world
from tests.support.databases import new_sqlite
from tests.support.options import optional
from tests.support.stories import a_summary
from tests.support.waiting import until
from tests.support.world import World

BASE = "https://nomads.test"
ME = Audience.person("U01DEMO")
PNG = b"\x89PNG what is no picture"


class Lab:
    """A job that has succeeded, its results in a folder, and whoever opens links to them."""

    def __init__(self, folder: Path, store: Database) -> None:
        self.world = World(store, pipeline=optional())
        self.job = self.world.accept(options={"false-discovery": "0.1"})
        summary = a_summary(
            preview="preview.png",
            density_per_um3=0.152,
            chance={"count": 309, "share": 0.25, "low": 0.23, "high": 0.27},
            versions={"pipeline": "1.2"},
            notes=["Roles <by> name."],
            files=[
                {"name": "mine.bin", "title": "What <i>this</i> program alone writes"},
                {"name": "image/one/info", "about": "The channel as it was read."},
            ],
        )
        with store.begin() as transaction:
            values = {"state": JobState.SUCCEEDED.value, "summary": summary.model_dump(mode="json")}
            transaction.jobs.change(self.job.id, **values)
        self.job = self.world.job(self.job)
        self.results: Results = FolderResults(folder=folder / "results")
        self.home = folder / "results" / self.job.folder
        (self.home / "deep").mkdir(parents=True)
        for name, content in (("synapses.csv", b"id,z,y,x\n"), ("preview.png", PNG), ("deep/a b.txt", b"deep")):
            (self.home / name).write_bytes(content)
        (self.home / "report.html").write_text("<script>alert(1)</script>")
        (folder / "secret").write_text("secret")
        self.answer: bool | None = True
        """What Slack says of whether a person may see the job."""
        self.asked: list[str] = []
        """The persons about whom Slack was asked."""

    @property
    def visits(self) -> Visits:
        """What answers the links."""
        return Visits(
            links=self.world.links,
            queries=self.world.queries,
            catalog=self.world.catalog,
            results=self.results,
            output=self.world.output,
            addresses=self.world.addresses,
            sees=self._sees,
        )

    def _sees(self, person: str, job: Job) -> bool | None:
        assert job.id == self.job.id
        self.asked.append(person)
        return self.answer

    def path(self, name: str = "", audience: Audience = ME) -> str:
        """Where a link leads."""
        link = self.world.links.to_results(self.job, audience)
        assert link
        return link.url.removeprefix(BASE) + name


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    store = Database(connect(new_sqlite(tmp_path / "nomads.db")))
    yield Lab(tmp_path, store)
    store.close()


class Client:
    """Asks for exactly the path it is given: httpx and browsers tidy `..` away first."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: str = ""
    ) -> Answer:
        """One request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(method, path, body=body or None, headers=headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), dict(answer.getheaders()))
        finally:
            connection.close()


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    content: bytes
    headers: dict[str, str]

    @property
    def text(self) -> str:
        """The content as text."""
        return self.content.decode()


@contextmanager
def serving(site: Starlette) -> Iterator[Client]:
    """The site, on loopback."""
    with Door() as door, door.leads_to(site):
        yield Client(door.port)


@pytest.fixture
def client(lab: Lab) -> Iterator[Client]:
    with serving(web(slack=None, shared=lab.visits, health=Health)) as client:
        yield client


def test_the_page_shows_what_was_found_what_was_asked_and_what_each_file_is(client: Client, lab: Lab) -> None:
    page = client.get(lab.path())

    assert page.status == 200
    assert "1,234 synapses, 0.15 per µm³; about 309 of them by chance (25 %, 23 to 27)" in page.text
    assert "<dt>False discovery rate</dt><dd>0.1</dd>" in page.text
    for said in ("demo", "cortex", "0, 512", "0, 16", "nomads-unsupervised, version 1.2", lab.job.id):
        assert said in page.text
    assert '<img class="picture" src="./preview.png"' in page.text
    assert 'href="./report.html">Read the report</a>' in page.text
    assert 'href="./deep/a%20b.txt">deep/a b.txt</a>' in page.text
    assert "One line for each synapse" in page.text
    assert "9 bytes" in page.text
    assert "Roles &lt;by&gt; name." in page.text
    assert "<script" not in page.text
    assert client.get(lab.path("deep/a%20b.txt")).text == "deep"


def test_a_folder_for_a_viewer_is_one_row_of_the_page_and_whole_in_the_zip(client: Client, lab: Lab) -> None:
    (lab.home / "image" / "one" / "4_4_70").mkdir(parents=True)
    for name, size in (("info", 500), ("4_4_70/0.shard", 1000), ("4_4_70/1.shard", 600)):
        (lab.home / "image" / "one" / name).write_bytes(b"x" * size)
    (lab.home / "image" / "two").write_bytes(b"x")

    page = client.get(lab.path()).text

    assert 'href="./image/one/info">image/one/</a>' in page
    assert "The channel as it was read." in page
    assert "2.1 kB" in page
    assert "shard" not in page
    assert 'href="./image/two">' in page
    names = zipfile.ZipFile(io.BytesIO(client.get(lab.path() + "?zip").content)).namelist()
    assert len([name for name in names if name.endswith(".shard")]) == 2


def test_a_page_runs_nothing_is_in_no_index_and_gives_its_address_to_nobody(client: Client, lab: Lab) -> None:
    headers = client.get(lab.path()).headers

    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src 'self' data:; base-uri 'none'")
    assert "unsafe" not in policy
    assert "script" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-robots-tag"].startswith("noindex")
    assert "no-store" in headers["cache-control"]


def test_a_file_that_a_program_titles_is_told_by_its_title(client: Client, lab: Lab) -> None:
    (lab.home / "mine.bin").write_bytes(b"mine")

    assert "What &lt;i&gt;this&lt;/i&gt; program alone writes" in client.get(lab.path()).text


def test_a_job_that_is_not_finished_says_so(client: Client, lab: Lab) -> None:
    waits = lab.world.accept(x="0,8")
    link = lab.world.links.to_results(waits, ME)
    assert link
    lab.job = waits

    page = client.get(link.url.removeprefix(BASE))

    assert page.status == 200
    assert "Not finished yet" in page.text
    assert "Nothing has been written yet." in page.text


@pytest.mark.parametrize("name", [b"caf\xe9.csv", b"\xff\xfe", b"line\nbreak.csv"])
def test_a_file_name_that_is_not_utf_8_breaks_no_page(client: Client, lab: Lab, name: bytes) -> None:
    with open(os.fsencode(lab.home) + b"/" + name, "wb") as file:
        file.write(b"content")

    page = client.get(lab.path())

    assert page.status == 200
    assert "Its name cannot stand in an address" in page.text
    assert 'href="./synapses.csv"' in page.text
    archive = zipfile.ZipFile(io.BytesIO(client.get(lab.path("?zip")).content))
    assert archive.testzip() is None
    told = archive.read(f"nomads-{lab.job.id}/not-in-this-zip.txt").decode()
    assert told.splitlines()[1:] == [os.fsdecode(name).encode("unicode_escape").decode()]
    assert f"nomads-{lab.job.id}/synapses.csv" in archive.namelist()


def test_a_zip_of_every_file_names_none_that_is_absent_and_takes_no_file_s_name(client: Client, lab: Lab) -> None:
    def names() -> list[str]:
        return zipfile.ZipFile(io.BytesIO(client.get(lab.path("?zip")).content)).namelist()

    (lab.home / "not-in-this-zip.txt").write_text("a program's own")
    assert [name for name in names() if "not-in" in name] == [f"nomads-{lab.job.id}/not-in-this-zip.txt"]
    (lab.home / "line\nbreak").write_text("x")
    assert f"nomads-{lab.job.id}/_not-in-this-zip.txt" in names()


# Whose a link is


def test_a_person_who_may_not_see_the_job_any_more_finds_nothing_behind_their_link(client: Client, lab: Lab) -> None:
    path = lab.path()
    assert client.get(path).status == 200

    lab.answer = False  # they have left the private channel

    for name in ("", "synapses.csv", "?zip"):
        assert client.get(path + name).status == 404
    assert set(lab.asked) == {"U01DEMO"}


def test_where_slack_does_not_answer_nothing_is_shown_and_the_page_asks_for_patience(client: Client, lab: Lab) -> None:
    lab.answer = None

    answer = client.get(lab.path("synapses.csv"))

    assert answer.status == 503
    assert "Try again in a moment." in answer.text
    assert "retry-after" in answer.headers


@pytest.mark.parametrize("audience", [Audience.channel("C01SYNAPSES"), Audience.mail("a@example.org")])
def test_a_link_in_a_thread_or_a_mail_is_for_whoever_reads_that(client: Client, lab: Lab, audience: Audience) -> None:
    lab.answer = False

    assert client.get(lab.path("synapses.csv", audience)).text == "id,z,y,x\n"
    assert lab.asked == []


def test_a_link_has_an_end_and_says_then_how_to_get_a_new_one(client: Client, lab: Lab) -> None:
    path = lab.path()
    lab.world.clock.advance(7 * 24 * 3600 - 1)
    assert client.get(path).status == 200

    lab.world.clock.advance(1)

    for name in ("", "synapses.csv", "absent", "?zip"):
        answer = client.get(path + name)
        assert answer.status == 410
        assert f"/nomads status {lab.job.id}" in answer.text
        assert "Results" in answer.text
    assert client.get(lab.path()).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/results/",
        "/results/x",
        "/results/{folder}/",
        "/results/0123456789abcdef/{folder}/synapses.csv",
        "/results/{cut}/",
        "/results/{cut}/synapses.csv",
        "/results/{changed}/",
        "/results/{signed}",
        "/results/%ff/",
        "/results/./",
        "/results/AAAA.AAAA/",
        "/mail/{signed}",
    ],
)
def test_links_that_are_none_look_alike(client: Client, lab: Lab, path: str) -> None:
    signed = lab.path().split("/")[2]
    changed = ("A" if signed[5] != "A" else "B").join([signed[:5], signed[6:]])
    answer = client.get(path.format(signed=signed, cut=signed[:-1], changed=changed, folder=lab.job.folder))

    assert answer.status == 404
    assert answer.text == client.get("/results/nothing/").text
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/results/{signed}/../../../secret",
        "/results/{signed}/%2e%2e/%2e%2e/%2e%2e/secret",
        "/results/{signed}/..%2f..%2f..%2fsecret",
        "/results/{signed}//etc/passwd",
        "/results/{signed}/absent.csv",
        "/results/{signed}/deep",
        "/results/{signed}/%ff%fe",
        "/results/{signed}/%00",
    ],
)
def test_behind_a_right_link_nothing_but_results_is_found_and_a_sentence_says_so(
    client: Client, lab: Lab, path: str
) -> None:
    answer = client.get(path.format(signed=lab.path().split("/")[2]))

    assert answer.status == 404
    assert "<h1>There is no such file</h1>" in answer.text
    assert "secret" not in answer.text


@pytest.mark.parametrize(("name", "above"), [("synapses.csv", "./"), ("deep/a%20b.txt", "../"), ("preview.png", "./")])
def test_a_file_that_was_deleted_after_its_job_is_told_in_a_sentence_with_a_way_to_the_others(
    client: Client, lab: Lab, name: str, above: str
) -> None:
    path = lab.path(name)
    assert client.get(path).status == 200
    (lab.home / unquote(name)).unlink()

    for method in ("GET", "HEAD"):
        assert client.get(path, method=method).status == 404
    answer = client.get(path)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "It was deleted since this link was made" in answer.text
    assert f'<a href="{above}">The results page</a> lists the files that are there.' in answer.text
    assert client.get(urljoin(path, above)).status == 200


def test_where_all_files_of_a_job_were_deleted_page_and_zip_say_so(client: Client, lab: Lab) -> None:
    shutil.rmtree(lab.home)

    page, archive = client.get(lab.path()), client.get(lab.path("?zip"))

    assert (page.status, archive.status) == (200, 404)
    assert "There are no files here." in page.text
    assert "not written yet" not in page.text
    assert "There is no such file" in archive.text


# Files


def test_a_link_leads_to_its_file(client: Client, lab: Lab) -> None:
    answer = client.get(lab.path("synapses.csv"))

    assert answer.text == "id,z,y,x\n"
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''synapses.csv"


def test_a_written_log_is_shown_as_plain_text_whatever_stands_in_it(client: Client, lab: Lab) -> None:
    lab.results.write(lab.job.folder, "log.txt", ["<script>alert('µ')</script>\n".encode()])

    answer = client.get(lab.path("log.txt"))

    assert answer.text == "<script>alert('µ')</script>\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-disposition" not in answer.headers  # shown, not kept as a file


def test_a_page_that_a_program_wrote_runs_nothing(client: Client, lab: Lab) -> None:
    answer = client.get(lab.path("report.html"))

    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-downloads; default-src 'none'")
    assert "script" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_part_of_a_file_and_its_head_are_sent_as_asked(client: Client, lab: Lab) -> None:
    part = client.get(lab.path("synapses.csv"), headers={"Range": "bytes=3-4"})
    head = client.get(lab.path("synapses.csv"), method="HEAD")

    assert (part.status, part.text, part.headers["content-range"]) == (206, "z,", "bytes 3-4/9")
    assert (head.status, head.text, head.headers["content-length"]) == (200, "", "9")


def test_every_file_that_was_sent_is_closed(client: Client, lab: Lab) -> None:
    path = lab.path("synapses.csv")

    for method in ("GET", "HEAD"):
        assert client.get(path, method=method).status == 200
    assert client.get(path, headers={"Range": "bytes=100-"}).status == 416
    assert client.get(lab.path("?zip")).status == 200

    until(lambda: not _is_open("synapses.csv"), what="the files to be closed")


def _is_open(name: str) -> bool:
    """Whether this process has a file of that name open."""
    found = []
    for descriptor in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the listing's own is gone by now
            found.append(descriptor.readlink().name)
    return name in found


def test_a_hard_link_to_the_bots_key_is_not_served(client: Client, lab: Lab, tmp_path: Path) -> None:
    """Seen: a program that ran as the bot's user linked `secret.key` into its results and read it over HTTP."""
    (tmp_path / "secret.key").write_text("a key")
    (lab.home / "innocent.csv").hardlink_to(tmp_path / "secret.key")

    answer = client.get(lab.path("innocent.csv"))

    assert answer.status == 404
    assert "a key" not in answer.text
    assert "innocent.csv" not in client.get(lab.path()).text
    assert b"a key" not in client.get(lab.path("?zip")).content


# Everything at once


def test_everything_comes_in_one_zip_below_a_folder_of_the_job_s_name(client: Client, lab: Lab) -> None:
    answer = client.get(lab.path("?zip"))

    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == f"attachment; filename*=utf-8''nomads-{lab.job.id}.zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    top = f"nomads-{lab.job.id}"
    names = ["deep/a b.txt", "preview.png", "report.html", "synapses.csv"]
    assert archive.namelist() == [f"{top}/{name}" for name in names]
    assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert archive.read(f"{top}/preview.png") == PNG


class _Long:
    """A file of that many bytes that nobody holds."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.closed = False

    def read(self, size: int, /) -> bytes:
        taken = min(size, self._left)
        self._left -= taken
        return bytes(taken)

    def close(self) -> None:
        self.closed = True


def test_a_zip_of_long_files_is_made_without_holding_one() -> None:
    size, files = 48 * 2**20, [_Long(48 * 2**20), _Long(48 * 2**20)]
    tracemalloc.start()
    try:
        sent = sum(map(len, zipped("top", ((str(n), Opened(size, file)) for n, file in enumerate(files)))))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert sent > 2 * size
    assert peak < 4 * 2**20
    assert [file.closed for file in files] == [True, True]


# A store that serves browsers itself


class _Elsewhere(FolderResults):
    """Results that a browser is sent for to their store, as S3 does."""

    def redirect(self, folder: str, name: str) -> Link:  # type: ignore[override]
        self.open(folder, name).file.close()
        return Link(f"https://bucket.s3.test/{folder}/{name}?X-Amz-Expires=300")


def test_where_the_store_serves_browsers_a_link_leads_there_and_the_page_is_the_bot_s(lab: Lab, tmp_path: Path) -> None:
    lab.results = _Elsewhere(folder=tmp_path / "results")
    with serving(web(slack=None, shared=lab.visits, health=Health)) as client:
        page = client.get(lab.path())
        report = client.get(lab.path("report.html"))
        preview = client.get(lab.path("preview.png"))
        everything = client.get(lab.path("?zip"))
        absent = client.get(lab.path("absent.csv"))

    assert "1,234 synapses" in page.text
    assert not re.search(r"bucket\.s3|amazonaws|X-Amz", page.text)  # a signature may hold the letters s3 by chance
    assert report.status == 307
    assert report.headers["location"].startswith(f"https://bucket.s3.test/{lab.job.folder}/report.html?X-Amz-")
    assert "no-store" in report.headers["cache-control"]
    assert report.headers["referrer-policy"] == "no-referrer"
    assert (preview.status, preview.content) == (200, PNG)  # the page's images come from the page's own host
    assert zipfile.ZipFile(io.BytesIO(everything.content)).testzip() is None
    assert absent.status == 404
    assert "There is no such file" in absent.text


def test_a_link_to_a_file_that_was_deleted_from_s3_leads_to_a_sentence_and_not_to_s3_s_xml(lab: Lab) -> None:
    with aws_world() as account:
        lab.results = account.results()
        lab.results.write(lab.job.folder, "synapses.csv", [b"id\n"])
        with serving(web(slack=None, shared=lab.visits, health=Health)) as client:
            there = client.get(lab.path("synapses.csv"))
            account.clients.s3.delete_object(Bucket=BUCKET, Key=f"{lab.job.folder}/synapses.csv")
            gone = client.get(lab.path("synapses.csv"))

    assert there.status == 307
    assert "location" not in gone.headers
    assert (gone.status, "There is no such file" in gone.text) == (404, True)


def test_where_the_store_serves_browsers_the_viewer_s_parts_come_from_the_bot_all_the_same(
    lab: Lab, tmp_path: Path
) -> None:
    lab.results = _Elsewhere(folder=tmp_path / "results")
    with_layers(lab)
    (lab.home / "segmentation").mkdir()
    (lab.home / "segmentation" / "0.shard").write_bytes(CONTENT)
    with serving(web(slack=None, shared=lab.visits, health=Health)) as client:
        part = client.get(view_path(lab, "data/segmentation/0.shard"), headers={"Range": "bytes=3-9"})

    assert (part.status, part.content) == (206, CONTENT[3:10])
    assert "location" not in part.headers


# The end of mail


def test_a_mail_scanner_that_follows_the_link_ends_no_mail_and_a_person_does(client: Client, lab: Lab) -> None:
    path = lab.world.links.to_end_mail("Guest@Example.org").removeprefix(BASE)

    for method in ("GET", "HEAD"):
        asked = client.get(path, method=method)
        assert asked.status == 200
    assert '<form method="post">' in client.get(path).text
    assert lab.world.addresses.trouble("guest@example.org") == ""

    answer = client.get(path, method="POST", body="List-Unsubscribe=One-Click")

    assert answer.status == 200
    assert "sends no more mail" in answer.text
    assert "no more mail" in lab.world.addresses.trouble("guest@example.org")
    assert lab.world.addresses.trouble("another@example.org") == ""
    assert client.get(path, method="POST").status == 200
    assert "<form" not in client.get(path).text


def test_a_link_that_ends_mail_works_for_ever(client: Client, lab: Lab) -> None:
    path = lab.world.links.to_end_mail("guest@example.org").removeprefix(BASE)
    lab.world.clock.advance(timedelta(days=4000).total_seconds())

    assert client.get(path).status == 200


def test_a_link_of_the_one_kind_is_none_of_the_other(client: Client, lab: Lab) -> None:
    ends = lab.world.links.to_end_mail("guest@example.org").rpartition("/")[2]

    assert client.get(f"/results/{ends}/").status == 404
    assert client.get(f"/mail/{lab.path().split('/')[2]}", method="POST").status == 404
    assert client.get(f"/mail/{ends[:-2]}", method="POST").status == 404


def test_a_process_whose_database_is_away_is_not_ready() -> None:
    with serving(web(slack=None, shared=None, health=lambda: Health("The database does not answer."))) as client:
        answer = client.get("/ready")
        assert (answer.status, answer.text) == (503, "The database does not answer.\n")
        assert client.get("/health").status == 200
        assert client.get("/results/x/").status == 404
        assert client.get("/slack/events", method="POST").status == 404


# The viewer


VIEW = {"voxel_nm": [50, 4, 8], "start": [2, 10, 20], "shape": [8, 100, 200], "at": [5, 60.5, 70], "ranges": {}}
LAYERS = ("image/presynaptic", "image/postsynaptic", "image/witness-2", "segmentation", "annotations")
CONTENT = bytes(range(256)) * 8


@pytest.fixture
def seen(lab: Lab) -> Lab:
    """The lab's job, with layers for a viewer."""
    with_layers(lab)
    for layer in LAYERS:
        (lab.home / layer).mkdir(parents=True)
        (lab.home / layer / "info").write_text("{}")
        (lab.home / layer / "0.shard").write_bytes(CONTENT)
    return lab


def with_layers(lab: Lab) -> None:
    """Let the program have announced layers."""
    ranges = {"postsynaptic": [3, 200], "presynaptic": [5.5, 5.5]}
    summary = a_summary(
        view=VIEW | {"ranges": ranges},
        viewer="https://neuroglancer.test/#!x",
        files=[{"name": "synapses.csv"}, *({"name": f"{layer}/info"} for layer in LAYERS)],
    )
    with lab.world.store.begin() as transaction:
        transaction.jobs.change(lab.job.id, summary=summary.model_dump(mode="json"))


def view_path(lab: Lab, name: str = "", audience: Audience = ME) -> str:
    """Where View in 3D is, or what lies below it."""
    link = lab.world.links.to_view(lab.job, audience)
    assert link
    return link.url.removeprefix(BASE) + name


def test_the_page_leads_to_the_view_and_to_boss_s_layers_where_there_are_both(client: Client, seen: Lab) -> None:
    page = client.get(seen.path()).text

    up, _, path = re.findall(r'href="((\.\./)+(v/[^"]*))">View in 3D</a>', page)[0]
    assert up.startswith("../../v/")
    assert client.get(f"/{path}").status == 200
    assert 'href="https://neuroglancer.test/#!x">See BOSS\'s layers in Neuroglancer</a>' in page
    assert 'id="slices"' in page


def test_a_page_without_layers_has_no_view_and_no_script(client: Client, lab: Lab) -> None:
    page = client.get(lab.path()).text

    assert "View in 3D" not in page
    assert "<script" not in page
    for name in ("", "state", "data/synapses.csv", "data/segmentation/info"):
        assert client.get(view_path(lab, name)).status == 404


def test_the_viewer_s_state_names_layers_by_role_in_the_preview_s_colours(client: Client, seen: Lab) -> None:
    state = json.loads(client.get(view_path(seen, "state")).content)

    names = [layer["name"] for layer in state["layers"]]
    assert names == ["postsynaptic", "presynaptic", "witness-2", "segmentation", "synapses"]
    assert [layer["source"] for layer in state["layers"]][1] == "image/presynaptic"
    assert 'default="#ff00ff"' in state["layers"][0]["shader"]
    assert "range=[3, 200]" in state["layers"][0]["shader"]
    assert 'default="#00ff00"' in state["layers"][1]["shader"]
    assert [layer.get("visible", True) for layer in state["layers"]] == [True, True, False, True, True]
    assert state["position"] == [70.5, 61, 5.5]
    assert state["dimensions"]["x"] == [8e-9, "m"]


def test_the_viewer_s_page_lets_nothing_be_fetched_from_elsewhere(client: Client, seen: Lab) -> None:
    page = client.get(view_path(seen))

    policy = page.headers["content-security-policy"]
    assert policy.startswith(
        "default-src 'none'; script-src 'self' 'unsafe-eval'; worker-src 'self'; connect-src 'self'"
    )
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "private, no-store"
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert all(address.startswith(("../../viewer/", "data:")) for address in addresses)
    names = [address.removeprefix("../..") for address in addresses if address.startswith("..")]
    names += [f"/viewer/{name}" for name in re.findall(r'data-client="([^"]+)"', page.text)[0].split()]
    assert len(names) > 5
    for name in names:
        answer = client.get(name, headers={"Accept-Encoding": "gzip"})
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-security-policy"] == policy  # which a worker runs under
        assert gzip.decompress(answer.content) == client.get(name).content


@pytest.mark.parametrize("name", ["index.html", "__init__.py", "main.py", "..%2f..%2fsite.py", "x.js", "results.html"])
def test_of_the_client_only_its_scripts_styles_and_modules_are_served(client: Client, name: str) -> None:
    assert client.get(f"/viewer/{name}").status == 404


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=16-31", 16, 32),
        ("bytes=2000-9999", 2000, 2048),
        ("bytes=2047-", 2047, 2048),
        ("bytes=-5", 2043, 2048),
        ("bytes=-9999", 0, 2048),
    ],
)
def test_a_range_of_a_layer_s_file_is_given(client: Client, seen: Lab, asked: str, start: int, stop: int) -> None:
    answer = client.get(view_path(seen, "data/segmentation/0.shard"), headers={"Range": asked})

    assert answer.status == 206
    assert answer.content == CONTENT[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/2048"
    assert answer.headers["cache-control"] == "private, max-age=600"
    assert not [name for name in answer.headers if name.startswith("access-control")], "page and layers have one origin"


@pytest.mark.parametrize("asked", ["bytes=2048-2050", "bytes=9-3", "bytes=99999999999-", "bytes=-0"])
def test_a_range_that_a_file_does_not_have_is_said_to_be_none(client: Client, seen: Lab, asked: str) -> None:
    answer = client.get(view_path(seen, "data/segmentation/0.shard"), headers={"Range": asked})

    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */2048"


@pytest.mark.parametrize("asked", ["", "bytes=0-1,4-5", "bytes=-", "lines=1-2", "bytes=" + "9" * 400 + "-"])
def test_without_a_range_that_is_known_the_whole_file_is_given(client: Client, seen: Lab, asked: str) -> None:
    answer = client.get(view_path(seen, "data/segmentation/0.shard"), headers={"Range": asked} if asked else {})

    assert (answer.status, answer.content) == (200, CONTENT)
    assert answer.headers["accept-ranges"] == "bytes"


def test_a_chunk_is_one_request_under_the_same_rights(client: Client, seen: Lab) -> None:
    labels = np.arange(8 * 300 * 300, dtype=np.uint32).reshape(8, 300, 300)
    frame = Frame(start=(2, 10, 20), shape=(8, 300, 300), voxel_nm=(50, 4, 8))
    write_segmentation(Folder(seen.home.as_uri() + "/"), "segmentation", labels, frame, title="", about="")
    info = json.loads(client.get(view_path(seen, "chunks/segmentation/info")).content)
    key = info["scales"][0]["key"]

    path = view_path(seen, f"chunks/segmentation/{key}/276-320_10-266_2-10")
    chunk = client.get(path, headers={"Accept-Encoding": "gzip, br"})

    assert (chunk.status, chunk.headers["content-encoding"]) == (200, "gzip")
    assert gzip.decompress(chunk.content) == compressed_segmentation(Few.of(labels[:, :256, 256:]))
    assert client.get(path).status == 406
    assert client.get(view_path(seen, f"chunks/segmentation/{key}/0.shard")).status == 404
    for name in ("synapses.csv", "results.json", "report.html/info", "image/none/info"):
        assert client.get(view_path(seen, f"chunks/{name}")).status == 404
    seen.answer = False
    assert client.get(path, headers={"Accept-Encoding": "gzip"}).status == 404


def test_head_tells_the_size(client: Client, seen: Lab) -> None:
    answer = client.get(view_path(seen, "data/segmentation/0.shard"), method="HEAD")

    assert (answer.status, answer.content, answer.headers["content-length"]) == (200, b"", "2048")


def test_a_part_has_at_most_so_many_bytes_and_a_longer_file_is_not_given_whole(client: Client, seen: Lab) -> None:
    with open(seen.home / "segmentation" / "0.shard", "ab") as file:
        file.truncate(MAX_PART + 10)

    whole = client.get(view_path(seen, "data/segmentation/0.shard"))
    part = client.get(view_path(seen, "data/segmentation/0.shard"), headers={"Range": "bytes=0-99999999"})

    assert whole.status == 416
    assert part.status == 206
    assert len(part.content) == MAX_PART


@pytest.mark.parametrize(
    "name", ["results.json", "report.html", "segmentation", "segmentation/../secret", "segmentation/none", "image/info"]
)
def test_the_viewer_reads_layers_and_the_table_and_nothing_else(client: Client, seen: Lab, name: str) -> None:
    assert client.get(view_path(seen, f"data/{name}")).status == 404
    assert client.get(view_path(seen, "data/synapses.csv")).content == b"id,z,y,x\n"


def test_a_view_is_whose_the_link_is_and_ends_with_it(client: Client, seen: Lab) -> None:
    names = ("", "state", "data/segmentation/info")
    paths = [view_path(seen, name) for name in names]
    assert [client.get(path).status for path in paths] == [200] * 3
    assert [client.get(path.replace(".", ".x")).status for path in paths] == [404] * 3
    seen.answer = None
    assert [client.get(path).status for path in paths] == [503] * 3
    seen.answer = False
    assert [client.get(path).status for path in paths] == [404] * 3
    seen.answer = True
    seen.world.clock.advance(8 * 24 * 3600)
    assert [client.get(path).status for path in paths] == [410] * 3


def test_so_many_parts_are_read_at_once_and_of_too_many_requests_some_are_told_to_come_again(
    seen: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.web.viewer.AT_ONCE", 2)
    monkeypatch.setattr("bot.web.viewer.MOST_WAITING", 5)
    go, most = threading.Event(), []

    class Slow:
        def __init__(self) -> None:
            self.now = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(seen.visits, name)

        def part(self, *asked: Any) -> Part:
            self.now += 1
            most.append(self.now)
            assert go.wait(20)
            self.now -= 1
            return Part(b"x", 1)

    with serving(web(slack=None, shared=Slow(), health=Health)) as client, ThreadPoolExecutor(8) as pool:
        path = view_path(seen, "data/segmentation/0.shard")
        asked = [pool.submit(client.get, path) for _ in range(8)]
        until(lambda: sum(answer.done() for answer in asked) == 3, what="three that are turned away")
        assert client.get("/health").status == 200
        assert len(most) == 2, "two are read, and three wait"
        go.set()
        answers = [answer.result() for answer in asked]
    assert sorted(answer.status for answer in answers) == [200] * 5 + [503] * 3
    assert {answer.headers.get("retry-after") for answer in answers if answer.status == 503} == {"1"}
    assert max(most) == 2
