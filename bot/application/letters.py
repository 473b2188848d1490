"""The two mails of a job: at its acceptance and at its end. Text and HTML say the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bot.domain import words
from bot.domain.html import template
from bot.domain.messages import Mail, Story
from bot.domain.results import Lasting
from bot.domain.states import JobState

NO_MORE = "Get no more mail from NOMADS, whoever asks for it"
_HTML = Path(__file__).parent / "templates" / "mail.html"


@dataclass(frozen=True, kw_only=True)
class Stranger:
    """What a mail says to an address that is not known to be its submitter's own."""

    asked_by: str
    """Who asked for the job, by name."""
    stop: str
    """Where whoever reads the mail ends such mail for good; empty: nowhere."""
    otherwise: str
    """The address to write to, also where the place cannot be reached from the reader's machine."""


def acceptance(story: Story, *, message_id: str, stranger: Stranger | None = None) -> Mail:
    """The mail of a job's acceptance, with the address of the results to come.

    `stranger` is given where the address may be somebody else's than the submitter's.
    """
    job = story.job
    said = f"NOMADS has taken a job that {stranger.asked_by} asked for" if stranger else "NOMADS has taken your job"
    lines = [f"{said}. You will hear of its end by mail.", *_facts(story)]
    links = _page("Results will be at", story)
    return _mail(story, f"NOMADS job {job.id}: accepted", lines, links, message_id, stranger)


def ending(
    story: Story, *, message_id: str, stranger: Stranger | None = None, asked_by: str = "", cancelled_by: str = ""
) -> Mail:
    """The mail of a job's end: counts and addresses of its results, or why it failed and what to do.

    `stranger` is given where the address may be somebody else's than the submitter's; `asked_by` names the submitter to
    somebody who follows the job, and `cancelled_by` whoever cancelled it.
    """
    job = story.job
    asked_by = stranger.asked_by if stranger else asked_by
    whose = f"The NOMADS job that {asked_by} asked for" if asked_by else "Your NOMADS job"
    if job.state is JobState.SUCCEEDED:
        said = f"{whose} has {'ended' if job.unread else 'finished'}."
        lines = [said, *([job.reason] if job.unread else []), *_facts(story)]
        if job.summary:
            lines += [job.summary.found] if job.summary.found else []
            lines += job.summary.notes
        links = [*((title, link.url) for title, link in story.links), *_page("All files", story)]
        if lasting := Lasting.of(link for _, link in story.links):
            again = " Results on the job's card gives new ones." if job.request.channel else ""
            lines.append(
                f"The links below work until {lasting.until:%d %B %Y, %H:%M} UTC{lasting.how}; the files stay.{again}"
            )
        subject = f"NOMADS job {job.id}: {'ended without results' if job.unread else 'finished'}"
        return _mail(story, subject, lines, links, message_id, stranger)
    said = {JobState.CANCELLED: "was cancelled", JobState.LOST: "was lost"}.get(job.state, "has failed")
    by = f" by {cancelled_by}" if cancelled_by and job.state is JobState.CANCELLED else ""
    lines = [f"{whose} {said}{by}.", *_facts(story)]
    if job.reason:
        lines.append(f"Reason: {job.reason}")
    lines.append(job.advice)
    if job.log_tail:
        lines += ["The last lines it printed:", *(f"  {line}" for line in job.log_tail)]
    return _mail(story, f"NOMADS job {job.id}: {said.split()[-1]}", lines, [], message_id, stranger)


def _page(title: str, story: Story) -> list[tuple[str, str]]:
    return [(title, story.address)] if story.address else []


def _facts(story: Story) -> list[str]:
    request = story.job.request
    return [
        f"Pipeline: {request.pipeline}",
        *([f"Options: {words.options(story.options)}"] if story.options else []),
        f"Volume: {request.place}, {request.box} (voxels)",
        f"Size: {words.voxels(request.box.voxels)}, {words.size(story.size)}",
    ]


def _mail(
    story: Story,
    subject: str,
    lines: list[str],
    links: list[tuple[str, str]],
    message_id: str,
    stranger: Stranger | None,
) -> Mail:
    here = [link for link in links if stranger and link[1].startswith("file:")]  # a place on the bot's own machine
    if stranger and here:
        links = [link for link in links if link not in here]
        lines = [*lines, f"The results are kept on the machine that runs NOMADS: ask {stranger.asked_by} for them."]
    text = "\n".join([*lines, "", *(f"{title}: {url}" for title, url in links)]).rstrip() + "\n"
    why = how = stop = ""
    if stranger:
        why = f"You get this mail because {stranger.asked_by} named your address."
        how = f"To end such mail you can tell {stranger.asked_by}, or write to {stranger.otherwise}."
        stop = stranger.stop
        text += "\n".join(["", why, how, *([f"{NO_MORE}: {stop}"] if stop else [])]) + "\n"
    html = template(_HTML).render(lines=lines, links=links, why=why, how=how, stop=stop, no_more=NO_MORE)
    to = story.job.request.email
    return Mail(to=to, subject=subject, text=text, html=html, message_id=message_id, unsubscribe=stop)
