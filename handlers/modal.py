"""The form: its ids, its blocks and how it is read, in one file so that they cannot drift.

A block's id is the name of the request's field, so an error by field is an error by block. The experiment's id has a
number behind it once another collection was chosen: Slack keeps what was chosen in a block for as long as a block of
that id is there, and another collection has other experiments. An option's id names its pipeline for the same reason:
another pipeline's option of that name is another option. No view is filled with a token, nor holds one in its
metadata. Slack preserves what a person typed while a view is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from slack_sdk.models.blocks import (
    ActionsBlock,
    Block,
    CheckboxesElement,
    ContextBlock,
    ConversationFilter,
    ConversationSelectElement,
    EmailInputElement,
    ExternalDataSelectElement,
    InputBlock,
    InputInteractiveElement,
    MarkdownTextObject,
    PlainTextInputElement,
    PlainTextObject,
    SectionBlock,
    StaticSelectElement,
)
from slack_sdk.models.blocks import Option as SlackOption
from slack_sdk.models.views import View

from bot.application.submission import Form
from bot.domain import words
from bot.domain.catalog import Catalog, Pipeline
from bot.domain.named import MARK, needs_no_token
from bot.domain.options import Option, no_such_option
from bot.domain.request import ALL, TEXTS, JobRequest
from bot.domain.volume import Experiment
from contract import ranges
from volumes.address import MAX_ADDRESS, is_address

CALLBACK = "nomads_submit_view"
ACTION = "value"
"""Action id of an input block's element, except for those whose choice changes the form."""
PIPELINE = "pipeline"
"""Block id and action id of the pipeline."""
COLLECTION = "collection"
"""Block id and action id of the collection."""
EXPERIMENT = "experiment"
"""Action id of the experiment, and the beginning of its block's id."""
REMEMBER = "remember"
"""Block id and action id of the box that lets NOMADS keep the token."""
OPTION = "option:"
"""Beginning of the block id of a pipeline's option, before the pipeline, a colon and the option's name."""
NO_COLLECTION = "Choose a collection first"
"""The one option of the experiment where no collection is chosen. It is no name, and counts as no choice."""
OPTION_TEXT = 75
"""Slack's limit on an option's text, in characters."""
OPTION_VALUE = 150
"""Slack's limit on an option's value, in characters."""
OPTIONS = 100
"""Slack's limit on the options of a select."""
INITIAL = 255
"""Characters with which a text field is filled, at most."""
OPTION_INITIAL = 3000
"""Characters with which an option's field is filled, at most: Slack's limit on what can be typed."""
ERROR = 2000
"""Characters of an error under a field, at most; also of the description of an experiment."""
SECTION = 3000
"""Slack's limit on a section's text, in characters."""

_FILTER = ConversationFilter(
    include=["public", "private"], exclude_bot_users=True, exclude_external_shared_channels=False
)
_RANGE = re.compile(rf"(?<![\w-])([xyz])\s*=\s*({ranges.TYPED})(?![\w.,:/-])", re.IGNORECASE)
_LINK = re.compile(r"<(#(?P<channel>[A-Z0-9]+)|mailto:(?P<email>[^|>]+))(\|[^>]*)?>")
"""How Slack writes a channel and an address in a command's words."""
_LOOSE = re.compile(r"\s*(=)\s*|(?<=[0-9])\s+(?=[%％])")
"""Spaces within a word, as people type them: `name = 10 %`."""
_AGREE = "agree-"
_RANGE_EXAMPLE = "all of it, or such as 0, 512"
_RANGE_HINT = "start, stop in voxels at full resolution; the stop itself is not included. Empty: all of it."


class Meta(BaseModel):
    """A view's private metadata: names only, no token."""

    collection: str = ""
    """The chosen collection, which Slack does not send with every request for options."""
    asked: str = ""
    """The digest of the question that the form puts."""


@dataclass(frozen=True, kw_only=True)
class Filled(Form):
    """What a person typed in the form so far, and the view's metadata."""

    meta: Meta
    experiment_block: str = EXPERIMENT
    """The id of the experiment's block in the view."""
    experiment_held: bool = False
    """Whether Slack holds a choice in that block, be it the one option that is no experiment."""


@dataclass(frozen=True)
class Wish:
    """The values with which the form opens, and the words that were not understood."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """As `JobRequest.typed` has them, as far as they are known."""
    not_understood: str = ""
    experiment_block: str = EXPERIMENT


@dataclass(frozen=True)
class About:
    """What the form shows of the chosen experiment: BOSS's description, or a sentence in its place."""

    experiment: Experiment | None = None
    said: str = ""


@dataclass(frozen=True)
class Question:
    """What a person should know before the request is accepted; `agree` labels a box to tick, empty: there is none."""

    text: str
    """The question in Slack's mark-up."""
    agree: str
    digest: str
    instead: bool = False
    """Whether the box asks for something else than the submission."""


def wish(text: str, catalog: Catalog, *, otherwise: str = "") -> Wish:
    """Read the words after `/nomads submit`: pipeline, volume, x=…, y=…, z=…, #channel, a mail address.

    The volume is `collection/experiment`, or an address such as `zarr://s3://bucket/volume.zarr`. `x=all` leaves the
    range empty, which means all of it.

    Also `collection=…`, `experiment=…`, `pipeline=…` and `email=…`, and the options of the pipeline, such as
    `false-discovery=0.1`. The pipeline is `otherwise` where the words name none.
    """
    values: dict[str, str] = {}
    strange: list[str] = []
    named: list[tuple[str, str]] = []

    def take(word: str, **said: str) -> None:
        if any(values.get(name, text) != text for name, text in said.items()):
            strange.append(word)  # of two values for one field, the first counts
        else:
            values.update(said)

    for axis, found in _RANGE.findall(text):
        take(f"{axis}={found}", **{axis.lower(): found})
    for word in _LOOSE.sub(r"\1", _RANGE.sub(" ", text)).split():
        collection, slash, experiment = word.partition("/")
        field, equals, value = word.partition("=")
        if link := _LINK.fullmatch(word):
            take(word, **({"channel": link["channel"]} if link["channel"] else {"email": link["email"]}))
        elif is_address(field):
            take(word, **{COLLECTION: word, EXPERIMENT: ""})
        elif equals and value and field in ("pipeline", COLLECTION, EXPERIMENT, "email"):
            take(word, **{field: value})
        elif equals and field.lower() in ("x", "y", "z") and value.lower() == ALL:
            take(word, **{field.lower(): ""})
        elif equals and value and field and field not in JobRequest.model_fields:
            named.append((field.lower(), value))
        elif catalog.get(word):
            take(word, pipeline=word)
        elif slash and collection and experiment:
            take(word, **{COLLECTION: collection, EXPERIMENT: experiment})
        elif "@" in word:
            take(word, email=word)
        else:
            strange.append(word)
    pipeline = catalog.get(values.get("pipeline", otherwise))
    options, left_out = _options_of(pipeline, named)
    return Wish({**values, "options": options} if options else values, " ".join([*strange, *left_out]))


def _options_of(pipeline: Pipeline | None, named: Sequence[tuple[str, str]]) -> tuple[dict[str, str], list[str]]:
    """The options among names and values that were typed, and what cannot stand in their fields, with the reason."""
    known = {option.name: option for option in pipeline.options} if pipeline else {}
    options: dict[str, str] = {}
    left_out: list[str] = []
    for name, value in named:
        if pipeline and name not in known:
            left_out.append(f"{name}={value} ({no_such_option(name, pipeline.options, pipeline.name)})")
        elif name not in known or options.setdefault(name, value) != value:  # of two values, the first counts
            left_out.append(f"{name}={value}")
        elif known[name].kind == "choice" and not known[name].takes(value):  # such a field holds nothing else
            options.pop(name)
            left_out.append(f"{name}={value} (it is {known[name].allowed})")
    return options, left_out


def view(
    catalog: Catalog,
    wish: Wish,
    *,
    saved: str | None = None,
    about: About | None = None,
    question: Question | None = None,
    mails: bool = True,
) -> dict[str, Any]:
    """The form as Slack takes it, filled with the wish. `saved` describes the saved token; None: none is saved.

    Without `mails` no address is asked for.
    """
    form, about = _form(catalog), about or About()
    collection = str(wish.values.get(COLLECTION, ""))
    left_out = _left_out(collection)
    blocks: list[dict[str, Any]] = []
    if wish.not_understood:
        blocks.append(_context(f"Not understood, and left out: {words.shortened(wish.not_understood, 300)}"))
    if question:
        text = MarkdownTextObject(text=words.shortened(question.text, SECTION))
        blocks.append(SectionBlock(text=text).to_dict())
    for block in form["blocks"]:
        name = block["block_id"]
        if name in left_out:
            continue
        if block["type"] != "input":
            blocks.append(block)
            continue
        if name == "email" and not mails:
            continue
        initial = wish.values.get(name, "")
        if name in (COLLECTION, EXPERIMENT) and len(initial) > OPTION_VALUE:
            block = _plain(name)
        if name == "token" and saved is not None:
            block = _token(saved)
        if name in "xyz" and about.experiment:
            block = _bounded(block, about.experiment)
        if name == EXPERIMENT:
            block = {**block, "block_id": wish.experiment_block}
        blocks.append(_filled(block, initial))
        if name == PIPELINE:
            blocks += _options(catalog.get(initial), wish.values.get("options") or {})
        if name == (COLLECTION if EXPERIMENT in left_out else EXPERIMENT) and (said := _described(about)):
            blocks.append(_context(said))
    if question and question.agree:
        name = f"{_AGREE}{question.digest}"  # another question gets another block, with its box not ticked
        label = "In its place" if question.instead else "Before it is submitted"
        blocks.append(_box(name, label, question.agree, optional=question.instead))
    meta = Meta(collection=collection[:MAX_ADDRESS], asked=question.digest if question else "")
    return {**form, "blocks": blocks, "private_metadata": meta.model_dump_json(exclude_defaults=True)}


def _left_out(collection: str) -> frozenset[str]:
    """The blocks that a form does not need where an address, or a volume's name, stands for the collection."""
    if needs_no_token(collection):
        return frozenset({EXPERIMENT, "token", REMEMBER})
    return frozenset({EXPERIMENT} if is_address(collection) else ())


@lru_cache(maxsize=4)
def _form(catalog: Catalog) -> dict[str, Any]:
    """The empty form. Cached: checking and serializing its models takes longer than the rest of a request."""
    options = [SlackOption(value=p.name, text=words.shortened(p.title, OPTION_TEXT)) for p in catalog][:OPTIONS]
    asks = any(pipeline.options for pipeline in catalog)
    blocks: list[Block] = [
        _input(PIPELINE, "Pipeline", StaticSelectElement(action_id=PIPELINE, options=options), asks=asks),
        _input("token", "BOSS token", _text(), "Public data is read without one.", optional=True),
        _input(COLLECTION, "Collection", _lookup(COLLECTION), asks=True),
        _input(EXPERIMENT, "Experiment", _lookup(EXPERIMENT), asks=True),
        *(_input(axis, f"{axis.upper()} range", _text(_RANGE_EXAMPLE), _RANGE_HINT, optional=True) for axis in "xyz"),
        _input("channel", "Results channel", ConversationSelectElement(action_id=ACTION, filter=_FILTER)),
        _input("email", "Email", EmailInputElement(action_id=ACTION)),
    ]
    form: dict[str, Any] = View(
        type="modal", callback_id=CALLBACK, title="Detect synapses", submit="Submit", close="Cancel", blocks=blocks
    ).to_dict()
    box = CheckboxesElement(
        action_id=REMEMBER, options=[SlackOption(value="yes", text="Remember this token, for me alone")]
    )
    under_the_token = [block["block_id"] for block in form["blocks"]].index("token") + 1
    form["blocks"].insert(under_the_token, ActionsBlock(block_id=REMEMBER, elements=[box]).to_dict())
    return form


def _options(pipeline: Pipeline | None, typed: Mapping[str, str]) -> list[dict[str, Any]]:
    """The blocks of the pipeline's options, filled with what was typed, else with the defaults."""
    if pipeline is None:
        return []
    blocks = []
    for option in pipeline.options:
        initial = typed.get(option.name) or option.initial
        if option.kind == "choice":  # as it is spelled; one that is gone is the default
            initial = option.read(initial) if option.takes(initial) else option.initial
        blocks.append(_filled(_option(pipeline.name, option), initial, most=OPTION_INITIAL))
    return blocks


@lru_cache(maxsize=256)
def _option(pipeline: str, option: Option) -> dict[str, Any]:
    element: InputInteractiveElement = _text()
    if option.kind == "choice":
        choices = [SlackOption(value=choice, text=choice) for choice in option.choices or ()]
        element = StaticSelectElement(action_id=ACTION, options=choices)
    block = InputBlock(
        block_id=f"{OPTION}{pipeline}:{option.name}",
        label=option.title,
        element=element,
        hint=option.hint,
        optional=option.kind != "choice",  # an empty field is the default
    )
    return block.to_dict()


def after_another_collection(form: Filled) -> str:
    """The id of the experiment's block: another one where Slack would go on holding what was chosen in it.

    A block that holds nothing keeps its id, or what is being typed in it would be lost.
    """
    if not form.experiment_held:
        return form.experiment_block
    number = form.experiment_block.removeprefix(EXPERIMENT).lstrip("-")
    return f"{EXPERIMENT}-{int(number or 1) + 1 if number.isdecimal() or not number else 2}"


def _plain(name: str) -> dict[str, Any]:
    """A text field for a name that is too long for an option of Slack's."""
    return _input(name, name.capitalize(), _text()).to_dict()


@lru_cache(maxsize=256)
def _token(saved: str) -> dict[str, Any]:
    """The token's field for a person with a saved token: it may stay empty."""
    hint = f"Leave it empty to use your {saved}; /nomads token replaces or forgets that."
    return _input("token", "BOSS token", _text(saved), hint, optional=True).to_dict()


def _box(name: str, label: str, text: str, *, optional: bool) -> dict[str, Any]:
    element = CheckboxesElement(action_id=ACTION, options=[SlackOption(value="yes", text=text)])
    return InputBlock(block_id=name, label=label, element=element, optional=optional).to_dict()


def _bounded(block: dict[str, Any], experiment: Experiment) -> dict[str, Any]:
    start, stop = experiment.bounds["zyx".index(block["block_id"])]
    asked = f", of which 0, {stop} can be asked for" if start < 0 else ""
    return {
        **block,
        "hint": PlainTextObject(text=f"This {experiment.noun} has {start}, {stop}{asked}; {_RANGE_HINT}").to_dict(),
    }


def _described(about: About) -> str:
    """The text that the form shows under the experiment."""
    if not (experiment := about.experiment):
        return about.said
    bounds = " · ".join(f"{axis} {start}, {stop}" for axis, (start, stop) in zip("zyx", experiment.bounds, strict=True))
    z, y, x = experiment.voxel_nm
    below = " · only what lies from 0 on can be asked for" if min(start for start, _ in experiment.bounds) < 0 else ""
    channels = words.listed([f"{c.name} ({c.datatype or 'type unknown'})" for c in experiment.channels[:20]])
    more = f" and {len(experiment.channels) - 20} more" if len(experiment.channels) > 20 else ""
    return words.shortened(
        f"{bounds}{below} · voxels of {z:g} × {y:g} × {x:g} nm (z, y, x) · channels: {channels}{more}", ERROR
    )


def _filled(block: dict[str, Any], initial: str, *, most: int = INITIAL) -> dict[str, Any]:
    """The block with that initial value, cut to `most` characters; unchanged where it is empty or not on offer."""
    element = block["element"]
    given: dict[str, Any] = {}
    match element["type"]:
        case "static_select":
            chosen = [option for option in element["options"] if option["value"] == initial]
            given = {"initial_option": chosen[0]} if chosen else {}
        case "external_select":
            given = {"initial_option": option(initial)} if 0 < len(initial) <= OPTION_VALUE else {}
        case "conversations_select":
            given = {"initial_conversation": initial} if initial else {}
        case "plain_text_input" | "email_text_input":
            given = {"initial_value": words.shortened(initial, most)} if initial else {}
    return {**block, "element": {**element, **given}} if given else block


def option(name: str, said: str = "") -> dict[str, Any]:
    """A name as an option of a select; `said` is added to its text."""
    shown, said = (name.removeprefix(MARK), " (volume)") if name.startswith(MARK) else (name, said)
    text = words.shortened(shown, OPTION_TEXT - len(said)) + said
    return {"text": {"type": "plain_text", "text": text, "emoji": False}, "value": name}


def no_collection() -> list[dict[str, Any]]:
    """The options of an experiment without a collection."""
    return [option(NO_COLLECTION)]


def options(names: Sequence[str], typed: str, *, unchecked: str = "") -> list[dict[str, Any]]:
    """The options for a typed text: names that begin with the text, names that contain it, then the text itself.

    `unchecked` is added to the last, and says why there are no names.
    """
    typed = typed.strip()
    low = typed.lower()
    plain = {name: name.removeprefix(MARK).lower() for name in names}
    begin = [name for name, text in plain.items() if text.startswith(low)]
    hold = [name for name, text in plain.items() if low in text and not text.startswith(low)] if low else []
    fitting = [name for name in (*begin, *hold) if len(name) <= OPTION_VALUE]
    found = [option(name) for name in fitting[: OPTIONS - 1]]
    if typed and typed not in fitting and len(typed) <= OPTION_VALUE:
        found.append(option(typed, "" if is_address(typed) else unchecked or " (not listed)"))
    return found


@lru_cache(maxsize=256)
def _context(text: str) -> dict[str, Any]:
    return ContextBlock(elements=[PlainTextObject(text=text)]).to_dict()


def _text(placeholder: str | None = None) -> PlainTextInputElement:
    return PlainTextInputElement(action_id=ACTION, placeholder=placeholder)


def _lookup(name: str) -> ExternalDataSelectElement:
    return ExternalDataSelectElement(action_id=name, placeholder="Type to search", min_query_length=0)


def _input(
    name: str,
    label: str,
    element: InputInteractiveElement,
    hint: str | None = None,
    *,
    asks: bool = False,
    optional: bool = False,
) -> InputBlock:
    return InputBlock(
        block_id=name,
        label=label,
        element=element,
        hint=hint,
        dispatch_action=asks or None,
        optional=optional or None,
    )


def parse(view: Mapping[str, Any]) -> Filled:
    """Read a view, submitted or not. The application checks whether the values make sense."""
    values = (view.get("state") or {}).get("values") or {}
    typed = {_base(block): _typed(element or {}) for block, state in values.items() for element in state.values()}
    held = bool(typed.get(EXPERIMENT))
    if typed.get(EXPERIMENT) == NO_COLLECTION:
        typed[EXPERIMENT] = ""
    meta = _meta(str(view.get("private_metadata") or ""))
    own = f"{OPTION}{typed.get(PIPELINE)}:"  # another pipeline's stay in the view for a moment after the choice
    options = {name.removeprefix(own): value for name, value in typed.items() if name.startswith(own)}
    return Filled(
        values={name: value for name, value in typed.items() if name in TEXTS}
        | ({"options": options} if options else {}),
        token=SecretStr(typed.get("token", "").strip()),
        remember=bool(typed.get(REMEMBER)),
        agreed=next(
            (name.removeprefix(_AGREE) for name, tick in typed.items() if tick and name.startswith(_AGREE)), ""
        ),
        meta=meta,
        experiment_block=next(
            (str(b["block_id"]) for b in view.get("blocks") or () if _base(str(b.get("block_id"))) == EXPERIMENT),
            EXPERIMENT,
        ),
        experiment_held=held,
    )


def _meta(text: str) -> Meta:
    try:
        return Meta.model_validate_json(text or "{}")
    except ValidationError:
        return Meta()


def _typed(element: Mapping[str, Any]) -> str:
    option = element.get("selected_option") or next(iter(element.get("selected_options") or ()), None) or {}
    return str(element.get("value") or option.get("value") or element.get("selected_conversation") or "")


def _base(block: str) -> str:
    """The block's id without the number that the experiment's may have."""
    return EXPERIMENT if block.startswith(EXPERIMENT) else block


def _field(block: str) -> str:
    """The field, or the option, of the block of that id."""
    return block.rpartition(":")[2] if block.startswith(OPTION) else _base(block)


def errors(found: Mapping[str, str], view: Mapping[str, Any]) -> dict[str, str]:
    """Errors by field as Slack takes them for that view: by block, and cut to ERROR characters.

    What is wrong with a field that the view does not have stands under the collection, or the view's first field,
    unless something else does: Slack takes no error for a block that is not there.
    """
    blocks = {_field(block["block_id"]): block["block_id"] for block in view["blocks"] if block["type"] == "input"}
    told = {blocks[field]: text for field, text in found.items() if field in blocks}
    first = blocks.get(COLLECTION) or next(iter(blocks.values()))
    for name, text in found.items():
        if name not in blocks:
            told.setdefault(first, text)
    return {block: words.shortened(text, ERROR) for block, text in told.items()}
