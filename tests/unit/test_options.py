"""Options of a pipeline: how they are declared, typed, stored and told apart."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain import words
from bot.domain.catalog import Catalog, Pipeline
from bot.domain.checks import Sizes, against, bytes_per_voxel, channels_read
from bot.domain.errors import NomadsError
from bot.domain.options import Option
from bot.domain.request import JobRequest
from bot.domain.volume import Channel, Experiment
from bot.settings import ROOT
from contract.program import ARGUMENTS
from pipelines.common import program
from tests.support.options import DECLARED, optional
from tests.support.world import a_request

METHOD, RATE, SECTIONS, WITNESS = optional().options
ENTRY = 'name = "one"\ntitle = "One"\ndescription = "The first."\n'
NUMBER = '[[options]]\nname = "rate"\ntitle = "Rate"\nabout = "A rate."\nkind = "number"\n'
BETWEEN = "least = 0.01\nmost = 0.9\n"
CHOICE, CHANNELS, WHOLE = (NUMBER.replace("number", kind) for kind in ("choice", "channels", "whole"))


def refused(option: Option, typed: str) -> str:
    """What a person who typed that is told; empty where it is taken."""
    try:
        option.read(typed)
    except ValueError as error:
        return str(error)
    return ""


# As they are declared


def told(folder: Path, entry: str) -> list[str]:
    """The mistakes of an entry, after the file's name."""
    (folder / "pipelines" / "a").mkdir(parents=True)
    (folder / "pipelines" / "a" / "pipeline.toml").write_text(entry)
    with pytest.raises(NomadsError) as caught:
        Catalog.read(folder / "pipelines")
    return [line.removeprefix("pipelines/a/pipeline.toml: options.") for line in str(caught.value).splitlines()]


def test_an_entry_declares_options_of_four_kinds() -> None:
    assert [(option.kind, option.initial) for option in optional().options] == [
        ("choice", "paired"),
        ("number", "0.25"),
        ("whole", "3"),
        ("channels", ""),
    ]
    assert Pipeline.model_validate(tomllib.loads(ENTRY)).options == ()
    assert Option.model_validate(tomllib.loads(CHANNELS)["options"][0]).most == 4


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (NUMBER + BETWEEN + "default = 0.95", "rate.default: it has to be a number from 0.01 to 0.9."),
        (NUMBER + BETWEEN + 'default = "0.5"', "rate.default: it has to be a number from 0.01 to 0.9."),
        (NUMBER + BETWEEN + "default = true", "rate.default: it has to be a number from 0.01 to 0.9."),
        (NUMBER + BETWEEN, "rate.default: it has to be a number from 0.01 to 0.9."),
        (NUMBER + "least = 0.5\nmost = 0.1", "rate.most: it has to be above least."),
        (NUMBER + BETWEEN.replace("0.9", "nan"),
         "rate.most: “nan” cannot be used; it has to be a number from 0 to 1000000000."),
        (NUMBER + BETWEEN.replace("0.01", "-1"),
         "rate.least: “-1” cannot be used; it has to be a number from 0 to 1000000000."),
        (NUMBER + BETWEEN + 'default = 0.5\nchoices = ["a"]',
         "rate.choices: an option of the kind number has no choices."),
        (NUMBER + BETWEEN + "default = 0.5\ncolour = 1", "rate.colour: there is no such field."),
        (WHOLE + "least = 1\nmost = 4\ndefault = 1.5", "rate.default: it has to be a whole number from 1 to 4."),
        (WHOLE + "least = 1\nmost = 4.5\ndefault = 1",
         "rate.most: it has to be a whole number, as the option's values are."),
        (CHOICE, "rate.choices: a choice needs a list of 1 to 30 choices."),
        (CHOICE + 'choices = ["a b"]\ndefault = "a b"',
         "rate.choices: “a b” cannot be a choice; one has letters, digits, dots, dashes and underscores, 63 at most, "
         "and begins with a letter or digit."),
        (CHOICE + 'choices = ["--token"]', "rate.choices: “--token” cannot be a choice; one has letters, digits, dots, "
         "dashes and underscores, 63 at most, and begins with a letter or digit."),
        (CHOICE + 'choices = ["a", "A"]\ndefault = "a"', "rate.choices: two choices are the same."),
        (CHOICE + 'choices = ["a", "b"]\ndefault = "A"', "rate.default: it has to be a or b."),
        (CHOICE + 'choices = ["a", "b"]\ndefault = "c"', "rate.default: it has to be a or b."),
        (CHANNELS + "most = 11", "rate.most: an option takes 1 to 10 channels."),
        (CHANNELS + 'default = "PSD95"', 'rate.default: it has to be "", since no experiment is known here.'),
        (CHANNELS.replace('"rate"', '"channel"'),
         "channel.name: channel is a word of the request itself; choose another name."),
        (CHANNELS.replace('"rate"', '"token"'),
         "token.name: token is a word of the request itself; choose another name."),
        (CHANNELS.replace('"rate"', '"Rate"'),
         "Rate.name: “Rate” cannot be used; it has to be lower-case letters, digits and "
         "dashes, 30 at most, that begin with a letter."),
        (CHANNELS.replace('"Rate"', '""'), "rate.title: “” cannot be used; it has to be text of 1 to 40 characters."),
        (CHANNELS.replace('"channels"', '"colour"'),
         "rate.kind: “colour” cannot be used; it has to be number, whole, choice or channels."),
        ("options = [7]", "1: “7” cannot be used; it has to be a list of tables, each [[options]]."),
    ],
)  # fmt: skip
def test_a_wrong_option_is_told_with_its_name_its_field_and_what_is_allowed(
    tmp_path: Path, entry: str, says: str
) -> None:
    assert told(tmp_path, ENTRY + entry) == [says]


def test_all_mistakes_of_all_options_are_told_at_once(tmp_path: Path) -> None:
    said = told(tmp_path, ENTRY + NUMBER + WHOLE.replace('"rate"', '"number"') + "most = 3")
    assert [line.partition(":")[0] for line in said] == ["rate.least", "rate.most", "number.least"]
    assert said[0] == "rate.least: this is needed; it has to be the smallest number that the option takes."


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (CHANNELS + CHANNELS, "two options are named rate."),
        (CHANNELS + 'not_roles = ["pre"]', "not_roles of rate: “pre” is no role of this pipeline."),
        (WHOLE + 'least = 0\nmost = 3\ndefault = 1\nnot_roles = ["pre"]',
         "not_roles of rate: an option of the kind whole has none."),
        (CHANNELS + 'only_with = ["method=a"]', "only_with of rate: “method=a” is no choice of another option."),
        ("".join(CHANNELS.replace('"rate"', f'"rate-{n}"') for n in range(21)),
         "there are 21 options; a form has room for 20."),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, entry: str, says: str) -> None:
    assert told(tmp_path, ENTRY + entry) == [f"pipelines/a/pipeline.toml: options: {says}"]


def test_no_option_has_the_name_of_an_argument_that_every_program_takes() -> None:
    own = set(re.findall(r'add_argument\("--([a-z-]+)"', inspect.getsource(program)))
    assert own | {"z-range", "y-range", "x-range", "help"} == ARGUMENTS


def test_a_program_of_2018_has_no_options(tmp_path: Path) -> None:
    (said,) = told(tmp_path, f'{ENTRY}contract = "2018"\n{CHANNELS}')
    assert said.endswith("options: a program of 2018 takes no options.")


# As they are typed


@pytest.mark.parametrize(
    "typed",
    [
        "0.1",
        "0.10",
        " 0.1\t",
        "0,1",
        ".1",
        "１０％",
        "10 %",
        "10%",
        "0．１",
        "1e-1",
        "+0.1",
        "0.10000000000000000000001",
    ],
)
def test_a_number_is_read_as_people_write_it_and_stored_in_one_way(typed: str) -> None:
    assert RATE.read(typed) == "0.1"


@pytest.mark.parametrize("typed", ["", "  ", "\u3000", "0.25", "25 %", "0,250"])
def test_an_empty_field_is_the_default(typed: str) -> None:
    assert RATE.read(typed) == RATE.initial == "0.25"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("much", "“much” is not a number; write a number from 0.01 to 0.9, such as 0.25."),
        ("nan", "“nan” is not a number; write a number from 0.01 to 0.9, such as 0.25."),
        ("--token", "“--token” is not a number; write a number from 0.01 to 0.9, such as 0.25."),
        ("9" * 5000, f"“{'9' * 39}…” is not a number; write a number from 0.01 to 0.9, such as 0.25."),
        ("5", "5 is too large; write a number from 0.01 to 0.9, such as 0.25."),
        ("−0.1", "-0.1 is too small; write a number from 0.01 to 0.9, such as 0.25."),
        ("1,000", "1,000 may be 1000 or 1.000; write it without the comma."),
        ("1e99", "1e99 is too large; write a number from 0.01 to 0.9, such as 0.25."),
    ],
)
def test_what_is_no_such_number_is_told_what_is_wrong_the_range_and_an_example(typed: str, says: str) -> None:
    assert refused(RATE, typed) == says


def test_a_whole_number_is_digits() -> None:
    assert [SECTIONS.read(typed) for typed in ("１２", "0012", "-0", "5000")] == ["12", "12", "0", "5000"]
    for typed in ("5.0", "1,000", "10 %"):
        said = f"“{typed}” is not a whole number; write a whole number from 0 to 5000, such as 3."
        assert refused(SECTIONS, typed) == said


def test_a_choice_is_taken_in_any_case_of_letters_and_a_slip_is_told_what_it_resembles() -> None:
    assert METHOD.read("PROBABILISTIC") == "probabilistic"
    assert refused(METHOD, "pared") == "There is no “pared” here; did you mean paired?"
    assert refused(METHOD, "watershed") == "There is no “watershed” here; write paired or probabilistic."


def test_channels_are_names_with_commas_or_spaces_between_each_once() -> None:
    assert WITNESS.read("GluR1, GluR2，GluR1 GAD") == "GAD,GluR1,GluR2"
    assert WITNESS.read("GAD,GluR2,GluR1") == "GAD,GluR1,GluR2", "the order makes no other work"
    assert refused(WITNESS, "a,b,c,d") == "These are 4 channels; name 3 at most."
    assert refused(WITNESS, "GluR1,b$").startswith("“b$” cannot be a channel here; a name has letters, digits, - and _")
    assert refused(WITNESS, "--token").startswith("“--token” cannot be a channel here;")


@given(st.sampled_from(optional().options), st.text(max_size=60))
def test_no_value_begins_with_a_dash_and_each_reads_back_as_it_is(option: Option, typed: str) -> None:
    said = refused(option, typed)
    assert len(said) < 300
    assert said.isprintable()
    if not said:
        value = option.read(typed)
        assert not value.startswith("-")
        assert option.read(value) == value


# As they are kept


def test_only_what_differs_from_the_default_is_kept() -> None:
    typed = {"method": "Paired", "false-discovery": "0,250", "sections": "4", "witness": " "}
    assert optional().read_options(typed) == ({"sections": "4"}, {})


def test_all_mistakes_in_options_are_told_at_once_and_an_unknown_name_hears_which_there_are() -> None:
    _, errors = optional().read_options({"sections": "x", "false-discovery": "2", "colour": "blue"})
    assert set(errors) == {"sections", "false-discovery", "colour"}
    assert errors["colour"] == (
        "nomads-unsupervised has no option “colour”; it has method, false-discovery, sections and witness."
    )
    assert optional().read_options({"colour": " "}) == ({}, {}), "the field of an option that is gone can be emptied"
    _, errors = optional(options=()).read_options({"colour": "blue"})
    assert errors == {"colour": "nomads-unsupervised has no options."}


def test_a_request_without_options_is_stored_and_named_as_before_there_were_any() -> None:
    request = a_request()
    assert "options" not in request.model_dump_json()
    assert "options" not in request.typed
    assert request.results_key == "nomads-unsupervised_demo_cortex_z_0_16_y_0_512_x_0_512"
    assert JobRequest.model_validate_json(request.model_dump_json()) == request


def test_requests_with_other_options_have_other_results_keys_whatever_the_order() -> None:
    one = a_request(options={"false-discovery": "0.1", "sections": "4"})
    same = a_request(options={"sections": "4", "false-discovery": "0.1"})
    other = a_request(options={"sections": "5", "false-discovery": "0.1"})
    assert one.results_key == same.results_key
    assert len({one.results_key, other.results_key, a_request().results_key}) == 3
    assert one.results_key.startswith(f"{a_request().results_key}_options_")
    assert JobRequest.model_validate(json.loads(one.model_dump_json())) == one


def test_options_are_told_by_their_titles_and_one_that_is_gone_by_its_name() -> None:
    catalog = Catalog({"nomads-unsupervised": optional()})
    request = a_request(options={"false-discovery": "0.1", "witness": "a,b", "gone": "7"})
    assert words.options(catalog.told_options(request)) == "False discovery rate 0.1; Witnesses a, b; gone 7"
    assert Catalog({}).told_options(a_request(options={"gone": "7"})) == [("gone", "7")]


def test_an_option_that_has_no_effect_with_what_was_chosen_elsewhere_is_refused_where_it_is_set() -> None:
    unsupervised = Catalog.read(ROOT / "pipelines").get("nomads-unsupervised")
    assert unsupervised
    _, errors = unsupervised.read_options({"method": "nomads2018", "false-discovery": "0.1"})
    assert errors == {
        "false-discovery": "This has no effect with method nomads2018; leave it at 0.25, or choose method paired.",
    }
    alone = {"method": "nomads2018"}
    assert unsupervised.read_options({**alone, "false-discovery": "25 %", "register": ""}) == (alone, {})
    assert unsupervised.read_options({"false-discovery": "0.1"}) == ({"false-discovery": "0.1"}, {})


@pytest.mark.parametrize("name", ["nomads-unsupervised", "nomads-classifier"])
@pytest.mark.parametrize("method", ["probabilistic", "nomads2018"])
def test_whether_channels_are_moved_may_be_chosen_with_every_method(name: str, method: str) -> None:
    pipeline = Catalog.read(ROOT / "pipelines").get(name)
    assert pipeline
    typed = {"method": method, "register": "off"}
    assert pipeline.read_options(typed) == (typed, {})


def test_options_that_have_no_effect_with_others_are_known_whatever_else_was_typed_wrong() -> None:
    unsupervised = Catalog.read(ROOT / "pipelines").get("nomads-unsupervised")
    assert unsupervised
    typed = {"method": "probabilistic", "false-discovery": "0.1", "register": "sideways", "gone": "1"}
    assert unsupervised.idle_options(typed) == {"false-discovery"}
    assert unsupervised.idle_options({**typed, "method": "paired"}) == set()


# Against the experiment


def experiment(**channels: str) -> Experiment:
    """An experiment with these channels besides those of the roles."""
    there = {"PSD95": "uint8", "Synapsin": "uint8", **channels}
    return Experiment(
        collection="demo",
        name="cortex",
        bounds=((0, 16), (0, 512), (0, 512)),
        voxel_nm=(50, 96, 96),
        channels=tuple(Channel(name=name, datatype=kind) for name, kind in there.items()),
    )


def wrong(there: Experiment, **options: str) -> dict[str, str]:
    """What the experiment shows to be wrong with these options."""
    return against(a_request().box.sides, optional(), there, options=options, sizes=Sizes(bytes=10**9))


def test_channels_that_an_option_names_have_to_be_in_the_experiment() -> None:
    there = experiment(GluR1="uint8")
    assert wrong(there, witness="GluR1,PSD95") == {}
    assert wrong(there, witness="GluR1,GluR2") == {
        "witness": "This experiment has no channel “GluR2”; did you mean “GluR1”?"
    }
    assert wrong(there, witness="Homer") == {
        "witness": "This experiment has no channel “Homer”; it has PSD95, Synapsin and GluR1."
    }


@pytest.mark.parametrize("name", ["nomads-unsupervised", "nomads-classifier"])
def test_a_channel_in_which_synapses_are_found_is_refused_as_a_witness(name: str) -> None:
    pipeline = Catalog.read(ROOT / "pipelines").get(name)
    there = experiment(GluR1="uint8", GABA="uint8")

    def said(witness: str) -> str | None:
        return against({}, pipeline, there, options={"witness": witness}, sizes=Sizes(bytes=10**9)).get("witness")

    assert said("GluR1,GABA") is None
    assert said("GluR1,PSD95") == "PSD95 is the postsynaptic channel; name another one here."
    assert said("Synapsin") == "Synapsin is the presynaptic channel; name another one here."


def test_a_channel_of_an_option_has_to_be_one_that_programs_read() -> None:
    said = wrong(experiment(GluR1="uint32"), witness="GluR1")
    assert said == {"witness": "The channel GluR1 is uint32; only uint8, uint16 and uint64 can be read."}


def test_the_channels_of_options_count_towards_what_is_read() -> None:
    there = experiment(GluR1="uint16")
    assert bytes_per_voxel(optional(), there, {"witness": "GluR1"}) == (4, True)
    assert bytes_per_voxel(optional(), None, {"witness": "GluR1"}) == (3, False)
    assert channels_read(optional(), {"method": "probabilistic"}) == 2
    box = a_request().box
    (text,) = against(
        box.sides, optional(), there, options={"witness": "GluR1"}, sizes=Sizes(bytes=3 * box.voxels)
    ).values()
    assert "in 3 channels" in text


def test_the_declaration_of_these_tests_is_toml() -> None:
    assert len(tomllib.loads(DECLARED)["options"]) == 4
