"""What people see of a job in Slack: its card, the replies in its thread, its line in a list, the home tab.

Pure functions from jobs to blocks. Texts from people and programs are escaped, and cut to Slack's limits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from slack_sdk.models.blocks import (
    ActionsBlock,
    Block,
    ButtonElement,
    CheckboxesElement,
    ConfirmObject,
    ContextBlock,
    DividerBlock,
    HeaderBlock,
    MarkdownTextObject,
    Option,
    PlainTextObject,
    SectionBlock,
    StaticSelectElement,
)
from slack_sdk.models.views import View

from bot.domain import words
from bot.domain.job import UNREAD, Job, Transition
from bot.domain.messages import Home, Step, Story
from bot.domain.people import SavedToken, Steps
from bot.domain.results import Lasting
from bot.domain.states import FINAL, WAITING, JobState
from contract.program import BLOCKS as IN_BLOCKS
from contract.program import MERGE

SECTION = 3000
"""Slack's limit on a section's text, in characters."""
HEADER = 150
"""Slack's limit on a header's text, in characters."""
BLOCKS = 12_000
"""Characters that all blocks of a message hold together; Slack refuses some 13,000 (msg_blocks_too_long)."""
# The actions of a job's buttons. A button's value is the job's id.
CANCEL = "nomads_cancel"
RETRY = "nomads_retry"
GO = "nomads_go"
EDIT = "nomads_edit"
LOGS = "nomads_logs"
RESULTS = "nomads_results"
DETAILS = "nomads_details"
NEW = "nomads_new"
"""The home tab's action that opens the form."""
LIST = "nomads_list"
"""The home tab's action that lists all jobs of the person; with `_newer` or `_older`, the action of a list's pages."""
TOKEN = "nomads_token"  # noqa: S105  an action's id
"""The home tab's action that opens the form for the saved token."""
TELL = "nomads_steps"
"""The home tab's action that chooses which steps are told."""
HEAR = "nomads_hear"
"""The home tab's action that chooses mention and mail."""
SQUARES = 60
"""Squares of the map of a job's blocks, at most."""
SQUARES_A_ROW = 15
"""Squares beside one another, which a telephone shows in one line."""
_SQUARE = {"done": "🟩", "failed": "🟥", "running": "🟦", "waiting": "⬜"}
_SLACK_USER = re.compile(r"[UW][A-Z0-9]+")
_LEAVE = re.compile(rf"(It goes on(?: after the pilot| without a pilot)?, said )({_SLACK_USER.pattern})\.")
"""What a thread is told where somebody lets a job in blocks go on."""
_STATES = {
    JobState.ACCEPTED: "📥 Accepted",
    JobState.RUNNING: "⚙️ Running",
    JobState.SUCCEEDED: "✅ Finished",
    JobState.FAILED: "❌ Failed",
    JobState.CANCELLED: "🚫 Cancelled",
    JobState.LOST: "❓ Lost",
} | dict.fromkeys(WAITING, "⏳ Waiting to run")
_PROGRAM_S = (JobState.SUCCEEDED, JobState.FAILED)
"""States whose steps may tell what a program printed or counted."""
_UNREAD = f"⚠️ {UNREAD}"


def summary(job: Job) -> str:
    """The card in one line, for notifications and screen readers."""
    request = job.request
    stands = (_UNREAD if job.unread else _STATES[job.state])[2:].strip()
    return words.mrkdwn(f"{request.pipeline} on {request.place}: {stands}")


def card(story: Story) -> list[Block]:
    """The job's card. Everybody in the channel sees the same card; a click by someone who may not steer is refused."""
    job, request = story.job, story.job.request
    facts = [
        f"*Volume*\n{words.mrkdwn(request.place)}\n{request.box}",
        *([f"*Options*\n{words.mrkdwn(words.options(story.options))}"] if story.options else []),
        f"*Size*\n{words.voxels(request.box.voxels)}, {words.size(story.size)}",
        f"*Asked by*\n{who(job.actor)}",
        f"*State*\n{state(job)}{_since(job)}{progress(job)}",
    ]
    if effort := _effort(job):
        facts.append(effort)
    if job.summary and job.summary.found:
        facts.append(f"*Found*\n{words.unmarked(job.summary.found)}")
    return [
        HeaderBlock(text=PlainTextObject(text=words.shortened(story.pipeline_title, HEADER))),
        SectionBlock(fields=[MarkdownTextObject(text=words.shortened(fact, 2000)) for fact in facts]),
        *block_map(job),
        context(" · ".join([f"Job `{job.id}`", *_attempts(story), *_folder(story)])),
        ActionsBlock(elements=buttons(job)),
    ]


def buttons(job: Job, *, steers: bool = True) -> list[ButtonElement]:
    """The buttons for the job in its state; `steers`: for a person who may cancel and retry it."""
    found = []
    if job.state is JobState.SUCCEEDED:
        found.append(_button(RESULTS, "Results", job, style="primary"))
    if steers and job.pilots:
        found.append(
            _button(GO, "Go" if job.asked else "Go without a pilot", job, **({"style": "primary"} if job.asked else {}))
        )
    if steers and not job.ended and job.cancelled_by is None:
        found.append(_button(CANCEL, "Cancel", job, style="danger", confirm=_sure(job)))
    if steers and job.retryable:
        found.append(_button(RETRY, "Repair" if job.incomplete else "Retry", job))
    if job.started_at:
        found.append(_button(LOGS, "Logs", job))
    if job.ended:
        found.append(_button(EDIT, "Edit and rerun", job))
    return [*found, _button(DETAILS, "Details", job)]


def _button(action: str, text: str, job: Job, **more: Any) -> ButtonElement:
    return ButtonElement(action_id=action, text=text, value=job.id, **more)


def _sure(job: Job) -> ConfirmObject:
    left = "Retry goes on with the blocks that are done." if job.blocks else "What it has found so far is lost."
    return ConfirmObject(
        title="Cancel this job?",
        text=PlainTextObject(text=f"Job {job.id} is ended wherever it stands. {left}"),
        confirm="Cancel the job",
        deny="Let it go on",
        style="danger",
    )


def row(job: Job) -> str:
    """The job as an entry of a list: two lines in Slack's mark-up, and a third where its card could not be posted."""
    request = job.request
    volume = words.mrkdwn(request.place)
    return (
        f"`{job.id}` {state(job)}{progress(job).replace(chr(10), ' ')}\n"
        f"{words.mrkdwn(request.pipeline)} on {volume}, {request.box} · {who(job.actor)} · {moment(job.accepted_at)}"
        + (f"\n{unposted(job)}" if job.unposted else "")
    )


def unposted(job: Job) -> str:
    """That the job's card could not be posted, and why."""
    return f"⚠️ Its card could not be posted to <#{job.request.channel}>: {words.mrkdwn(job.unposted)}"


def context(text: str) -> ContextBlock:
    """Small print, in Slack's mark-up."""
    return ContextBlock(elements=[MarkdownTextObject(text=words.shortened(text, 2000))])


def section(text: str, *, verbatim: bool = False, **more: Any) -> SectionBlock:
    """A paragraph, in Slack's mark-up; `verbatim`: of which Slack links no more than is marked as a link."""
    return SectionBlock(text=MarkdownTextObject(text=words.shortened(text, SECTION), verbatim=verbatim), **more)


def listed(jobs: Sequence[Job]) -> list[Block]:
    """The blocks of a list of jobs, each with a button to its details."""
    return [section(row(job), block_id=f"job-{job.id}", accessory=_button(DETAILS, "Details", job)) for job in jobs]


def plain(blocks: Sequence[Block]) -> str:
    """The text of the sections, for places that do not show blocks."""
    texts = [block.text.text for block in blocks if isinstance(block, SectionBlock) and block.text]
    return words.shortened("\n".join(text for text in texts if text), SECTION)


def home(shown: Home) -> dict[str, Any]:
    """The home tab, as Slack takes it."""
    more = shown.running_in_all - len(shown.running)
    blocks: list[Block] = [
        ActionsBlock(
            elements=[
                ButtonElement(action_id=NEW, text="Detect synapses", style="primary"),
                ButtonElement(action_id=LIST, text="All my jobs", value="mine"),
            ]
        ),
        HeaderBlock(text="Running"),
        *(_tall(shown.running) or [section("Nothing of yours is running.")]),
        *([context(f"and {more} more: `/nomads list mine running` shows them all.")] if more > 0 else []),
        HeaderBlock(text="Recent"),
        *(_tall(shown.recent) or [section("Nothing has ended yet.")]),
        DividerBlock(),
        *_given_up(shown),
        *_wishes(shown),
    ]
    return View(type="home", blocks=blocks).to_dict()


def _tall(jobs: Sequence[Job]) -> list[Block]:
    blocks: list[Block] = []
    for job in jobs:
        blocks += [section(row(job)), ActionsBlock(block_id=f"job-{job.id}", elements=buttons(job))]
    return blocks


def _given_up(shown: Home) -> list[Block]:
    """For an admin: what was given up, and how it is tried again."""
    if not shown.given_up:
        return []
    lines = [
        f"• `{one.job_id}` {one.meaning}, {moment(one.at)}: {words.mrkdwn(words.shortened(one.error, 300))}"
        + (f"\n  {one.instead}" if one.instead else "")
        for one in shown.given_up
    ]
    more = shown.given_up_in_all - len(shown.given_up)
    count = f"and {more} more; `nomads doctor` shows the newest. " if more > 0 else ""
    return [
        HeaderBlock(text="Given up"),
        *(section(text) for text in packed(lines)),
        context(f"{count}`nomads replay JOB` or `nomads replay --all` on the bot's machine tries again what can be."),
    ]


def _wishes(shown: Home) -> list[Block]:
    """The blocks of the saved token and the preferences."""
    wishes = shown.preferences
    steps = [
        Option(value=Steps.ALL, text="all steps"),
        Option(value=Steps.END, text="the end only"),
        Option(value=Steps.FAILURES, text="failures only"),
    ]
    hear = [Option(value="mention", text="Mention me at the end")]
    if shown.mails:
        hear.append(Option(value="mail", text="Send me mail"))
    ticked = [option for option in hear if getattr(wishes, str(option.value))]
    return [
        HeaderBlock(text="Your BOSS token"),
        section(about_token(shown.saved), accessory=ButtonElement(action_id=TOKEN, text="Change")),
        HeaderBlock(text="How you hear of your jobs"),
        section(
            "In their threads you are told",
            accessory=StaticSelectElement(
                action_id=TELL,
                options=steps,
                initial_option=next(option for option in steps if option.value == wishes.steps),
            ),
        ),
        section(
            "Besides",
            accessory=CheckboxesElement(action_id=HEAR, options=hear, initial_options=ticked or None),
        ),
    ]


def about_token(saved: SavedToken | None) -> str:
    """What may be shown of a saved token, in a sentence."""
    if saved is None:
        return "No token is saved for you."
    ending = f" ending …{saved.ending}" if saved.ending else ""
    return f"Your saved token{ending}, saved since {saved.since:%d %B %Y}. Nobody else can use it."


def who(person: str) -> str:
    """A mention of the person, if that is a Slack user id; else the escaped name."""
    return f"<@{person}>" if _SLACK_USER.fullmatch(person) else words.mrkdwn(person)


def state(job: Job) -> str:
    """The job's state in words, with who cancelled it, or why it waits."""
    if not job.ended and job.cancelled_by:
        return f"🛑 Being cancelled, asked by {who(job.cancelled_by)}{_at(job.cancelled_at)}"
    if job.state is JobState.CANCELLED and job.cancelled_by:
        return f"{_STATES[job.state]} by {who(job.cancelled_by)}{_at(job.cancelled_at)}"
    if job.unread:
        return f"{_UNREAD}\n{words.unmarked(job.reason)}"
    if not job.checked and not job.ended:
        return "🔎 Checking with BOSS"
    if job.asked and job.blocks:
        return f"✋ Waiting for your word\n{words.unmarked(job.blocks.shown)}"
    if not job.ended and job.stalled_told:
        return f"{_STATES[job.state]}\n⏸️ {words.mrkdwn(job.stalled)}"
    why = f"\n{words.mrkdwn(job.waiting)}" if job.state is JobState.RUNNABLE and job.waiting else ""
    if job.compute_attempt > 1 and job.state in WAITING:
        return f"⏳ Waiting again to run, attempt {job.compute_attempt}{why}"
    return f"{_STATES[job.state]}, but {job.lacks}" if job.lacks else f"{_STATES[job.state]}{why}"


def _at(when: datetime | None) -> str:
    return f", {moment(when)}" if when else ""


def _folder(story: Story) -> list[str]:
    view = [words.link(story.view, "View in 3D")] if story.view else []
    return [*([f"results: {words.link(story.address, 'folder')}"] if story.address else []), *view]


def _attempts(story: Story) -> list[str]:
    """Which attempt the job is, and which attempts came before and after it, as far as they may be named."""
    after = f", after job `{story.before}`" if story.before else ""
    found = [f"attempt {story.job.attempt}{after}"] if story.job.retry_of else []
    if story.job.retried_as:
        found.append(f"tried again as job `{story.after}`" if story.after else "tried again")
    return found


def _effort(job: Job) -> str:
    """What the job is expected to take; at its end, what it took."""
    expected, took = job.expected, job.took
    if took is None:
        return f"*Expected*\n{words.forecast(expected)}" if expected and job.state not in FINAL else ""
    said = f"*Took*\n{words.duration(took)}"
    if expected and expected.together:  # what its programs took together, and cost, is not known
        return f"{said}\nexpected: {words.forecast(expected)}"
    if expected:
        said += f" (expected {words.duration(timedelta(seconds=expected.seconds))})"
        cost = expected.cost_of(took.total_seconds())
        if cost is not None and expected.cost is not None:
            said += (
                f"\n{words.money(cost, expected.currency)} (expected {words.money(expected.cost, expected.currency)})"
            )
    return said


def progress(job: Job) -> str:
    """A running program's progress, as `▓▓▓▓░░░░░░ 42 % reading`."""
    if job.progress is None or job.state is not JobState.RUNNING or job.asked:
        return ""
    done = round(job.progress.part * 10)
    percent = f"{job.progress.part * 100:.0f} %"
    blocks = f"\n{job.blocks.said}" if job.blocks and job.blocks.said else ""
    return f"\n{'▓' * done}{'░' * (10 - done)} {percent} {words.mrkdwn(job.progress.phase)}{blocks}"


def block_map(job: Job) -> list[Block]:
    """A map of the blocks by state, while they are worked on and where some are missing at the end; else nothing.

    The squares stand in the order of the states: blocks begin in their order, and compute tells how many are in each
    state, not which. A state that has any block has a square. At the end squares are blocks in their own order, and
    those that hold a missing one are red, where the program has said which these are.
    """
    if job.blocks is None or not job.blocks.all:
        return []
    states = job.blocks.states
    if job.incomplete and job.summary:
        states = {"done": job.blocks.all - job.summary.missing, "failed": job.summary.missing}
    elif job.state is not JobState.RUNNING or job.blocks.stage not in (IN_BLOCKS, MERGE):
        return []
    squares, each = _squares({state: number for state, number in states.items() if number})
    shown = [state for state, number in squares.items() for _ in range(number)]
    if job.incomplete and job.summary and job.summary.lacking:
        red = {number // each for number in job.summary.lacking}
        shown = ["failed" if n in red else "done" for n in range(-(-job.blocks.all // each))]
    row = "".join(_SQUARE[state] for state in shown)
    rows = [row[first : first + SQUARES_A_ROW] for first in range(0, len(row), SQUARES_A_ROW)]
    named = {"failed": "missing"} if job.ended else {}
    told = [f"{_SQUARE[state]} {words.count(states[state])} {named.get(state, state)}" for state in squares]
    scale = [f"a square stands for {words.count(each)} blocks"] if each > 1 else []
    return [section("\n".join([*rows, " · ".join([*told, *scale])]))]


def _squares(states: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """How many squares each state has, one at least; and for how many blocks a square stands."""
    blocks = sum(states.values())
    each = -(-blocks // SQUARES)
    shown = {state: max(1, number // each) for state, number in states.items()}
    while (over := sum(shown.values()) - -(-blocks // each)) != 0:  # a few of them
        if over > 0:
            shown[max(shown, key=lambda state: shown[state])] -= 1
        else:
            shown[max(shown, key=lambda state: states[state] - each * shown[state])] += 1
    return shown, each


def _since(job: Job) -> str:
    when = {JobState.ACCEPTED: job.accepted_at, JobState.RUNNING: job.started_at}.get(job.state, job.submitted_at)
    if job.ended:
        return f"\n{moment(job.finished_at)}" if job.finished_at and job.state is not JobState.CANCELLED else ""
    if job.compute_attempt > 1 and job.state in WAITING:
        return ""  # its first submission would mislead
    return f"\nsince {moment(when)}" if when else ""


def moment(when: datetime, *, seconds: bool = False) -> str:
    """A time that Slack shows in the reader's own zone."""
    shown = "{time_secs}" if seconds else "{time}"
    return f"<!date^{int(when.timestamp())}^{{date_short_pretty}} {shown}|{when:%Y-%m-%d %H:%M} UTC>"


def spoken(story: Story, steps: Sequence[Step]) -> str:
    """A reply in one line, for notifications and screen readers."""
    return words.shortened(" ".join(step_text(step, story.job) for step in steps) + _named(story), SECTION)


def step_text(step: Step | Transition, job: Job) -> str:
    """A step's text, escaped; whoever cancelled the job, or let it go on, is mentioned."""
    text = (words.unmarked if step.state in _PROGRAM_S else words.mrkdwn)(step.text)
    if step.state is JobState.CANCELLED and job.cancelled_by:
        by = f"by {words.mrkdwn(job.cancelled_by)}"
        text = text.replace(by, f"by {who(job.cancelled_by)}", 1)
    if step.note and (leave := _LEAVE.fullmatch(text)):
        text = f"{leave[1]}{who(leave[2])}."
    return text


def _named(story: Story) -> str:
    return "".join(f" {who(person)}" for person in story.mentions if _SLACK_USER.fullmatch(person))


def reply(story: Story, steps: Sequence[Step]) -> list[Block]:
    """A reply in the thread: the steps; at the job's end, result links, or the last log lines and what to do next."""
    job = story.job
    told = [step_text(step, job) for step in steps]
    texts = packed([*told[:-1], told[-1] + _named(story)] if told else [])
    if story.helpers:
        texts += packed([f"Who can help: {' '.join(who(person) for person in story.helpers)}"])
    ended = bool(steps) and steps[-1].state in FINAL and not steps[-1].note
    if ended and job.state is JobState.SUCCEEDED:
        folder = [words.link(story.address, "All files")] if story.address else []
        lines = [f"• {words.unmarked(note)}" for note in (job.summary.notes if job.summary else [])]
        lines += [f"• {words.link(link.url, title)}" for title, link in story.links]
        texts += packed(_fitting(lines, BLOCKS - sum(map(len, [*folder, *texts])))) + packed(folder)
    elif ended:
        if job.log_tail:
            texts += log(job.log_tail)
        texts.append(f"*What next?* {words.mrkdwn(job.advice)}")
    # Verbatim: Slack makes no mention or channel of what a program or a person wrote.
    blocks: list[Block] = [section(text, verbatim=True) for text in texts]
    lasting = Lasting.of(link for _, link in story.links)
    if ended and lasting and not story.address:  # a link that a page of ours answers says so itself
        until = f"{moment(lasting.until)}{lasting.how}"
        blocks.append(context(f"These links work until {until}; *Results* on the card gives new ones."))
    if ended and job.turned_down:
        button = _button(EDIT, "Edit and resubmit", job)
        blocks += [context(f"For {who(job.actor)}"), ActionsBlock(elements=[button])]
    return blocks


def direct(story: Story, steps: Sequence[Step]) -> list[Block]:
    """A direct message to the job's owner: the steps, or that the job's card could not be posted to its channel."""
    job, request = story.job, story.job.request
    volume = words.mrkdwn(request.place)
    about = f"*{words.mrkdwn(story.pipeline_title)}* on {volume}, {request.box}, job `{job.id}`"
    if steps:
        where = unposted(job) if job.unposted else f"⚠️ Its thread in <#{request.channel}> takes no more replies."
        return [section(f"{about}\n{where}"), *reply(story, steps)]
    goes_on = "The job goes on all the same, and you will hear of its end here."
    ask = f"`/nomads status {job.id}` says how it is."
    return [section(f"{about}\n{unposted(job)}\n{ask if job.ended else f'{goes_on} {ask}'}")]


def _fitting(lines: Sequence[str], room: int) -> list[str]:
    """The first lines that fit into `room` characters: signed links can be very long, and the folder has all files."""
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return kept


def packed(lines: Sequence[str], room: int = SECTION) -> list[str]:
    """The lines in texts of at most `room` characters. A longer line is left out: half a link leads nowhere."""
    packed: list[str] = []
    for line in lines:
        if len(line) > room:
            continue
        if packed and len(packed[-1]) + 1 + len(line) <= room:
            packed[-1] += "\n" + line
        else:
            packed.append(line)
    return packed


def log(lines: Sequence[str], *, room: int = BLOCKS // 2) -> list[str]:
    """Texts of code blocks, one a section, with the lines that a program printed.

    All lines share `room` characters equally; a longer line is cut.
    """
    room //= max(len(lines), 1)
    cut = [_cut(words.mrkdwn(words.printable(line)).replace("```", "'''"), min(room, 1000)) for line in lines]
    fence = "```\n"
    return [f"{fence}{text}\n```" for text in packed(cut, SECTION - 2 * len(fence))]


def _cut(text: str, limit: int) -> str:
    """Escaped text in at most `limit` characters, cut outside of escapes."""
    return text if len(text) <= limit else re.sub(r"&[a-z]*$", "", text[: limit - 1]) + "…"
