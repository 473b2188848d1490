"""Whatever stands in what others write, reading it ends in an answer, or in the error that it promises.

`make fuzz` tries more than `make test` does (tests/support/fuzzing.py); what it found is read again here. FUZZ says how
many examples of each test are drawn.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from email import message_from_bytes
from email.policy import SMTP
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.requests import Request

from bot.application.links import Links
from bot.aws.events import _hint
from bot.aws.observations import SENSELESS, observation, slimmed
from bot.boss.http import READ, Answer, BossHttp
from bot.boss.volumes import BossVolumes
from bot.domain.errors import InvalidRequest, NotFound, Refused, Unavailable, patience
from bot.domain.links import Audience, Shared
from bot.domain.messages import Mail
from bot.domain.request import JobRequest
from bot.domain.results import MAX_PART, Part
from bot.domain.shards import Layer
from bot.domain.summary import Summary, Unreadable
from bot.domain.volume import Experiment
from bot.domain.work import Hint, Observation
from bot.mail.smtp import mime
from bot.slack.requests import misshapen
from bot.web.viewer import Parts
from contract.program import read_progress
from pipelines.common.sharded import gzipped
from tests.support.fuzzing import kept
from tests.support.papers import Papers
from tests.support.stories import a_job
from volumes.address import Address, Location, parse
from volumes.describe import describe
from volumes.errors import VolumeError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "0", "-1", "nan", "SUCCEEDED", "\x00", "a" * 300, "<!channel>", "../x", "\ud7ff"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
often = settings(
    max_examples=int(os.environ.get("FUZZ", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def spoilt(draw: st.DrawFn, right: Any) -> Any:
    """What is right, with some of its parts taken away, or replaced by anything."""

    def again(value: Any) -> Any:
        kind = draw(st.integers(0, 11))
        if kind == 11:  # so that what is drawn of nothing, and of little, is right
            return draw(JSON)
        if isinstance(value, dict):
            found = {name: again(part) for name, part in value.items() if draw(st.integers(0, 11)) < 11}
            return found | (draw(st.dictionaries(st.text(max_size=6), JSON, max_size=1)) if kind == 1 else {})
        if isinstance(value, list):
            return [again(part) for part in value] + ([draw(JSON)] if kind == 1 else [])
        return value

    return again(right)


def _changed(text: str, at: int, by: str) -> str:
    """The text with something else in place of one of its characters, or behind it."""
    return text[:at] + by + text[at + 1 :]


RESULTS = {
    "counts": {"synapses": 7, "excitatory": 3},
    "files": [{"name": "synapses.csv", "title": "Synapses"}, {"name": "segmentation/info"}],
    "preview": "preview.png",
    "viewer": "https://viewer.test/#!{}",
    "density_per_um3": 0.18,
    "chance": {"count": 3.0, "share": 0.25, "low": 0.1, "high": 0.4},
    "notes": ["A note."],
    "channels": {"postsynaptic": "PSD95"},
    "versions": {"pipeline": "1.0"},
    "view": {"position": [1.0, 2.0, 3.0], "layers": [{"name": "PSD95", "source": "image/PSD95"}]},
    "written_back": "lab/predictions/x",
    "blocks": {"all": 8, "missing": 2, "numbers": [1, 2], "boxes": [[[0, 2], [0, 8], [0, 8]]]},
}
ID = "0f0e0d0c-1111-2222-3333-444455556666"
JOB = {
    "jobId": ID,
    "jobName": "n",
    "jobQueue": "arn:aws:batch:eu-west-2:123456789012:job-queue/nomads-queue",
    "status": "RUNNING",
    "statusReason": "Host EC2 (instance i-0) terminated.",
    "createdAt": 1,
    "startedAt": 2,
    "stoppedAt": 3,
    "isCancelled": False,
    "isTerminated": True,
    "attempts": [
        {"container": {"exitCode": 1, "reason": "OutOfMemory", "logStreamName": "l"}, "startedAt": 1, "stoppedAt": 2}
    ],
    "container": {"exitCode": 137, "reason": "x", "logStreamName": "l", "environment": [{"name": "A", "value": "0"}]},
    "retryStrategy": {"attempts": 3},
    "arrayProperties": {"size": 4, "statusSummary": {"RUNNING": 2, "FAILED": 1, "SUCCEEDED": 1}},
}
VIEW = {
    "id": "V1",
    "type": "modal",
    "callback_id": "submit",
    "hash": "1.a",
    "private_metadata": "",
    "blocks": [{"type": "input", "block_id": "x", "element": {"type": "plain_text_input", "action_id": "value"}}],
    "state": {"values": {"x": {"value": {"type": "plain_text_input", "value": "0,512"}}}},
}
BODIES: tuple[dict[str, Any], ...] = (
    {"type": "view_submission", "user": {"id": "U1"}, "team": {"id": "T1"}, "view": VIEW, "trigger_id": "1.2"},
    {"type": "view_closed", "user": {"id": "U1"}, "view": VIEW, "is_cleared": False},
    {
        "type": "block_actions",
        "user": {"id": "U1"},
        "trigger_id": "1.2",
        "container": {"type": "message", "message_ts": "1.2", "channel_id": "C1"},
        "channel": {"id": "C1"},
        "message": {"ts": "1.2"},
        "actions": [{"type": "button", "action_id": "cancel", "block_id": "b", "value": "abc"}],
    },
    {
        "type": "block_suggestion",
        "user": {"id": "U1"},
        "action_id": "value",
        "block_id": "collection",
        "value": "d",
        "view": VIEW,
    },
    {"type": "shortcut", "callback_id": "submit", "trigger_id": "1.2", "user": {"id": "U1"}},
    {"type": "event_callback", "event": {"type": "app_home_opened", "user": "U1", "tab": "home"}, "authorizations": []},
    {"command": "/nomads", "text": "submit", "user_id": "U1", "channel_id": "C1", "trigger_id": "1.2"},
    {"type": "url_verification", "challenge": "c"},
)
MIME_HEADERS = ("MIME-Version", "Content-Type", "Content-Transfer-Encoding")
FORM = {
    "pipeline": "p",
    "collection": "demo",
    "experiment": "cortex",
    "x": "0,512",
    "y": "0..512",
    "z": "0:16",
    "email": "demo@example.org",
    "channel": "C1",
    "options": {"register": "auto"},
}


@often
@given(spoilt(RESULTS))
def test_results_of_any_shape_are_read_or_refused(said: Any) -> None:
    try:
        found = Summary.read(json.dumps(said).encode(), token="canary")
    except Unreadable:
        return
    assert "canary" not in found.model_dump_json()
    assert all(text.isprintable() for text in found.notes)


@often
@given(st.binary(max_size=200), st.none() | st.just("canary"))
def test_results_of_any_bytes_are_read_or_refused(content: bytes, token: str | None) -> None:
    with suppress(Unreadable):
        assert isinstance(Summary.read(content, token=token), Summary)


@often
@given(spoilt({"source": "aws.batch", "detail-type": "Batch Job State Change", "detail": JOB}))
def test_an_event_of_any_shape_is_a_hint_that_names_a_job_or_none(event: Any) -> None:
    found = _hint(json.dumps(event), "r")
    assert isinstance(found, Hint)
    assert found.receipt == "r"
    assert found.compute_id in ("", ID) or len(found.compute_id) == len(ID)


@often
@given(st.text(max_size=200))
def test_an_event_of_any_text_names_no_job(body: str) -> None:
    assert _hint(body, "r").compute_id == ""


@often
@given(spoilt(JOB))
def test_a_described_job_of_any_shape_is_an_observation_or_makes_no_sense(job: Any) -> None:
    with suppress(*SENSELESS):
        assert isinstance(observation(slimmed(job)), Observation)


def of_body(right: dict[str, Any]) -> Any:
    """A test of requests of that shape."""

    @often
    @given(spoilt(right))
    def tried(body: Any) -> None:
        said = misshapen(body)
        assert isinstance(said, str)
        assert "canary" not in said

    return tried


REQUESTS = {f"a_request_{body.get('type', 'command')}": of_body(body) for body in BODIES}


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_of_slack_of_any_shape_is_right_or_told_to_be_wrong(kind: str) -> None:
    REQUESTS[kind]()


@often
@given(spoilt(FORM))
def test_a_form_of_any_shape_is_a_request_or_its_mistakes_by_field(values: Any) -> None:
    if not isinstance(values, dict):
        return
    with suppress(InvalidRequest):
        assert JobRequest.parse(values).box.voxels > 0


def mistakes(values: Any) -> tuple[Mapping[str, str], JobRequest | None]:
    """The mistakes of a form, and the request where there are none."""
    try:
        return {}, JobRequest.parse(values)
    except InvalidRequest as error:
        return error.errors, None


ADDRESSES = st.text(max_size=60) | st.builds(
    "{}@{}".format,
    st.from_regex(r"\A[!-~]{1,70}\Z"),
    st.from_regex(r"\A[a-z0-9.-]{1,70}\Z") | st.text(max_size=20),
)


@often
@given(ADDRESSES)
def test_a_mail_address_of_any_text_is_refused_or_the_one_recipient_of_a_mail(text: str) -> None:
    wrong, request = mistakes({**FORM, "email": text})
    assert set(wrong) <= {"email"}
    if request is None or not request.email:
        return
    mail = Mail(to=request.email, subject="s", text="t", html="<p>t</p>", message_id="<a@b>")
    read = message_from_bytes(mime(mail, sender="nomads@example.org").as_bytes(), policy=SMTP)
    assert [address.addr_spec for address in read["To"].addresses] == [request.email]
    assert not read.defects
    assert not read["To"].defects
    assert set(read.keys()) <= {"From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", *MIME_HEADERS}


@often
@given(st.text(max_size=40) | st.from_regex(r"\A\s*progress [0-9.e+-]{1,8} [a-z]{0,5}\Z"))
def test_a_line_of_any_text_is_progress_or_none(line: str) -> None:
    found = read_progress(line)
    assert found is None or 0 <= found[0] <= 1


@often
@given(st.none() | st.text(max_size=40) | st.floats().map(str) | st.integers().map(str))
def test_a_retry_after_of_any_text_is_a_bounded_time_or_none(header: str | None) -> None:
    found = patience(header)
    assert found is None or 1 <= found <= 600


BOSS = {
    "/v1/collection//": {"collections": ["demo", "lab"]},
    "/v1/collection/demo": {"name": "demo", "experiments": ["cortex"]},
    "/v1/collection/demo/experiment/cortex": {"coord_frame": "frame", "channels": ["PSD95", "Synapsin"]},
    "/v1/coord/frame": {
        **{f"{axis}_{end}": value for axis in "xyz" for end, value in (("start", 0), ("stop", 64))},
        **{f"{axis}_voxel_size": 4.0 for axis in "xyz"},
        "voxel_unit": "nanometers",
    },
    "/v1/collection/demo/experiment/cortex/channel/PSD95": {"datatype": "uint8"},
    "/v1/collection/demo/experiment/cortex/channel/Synapsin": {"datatype": "uint16"},
    "/v1/permissions/?collection=demo&experiment=cortex": {
        "permission-sets": [{"collection": "demo", "experiment": "cortex", "permissions": ["read", "add"]}]
    },
}
STATUSES = st.sampled_from([200] * 12 + [204, 301, 400, 401, 403, 404, 429, 500, 503])


class Server(BossHttp):
    """Answers with what it was given, in place of a BOSS."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers

    def get(self, path: str, *, token: str, limit: int, deadline: float) -> Answer:
        return self._answers.get(path, Answer(404, b"{}"))

    def abort(self) -> None: ...

    def close(self) -> None: ...


@st.composite
def answers_of_boss(draw: st.DrawFn) -> dict[str, Answer]:
    """What BOSS answers, of which some is spoilt, or is no JSON."""

    def answer(path: str) -> Answer:
        status = draw(STATUSES)
        body = {"detail": "no"} if status >= 400 and draw(st.booleans()) else draw(spoilt(BOSS[path]))
        content = json.dumps(body).encode() if draw(st.integers(0, 20)) else draw(st.binary(max_size=40))
        return Answer(status, content if status in READ else b"")

    return {path: answer(path) for path in BOSS}


@often
@given(answers_of_boss())
def test_answers_of_boss_of_any_shape_are_a_volume_or_told_to_be_wrong(answers: dict[str, Answer]) -> None:
    token = SecretStr("canary")
    volumes = BossVolumes(host="boss.test")
    volumes._http = Server(answers)
    asked: list[Callable[[], object]] = [
        lambda: volumes.collections(token=token, within=5),
        lambda: volumes.experiments("demo", token=token, within=5),
        lambda: volumes.describe("demo", "cortex", token=token, within=5),
        lambda: volumes.may_write("demo", "cortex", token=token, within=5),
    ]
    for ask in asked:
        found, said = None, ""
        try:
            found = ask()
        except (Refused, Unavailable) as error:
            said = str(error)
        assert "NOMADS could not ask" not in said, "which is what is said where something is not foreseen"
        assert "canary" not in said
        if isinstance(found, Experiment):
            assert all(start < stop for start, stop in found.bounds)
            assert all(0 < size < math.inf for size in found.voxel_nm)
    volumes.close()


PRECOMPUTED = {
    "@type": "neuroglancer_multiscale_volume",
    "type": "image",
    "data_type": "uint8",
    "num_channels": 1,
    "scales": [
        {
            "key": "full",
            "size": [64, 64, 16],
            "voxel_offset": [0, 0, 0],
            "resolution": [8, 8, 50],
            "chunk_sizes": [[64, 64, 16]],
            "encoding": "raw",
            "sharding": {
                "@type": "neuroglancer_uint64_sharded_v1",
                "preshift_bits": 1,
                "minishard_bits": 1,
                "shard_bits": 1,
            },
        }
    ],
}
AXES = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
MULTISCALE = {
    "multiscales": [
        {
            "version": "0.4",
            "axes": AXES,
            "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [50, 8, 8]}]}],
        }
    ],
    "omero": {"channels": [{"label": "PSD95"}]},
}
ZARRAY = {
    "zarr_format": 2,
    "shape": [16, 64, 64],
    "chunks": [16, 64, 64],
    "dtype": "|u1",
    "compressor": None,
    "fill_value": 0,
    "filters": None,
    "order": "C",
}
N5 = {
    "dimensions": [64, 64, 16],
    "blockSize": [64, 64, 16],
    "dataType": "uint8",
    "compression": {"type": "gzip"},
    "resolution": [8, 8, 50],
    "units": ["nm", "nm", "nm"],
}


VOLUMES: dict[str, tuple[str, dict[str, Any]]] = {
    "precomputed": ("precomputed://s3://lab/v", {"info": PRECOMPUTED}),
    "zarr": ("zarr://s3://lab/v", {".zattrs": MULTISCALE, "0/.zarray": ZARRAY}),
    "n5": ("n5://s3://lab/v", {"attributes.json": N5}),
}


def of_metadata(text: str, documents: dict[str, Any]) -> Any:
    """A test of volumes whose metadata are of that shape."""
    address = parse(text)
    assert isinstance(address, Address)
    describe(address, Papers(documents))  # which is right

    @often
    @given(spoilt(documents))
    def tried(said: Any) -> None:
        papers = Papers(said if isinstance(said, dict) else {})
        with suppress(VolumeError):
            describe(address, papers)
        assert papers.asked

    return tried


METADATA = {f"a_volume_{kind}": of_metadata(*made) for kind, made in VOLUMES.items()}


@pytest.mark.parametrize("kind", METADATA)
def test_metadata_of_any_shape_is_a_volume_or_told_to_be_wrong(kind: str) -> None:
    METADATA[kind]()


@often
@given(
    st.text(max_size=80)
    | st.from_regex(r"\A(zarr|n5|precomputed|boss)://(s3|gs|https|file)://[!-~]{1,40}(\|[a-z0-9:=/]{0,10}){0,2}\Z")
)
def test_an_address_of_any_text_is_one_that_reads_the_same_again_or_none(text: str) -> None:
    with suppress(VolumeError):
        found = parse(text)
        assert not isinstance(found, Address) or ".." not in found.location.path.split("/")
        assert not isinstance(found, Address) or Location.parse(found.location.url) == found.location


SHARDING = {"hash": "identity", "preshift_bits": 1, "minishard_bits": 1, "shard_bits": 1}
SCALE: dict[str, Any] = {"key": "full", "size": [64, 64, 16], "voxel_offset": [0, 0, 0], "chunk_sizes": [[32, 32, 16]]}
LAYER = {"scales": [{**SCALE, "sharding": {**SHARDING, "minishard_index_encoding": "gzip"}}]}


@often
@given(spoilt(LAYER), st.binary(max_size=80), st.sampled_from(["0-32_0-32_0-16", "32-64_0-32_0-16", "1"]))
def test_a_shard_of_any_content_has_a_chunk_or_none(info: Any, content: bytes, name: str) -> None:
    asked: list[int] = []

    def read(file: str, start: int, length: int) -> bytes:
        asked.append(length)
        return content[start : start + length]

    with suppress(NotFound):
        Layer(json.dumps(info).encode()).chunk(f"full/{name}", read, lambda _, find: find())
    assert max(asked, default=0) <= MAX_PART


def test_the_layer_whose_shards_are_spoilt_is_right() -> None:
    index = gzipped(struct.pack("<3Q", 0, 0, 5))
    content = struct.pack("<4Q", 5, 5 + len(index), 0, 0) + b"chunk" + index
    found = Layer(json.dumps(LAYER).encode()).chunk(
        "full/0-32_0-32_0-16", lambda file, start, length: content[start : start + length], lambda _, find: find()
    )
    assert found == (b"chunk", False)


LINKS = Links(base_url="https://n.test", key=b"k" * 32)
SIGNED = [LINKS.to_end_mail("guest@example.org").rpartition("/")[2]]
SIGNED += [
    link.url.split("/")[-2]
    for audience in (Audience.person("U1"), Audience.channel("C1"), Audience.mail("guest@example.org"))
    if (link := LINKS.to_results(a_job(), audience))
]


@often
@given(st.text(max_size=200) | st.builds(_changed, st.sampled_from(SIGNED), st.integers(0, 400), st.text(max_size=4)))
def test_a_link_of_any_text_opens_nothing_unless_it_was_signed(text: str) -> None:
    for read in (LINKS.read, LINKS.read_end_of_mail):
        with suppress(NotFound):
            assert read(text)
            assert text in SIGNED


@often
@given(st.text(max_size=40) | st.from_regex(r"\A *bytes *= *-?[0-9]{0,40}-?[0-9]{0,40},?.?\Z"), st.binary(max_size=40))
def test_a_range_of_any_text_is_a_part_of_the_file_the_whole_of_it_or_refused(said: str, content: bytes) -> None:
    shared = cast("Shared", SimpleNamespace(part=lambda _link, _name, at, n: Part(content[at : at + n], len(content))))
    scope = {
        "type": "http",
        "method": "GET",
        "headers": [(b"range", said.encode("latin-1", "replace"))],
        "path_params": {"signed": "s", "name": "n"},
    }

    answer = Parts(shared)._part_asked_for(Request(scope))

    told = answer.headers.get("content-range", "")
    match answer.status_code:
        case 200:
            assert (answer.body, told) == (content, "")
        case 206:
            first, _, last = told.removeprefix("bytes ").partition("/")[0].partition("-")
            assert answer.body == content[int(first) : int(last) + 1] != b""
            assert told.endswith(f"/{len(content)}")
        case status:
            assert (status, answer.body, told) == (416, b"", f"bytes */{len(content)}")


TARGETS: dict[str, Any] = REQUESTS | METADATA
TARGETS |= {name.removeprefix("test_"): test for name, test in dict(vars()).items() if hasattr(test, "hypothesis")}
"""By its name, each test that takes anything."""


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_by_fuzzing_is_read_again(name: str) -> None:
    for content in kept(name):
        TARGETS[name].hypothesis.fuzz_one_input(content)
