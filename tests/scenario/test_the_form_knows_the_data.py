"""The form asks BOSS: lists as people type, what an experiment has, and every check that can be made beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.domain.job import Job
from bot.domain.states import JobState
from bot.volumes.addressed import AddressedVolumes
from handlers import modal
from sandbox.boss import DEMO_TOKEN, Access
from sandbox.house import House
from sandbox.slack import Ack, SlackStandIn
from sandbox.slack.workspace import BOT_USER, Member
from sandbox.volumes import Bricks
from tests.support.app import PROGRAMS, RIGHT, Serve, Served
from tests.support.waiting import until

SECRET = "canary-token-3f9c"
OTHER = "U02OTHER"
NEEDED = "BOSS does not show this to everybody: paste your BOSS token."


@pytest.fixture(autouse=True)
def _tokens(house: House) -> None:
    house.boss.tokens[SECRET] = Access(user="demo", write=frozenset({"*"}))
    house.slack.add_person(Member(id=OTHER, name="other", real_name="Other Person", email="other@example.org"))


def block(view: Mapping[str, Any], name: str) -> dict[str, Any]:
    return next(b for b in view["blocks"] if name in (b["block_id"], b.get("element", {}).get("action_id")))


def texts(view: Mapping[str, Any]) -> str:
    """Everything the form says."""
    return json.dumps(view["blocks"], ensure_ascii=False)


def initial(view: Mapping[str, Any], name: str) -> str:
    element = block(view, name)["element"]
    option = element.get("initial_option") or {}
    return str(element.get("initial_value") or element.get("initial_conversation") or option.get("value") or "")


def shown(served: Served) -> dict[str, Any]:
    """The form as it stands now."""
    view = served.slack.view_of("U01DEMO")
    assert view
    return view


def choose(served: Served, collection: str = "demo", experiment: str = "cortex", **typed: str) -> dict[str, Any]:
    """Choose an experiment in the open form; the form once it shows something of it."""
    person = served.slack.person()
    person.fill(shown(served), {"collection": collection, **typed})
    person.click(shown(served), "collection", collection)
    person.suggest(shown(served), "experiment", experiment)
    person.click(shown(served), "experiment", experiment)

    def described() -> dict[str, Any] | None:
        view = shown(served)
        below = view["blocks"].index(block(view, "experiment")) + 1
        return view if view["blocks"][below]["type"] == "context" else None

    return until(described, what="the experiment in the form") or {}


def test_of_two_choices_the_last_one_is_shown_whichever_answer_comes_first(served: Served) -> None:
    for name in ("late", "soon"):
        served.boss.add("lab", name, shape=(4, 64, 64), channels={f"{name}_channel": Bricks("uint8")})
    served.open_form()
    person = served.slack.person()
    person.fill(shown(served), {"token": DEMO_TOKEN, "collection": "lab"})
    person.suggest(shown(served), "experiment", "")
    with served.boss.hanging(prefix="/v1/collection/lab/experiment/late") as hold:
        person.click(shown(served), "experiment", "late")
        assert hold.reached.wait(5)
        person.click(shown(served), "experiment", "soon")
        until(lambda: "soon_channel (uint8)" in texts(shown(served)), what="the second choice")
    until(lambda: not boss_of(served)["_flights"], what="the late answer")
    served.nomads.later.submit(lambda: None).result(10)
    assert "soon_channel (uint8)" in texts(shown(served))


def boss_of(served: Served) -> dict[str, Any]:
    """What the bot knows of BOSS."""
    volumes = served.nomads.core.volumes
    assert isinstance(volumes, AddressedVolumes)
    return vars(volumes.boss)


def names(options: list[dict[str, Any]]) -> list[str]:
    return [option["value"] for option in options]


# Type-ahead


def test_collections_are_offered_as_they_are_typed_with_what_was_typed_last(served: Served) -> None:
    view = served.open_form()
    served.slack.person().fill(view, {"token": DEMO_TOKEN})

    offered = served.slack.person().suggest(view, "collection", "de")
    assert names(offered) == ["demo", "de"]
    assert offered[-1]["text"]["text"] == "de (not listed)"
    assert "demo" in names(served.slack.person().suggest(view, "collection", ""))
    assert names(served.slack.person().suggest(view, "collection", "demo")) == ["demo"]


def test_another_collection_takes_the_chosen_experiment_away(served: Served) -> None:
    served.boss.add("lab", "other", shape=(4, 64, 64), channels={"psd": Bricks("uint8")})
    served.open_form()
    before = choose(served, token=DEMO_TOKEN)
    person = served.slack.person()
    person.suggest(before, "collection", "lab")
    person.click(before, "collection", "lab")

    def another() -> dict[str, Any] | None:
        view = shown(served)
        return view if block(view, "experiment")["block_id"] != block(before, "experiment")["block_id"] else None

    view = until(another, what="another block for the experiment")
    assert view
    assert modal.parse(view).values["experiment"] == ""
    assert modal.parse(view).values["collection"] == "lab"
    assert modal.parse(view).token.get_secret_value() == DEMO_TOKEN
    ack = person.submit(view, RIGHT | {"collection": "lab", "experiment": "othr"}, checked=False)
    assert ack.errors == {
        block(view, "experiment")[
            "block_id"
        ]: "BOSS has no experiment “othr” in the collection “lab”; did you mean “other”?"
    }


def test_the_first_collection_leaves_what_is_typed_of_an_experiment(served: Served) -> None:
    view = served.open_form()
    person = served.slack.person()
    person.fill(view, {"token": DEMO_TOKEN})
    person.suggest(view, "collection", "demo")
    person.click(view, "collection", "demo")
    served.nomads.later.submit(lambda: None).result(10)
    assert block(shown(served), "experiment")["block_id"] == block(view, "experiment")["block_id"]


def test_the_same_collection_chosen_again_leaves_the_experiment_as_it_is(served: Served) -> None:
    served.open_form()
    before = choose(served, token=DEMO_TOKEN)
    served.slack.person().click(before, "collection", "demo")
    served.nomads.later.submit(lambda: None).result(10)
    assert modal.parse(shown(served)).values["experiment"] == "cortex"
    assert "PSD95 (uint8)" in texts(shown(served))


def test_without_a_collection_the_list_of_experiments_says_what_to_do(served: Served) -> None:
    view = served.open_form()
    person = served.slack.person()
    person.fill(view, {"token": DEMO_TOKEN})
    for query in ("", "cor"):
        (offered,) = person.suggest(view, "experiment", query)
        assert offered["text"]["text"] == "Choose a collection first"
    person.click(view, "experiment", "Choose a collection first")
    ack = person.submit(view, RIGHT | {"collection": "", "experiment": "Choose a collection first"}, checked=False)
    assert ack.errors == {
        "collection": "Write the collection's name, as BOSS spells it.",
        "experiment": "Write the experiment's name, as BOSS spells it.",
    }


def test_a_missing_pipeline_is_to_be_chosen(served: Served) -> None:
    assert served.submit(pipeline="").errors == {"pipeline": "Choose a pipeline."}


def test_experiments_are_those_of_the_collection_that_was_chosen(served: Served) -> None:
    view = served.open_form()
    person = served.slack.person()
    person.fill(view, {"token": DEMO_TOKEN, "collection": "demo"})

    assert names(person.suggest(shown(served), "experiment", "")) == ["cortex"]


def test_where_slack_does_not_tell_the_form_s_state_the_chosen_collection_is_remembered(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its documentation promises the state for submissions and actions, not for suggestions."""
    served.open_form("submit demo/cortex")
    person = served.slack.person()
    whole = person._seen
    monkeypatch.setattr(type(person), "_seen", lambda self, opened: {**whole(opened), "state": {"values": {}}})

    assert names(person.suggest(shown(served), "experiment", "co")) == ["cortex", "co"]


def test_a_name_that_is_not_listed_can_be_submitted_and_gets_boss_s_answer(served: Served) -> None:
    view = served.open_form()
    person = served.slack.person()
    person.fill(view, {"token": DEMO_TOKEN})
    ack = person.submit(view, RIGHT | {"collection": "demp"})
    assert ack.errors == {"collection": "BOSS has no collection “demp”; did you mean “demo”?"}


def test_hostile_names_of_boss_are_not_offered(served: Served) -> None:
    for name in ("<!channel>", 'a"b', "right\u202eleft"):
        served.boss.add(name, "one", shape=(1, 1, 1), channels={})
    view = served.open_form()
    served.slack.person().fill(view, {"token": DEMO_TOKEN})

    offered = names(served.slack.person().suggest(view, "collection", ""))
    assert "demo" in offered
    assert not {"<!channel>", 'a"b', "right\u202eleft"} & set(offered)


def test_with_boss_away_the_fields_take_plain_names_and_say_that_they_are_unchecked(served: Served) -> None:
    served.boss.fail_next(50, status=503)
    view = served.open_form()
    served.slack.person().fill(view, {"token": DEMO_TOKEN})

    (offered,) = served.slack.person().suggest(view, "collection", "mine")
    assert (offered["value"], offered["text"]["text"]) == ("mine", "mine (unchecked: BOSS does not say)")
    assert "checked before the run" in texts(choose(served, "mine", "own", token=DEMO_TOKEN))


# What the form shows of an experiment


def test_choosing_an_experiment_shows_what_it_has_and_keeps_what_was_typed(served: Served) -> None:
    served.open_form()
    view = choose(served, token=DEMO_TOKEN, x="5, 9", email="else@example.org")

    said = texts(view)
    assert "z 0, 64 · y 0, 1024 · x 0, 1024 · voxels of 50 × 96 × 96 nm (z, y, x)" in said
    assert "PSD95 (uint8)" in said
    assert block(view, "x")["hint"]["text"].startswith("This experiment has 0, 1024; start, stop in voxels")
    assert block(view, "z")["hint"]["text"].startswith("This experiment has 0, 64;")
    state = {name.partition("-")[0]: next(iter(values.values())) for name, values in view["state"]["values"].items()}
    assert state["x"]["value"] == "5, 9"
    assert state["email"]["value"] == "else@example.org"
    assert state["token"]["value"] == DEMO_TOKEN
    assert DEMO_TOKEN not in json.dumps([call.arguments for call in served.slack.calls_of("views.update")])


def test_a_form_that_opens_with_an_experiment_shows_it_a_moment_later(served: Served) -> None:
    served.open_form("submit demo/cortex")
    until(lambda: "PSD95 (uint8)" in texts(shown(served)), what="the channels")


def test_an_experiment_that_is_refused_is_said_in_the_form(served: Served) -> None:
    served.boss.add("lab", "private", shape=(4, 64, 64), channels={})
    served.boss.tokens["stranger"] = Access(user="stranger")
    served.open_form()
    assert "This token may not read" in texts(choose(served, "lab", "private", token="stranger"))


def test_the_form_opens_at_once_while_boss_hangs(served: Served) -> None:
    with served.boss.hanging():
        ack = served.slack.person().slash("/nomads", "submit demo/cortex", channel="#synapses")
        assert ack.ok
        assert ack.seconds < 1
        assert shown(served)


# Checked before it costs


@pytest.mark.parametrize(
    ("typed", "field", "says"),
    [
        ({"token": "nobody-s-token"}, "token", "BOSS refuses this token."),
        ({"collection": "nowhere"}, "collection", "BOSS has no collection “nowhere”"),
        ({"experiment": "cortes"}, "experiment", "“cortes” in the collection “demo”; did you mean “cortex”"),
        ({"x": "1000, 1025"}, "x", "This experiment has x 0, 1024; choose a range within that."),
        ({"z": "0, 65"}, "z", "This experiment has z 0, 64; choose a range within that."),
        ({"collection": "lab", "experiment": "shifted", "z": "0, 4"}, "z", "This experiment has z 100, 164;"),
        ({"collection": "lab", "experiment": "poor"}, "experiment",
         "needs a presynaptic channel (with synapsin or vglut in its name); this experiment has GABA and PSD95."),
        ({"collection": "lab", "experiment": "wide"}, "experiment", "The channel PSD95 is uint32; only"),
        ({"token": "stranger", "collection": "lab", "experiment": "poor"}, "experiment", "may not read"),
    ],
)  # fmt: skip
def test_what_boss_knows_to_be_wrong_is_an_error_under_its_field(
    served: Served, typed: dict[str, str], field: str, says: str
) -> None:
    eight, wide = Bricks("uint8"), Bricks("uint32")
    shape = (64, 1024, 1024)
    served.boss.add("lab", "shifted", shape=shape, offset=(100, 0, 0), channels={"psd": eight, "synapsin": eight})
    served.boss.add("lab", "poor", shape=shape, channels={"GABA": eight, "PSD95": eight})
    served.boss.add("lab", "wide", shape=shape, channels={"PSD95": wide, "Synapsin": eight})
    served.boss.tokens["stranger"] = Access(user="stranger")

    ack = served.submit(**typed)

    assert list(ack.errors) == [field]
    assert says in ack.errors[field]
    assert served.jobs == 0


def test_everything_that_boss_knows_is_said_at_once(served: Served) -> None:
    mail = {"email": "person@example.org"}  # a busy machine may not be in time with the person's own
    ack = served.submit(pipeline="nomads-classifier", x="0, 2000", y="-5, 5", z="60, 70", **mail)
    assert set(ack.errors) == {"x", "y", "z"}
    ack = served.slack.person().submit(shown(served), {"y": "0, 2000"} | mail)
    assert set(ack.errors) == {"x", "y", "z"}


@pytest.mark.parametrize(
    ("typed", "fields"),
    [
        ({"token": "nobody-s-token"}, {"email", "x", "token"}),
        ({"token": "nobody-s-token", "collection": "a b"}, {"email", "x", "token", "collection"}),
        ({"collection": "nowhere", "experiment": ""}, {"email", "x", "collection", "experiment"}),
        ({"collection": "nowhere"}, {"email", "x", "collection"}),
        ({"experiment": "nothing", "token": ""}, {"email", "x", "experiment"}),
        ({"collection": "private", "token": ""}, {"email", "x", "token"}),
        ({"experiment": "nothing", "z": "0, 100"}, {"email", "x", "experiment"}),
        ({"z": "0, 100"}, {"email", "x", "z"}),
    ],
)
def test_what_boss_knows_is_said_together_with_what_was_typed_wrong(
    served: Served, typed: dict[str, str], fields: set[str]
) -> None:
    served.boss.add("private", "cortex", shape=(64, 1024, 1024), channels={"PSD95": Bricks("uint8")})
    private = next(c for c in served.slack.workspace.channels.values() if c.private and BOT_USER not in c.members)
    ack = served.submit(x="5", email="nobody", channel=private.id, **typed)
    assert set(ack.errors) == fields | {"channel"}


def test_a_box_that_is_too_large_is_suggested_one_inside_the_experiment(served: Served) -> None:
    ack = served.submit(x="0, 200000", y="0, 200000", z="0, 3814")
    assert set(ack.errors) == {"x", "y", "z"}
    assert ack.errors["z"] == "This experiment has z 0, 64; choose a range within that."
    assert ack.errors["x"].endswith("from this corner that fits: x 0, 1024; y 0, 1024; z 0, 64.")


def test_a_stop_that_is_the_extent_is_right_and_offsets_count(served: Served) -> None:
    channels = {"psd": Bricks("uint8"), "synapsin": Bricks("uint8")}
    served.boss.add("lab", "shifted", shape=(4, 64, 64), offset=(100, 200, 300), channels=channels)
    assert served.submit(collection="lab", experiment="shifted", z="100,104", y="200,264", x="300,364").ok


def test_the_size_is_that_of_the_real_data_type(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path, max_bytes="10000000") as served:
        deep = {"psd": Bricks("uint16"), "synapsin": Bricks("uint64")}
        served.boss.add("lab", "deep", shape=(16, 1024, 1024), channels=deep)
        ack = served.submit(collection="lab", experiment="deep", x="0,500", y="0,500", z="0,10")
        assert list(ack.errors) == ["x"]
        assert ack.errors["x"].startswith("This box is 25 MB: 2,500,000 voxels in 2 channels; a job may read 10 MB.")


def test_a_token_that_may_not_write_predictions_is_a_warning_and_no_error(served: Served) -> None:
    served.boss.tokens["reader"] = Access(user="reader", read=frozenset({"*"}))
    assert served.submit(token="reader").ok
    (job,) = jobs(served)
    (told,) = served.rows.transitions(job.id)
    assert (
        "may not write to collman_nomads/nomads_predictions in BOSS: detections will not be written back" in told.text
    )


def jobs(served: Served) -> list[Job]:
    """Every job."""
    return served.rows.jobs()


# Not known in time


@pytest.mark.parametrize("status", [500, 502, 302])
def test_a_boss_in_trouble_lets_the_job_be_accepted_as_checking(served: Served, status: int) -> None:
    headers = {"location": "http://127.0.0.1:1/elsewhere"} if status == 302 else {}
    served.boss.fail_next(100, status=status, headers=headers)
    ack = served.submit()
    assert ack.ok
    assert ack.seconds < 2.5
    (job,) = jobs(served)
    assert (job.state, job.checked) == (JobState.ACCEPTED, False)


def test_a_boss_that_hangs_holds_nobody_up_longer_than_the_deadline_and_the_next_hardly_at_all(served: Served) -> None:
    view = served.open_form()
    with served.boss.hanging():
        ack = served.slack.person().submit(view, RIGHT)
        assert ack.ok
        assert ack.seconds < 2.5
        view = served.open_form()
        ack = served.slack.person().submit(view, RIGHT | {"x": "0,100"})
        assert ack.ok
        assert ack.seconds < 1
    assert [job.checked for job in jobs(served)] == [False, False]


def test_what_the_worker_finds_wrong_goes_to_the_person_who_can_edit_and_resubmit(
    serve: Serve, slack: SlackStandIn, tmp_path: Path
) -> None:
    with serve(tmp_path, working=True, pipelines=str(PROGRAMS)) as served:
        view, person = served.open_form(), slack.person()
        person.fill(
            view, RIGHT | {"pipeline": "quick", "collection": "waits", "x": "0,2000", "email": "else@example.org"}
        )
        served.boss.fail_next(2, status=503)  # the form's questions; the worker's first look gets the same answer
        assert person.submit(view).ok
        messages = until(lambda: offers_to_edit(slack), what="the refusal", within=30)
        (job,) = jobs(served)
        assert job.turned_down
        assert job.compute_id is None
        assert job.reason == "x: This experiment has x 0, 1024; choose a range within that."

        person = slack.person()
        person.click(messages[0], "nomads_edit", block_id=None)
        view = shown(served)
        wanted = {"pipeline": "quick", "collection": "waits", "x": "0, 2000", "email": "else@example.org"}
        assert {name: initial(view, name) for name in wanted} == wanted
        assert initial(view, "token") == ""
        slack.add_person(Member(id=OTHER, name="other", real_name="Other", email="other@example.org"))
        slack.person(OTHER).click(messages[0], "nomads_edit")
        other = slack.view_of(OTHER)
        assert other
        assert initial(other, "email") == "other@example.org", "another person's address is theirs alone"


def offers_to_edit(slack: SlackStandIn) -> list[dict[str, Any]]:
    """Replies with the button."""
    replies = [m for m in slack.messages("#synapses") if m.get("thread_ts", m["ts"]) != m["ts"]]
    return [m for m in replies for b in m.get("blocks") or [] if b["type"] == "actions"]


def test_what_the_worker_finds_right_is_submitted(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path, working=True, pipelines=str(PROGRAMS)) as served:
        view, person = served.open_form(), served.slack.person()
        person.fill(view, RIGHT | {"pipeline": "quick"})
        served.boss.fail_next(2, status=503)  # the form's questions; the worker's first look gets the same answer
        assert person.submit(view).ok
        (job,) = jobs(served)
        until(lambda: jobs(served)[0].state is JobState.SUCCEEDED, within=30)
        (job,) = jobs(served)
        assert job.checked
        assert job.size == 512 * 512 * 16


# The token, once


def remember(served: Served, **typed: str) -> Ack:
    view = served.open_form()
    return served.slack.person().submit(view, {**RIGHT, "token": SECRET, "remember": ["yes"], **typed})


def test_a_remembered_token_need_not_be_typed_again(served: Served) -> None:
    assert remember(served).ok
    view = served.open_form()
    assert block(view, "token")["optional"]
    assert block(view, "token")["element"]["placeholder"]["text"] == "saved token ending …3f9c"
    assert served.slack.person().submit(view, {"x": "0,100"}).ok
    assert served.jobs == 2
    assert SECRET not in json.dumps([call.arguments for call in served.slack.calls if call.method.startswith("views.")])


def test_a_token_is_kept_only_if_asked(served: Served) -> None:
    assert served.submit(token=SECRET).ok
    assert "saved token" not in json.dumps(block(served.open_form(), "token"))


def test_nobody_else_can_use_it(served: Served) -> None:
    assert remember(served).ok
    other = served.slack.person(OTHER)
    other.slash("/nomads", "submit demo/cortex", channel="#synapses")
    view = served.slack.view_of(OTHER)
    assert view
    assert "saved" not in json.dumps(block(view, "token"))
    ack = other.submit(view, {**RIGHT, "collection": "fails", "token": ""}, checked=False)
    assert ack.errors == {"token": NEEDED}


def test_public_data_need_no_token(served: Served) -> None:
    assert served.submit(token="").ok
    assert served.jobs == 1


def test_where_boss_shows_nothing_without_a_token_the_form_asks_for_one(served: Served) -> None:
    served.open_form("submit fails/cortex")
    until(lambda: NEEDED in json.dumps(shown(served)), what="the form asks for a token")

    ack = served.submit(token="", collection="fails")

    assert ack.errors == {"token": NEEDED}
    assert served.submit(token="public", collection="fails").errors == {"token": NEEDED}
    assert served.jobs == 0


def test_a_saved_token_that_boss_refuses_by_now_is_an_error_under_its_field(served: Served) -> None:
    assert remember(served).ok
    del served.boss.tokens[SECRET]
    boss_of(served)["_kept"].clear()  # as after five minutes
    ack = served.slack.person().submit(served.open_form(), {"x": "0,100"})
    assert ack.errors["token"].startswith("BOSS refuses this token.")


def test_a_refused_token_is_not_remembered(served: Served) -> None:
    assert list(remember(served, token="nobody-s-token").errors) == ["token"]
    assert served.nomads.core.people.profile("U01DEMO").saved is None


def token_form(served: Served) -> dict[str, Any]:
    served.slack.person().slash("/nomads", "token", channel="#synapses")
    return shown(served)


def test_the_token_command_shows_replaces_and_forgets(served: Served) -> None:
    person = served.slack.person()
    assert "No token is saved for you." in texts(token_form(served))
    assert person.submit(shown(served), {"token": SECRET}).ok
    assert "saved token ending …3f9c" in texts(token_form(served))
    ack = person.submit(shown(served), {"token": "nobody-s-token"})
    assert ack.errors["token"].startswith("BOSS refuses this token.")
    assert person.submit(shown(served), {"token": DEMO_TOKEN}).ok
    assert "Your saved token, saved since" in texts(token_form(served)), "four characters of a short one say too much"
    assert person.submit(shown(served), {"forget": ["yes"]}).ok
    assert "No token is saved for you." in texts(token_form(served))
    assert served.nomads.core.people.token_for("U01DEMO") is None
    assert served.rows.tokens == 0


def test_a_token_typed_in_the_command_is_neither_kept_nor_repeated(served: Served) -> None:
    ack = served.slack.person().slash("/nomads", f"token {SECRET}", channel="#synapses")
    assert "not typed in a command" in str(ack.body)
    assert SECRET not in str(ack.body)
    assert served.nomads.core.people.profile("U01DEMO").saved is None


def test_a_job_keeps_its_token_when_the_saved_one_is_forgotten(served: Served) -> None:
    assert remember(served).ok
    served.nomads.core.people.forget_token("U01DEMO")
    (job,) = jobs(served)
    reference = job.token_ref
    assert reference
    assert served.nomads.core.tokens.open(reference).get_secret_value() == SECRET


# No work twice


def told_and_waiting(served: Served, slack: SlackStandIn) -> Job:
    """A job whose card stands in the channel and whose program waits."""
    assert served.submit(pipeline="quick", collection="waits").ok
    until(lambda: slack.messages("#synapses"), what="the card")
    (job,) = jobs(served)
    until(lambda: served.nomads.core.queries.card_of(job.id))
    return job


def test_work_that_is_under_way_is_not_taken_again_and_its_thread_is_linked(
    serve: Serve, slack: SlackStandIn, tmp_path: Path
) -> None:
    with serve(tmp_path, working=True, pipelines=str(PROGRAMS)) as served:
        job = told_and_waiting(served, slack)
        view = served.open_form()
        ack = slack.person().submit(view, RIGHT | {"pipeline": "quick", "collection": "waits"})
        assert ack.body["response_action"] == "update"
        said = texts(shown(served))
        assert f"*This is being done already*: job `{job.id}` (<https://sandbox.slack.com/archives/" in said
        assert served.jobs == 1
        assert not [b for b in shown(served)["blocks"] if b["block_id"].startswith("agree-")]
        again = slack.person().submit(shown(served), {"token": DEMO_TOKEN})
        assert again.errors == {
            "pipeline": f"Nothing was submitted, since job {job.id} does this now: "
            "change what is asked for, or close the form."
        }
        assert slack.person().submit(shown(served), {"x": "0, 100"}).ok, "another box is other work"
        assert served.jobs == 2
        for job in jobs(served):
            folder = tmp_path / "results" / job.folder
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "go").touch()


def test_work_that_was_done_offers_its_results_or_to_run_again(
    serve: Serve, slack: SlackStandIn, tmp_path: Path
) -> None:
    with serve(tmp_path, working=True, pipelines=str(PROGRAMS)) as served:
        assert served.submit(pipeline="quick").ok
        until(lambda: jobs(served)[0].state is JobState.SUCCEEDED and jobs(served)[0].summary, within=30)
        ack = slack.person().submit(served.open_form(), RIGHT | {"pipeline": "quick"})
        assert ack.body["response_action"] == "update"
        assert "*This has been done already*" in texts(shown(served))
        assert f"<{served.url}/results/" in texts(shown(served))
        assert slack.person().submit(shown(served), {"token": DEMO_TOKEN, agreement(served): ["yes"]}).ok
        assert served.jobs == 2


def test_who_submits_what_somebody_else_s_job_does_now_can_be_told_of_its_end(
    serve: Serve, slack: SlackStandIn, tmp_path: Path
) -> None:
    with serve(tmp_path, working=True, pipelines=str(PROGRAMS)) as served:
        job = told_and_waiting(served, slack)
        other = slack.person(OTHER)
        other.slash("/nomads", "submit", channel="#synapses")
        view = slack.view_of(OTHER)
        assert view
        typed = RIGHT | {"pipeline": "quick", "collection": "waits", "email": "other@example.org"}
        assert other.submit(view, typed).body["response_action"] == "update"
        asked = slack.view_of(OTHER)
        assert asked
        (box,) = [b for b in asked["blocks"] if b["block_id"].startswith("agree-")]
        assert box["element"]["options"][0]["text"]["text"] == "Tell me too when it ends"
        unticked = other.submit(asked, {"token": DEMO_TOKEN})
        assert "tick “Tell me too when it ends” at the end of the form, change" in unticked.errors["pipeline"]
        other.submit(asked, {"token": DEMO_TOKEN, box["block_id"]: ["yes"]})
        told = slack.view_of(OTHER)
        assert told
        assert f"When job `{job.id}` (<https://sandbox.slack.com/archives/" in str(told["blocks"])
        folder = tmp_path / "results" / job.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "go").touch()
        until(lambda: f"<@{OTHER}>" in str(slack.thread("#synapses", slack.messages("#synapses")[0]["ts"])), within=30)
        assert served.jobs == 1


def test_where_mail_is_off_the_form_has_no_mail_field_and_the_home_tab_no_switch(
    serve: Serve, slack: SlackStandIn, tmp_path: Path
) -> None:
    with serve(tmp_path, mail="off") as served:
        view = served.open_form()
        assert "'block_id': 'email'" not in str(view["blocks"])
        assert slack.person().submit(view, RIGHT).ok
        assert served.jobs == 1
        slack.person().open_home()
        shown_at_home = until(lambda: slack.home_of("U01DEMO"), what="the home tab")
        assert shown_at_home
        assert slack.person().click(shown_at_home, "nomads_hear", []).ok
        assert served.rows.person("U01DEMO").preferences.mail, "what was not asked stays as it was"
        assert "Mention me at the end" in str(shown_at_home)
        assert "Send me mail" not in str(shown_at_home)


def agreement(served: Served) -> str:
    """The box to tick."""
    return str(next(b["block_id"] for b in shown(served)["blocks"] if b["block_id"].startswith("agree-")))


def test_two_who_submit_the_same_at_once_start_one_job(served: Served) -> None:
    person, other = served.slack.person(), served.slack.person(OTHER)
    first = served.open_form()
    other.slash("/nomads", "submit", channel="#synapses")
    second = served.slack.view_of(OTHER)
    assert second
    assert person.submit(first, RIGHT).ok
    ack = other.submit(second, {**RIGHT, "pipeline": "nomads-unsupervised"})
    assert ack.body["response_action"] == "update"
    assert served.jobs == 1


def test_a_large_run_that_was_agreed_to_is_not_run_a_second_time_unasked(priced: Served) -> None:
    """Between the question and the answer somebody else submitted the same."""
    priced.submit()
    box = agreement(priced)
    submission = priced.nomads.core.submission
    values = {**RIGHT, "pipeline": "nomads-unsupervised", "email": "a@example.org", "channel": "C01SYNAPSES"}
    token = values.pop("token")
    found = submission.ask(submission.review(values, SecretStr(token)), actor=OTHER, within=1)
    submission.accept(found, actor=OTHER, key="other")
    ack = priced.slack.person().submit(shown(priced), {box: ["yes"]})
    assert ack.body["response_action"] == "update"
    assert "*This is being done already*" in texts(shown(priced))
    assert priced.jobs == 1


# What it will take


@pytest.fixture
def priced(serve: Serve, tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "priced", confirm_bytes="8000000", price_cpu_hour="0.04", price_gb_hour="0.005") as served:
        yield served


def test_a_run_above_the_limit_is_confirmed_with_what_it_will_take(priced: Served) -> None:
    ack = priced.submit()
    assert ack.body["response_action"] == "update"
    said = texts(shown(priced))
    assert "*This is a large run*: 4,194,304 voxels, 8.39 MB; expected: 6 s; about $0.0" in said
    assert priced.jobs == 0
    box = agreement(priced)
    assert list(priced.slack.person().submit(shown(priced), {}).errors) == [box], "Slack asks for the box itself"
    assert priced.slack.person().submit(shown(priced), {box: ["yes"]}).ok
    assert priced.jobs == 1
    assert priced.submit(x="0,100").ok


def test_what_was_changed_after_the_question_is_asked_about_again(priced: Served) -> None:
    priced.submit()
    agreed = agreement(priced)
    ack = priced.slack.person().submit(shown(priced), {agreed: ["yes"], "z": "0, 32"})
    assert ack.body["response_action"] == "update"
    assert agreement(priced) != agreed
    assert priced.jobs == 0


def test_with_boss_away_a_run_that_may_be_above_the_limit_is_confirmed_as_well(priced: Served) -> None:
    priced.boss.fail_next(50, status=503)
    ack = priced.submit(x="0,256")
    assert ack.body["response_action"] == "update"
    assert "*This is a large run*" in texts(shown(priced))


# Presets


@pytest.mark.parametrize("words", ["submit collection=demo experiment=cortex", "submit demo/cortex"])
def test_parts_of_a_form_are_taken_as_words(served: Served, words: str) -> None:
    view = served.open_form(words)
    assert (initial(view, "collection"), initial(view, "experiment")) == ("demo", "cortex")


@pytest.mark.parametrize(
    ("words", "strange"),
    [
        ("x=0,5 x=9,99", "x=9,99"),
        ("demo/cortex lab/other", "lab/other"),
        ("x=0,512.5", "x=0,512.5"),
        ("something", "something"),
    ],
)
def test_what_is_not_understood_is_said(served: Served, words: str, strange: str) -> None:
    assert f"Not understood, and left out: {strange}" in texts(served.open_form(f"submit {words}"))


def test_a_name_too_long_for_slack_s_lists_can_be_given_as_words(served: Served) -> None:
    long = "n" * 200
    served.boss.add(long, "one", shape=(64, 1024, 1024), channels={n: Bricks("uint8") for n in ("psd", "synapsin")})
    view = served.open_form(f"submit {long}/one")
    assert initial(view, "collection") == long
    rest = {name: text for name, text in RIGHT.items() if name not in ("collection", "experiment")}
    assert served.slack.person().submit(view, rest).ok
    served.open_form(f"submit {'n' * 3100}/x")


def test_the_last_submission_fills_the_next_form_but_for_the_token(served: Served) -> None:
    assert served.submit(pipeline="nomads-classifier", x="0,100", y="5,10", z="0,4", email="else@example.org").ok
    view = served.open_form("submit z=1,3")
    wanted = {"pipeline": "nomads-classifier", "collection": "demo", "experiment": "cortex", "x": "0, 100"}
    assert {name: initial(view, name) for name in wanted} == wanted
    assert initial(view, "z") == "1,3"
    assert initial(view, "email") == "else@example.org"
    assert initial(view, "token") == ""
