"""BOSS's client against a server that means no good: it keeps its time, learns what is true, and leaks nothing."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.boss import volumes as boss
from bot.boss.volumes import BossVolumes, Lifetimes
from bot.domain.errors import NomadsError, Unavailable
from bot.domain.volume import Channel, NotAllowed, TokenRefused, UnknownCollection, UnknownExperiment, Unusable
from sandbox.boss import BossStandIn
from sandbox.volumes import Bricks
from tests.support.certificates import certificate_in, served_with
from tests.support.waiting import until

CANARY = "demo-token-canary"
TOKEN = SecretStr(CANARY)
AMPLE = 20.0
"""Seconds that nothing here needs."""
COLLECTIONS, COLLECTION = "/v1/collection//", "/v1/collection/lab"
EXPERIMENT, FRAME = f"{COLLECTION}/experiment/deep", "/v1/coord/lab_frame"
PERMISSIONS = "/v1/permissions/?collection=lab&experiment=deep"
ABOUT = {"name": "deep", "coord_frame": "lab_frame", "channels": ["PSD", "EM"]}
GEOMETRY: dict[str, Any] = {
    "name": "lab_frame",
    "voxel_unit": "nanometers",
    "z_start": 0,
    "z_stop": 8,
    "y_start": 0,
    "y_stop": 64,
    "x_start": 0,
    "x_stop": 64,
    "z_voxel_size": 50,
    "y_voxel_size": 96,
    "x_voxel_size": 96.5,
}
Behaviour = Callable[["Conversation"], None]


class Hostile(socketserver.ThreadingTCPServer):
    """A server that does, for each path, what it was told; 404 for the others."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.heads: list[str] = []
        """Every request's lines, in the order of arrival."""
        self.connections = 0
        self.released = threading.Event()
        """Set when the test is over: nobody hangs any longer."""
        self.hung_up = threading.Event()
        """Set when a client closed a connection before its answer was complete."""
        self._behaviours: dict[str, Behaviour] = {}
        self._tls = tls
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.server_address[1]}"

    @property
    def paths(self) -> list[str]:
        return [head.split(" ")[1] for head in self.heads]

    def on(self, path: str, behaviour: Behaviour) -> None:
        """Do this when that path is asked for."""
        self._behaviours[path] = behaviour

    def say(self, path: str, said: object) -> None:
        """Answer that path with this as JSON."""
        self.on(path, sends(answer(json.dumps(said).encode())))

    def describe(self, **different: Any) -> None:
        """Have lab/deep, its coordinate frame differing in this, and the data types of its channels."""
        self.say(EXPERIMENT, ABOUT)
        self.say(FRAME, GEOMETRY | different)
        self.say(f"{EXPERIMENT}/channel/PSD", {"datatype": "uint16"})
        self.say(f"{EXPERIMENT}/channel/EM", {"datatype": "uint8"})

    def behaviour(self, path: str) -> Behaviour:
        return self._behaviours.get(path, sends(refusal(404)))

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.hung_up.set()


class Conversation(socketserver.StreamRequestHandler):
    server: Hostile

    def handle(self) -> None:
        while first := self.rfile.readline().decode():
            lines = [first]
            while (line := self.rfile.readline().decode()) not in ("\r\n", ""):
                lines.append(line)
            self.server.heads.append("".join(lines))
            self.server.behaviour(first.split(" ")[1])(self)

    def send(self, content: bytes) -> None:
        self.wfile.write(content)

    def hang(self) -> None:
        self.server.released.wait(30)


def answer(body: bytes, *, status: int = 200, **headers: str) -> bytes:
    """An HTTP answer; a header named with _ is sent with -."""
    lines = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body


def refusal(status: int) -> bytes:
    """A refusal as BOSS words it."""
    if status == 401:
        return answer(b'{"detail": "Invalid token."}', status=status)
    return answer(json.dumps({"status": status, "code": 4000, "message": "no"}).encode(), status=status)


def sends(content: bytes) -> Behaviour:
    return lambda conversation: conversation.send(content)


def hangs(first: bytes = b"") -> Behaviour:
    """Sends that much, and then nothing."""

    def behave(conversation: Conversation) -> None:
        conversation.send(first)
        conversation.hang()

    return behave


def drips(first: bytes, drop: bytes) -> Behaviour:
    """Sends that much, and then a drop now and then, for ever."""

    def behave(conversation: Conversation) -> None:
        conversation.send(first)
        while not conversation.server.released.wait(0.02):
            conversation.send(drop)

    return behave


def hangs_up(conversation: Conversation) -> None:
    """Closes the connection without a word."""
    conversation.connection.shutdown(socket.SHUT_RDWR)


def stops_halfway(conversation: Conversation) -> None:
    conversation.send(answer(b'{"collections": ["lab"', Content_Length="4000"))
    hangs_up(conversation)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def serving(server: Hostile) -> Iterator[Hostile]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server() -> Iterator[Hostile]:
    yield from serving(Hostile())


@pytest.fixture
def make(server: Hostile) -> Iterator[Callable[..., BossVolumes]]:
    """Makes clients of the server, and closes them."""
    made: list[BossVolumes] = []

    def make(**how: Any) -> BossVolumes:
        settings: dict[str, Any] = {"host": server.url, "patience": AMPLE} | how
        made.append(BossVolumes(**settings))
        return made[-1]

    yield make
    for volumes in made:
        volumes.close()


@pytest.fixture
def volumes(make: Callable[..., BossVolumes]) -> BossVolumes:
    return make()


@pytest.fixture
def hasty(make: Callable[..., BossVolumes]) -> BossVolumes:
    """A client whose requests end after a third of a second."""
    return make(patience=0.3)


# ── what is true ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_2000_collections_are_read_once_and_then_known_at_once() -> None:
    names = [f"collection_number_{n}" for n in range(2000)]
    with BossStandIn(demo=False) as stand_in:
        for name in names:
            stand_in.add(name, "e", shape=(1, 1, 1), channels={})
        volumes = BossVolumes(host=stand_in.url, patience=AMPLE)
        token = SecretStr("demo-token")

        assert list(volumes.collections(token=token, within=AMPLE)) == names
        began = time.perf_counter()
        for _ in range(100):
            volumes.collections(token=token, within=0)
        each = (time.perf_counter() - began) / 100

        assert len(stand_in.requests) == 1
        assert each < 0.001
        volumes.close()


def test_an_experiment_is_described_by_its_details_and_never_by_a_list(server: Hostile, volumes: BossVolumes) -> None:
    """A list under an unknown parent is a 500."""
    server.describe()

    found = volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)

    assert found.voxel_nm == (50, 96, 96.5)
    assert found.channels == (Channel(name="PSD", datatype="uint16"), Channel(name="EM", datatype="uint8"))
    assert sorted(server.paths) == sorted([EXPERIMENT, FRAME, f"{EXPERIMENT}/channel/PSD", f"{EXPERIMENT}/channel/EM"])
    assert all(f"Authorization: Token {CANARY}\r\n" in head for head in server.heads)


@pytest.mark.parametrize(
    ("unit", "nanometres"), [("nanometers", 1), ("micrometers", 1e3), ("millimeters", 1e6), ("Centimeters", 1e7)]
)
def test_voxels_are_measured_in_nanometres(server: Hostile, volumes: BossVolumes, unit: str, nanometres: float) -> None:
    server.describe(voxel_unit=unit)

    assert volumes.describe("lab", "deep", token=TOKEN, within=AMPLE).voxel_nm[0] == 50 * nanometres


def test_bounds_as_far_as_numbers_of_64_bits_reach_are_taken_as_they_are(server: Hostile, volumes: BossVolumes) -> None:
    server.describe(z_start=-(2**63), z_stop=2**63 - 1, x_start=-5, x_stop=-2)

    assert volumes.describe("lab", "deep", token=TOKEN, within=AMPLE).bounds == (
        (-(2**63), 2**63 - 1),
        (0, 64),
        (-5, -2),
    )


@pytest.mark.parametrize(
    "different",
    [
        {"z_start": None},
        {"z_stop": True},
        {"z_stop": 8.0},
        {"z_stop": "8"},
        {"x_stop": 2**63},
        {"x_start": -(2**63) - 1},
        {"x_stop": 10**400},
        {"y_stop": 0},
        {"y_stop": -3},
        {"z_voxel_size": None},
        {"z_voxel_size": 0},
        {"z_voxel_size": -50},
        {"z_voxel_size": float("nan")},
        {"z_voxel_size": float("inf")},
        {"z_voxel_size": "50"},
        {"z_voxel_size": True},
        {"z_voxel_size": 1e308, "voxel_unit": "centimeters"},
        {"voxel_unit": "furlongs"},
        {"voxel_unit": None},
        {"voxel_unit": 3},
    ],
    ids=str,
)
def test_a_description_that_makes_no_sense_is_said_to_make_none(
    server: Hostile, volumes: BossVolumes, different: dict[str, Any]
) -> None:
    server.describe(**different)

    with pytest.raises(Unusable, match="describes this experiment in a way NOMADS does not understand"):
        volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)


@pytest.mark.parametrize(
    "about",
    [[], None, {}, {"coord_frame": "../x", "channels": []}, {"coord_frame": "f", "channels": None}, {"channels": []}],
    ids=str,
)
def test_an_experiment_that_is_none_is_said_to_make_no_sense(
    server: Hostile, volumes: BossVolumes, about: object
) -> None:
    server.say(EXPERIMENT, about)

    with pytest.raises(Unusable, match="does not understand"):
        volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)
    assert server.paths == [EXPERIMENT]


def test_a_damaged_description_is_not_blamed_on_the_experiment(server: Hostile, volumes: BossVolumes) -> None:
    server.on(EXPERIMENT, sends(answer(b'{"coord_frame": "lab_fr')))

    with pytest.raises(Unavailable, match="answer cannot be understood"):
        volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)


def test_an_experiment_without_its_coordinate_frame_is_unavailable(server: Hostile, volumes: BossVolumes) -> None:
    server.say(EXPERIMENT, ABOUT)

    with pytest.raises(Unusable, match="coordinate frame"):
        volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)


BAD_NAMES = ["<!channel>", 'say "hi"', "it's", "\u202egnilleps", "a/b", "..", "", "x" * 256, "new\nline", "a b", "é"]


def test_names_outside_boss_s_alphabet_are_not_listed(server: Hostile, volumes: BossVolumes) -> None:
    mixed = [*BAD_NAMES, "good-1", 7, None, ["deep"], "good_2", "good-1"]
    server.say(COLLECTIONS, {"collections": mixed})
    server.say(COLLECTION, {"experiments": mixed})
    server.say(EXPERIMENT, ABOUT | {"channels": mixed})
    server.say(FRAME, GEOMETRY)

    assert volumes.collections(token=TOKEN, within=AMPLE) == ("good-1", "good_2")
    assert volumes.experiments("lab", token=TOKEN, within=AMPLE) == ("good-1", "good_2")
    found = volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)
    assert [channel.name for channel in found.channels] == ["good-1", "good_2"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_none_is_unknown_without_asking(server: Hostile, volumes: BossVolumes, name: str) -> None:
    with pytest.raises(UnknownCollection) as collection:
        volumes.experiments(name, token=TOKEN, within=AMPLE)
    with pytest.raises(UnknownExperiment) as experiment:
        volumes.describe("lab", name, token=TOKEN, within=AMPLE)

    for error in (collection, experiment):
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 200
    assert volumes.may_write("lab", name, token=TOKEN, within=AMPLE) is False
    assert server.heads == []


def test_a_word_that_cannot_be_a_token_is_refused_without_asking(server: Hostile, volumes: BossVolumes) -> None:
    for word in ("", "two words", "line\r\nHost: evil", "tökén", "x" * 5000):
        with pytest.raises(TokenRefused):
            volumes.collections(token=SecretStr(word), within=AMPLE)
    assert server.heads == []


def test_a_misspelt_name_is_answered_with_names_like_it(server: Hostile, volumes: BossVolumes) -> None:
    server.say(COLLECTIONS, {"collections": ["lab", "laboratory", "other"]})
    server.say(COLLECTION, {"experiments": ["Deep", "deeper", "elsewhere"]})
    volumes.collections(token=TOKEN, within=AMPLE)

    with pytest.raises(UnknownExperiment, match="“Deep” or “deeper”"):
        volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)
    with pytest.raises(UnknownCollection, match="did you mean “lab”"):
        volumes.describe("labb", "deep", token=TOKEN, within=AMPLE)


def test_a_thousand_names_like_it_take_no_longer_than_a_moment(server: Hostile, volumes: BossVolumes) -> None:
    server.say(COLLECTION, {"experiments": [f"{'ab' * 124}{n:06}" for n in range(3500)]})

    began = time.monotonic()
    with pytest.raises(UnknownExperiment):
        volumes.describe("lab", "ba" * 127, token=TOKEN, within=AMPLE)
    assert time.monotonic() - began < 5


# ── channels are optional ─────────────────────────────────────────────────────────────────────────────────────────────


def test_channels_whose_time_runs_out_have_no_data_type(server: Hostile, volumes: BossVolumes) -> None:
    server.describe()
    server.on(f"{EXPERIMENT}/channel/PSD", hangs())

    found = volumes.describe("lab", "deep", token=TOKEN, within=1)

    assert found.channels == (Channel(name="PSD"), Channel(name="EM", datatype="uint8"))
    assert found.channels[0].bytes is None


@pytest.mark.parametrize("said", [{"datatype": None}, {"datatype": "<!here>"}, {"datatype": "x" * 33}, {}], ids=str)
def test_an_odd_channel_does_not_spoil_the_others(server: Hostile, volumes: BossVolumes, said: object) -> None:
    server.describe()
    server.say(f"{EXPERIMENT}/channel/PSD", said)

    found = volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)

    assert found.channels == (Channel(name="PSD"), Channel(name="EM", datatype="uint8"))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_channel_that_may_not_be_seen_does_not_spoil_the_others(
    server: Hostile, volumes: BossVolumes, status: int
) -> None:
    server.describe()
    server.on(f"{EXPERIMENT}/channel/PSD", sends(answer(b"{}", status=status)))

    found = volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)

    assert found.channels == (Channel(name="PSD"), Channel(name="EM", datatype="uint8"))


def test_of_very_many_channels_no_more_are_asked_for_at_once_than_there_are_workers(
    server: Hostile, volumes: BossVolumes
) -> None:
    names = [f"ch{n}" for n in range(300)]
    server.describe()
    server.say(EXPERIMENT, ABOUT | {"channels": names})
    for name in names:
        server.say(f"{EXPERIMENT}/channel/{name}", {"datatype": "uint8"})

    found = volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)

    assert {channel.datatype for channel in found.channels} == {"uint8"}
    assert len(server.heads) == 302
    assert server.connections <= boss.WORKERS


def test_a_boss_that_fails_at_the_channels_is_not_asked_for_all_of_them(server: Hostile, volumes: BossVolumes) -> None:
    names = [f"ch{n}" for n in range(300)]
    server.describe()
    server.say(EXPERIMENT, ABOUT | {"channels": names})
    for name in names:
        server.on(f"{EXPERIMENT}/channel/{name}", sends(answer(b"", status=503)))

    found = volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)

    assert {channel.datatype for channel in found.channels} == {""}
    assert len(server.heads) < 30


# ── the right to write ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sets", "may"),
    [
        ([], False),
        ([{"group": "g", "collection": "lab", "experiment": "deep", "permissions": ["read"]}], False),
        ([{"group": "g", "collection": "lab", "experiment": "deep", "permissions": ["read", "add"]}], True),
        ([{"group": "g", "collection": "lab", "experiment": "other", "permissions": ["add"]}], False),
        ([{"group": "g", "collection": "lab", "permissions": ["add"]}], False),
    ],
)
def test_whoever_may_add_to_the_experiment_may_write(
    server: Hostile, volumes: BossVolumes, sets: list[object], may: bool
) -> None:
    server.say(PERMISSIONS, {"permission-sets": sets})

    assert volumes.may_write("lab", "deep", token=TOKEN, within=AMPLE) is may


@pytest.mark.parametrize(
    "behaviour",
    [
        sends(refusal(403)),
        sends(answer(b"{}", status=500)),
        sends(answer(b'{"permission-sets": "all"}')),
        sends(answer(b'{"permission-sets": [{"permissions": 7}]}')),
        hangs_up,
    ],
    ids=["403", "500", "no sets", "no permissions", "hangs up"],
)
def test_what_boss_does_not_say_of_permissions_is_not_known(
    server: Hostile, volumes: BossVolumes, behaviour: Behaviour
) -> None:
    server.on(PERMISSIONS, behaviour)

    assert volumes.may_write("lab", "deep", token=TOKEN, within=AMPLE) is None


# ── bad days ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_refusals_are_told_apart(server: Hostile, volumes: BossVolumes) -> None:
    shout = b'{"status": 403, "code": 3001, "message": "<!channel> \\u202e evil"}'
    server.on(COLLECTIONS, sends(answer(b'{"detail": "Invalid token."}', status=401)))
    server.on(COLLECTION, sends(answer(shout, status=403)))
    server.on(EXPERIMENT, sends(answer(shout, status=403)))

    with pytest.raises(TokenRefused):
        volumes.collections(token=TOKEN, within=AMPLE)
    with pytest.raises(NotAllowed) as collection:
        volumes.experiments("lab", token=TOKEN, within=AMPLE)
    with pytest.raises(NotAllowed) as experiment:
        volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)
    with pytest.raises(UnknownCollection):
        volumes.describe("nowhere", "deep", token=TOKEN, within=AMPLE)

    assert "evil" not in f"{collection.value} {experiment.value}"


PAGES = [b"<h1>Forbidden</h1>", b"", b"null", b"[]", b"{}", b'{"error": "no"}', b"[" * 100_000, b"\xff"]


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404, 407, 503])
def test_what_a_proxy_answers_in_boss_s_place_is_no_refusal(
    server: Hostile, make: Callable[..., BossVolumes], status: int
) -> None:
    """A person is not told that their token, collection or experiment is wrong, and a job is not turned down."""
    for page in PAGES:
        server.on(COLLECTION, sends(answer(page, status=status)))
        server.on(EXPERIMENT, sends(answer(page, status=status)))
        server.on(PERMISSIONS, sends(answer(page, status=status)))
        server.on(COLLECTIONS, sends(answer(page, status=status)))
        volumes = make()
        with pytest.raises(Unavailable):
            volumes.collections(token=TOKEN, within=AMPLE)
        with pytest.raises(Unavailable):
            volumes.experiments("lab", token=TOKEN, within=AMPLE)
        if status != 200 or page == b"<h1>Forbidden</h1>":  # the rest of 200 is an experiment that makes no sense
            with pytest.raises(Unavailable):
                volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)
        assert volumes.may_write("lab", "deep", token=TOKEN, within=AMPLE) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("1000000000", 600), ("1e15", 600), ("inf", 600), ("0", 1), ("-5", 1), ("nan", None), ("soon", None)],
)
def test_a_call_for_patience_is_believed_between_a_second_and_ten_minutes_and_forms_wait_a_minute_at_most(
    server: Hostile, make: Callable[..., BossVolumes], header: str, seconds: float | None
) -> None:
    clock = Clock()
    volumes = make(clock=clock)
    server.on(COLLECTIONS, sends(answer(b"", status=503, Retry_After=header)))
    with pytest.raises(Unavailable) as trouble:
        volumes.collections(token=TOKEN, within=AMPLE)
    assert trouble.value.retry_after == seconds

    clock.now += 61
    server.say(COLLECTIONS, {"collections": []})
    assert volumes.collections(token=TOKEN, within=AMPLE) == ()


def test_an_experiment_is_unknown_also_where_its_collection_cannot_be_asked(
    server: Hostile, volumes: BossVolumes
) -> None:
    server.on(COLLECTION, sends(answer(b"", status=500)))

    with pytest.raises(UnknownExperiment, match="check its spelling"):
        volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)


BOMB = gzip.compress(b'{"collections": ["' + b"a" * 10**7 + b'"]}')
CHUNK = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
BAD_DAYS: dict[str, tuple[Behaviour, str]] = {
    "a 500 with an HTML body": (sends(answer(b"<h1>Server Error (500)</h1>", status=500)), "status 500"),
    "a 404 for the list": (sends(refusal(404)), "lists no collections"),
    "a proxy's 404": (sends(answer(b"<h1>Not Found</h1>", status=404)), "status 404 was not BOSS's own"),
    "a 418": (sends(answer(b"", status=418)), "status 418"),
    "no content": (sends(answer(b"", status=204, Content_Length="")), "status 204"),
    "HTML where JSON should be": (sends(answer(b"<h1>Welcome</h1>")), "cannot be understood"),
    "damaged JSON": (sends(answer(b'{"collections": ["lab"')), "cannot be understood"),
    "damaged UTF-8": (sends(answer(b'{"collections": ["\xff\xfe"]}')), "cannot be understood"),
    "JSON that is no list": (sends(answer(b'{"collections": {"lab": 1}}')), "cannot be understood"),
    "JSON of great depth": (sends(answer(b"[" * 500_000)), "cannot be understood"),
    "a number of a million digits": (sends(answer(b'{"collections": ' + b"9" * 10**6 + b"}")), "cannot be understood"),
    "very many names": (
        sends(answer(json.dumps({"collections": ["a"] * (boss.MAX_NAMES + 1)}).encode())),
        "cannot be understood",
    ),
    "50 MB, as announced": (hangs(answer(b"", Content_Length=str(50 * 10**6))), "larger than"),
    "50 MB, unannounced": (
        sends(answer(b"", Content_Length="", Transfer_Encoding="chunked") + CHUNK * (50 * 2**20 // 0x10000)),
        "larger than",
    ),
    "a gzip bomb": (sends(answer(BOMB, Content_Encoding="gzip")), "compresses"),
    "no HTTP": (sends(b"220 mail.example.org ESMTP\r\n\r\n"), "broke off"),
    "endless headers": (sends(b"HTTP/1.1 200 OK\r\n" + b"X-Header: value\r\n" * 20_000), "broke off"),
    "an answer that breaks off": (stops_halfway, "broke off"),
    "no answer": (hangs_up, "broke off"),
}


@pytest.mark.parametrize(("behaviour", "said"), BAD_DAYS.values(), ids=BAD_DAYS.keys())
def test_what_may_pass_is_unavailable_and_says_why(
    server: Hostile, volumes: BossVolumes, behaviour: Behaviour, said: str
) -> None:
    server.on(COLLECTIONS, behaviour)

    with pytest.raises(Unavailable, match=said) as trouble:
        volumes.collections(token=TOKEN, within=AMPLE)

    assert str(trouble.value).isprintable()
    assert len(str(trouble.value)) < 200
    assert len(server.heads) == 1


SLOW_DAYS: dict[str, Behaviour] = {
    "a hang before headers": hangs(),
    "a hang within headers": hangs(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "a hang after headers": hangs(answer(b"", Content_Length="100")),
    "a hang after half the body": hangs(answer(b'{"collections": ', Content_Length="100")),
    "headers that drip": drips(b"HTTP/1.1 200 OK\r\nX-Header: ", b"x"),
    "a body that drips": drips(answer(b"", Content_Length="100000"), b" "),
}


@pytest.mark.parametrize("behaviour", SLOW_DAYS.values(), ids=SLOW_DAYS.keys())
def test_a_slow_answer_is_not_waited_for(server: Hostile, volumes: BossVolumes, behaviour: Behaviour) -> None:
    server.on(COLLECTIONS, behaviour)

    began = time.monotonic()
    with pytest.raises(Unavailable, match="in time"):
        volumes.collections(token=TOKEN, within=0.2)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("behaviour", SLOW_DAYS.values(), ids=SLOW_DAYS.keys())
def test_a_slow_answer_is_cut_off_in_the_end(server: Hostile, hasty: BossVolumes, behaviour: Behaviour) -> None:
    """The request's own patience ends, whoever still waits, and its connection with it."""
    server.on(COLLECTIONS, behaviour)

    with pytest.raises(Unavailable, match="in time"):
        hasty.collections(token=TOKEN, within=AMPLE)

    server.say(COLLECTION, {"experiments": ["deep"]})
    assert hasty.experiments("lab", token=TOKEN, within=AMPLE) == ("deep",)
    assert server.connections == 2


def test_a_server_that_is_not_there_cannot_be_reached(server: Hostile, make: Callable[..., BossVolumes]) -> None:
    with Hostile() as gone:
        address = gone.url

    with pytest.raises(Unavailable, match="cannot be reached"):
        make(host=address).collections(token=TOKEN, within=AMPLE)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server: Hostile, volumes: BossVolumes, status: int) -> None:
    with Hostile() as other:
        server.on(COLLECTIONS, sends(answer(b"", status=status, Location=f"{other.url}/v1/collection//")))

        with pytest.raises(Unavailable, match="another address"):
            volumes.collections(token=TOKEN, within=AMPLE)

        other.socket.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has knocked
            other.socket.accept()
    assert server.paths == [COLLECTIONS]


def test_the_servers_call_for_patience_is_passed_on_and_obeyed(
    server: Hostile, make: Callable[..., BossVolumes]
) -> None:
    clock = Clock()
    volumes = make(clock=clock)
    server.on(COLLECTIONS, sends(answer(b"", status=429, Retry_After="30")))

    for later in (0, 29):
        clock.now += later
        with pytest.raises(Unavailable, match="status 429") as trouble:
            volumes.collections(token=TOKEN, within=AMPLE)
        assert trouble.value.retry_after == 30
    assert len(server.heads) == 1

    clock.now += 1
    server.say(COLLECTIONS, {"collections": []})
    assert volumes.collections(token=TOKEN, within=AMPLE) == ()


# ── remembered, and asked once ────────────────────────────────────────────────────────────────────────────────────────


def test_connections_are_used_again(server: Hostile, volumes: BossVolumes) -> None:
    server.say(COLLECTIONS, {"collections": []})
    server.say(COLLECTION, {"experiments": []})
    volumes.collections(token=TOKEN, within=AMPLE)
    volumes.experiments("lab", token=TOKEN, within=AMPLE)

    assert (len(server.heads), server.connections) == (2, 1)


def test_a_connection_that_was_closed_while_idle_is_noticed(server: Hostile, volumes: BossVolumes) -> None:
    closed = threading.Event()

    def closes(conversation: Conversation) -> None:
        conversation.send(answer(b'{"collections": []}'))
        hangs_up(conversation)
        closed.set()

    server.on(COLLECTIONS, closes)
    server.say(COLLECTION, {"experiments": []})
    volumes.collections(token=TOKEN, within=AMPLE)
    assert closed.wait(AMPLE)

    assert volumes.experiments("lab", token=TOKEN, within=AMPLE) == ()
    assert server.connections == 2


def test_twenty_callers_are_one_request(server: Hostile, volumes: BossVolumes) -> None:
    held, asked = threading.Event(), threading.Event()

    def behave(conversation: Conversation) -> None:
        asked.set()
        held.wait(AMPLE)
        conversation.send(answer(b'{"collections": ["lab"]}'))

    server.on(COLLECTIONS, behave)
    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(volumes.collections, token=TOKEN, within=AMPLE) for _ in range(20)]
        assert asked.wait(AMPLE)
        held.set()

        assert {tuple(call.result()) for call in calls} == {("lab",)}
    assert len(server.heads) == 1


def test_what_came_too_late_for_one_caller_is_there_for_the_next(server: Hostile, volumes: BossVolumes) -> None:
    held = threading.Event()

    def behave(conversation: Conversation) -> None:
        held.wait(AMPLE)
        conversation.send(answer(b'{"collections": ["lab"]}'))

    server.on(COLLECTIONS, behave)
    with pytest.raises(Unavailable):
        volumes.collections(token=TOKEN, within=0)
    held.set()

    assert volumes.collections(token=TOKEN, within=AMPLE) == ("lab",)
    assert volumes.collections(token=TOKEN, within=0) == ("lab",)
    assert len(server.heads) == 1


@pytest.mark.parametrize(
    ("status", "lifetime"), [(200, 300), (401, 10), (403, 10), (404, 10), (500, 2), (302, 2), (429, 2)]
)
def test_each_kind_of_answer_has_its_lifetime(
    server: Hostile, make: Callable[..., BossVolumes], status: int, lifetime: float
) -> None:
    clock = Clock()
    volumes = make(clock=clock)
    said = refusal(status) if status in (401, 403, 404) else answer(b'{"experiments": []}', status=status)
    server.on(COLLECTION, sends(said))

    def ask() -> str:
        try:
            return f"{volumes.experiments('lab', token=TOKEN, within=AMPLE)}"
        except NomadsError as error:
            return type(error).__name__

    first = ask()
    clock.now += lifetime - 0.01
    assert ask() == first
    assert len(server.heads) == 1

    clock.now += 0.02
    assert ask() == first
    assert len(server.heads) == 2


def test_lifetimes_can_be_set(server: Hostile, make: Callable[..., BossVolumes]) -> None:
    volumes = make(lifetimes=Lifetimes(metadata=0))
    server.say(COLLECTIONS, {"collections": []})
    volumes.collections(token=TOKEN, within=AMPLE)
    volumes.collections(token=TOKEN, within=AMPLE)

    assert len(server.heads) == 2


def test_one_tokens_answers_are_not_anothers(server: Hostile, volumes: BossVolumes) -> None:
    def behave(conversation: Conversation) -> None:
        mine = f"Token {CANARY}\r\n" in conversation.server.heads[-1]
        conversation.send(answer(json.dumps({"collections": ["mine"] if mine else []}).encode()))

    server.on(COLLECTIONS, behave)

    assert volumes.collections(token=TOKEN, within=AMPLE) == ("mine",)
    assert volumes.collections(token=SecretStr("public"), within=AMPLE) == ()
    assert volumes.collections(token=TOKEN, within=AMPLE) == ("mine",)


def test_a_cookie_does_not_make_one_person_another(server: Hostile, volumes: BossVolumes) -> None:
    server.on(COLLECTIONS, sends(answer(b'{"collections": []}', Set_Cookie="sessionid=mine; Path=/")))
    volumes.collections(token=TOKEN, within=AMPLE)
    volumes.collections(token=SecretStr("public"), within=AMPLE)

    assert len(server.heads) == 2
    assert not any("cookie" in head.lower() for head in server.heads)


def test_what_is_remembered_is_bounded_in_number_and_size(
    server: Hostile, volumes: BossVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least recently used is forgotten first."""
    monkeypatch.setattr(boss, "MAX_KEPT", 3)
    for name in "abcd":
        server.say(f"/v1/collection/{name}", {"experiments": [name * 100]})
    for name in "abcad":
        volumes.experiments(name, token=TOKEN, within=AMPLE)
    assert volumes.experiments("a", token=TOKEN, within=0) == ("a" * 100,)
    assert len(server.heads) == 4

    volumes.experiments("b", token=TOKEN, within=AMPLE)
    assert len(server.heads) == 5

    monkeypatch.setattr(boss, "MAX_KEPT_BYTES", 200)
    volumes.experiments("c", token=TOKEN, within=AMPLE)
    volumes.experiments("c", token=TOKEN, within=AMPLE)
    volumes.experiments("b", token=TOKEN, within=AMPLE)
    assert server.paths[5:] == ["/v1/collection/c", "/v1/collection/b"]


def test_more_questions_than_can_wait_are_turned_away_at_once(
    server: Hostile, volumes: BossVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boss, "WORKERS", 2)
    monkeypatch.setattr(boss, "WAITING", 3)
    for n in range(9):
        server.on(f"/v1/collection/c{n}", hangs())

    def ask(n: int, within: float = 0) -> str:
        with pytest.raises(Unavailable) as trouble:
            volumes.experiments(f"c{n}", token=TOKEN, within=within)
        return str(trouble.value)

    assert all("did not answer in time" in ask(n) for n in range(5))
    until(lambda: len(server.heads) == 2, what="two requests")
    began = time.monotonic()
    assert all("Too many questions" in ask(n, within=AMPLE) for n in range(5, 9))

    assert time.monotonic() - began < 5
    assert len(server.heads) == 2


def test_a_question_whose_time_ended_before_its_turn_is_not_asked_any_more(
    server: Hostile, make: Callable[..., BossVolumes]
) -> None:
    with pytest.raises(Unavailable, match="Too many questions"):
        make(patience=0).collections(token=TOKEN, within=AMPLE)
    assert server.heads == []


# ── the token stays where it is ───────────────────────────────────────────────────────────────────────────────────────


def test_the_token_stands_in_no_log_key_repr_or_error(
    server: Hostile, volumes: BossVolumes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.describe()
    told = []
    behaviours = [behaviour for behaviour, _ in BAD_DAYS.values()]
    behaviours += [sends(answer(b"", status=status, Location="https://example.org")) for status in (302, 401, 403)]
    volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)
    for n, behaviour in enumerate(behaviours):
        server.on(f"/v1/collection/c{n}", behaviour)
        try:
            volumes.experiments(f"c{n}", token=TOKEN, within=AMPLE)
        except NomadsError as error:
            told.append("".join(traceback.format_exception(error)) + repr(error))

    assert len(told) == len(behaviours)
    assert sum(CANARY in head for head in server.heads) >= len(behaviours)
    inside = repr({name: value for name, value in vars(volumes).items() if name != "_lock"})
    assert "v1/collection/c0" in inside
    assert "httpcore" in {record.name.split(".")[0] for record in caplog.records}
    assert CANARY not in caplog.text + "".join(told) + inside + repr(volumes)


# ── where it goes ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("host", "hosts"),
    [
        ("api.bossdb.io", ()),
        ("api.bossdb.io", ("other.example.org", "api.bossdb.io")),
        ("https://api.bossdb.io:443/", ("api.bossdb.io",)),
        ("API.bossdb.io", ("api.bossdb.io",)),
        ("http://127.0.0.1:8000", ("http://127.0.0.1:8000",)),
    ],
)
def test_a_host_that_is_allowed_is_taken(host: str, hosts: tuple[str, ...]) -> None:
    BossVolumes(host=host, hosts=hosts).close()


@pytest.mark.parametrize(
    ("host", "hosts"),
    [
        ("evil.example.org", ("api.bossdb.io",)),
        ("http://api.bossdb.io", ("api.bossdb.io",)),
        ("api.bossdb.io:444", ("api.bossdb.io",)),
        ("api.bossdb.io.evil.example.org", ("api.bossdb.io",)),
        ("", ()),
        ("ftp://api.bossdb.io", ()),
        ("https://name:word@api.bossdb.io", ()),
        ("https://api.bossdb.io/v2", ()),
        ("https://api.bossdb.io?x=1", ()),
        ("https://api.bossdb.io#x", ()),
        ("https://api.bossdb.io:port", ()),
        ("two words", ()),
        ("https://[::1", ()),
    ],
)
def test_any_other_host_is_refused_before_anything_is_sent(host: str, hosts: tuple[str, ...]) -> None:
    with pytest.raises(NomadsError, match="NOMADS_BOSS_HOST"):
        BossVolumes(host=host, hosts=hosts)


def test_neither_proxy_nor_netrc_of_the_environment_are_used(
    server: Hostile, volumes: BossVolumes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password demo-else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    server.say(COLLECTIONS, {"collections": ["lab"]})

    assert volumes.collections(token=TOKEN, within=AMPLE) == ("lab",)
    assert f"Authorization: Token {CANARY}\r\n" in server.heads[0]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody vouches for, with its key."""
    return certificate_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secured(certificate: Path) -> Iterator[Hostile]:
    """The server, over TLS."""
    yield from serving(Hostile(served_with(certificate)))


def test_over_tls_it_is_the_same(
    secured: Hostile, make: Callable[..., BossVolumes], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    volumes = make(host=secured.url, patience=1)
    secured.say(COLLECTIONS, {"collections": ["lab"]})
    secured.on(COLLECTION, drips(b"HTTP/1.1 200 OK\r\nX-Header: ", b"x"))

    assert volumes.collections(token=TOKEN, within=AMPLE) == ("lab",)
    with pytest.raises(Unavailable, match="in time"):
        volumes.experiments("lab", token=TOKEN, within=AMPLE)


def test_a_server_that_cannot_prove_who_it_is_hears_no_token(
    secured: Hostile, make: Callable[..., BossVolumes]
) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        make(host=secured.url).collections(token=TOKEN, within=AMPLE)
    assert secured.heads == []


# ── beginning and end ─────────────────────────────────────────────────────────────────────────────────────────────────


def _workers(volumes: BossVolumes) -> list[str]:
    """Its threads that are alive; another test's may still be looking up a host's name."""
    return [thread.name for thread in volumes._threads if thread.is_alive()]


def test_while_boss_is_late_nobody_else_waits_for_it(
    server: Hostile, volumes: BossVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boss, "LATE", 0.1)
    server.on(COLLECTIONS, hangs())
    with pytest.raises(Unavailable):
        volumes.collections(token=TOKEN, within=0.2)

    server.on(COLLECTION, hangs())
    began = time.perf_counter()
    with pytest.raises(Unavailable):
        volumes.experiments("lab", token=TOKEN, within=2)
    assert time.perf_counter() - began < 1

    server.describe()  # what is asked goes on all the same, and an answer in time ends it
    with contextlib.suppress(Unavailable):
        volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)
    until(lambda: not volumes._late)
    assert volumes.describe("lab", "deep", token=TOKEN, within=AMPLE)


def test_nothing_is_begun_before_the_first_call(server: Hostile) -> None:
    program = (
        "import sys, threading, bot.boss.volumes\n"
        f"volumes = bot.boss.volumes.BossVolumes(host={server.url!r})\n"
        "assert 'httpx' not in sys.modules and 'httpcore' not in sys.modules\n"
        "assert threading.active_count() == 1\n"
        "volumes.close()\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
    assert server.connections == 0


def test_close_lets_everyone_go_at_once(server: Hostile, volumes: BossVolumes) -> None:
    names = [f"c{n}" for n in range(boss.WORKERS + 4)]
    for name in names:
        server.on(f"/v1/collection/{name}", hangs(answer(b"", Content_Length="100")))
    with ThreadPoolExecutor(len(names)) as pool:
        calls = [pool.submit(volumes.experiments, name, token=TOKEN, within=AMPLE) for name in names]
        until(lambda: len(server.heads) == boss.WORKERS, what="every worker being busy")

        began = time.monotonic()
        volumes.close()
        assert time.monotonic() - began < 5

        for call in calls:
            with pytest.raises(Unavailable, match="stopping"):
                call.result()
    assert _workers(volumes) == []
    with pytest.raises(Unavailable, match="stopping"):
        volumes.collections(token=TOKEN, within=AMPLE)


def test_closing_twice_is_no_error(server: Hostile, volumes: BossVolumes) -> None:
    server.say(COLLECTIONS, {"collections": []})
    volumes.collections(token=TOKEN, within=AMPLE)

    volumes.close()
    volumes.close()

    assert _workers(volumes) == []


def test_a_process_that_forgets_to_close_ends_all_the_same(server: Hostile) -> None:
    server.on(COLLECTIONS, hangs())
    program = (
        "from pydantic import SecretStr\n"
        "from bot.boss.volumes import BossVolumes\n"
        "from bot.domain.errors import Unavailable\n"
        "try:\n"
        f"    BossVolumes(host={server.url!r}, patience=300).collections(token=SecretStr('demo-token'), within=0.5)\n"
        "except Unavailable as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert "did not answer in time" in done.stdout


def test_what_nobody_foresaw_is_told_to_whoever_waits(
    server: Hostile, volumes: BossVolumes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(self: object) -> None:
        raise ZeroDivisionError(CANARY)

    monkeypatch.setattr(BossVolumes, "_connections", breaks)

    with pytest.raises(Unavailable, match="could not ask"):
        volumes.collections(token=TOKEN, within=AMPLE)
    assert "ZeroDivisionError" in caplog.text
    assert CANARY not in caplog.text


def test_the_stand_in_is_understood_as_boss_is() -> None:
    with BossStandIn() as stand_in:
        stand_in.add("lab", "deep", shape=(8, 64, 64), offset=(10, 100, 200), channels={"PSD": Bricks("uint16")})
        volumes = BossVolumes(host=stand_in.url, patience=AMPLE)
        token = SecretStr("demo-token")
        found = volumes.describe("lab", "deep", token=token, within=AMPLE)
        with pytest.raises(UnknownExperiment):
            volumes.describe("lab", "nope", token=token, within=AMPLE)
        volumes.close()

    assert found.bounds == ((10, 18), (100, 164), (200, 264))
    assert {served.path for served in stand_in.requests} >= {"/v1/collection/lab/experiment/deep", "/v1/coord/lab_deep"}
