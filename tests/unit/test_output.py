"""Logs as people may see them: without the token, wherever it lies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from bot.application.links import Links
from bot.application.output import LOG_FILE, Output, log_lines
from bot.application.tokens import TokenKeeper
from bot.domain.errors import NotFound, Refused
from bot.domain.job import Job
from bot.domain.links import Audience
from bot.domain.states import JobState
from bot.domain.summary import Chance, Summary
from bot.domain.work import LogLine
from bot.storage.vault import Vault
from contract.masking import MASK
from tests.support.memory import MemoryCompute, MemoryResults, MemorySecrets
from tests.support.stories import a_job
from tests.support.world import TOKEN

ME = Audience.person("U01DEMO")


class _NoVault(Vault):
    """A vault in which nothing is sealed: every token is in compute's own keeper."""

    def __init__(self) -> None:
        pass


class Bench:
    """An Output over fakes, and a running job whose token is known."""

    def __init__(self, token: str = TOKEN) -> None:
        self.compute, self.results, secrets = MemoryCompute(), MemoryResults(), MemorySecrets()
        tokens = TokenKeeper(vault=_NoVault(), secrets=secrets)
        links = Links(base_url="https://nomads.test", key=b"l" * 32)
        self.output = Output(
            compute=self.compute,
            logs=self.compute,
            results=self.results,
            tokens=tokens,
            links=links,
            boss_host="boss.test",
        )
        self.reference = secrets.put("U01DEMO", SecretStr(token))

    def job(self, state: JobState = JobState.RUNNING, **more: Any) -> Job:
        return a_job(state, **{"compute_id": "memory-1", "token_ref": self.reference, **more})


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_token_that_is_being_written_just_now_is_not_shown_either(bench: Bench) -> None:
    begun = f"using {TOKEN[:-1]}"
    bench.compute.print("memory-1", f"{TOKEN[:-1]} in a line before stays", begun)
    assert bench.output.tail(bench.job(), lines=5)[-1].text == f"using {MASK}"


def test_lines_come_clean_and_with_their_times(bench: Bench) -> None:
    bench.compute.print("memory-1", f"\x1b[31mred\x1b[0m {TOKEN} <!channel> 🧠\x00")
    (line,) = bench.output.tail(bench.job(), lines=5)
    assert line.text == f"red {MASK} <!channel> 🧠 "
    assert log_lines([LogLine("plain"), line])[0] == "plain"


def test_a_token_with_colour_codes_in_it_is_masked(bench: Bench) -> None:
    printed = f"a \x1b[01;31m\x1b[K{TOKEN[:4]}\x1b[m\x1b[K{TOKEN[4:]} z"
    bench.compute.print("memory-1", printed)
    (line,) = bench.output.tail(bench.job(), lines=5)
    assert line.text == f"a {MASK} z"


def test_the_rest_of_a_token_at_the_beginning_of_what_is_read_is_masked(bench: Bench) -> None:
    """Of a line longer than what is read at once only the end is seen, and it may begin within the token."""
    bench.compute.print("memory-1", f"{TOKEN[3:]} and more", f"{TOKEN[3:]} is not cut here")
    first, second = bench.output.tail(bench.job(), lines=5)
    assert first.text == f"{MASK} and more"
    assert second.text == f"{TOKEN[3:]} is not cut here"


def test_a_log_whose_token_is_not_known_is_not_shown_before_its_job_has_ended(bench: Bench) -> None:
    bench.compute.print("memory-1", "words")
    assert bench.output.tail(bench.job(token_ref=None), lines=5) == []
    with pytest.raises(NotFound):
        bench.output.whole_log(bench.job(token_ref=None), ME)
    assert [line.text for line in bench.output.tail(bench.job(JobState.FAILED, token_ref=None), lines=5)] == ["words"]
    assert bench.output.tail(bench.job(JobState.FAILED, token_ref="memory:gone"), lines=5) == []


def test_the_whole_log_lies_masked_beside_the_results(bench: Bench) -> None:
    bench.compute.print("memory-1", f"begins {TOKEN}", "ends")
    job = bench.job()
    assert bench.output.whole_log(job, ME).url.endswith(LOG_FILE)
    assert bench.results.files[job.folder][LOG_FILE] == f"begins {MASK}\nends\n".encode()


def test_a_job_that_was_never_started_has_no_log(bench: Bench) -> None:
    assert bench.output.tail(bench.job(compute_id=None), lines=5) == []
    with pytest.raises(Refused, match="never started"):
        bench.output.whole_log(bench.job(compute_id=None), ME)
    assert bench.output.console(bench.job(compute_id=None)) == ""


def test_public_is_a_word_like_others() -> None:
    bench = Bench(token="public")
    bench.compute.print("memory-1", "public data")
    (line,) = bench.output.tail(bench.job(), lines=1)
    assert line.text == "public data"


def test_chance_that_cannot_be_told_is_no_share_of_0_for_programs() -> None:
    said = {"count": 1, "share": 0.5, "low": 0.25, "high": 0.75}
    assert Chance(count=None).numbers is None
    assert Chance.model_validate(said).numbers == said


def test_the_end_begins_with_what_was_found_and_its_density() -> None:
    said = {"counts": {"synapses": 293, "voxels in synapses": 13158}, "density_per_um3": 0.1516}
    assert Summary.read(json.dumps(said).encode()).found == ("293 synapses, 0.15 per µm³; 13,158 voxels in synapses")
    assert Summary.read(b'{"counts": {"synapses": 1}}').found == "1 synapse"
    assert Summary.read(b"{}").found == ""


def found_with(chance: object, **more: object) -> str:
    said = {"counts": {"synapses": 2481, "voxels in synapses": 13158}, "density_per_um3": 0.1516, "chance": chance}
    return Summary.read(json.dumps(said | more).encode()).found


CHANCE = {"count": 610, "share": 0.25, "low": 0.23, "high": 0.27}


def test_what_was_found_says_how_much_of_it_is_there_by_chance() -> None:
    begins, ends = "2,481 synapses, 0.15 per µm³; ", "; 13,158 voxels in synapses"
    assert found_with(CHANCE) == f"{begins}about 610 of them by chance (25 %, 23 to 27){ends}"
    small = {"count": 10, "share": 0.004, "low": 0, "high": 0.0149}
    assert found_with(small) == f"{begins}about 10 of them by chance (0.4 %, 0 to 1.5){ends}"
    tiny = {"count": 0, "share": 0.5, "low": 0, "high": 1}
    assert found_with(tiny) == f"{begins}fewer than one by chance (50 %, 0 to 100){ends}"
    whole = {"count": 2481, "share": 1, "low": 1, "high": 1}
    assert found_with(whole) == f"{begins}all by chance{ends}"
    assert found_with(None) == f"{begins}how many by chance cannot be told{ends}"


def test_of_nothing_found_nothing_is_there_by_chance() -> None:
    for chance in (None, CHANCE | {"count": 0}):
        assert found_with(chance, counts={"synapses": 0}) == "0 synapses, 0.15 per µm³"
        assert found_with(chance, counts={}) == ""


@pytest.mark.parametrize(
    "chance",
    [
        "610",
        610,
        [],
        {},
        {"count": 610},
        CHANCE | {"count": 2482},
        CHANCE | {"count": -1},
        CHANCE | {"count": 1.5},
        CHANCE | {"count": True},
        CHANCE | {"count": 10**400},
        CHANCE | {"share": 1.01, "high": 1.02},
        CHANCE | {"share": "0.25"},
        CHANCE | {"share": float("nan")},
        CHANCE | {"low": float("-inf")},
        CHANCE | {"low": 0.26},
        CHANCE | {"high": None},
    ],
)
def test_what_a_program_says_of_chance_and_cannot_be_is_not_told_and_hides_no_counts(chance: object) -> None:
    assert found_with(chance) == "2,481 synapses, 0.15 per µm³; 13,158 voxels in synapses"


@pytest.mark.parametrize("said", [{}, {"chance": None}, {"chance": CHANCE}])
def test_what_was_found_stays_the_same_once_it_is_stored(said: dict[str, object]) -> None:
    summary = Summary.read(json.dumps({"counts": {"synapses": 2481}} | said).encode())
    stored = json.loads(json.dumps(summary.model_dump(mode="json")))
    assert Summary.model_validate(stored) == summary
    assert ("chance" in stored) == ("chance" in said)


def test_detections_in_boss_are_linked_where_a_browser_shows_them(bench: Bench) -> None:
    """The channel's address in the REST API asks for a token and shows a person nothing."""
    job = bench.job(JobState.SUCCEEDED, summary=Summary(written_back="lab/predictions/long_name"))
    (link,) = [link for title, link in bench.output.links(job, ME) if title == "Detections in BOSS"]
    assert link.url == "https://boss.test/v1/mgmt/resources/lab/predictions/long_name"


@pytest.mark.parametrize("place", ["../../admin", "a/b", "a/b/c d", 7, "https://x/y/z", "a/b/c/d"])
def test_a_channel_that_a_program_claims_to_have_written_is_a_channel_s_name(place: object) -> None:
    assert Summary.read(json.dumps({"written_back": place}).encode()).written_back == ""
    assert Summary.read(b'{"written_back": "c/e/long_name"}').written_back == "c/e/long_name"


def test_folders_for_viewers_take_no_place_among_the_links(bench: Bench) -> None:
    files = [{"name": f"image/{number}/info"} for number in range(20)] + [{"name": "information/info.csv"}]
    job = bench.job(JobState.SUCCEEDED, summary=Summary.model_validate({"files": files}))

    assert [title for title, _ in bench.output.links(job, ME)] == ["information/info.csv"]


VIEW = {"voxel_nm": [50, 4, 4], "start": [0, 0, 0], "shape": [8, 64, 64], "at": [1, 2, 3]}


def seen(**more: Any) -> Summary:
    """What a run left that a viewer shows."""
    files = [{"name": "annotations/info"}, {"name": "synapses.csv"}]
    return Summary.model_validate({"files": files, "view": VIEW, "viewer": "https://viewer.test/#!boss", **more})


def test_view_in_3d_is_the_first_link_and_boss_s_layers_are_offered_too(bench: Bench) -> None:
    job = bench.job(JobState.SUCCEEDED, summary=seen())

    links = bench.output.links(job, ME)

    assert [title for title, _ in links] == ["View in 3D", "synapses.csv", "Neuroglancer"]
    assert links[0][1].url == bench.output.view(job, ME)
    assert links[0][1].url.startswith("https://nomads.test/v/")
    assert links[0][1].expires == links[1][1].expires
    assert len(links[0][1].url) < 300, "a button of Slack's takes 3,000"
    signed = [link.url.split("/")[4] for _, link in links[:2]]
    assert signed[0] == signed[1], "it gives the rights that the other links give"


@pytest.mark.parametrize("changes", [{"view": None}, {"files": [{"name": "synapses.csv"}]}])
def test_without_layers_or_without_a_view_none_is_offered(bench: Bench, changes: dict[str, Any]) -> None:
    job = bench.job(JobState.SUCCEEDED, summary=seen(**changes))

    assert bench.output.view(job, ME) == ""
    assert "View in 3D" not in [title for title, _ in bench.output.links(job, ME)]


def test_without_a_web_no_view_is_offered(bench: Bench) -> None:
    bench.output._links = Links(base_url="", key=b"l" * 32)
    job = bench.job(JobState.SUCCEEDED, summary=seen())

    assert bench.output.view(job, ME) == ""
    assert [title for title, _ in bench.output.links(job, ME)] == ["synapses.csv", "Neuroglancer"]
