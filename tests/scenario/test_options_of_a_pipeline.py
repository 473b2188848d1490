"""A pipeline's options: in the form, in a command, on the card, in what makes work the same, and in the program."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.application.steering import Retried
from bot.application.submission import Question
from bot.domain.catalog import Catalog
from bot.domain.errors import InvalidRequest
from bot.domain.job import Job
from bot.domain.states import JobState
from bot.domain.work import Cause
from bot.slack import cards
from bot.storage.engine import Database
from handlers import modal
from sandbox import blocks
from tests.support import options
from tests.support.app import RIGHT, Serve, Served
from tests.support.waiting import until
from tests.support.world import TOKEN, World, a_request

SET = {"false-discovery": "0.1", "witness": "PSD95"}
OPTIONS = ("method", "false-discovery", "sections", "witness")


@pytest.fixture
def world(store: Database) -> World:
    return World(store, pipeline=options.optional())


@pytest.fixture
def served(serve: Serve, tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, working=True, pipelines=str(options.write(tmp_path / "pipelines"))) as served:
        yield served


def shown(served: Served) -> dict[str, Any]:
    """The form as it stands now."""
    view = served.slack.view_of("U01DEMO")
    assert view
    return view


def held(view: Mapping[str, Any], pipeline: str = "optional") -> dict[str, str]:
    """What the fields of the pipeline's options hold, by name."""
    begins = f"{modal.OPTION}{pipeline}:"
    found = {}
    for block in view["blocks"]:
        if block["block_id"].startswith(begins):
            element = block["element"]
            choice = element.get("initial_option") or {}
            found[block["block_id"].removeprefix(begins)] = element.get("initial_value") or choice.get("value") or ""
    return found


def of(served: Served, name: str, pipeline: str = "optional") -> str:
    """The block of an option."""
    return f"{modal.OPTION}{pipeline}:{name}"


def choose(served: Served, pipeline: str) -> dict[str, Any]:
    """Choose another pipeline in the open form; the form once its options have changed."""
    served.slack.person().click(shown(served), modal.PIPELINE, pipeline)
    wanted = list(OPTIONS) if pipeline == "optional" else []
    until(lambda: list(held(shown(served))) == wanted, what="the pipeline's options")
    return shown(served)


def ended(served: Served) -> Job:
    """The newest job, once it has ended and everybody was told."""
    (*_, job) = served.rows.jobs()
    until(lambda: served.rows.job(job.id).ended and not served.rows.open_effects(job.id), what="the end")
    return served.rows.job(job.id)


# The form


def test_the_options_of_the_chosen_pipeline_stand_under_it_with_their_defaults(served: Served) -> None:
    view = served.open_form("submit optional")
    names = [block["block_id"].rpartition(":")[2] for block in view["blocks"]]  # type: ignore[attr-defined]
    assert names[:6] == ["pipeline", *OPTIONS, "token"]
    assert held(view) == {"method": "paired", "false-discovery": "0.25", "sections": "3", "witness": ""}
    rate = view["blocks"][2]  # type: ignore[index]
    assert rate["label"]["text"] == "False discovery rate"
    assert rate["hint"]["text"] == ("Share of the detections that may be there by chance. 0.01 to 0.9; empty: 0.25.")
    assert view["blocks"][4]["hint"]["text"] == (  # type: ignore[index]
        "Channels that ought to be there. 3 at most, with commas between."
    )


def test_another_pipeline_has_other_options_and_what_was_typed_elsewhere_stays(served: Served) -> None:
    served.open_form("submit plain")
    assert held(shown(served)) == {}
    served.slack.person().fill(shown(served), {"token": "demo-token", "x": "5, 9"})
    view = choose(served, "optional")
    served.slack.person().fill(view, {of(served, "false-discovery"): "0.5"})
    assert modal.parse(shown(served)).values["options"]["false-discovery"] == "0.5"
    view = choose(served, "plain")
    form = modal.parse(view)
    assert (form.token.get_secret_value(), form.values["x"], "options" in form.values) == ("demo-token", "5, 9", False)
    assert held(choose(served, "optional"))["false-discovery"] == "0.25", "Slack keeps no value of another pipeline"


def test_while_boss_is_silent_another_pipeline_s_options_are_shown_all_the_same(served: Served) -> None:
    served.boss.fail_next(50, status=503)
    served.open_form("submit plain demo/cortex")
    assert list(held(choose(served, "optional"))) == list(OPTIONS)
    assert "BOSS does not answer" in json.dumps(shown(served))


def test_of_the_form_only_the_chosen_pipeline_s_options_are_read(served: Served) -> None:
    view = json.loads(json.dumps(served.open_form("submit optional")))
    view["state"]["values"]["pipeline"][modal.PIPELINE]["selected_option"]["value"] = "plain"
    assert "options" not in modal.parse(view).values


def test_a_form_with_as_many_options_as_there_may_be_is_one_that_slack_takes() -> None:
    choices = [f"{'c' * 60}{n}" for n in range(10, 40)]
    kind = {"title": "t" * 40, "about": "a" * 300, "kind": "choice", "choices": choices, "default": choices[0]}
    pipeline = options.optional(options=[{"name": f"{'n' * 27}{n}", **kind} for n in range(20)])
    world_of_one = Catalog({pipeline.name: pipeline})
    view = modal.view(world_of_one, modal.Wish({"pipeline": pipeline.name}))
    assert blocks.view_problems(view) == []
    assert len(json.dumps(view)) < 250_000


def test_every_mistake_in_an_option_is_an_error_under_its_field(served: Served) -> None:
    view = served.open_form("submit optional")
    typed = {"false-discovery": "2", "sections": "1,5", "witness": "PSD96"}
    ack = served.slack.person().submit(
        view, RIGHT | {of(served, name): text for name, text in typed.items()} | {"x": "9, 3"}, checked=False
    )
    assert ack.errors == {
        "x": "start (9) must be smaller than stop (3); the stop itself is not included.",
        of(served, "false-discovery"): "2 is too large; write a number from 0.01 to 0.9, such as 0.25.",
        of(served, "sections"): "“1,5” is not a whole number; write a whole number from 0 to 5000, such as 3.",
        of(served, "witness"): "This experiment has no channel “PSD96”; did you mean “PSD95”?",
    }
    assert served.jobs == 0


def test_a_channel_that_the_experiment_lacks_is_told_where_all_else_is_right(served: Served) -> None:
    view = served.open_form("submit optional witness=PSD96")
    ack = served.slack.person().submit(view, RIGHT, checked=False)
    assert ack.errors == {of(served, "witness"): "This experiment has no channel “PSD96”; did you mean “PSD95”?"}


def test_the_program_is_called_with_what_differs_from_the_defaults_and_everybody_reads_it(served: Served) -> None:
    view = served.open_form("submit optional")
    typed = {"false-discovery": "10 %", "witness": "PSD95, Synapsin", "sections": "3"}
    ack = served.slack.person().submit(view, RIGHT | {of(served, name): text for name, text in typed.items()})
    assert ack.ok
    assert not ack.errors, ack
    job = ended(served)
    folder = served.nomads.core.settings.data / "results" / job.folder
    assert options.argv(folder) == {"--false-discovery": "0.1", "--witness": "PSD95,Synapsin"}
    said = "False discovery rate 0.1; Witnesses PSD95, Synapsin"
    (card, *_) = served.slack.messages("#synapses")
    assert said in json.dumps(card["blocks"])
    served.slack.person().click(card, cards.DETAILS)
    until(lambda: f"Options: {said}" in json.dumps(served.slack.view_of("U01DEMO")), what="the details")


def test_edit_and_rerun_and_the_next_form_are_filled_with_the_options(served: Served) -> None:
    view = served.open_form("submit optional method=probabilistic false-discovery=0,1")
    assert served.slack.person().submit(view, RIGHT).ok
    ended(served)
    (card, *_) = served.slack.messages("#synapses")
    served.slack.person().click(card, cards.EDIT)
    filled = {"method": "probabilistic", "false-discovery": "0.1", "sections": "3", "witness": ""}
    assert held(shown(served)) == filled
    assert held(served.open_form("submit")) == filled
    assert held(served.open_form("submit sections=4")) == filled | {"sections": "4"}
    assert held(served.open_form("submit plain")) == {}


def test_channels_that_the_last_request_named_are_not_offered_for_another_experiment(served: Served) -> None:
    view = served.open_form("submit optional sections=4 witness=PSD95")
    assert served.slack.person().submit(view, RIGHT).ok
    ended(served)
    assert held(served.open_form("submit demo/cortex"))["witness"] == "PSD95"
    assert held(served.open_form("submit demo/other")) == {
        "method": "paired", "false-discovery": "0.25", "sections": "4", "witness": "",
    }  # fmt: skip
    assert held(served.open_form("submit demo/other witness=GluR1"))["witness"] == "GluR1"


def test_an_option_of_the_last_request_that_has_no_effect_with_the_command_is_not_offered(
    serve: Serve, tmp_path: Path
) -> None:
    pipelines = options.write(tmp_path / "pipelines")
    entry = pipelines / "optional" / "pipeline.toml"
    entry.write_text(entry.read_text().replace("most = 0.9\n", 'most = 0.9\nonly_with = ["method=paired"]\n'))
    with serve(tmp_path, working=True, pipelines=str(pipelines)) as served:
        view = served.open_form("submit optional false-discovery=0.1 sections=4")
        assert served.slack.person().submit(view, RIGHT).ok
        ended(served)
        assert held(served.open_form("submit"))["false-discovery"] == "0.1"
        other = served.open_form("submit method=probabilistic")
        assert held(other) == {
            "method": "probabilistic", "false-discovery": "0.25", "sections": "4", "witness": "",
        }  # fmt: skip
        assert served.slack.person().submit(other, RIGHT).ok
        typed = served.open_form("submit method=probabilistic false-discovery=0.2")
        assert held(typed)["false-discovery"] == "0.2", "what was typed is told to have no effect"


def test_the_question_keeps_what_was_typed_of_the_options(served: Served) -> None:
    for _ in range(2):
        view = served.open_form("submit optional")
        assert served.slack.person().submit(view, RIGHT | {of(served, "sections"): "7"}).ok
        ended(served)
    assert "This has been done already" in json.dumps(shown(served))
    assert held(shown(served))["sections"] == "7"


# The command


def test_a_command_fills_in_options_whatever_the_order_of_its_words(served: Served) -> None:
    view = served.open_form("submit False-Discovery=0,1 witness=PSD95,Synapsin method=PROBABILISTIC optional x=0,9")
    assert held(view) == {
        "method": "probabilistic", "false-discovery": "0,1", "sections": "3", "witness": "PSD95,Synapsin",
    }  # fmt: skip
    assert "Not understood" not in json.dumps(view)
    assert held(served.open_form("submit optional false-discovery = 10 % sections=4"))["false-discovery"] == "10%"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("colour=blue", "colour=blue (optional has no option “colour”; it has method, false-discovery, sections and "),
        ("method=matched", "method=matched (it is paired or probabilistic)"),
        ("sections=4 sections=5", "Not understood, and left out: sections=5"),
    ],
)
def test_a_word_that_is_no_option_is_left_out_and_told_with_what_there_is(served: Served, word: str, says: str) -> None:
    assert says in json.dumps(served.open_form(f"submit optional {word}"), ensure_ascii=False)


def test_the_pipelines_are_listed_with_their_options_as_words_of_the_command(served: Served) -> None:
    served.slack.person().slash("/nomads", "pipelines", channel="#synapses")
    said = json.dumps(served.slack.ephemerals("U01DEMO")[-1])
    assert "`false-discovery=0.25` Share of the detections that may be there by chance." in said


# What makes work the same


def test_other_options_are_other_work_and_the_same_ones_in_other_words_are_the_same(world: World) -> None:
    world.submit(key="one", options={"false-discovery": "0.10"})
    assert isinstance(world.submit(key="two", options={"false-discovery": "10 %"}), Question)
    assert isinstance(world.submit(key="three", options={"false-discovery": "0.2"}), Job)
    assert isinstance(world.submit(key="four", options={"false-discovery": "0.25", "method": "paired"}), Job)
    assert isinstance(world.submit(key="five"), Question), "the defaults are no options"


def test_witnesses_in_another_order_are_the_same_work(world: World) -> None:
    world.submit(key="one", options={"witness": "Synapsin,PSD95"})
    assert isinstance(world.submit(key="two", options={"witness": "PSD95, Synapsin, PSD95"}), Question)


def test_a_request_without_options_is_the_work_that_it_was_before_there_were_options(world: World) -> None:
    said = "nomads-unsupervised_demo_cortex_z_0_16_y_0_512_x_0_512\n1\nlab/predictions"
    assert world.accept().work == hashlib.sha256(said.encode()).hexdigest()


def test_options_are_kept_with_the_job_and_handed_to_the_program(world: World) -> None:
    job = world.accept(options=SET)
    world.settle()
    assert world.job(job).request.options == SET
    (work,) = world.compute.works
    given = [*work.arguments]
    at = given.index("--false-discovery")
    assert given[at : at + 4] == ["--false-discovery", "0.1", "--witness", "PSD95"]
    assert given[given.index("--results-key") + 1] == a_request(options=SET).results_key


def test_a_retry_has_the_options_of_the_job_that_it_tries_again(world: World) -> None:
    job = world.accept(options=SET)
    world.settle()
    world.see(job, JobState.FAILED, exit_code=1)
    world.settle()
    again = world.steering.retry(job.id, actor=job.actor, token=SecretStr(TOKEN))
    assert isinstance(again, Retried)
    assert again.job.request.options == SET


def test_what_boss_could_not_be_asked_is_refused_by_the_worker_with_the_channel_s_name(world: World) -> None:
    job = world.accept(checked=False, options={"witness": "Homer"})
    world.settle()
    failed = world.job(job)
    assert (failed.state, failed.cause) == (JobState.FAILED, Cause.REQUEST)
    assert failed.reason == "This experiment has no channel “Homer”; it has PSD95 and Synapsin."


def test_a_person_hears_of_unknown_options_which_there_are(world: World) -> None:
    with pytest.raises(InvalidRequest) as caught:
        world.propose(options={"colour": "blue"})
    assert caught.value.errors["colour"].endswith("it has method, false-discovery, sections and witness.")


def test_mails_say_what_was_set(world: World) -> None:
    world.accept(options=SET)
    world.settle()
    assert "Options: False discovery rate 0.1; Witnesses PSD95\n" in world.mailer.sent[0].text
