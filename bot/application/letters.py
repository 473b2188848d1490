"""The two mails of a job: at its acceptance and at its end. Text and HTML say the same."""

from __future__ import annotations

from pathlib import Path

from bot.domain import words
from bot.domain.html import template
from bot.domain.messages import Mail, Story
from bot.domain.states import JobState

_HTML = Path(__file__).parent / "templates" / "mail.html"


def acceptance(story: Story, *, message_id: str) -> Mail:
    """The mail of a job's acceptance, with the address of the results to come."""
    job = story.job
    lines = ["NOMADS has taken your job. You will hear of its end by mail.", *_facts(story)]
    return _mail(story, f"NOMADS job {job.id}: accepted", lines, [("Results will be at", story.address)], message_id)


def ending(story: Story, *, message_id: str) -> Mail:
    """The mail of a job's end: counts and addresses of its results, or why it failed and what to do."""
    job = story.job
    if job.state is JobState.SUCCEEDED:
        counts = job.summary.counts if job.summary else {}
        said = f"Your NOMADS job has {'ended' if job.unread else 'finished'}."
        lines = [said, *([job.reason] if job.unread else []), *_facts(story)]
        lines += [f"{words.count(number)} {what}" for what, number in counts.items()]
        lines += job.summary.notes if job.summary else []
        links = [(title, link.url) for title, link in story.links]
        if until := min((link.expires for _, link in story.links if link.expires), default=None):
            lines.append(f"The links below work until {until:%d %B %Y, %H:%M} UTC; the files stay.")
        subject = f"NOMADS job {job.id}: {'ended without results' if job.unread else 'finished'}"
        return _mail(story, subject, lines, [*links, ("All files", story.address)], message_id)
    said = {JobState.CANCELLED: "was cancelled", JobState.LOST: "was lost"}.get(job.state, "has failed")
    lines = [f"Your NOMADS job {said}.", *_facts(story)]
    if job.reason:
        lines.append(f"Reason: {job.reason}")
    lines.append(job.advice)
    if job.log_tail:
        lines += ["The last lines it printed:", *(f"  {line}" for line in job.log_tail)]
    return _mail(story, f"NOMADS job {job.id}: {said.split()[-1]}", lines, [], message_id)


def _facts(story: Story) -> list[str]:
    request = story.job.request
    return [
        f"Pipeline: {request.pipeline}",
        f"Volume: {request.collection}/{request.experiment}, {request.box} (voxels)",
        f"Size: {words.count(request.box.voxels)} voxels, {words.size(story.size)}",
    ]


def _mail(story: Story, subject: str, lines: list[str], links: list[tuple[str, str]], message_id: str) -> Mail:
    text = "\n".join([*lines, "", *(f"{title}: {url}" for title, url in links)]).rstrip() + "\n"
    html = template(_HTML).render(lines=lines, links=links)
    return Mail(to=story.job.request.email, subject=subject, text=text, html=html, message_id=message_id)
