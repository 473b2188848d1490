"""What one person sees of the workspace, for the page."""

from __future__ import annotations

from collections.abc import Sequence
from email.message import EmailMessage

from sandbox import blocks
from sandbox.slack.forms import Forms
from sandbox.slack.workspace import BOT_USER, Json, Workspace, copied


def screen(space: Workspace, user: str, mails: Sequence[EmailMessage] | None) -> Json:
    """Channels, messages, the open modal, the home tab and the mails. Hold the workspace while calling."""
    seen = [c for c in space.channels.values() if user in c.members]
    whispers = space.ephemeral.get(user, [])
    stack = space.open_views.get(user, [])
    forms = Forms(space, user)
    shown: Json = {
        "version": space.version,
        "person": user,
        "people": [
            {"id": m.id, "name": m.name, "real_name": m.real_name, "is_bot": m.is_bot} for m in space.members.values()
        ],
        "channels": [
            {
                "id": c.id,
                "name": c.name,
                "direct": bool(c.direct),
                "private": c.private,
                "archived": c.archived,
                "app_is_member": BOT_USER in c.members,
                "messages": copied(list(c.messages.values())),
                "whispers": copied([w for w in whispers if w["channel"] == c.id]),
            }
            for c in seen
        ],
        "names": {c.id: c.name for c in space.channels.values() if not c.private or user in c.members},
        "home": copied(space.homes.get(user)),
        "view": None,
        "mails": None if mails is None else [_mail(i, m) for i, m in enumerate(mails)],
    }
    if stack:
        top = stack[-1]
        offers = {
            element["action_id"]: forms.conversations(element)
            for block in top.view["blocks"]
            for element in blocks.elements_of(block)
            if element["type"].endswith(("conversations_select", "channels_select"))
        }
        shown["view"] = copied(top.view) | {
            "state": copied(forms.state(top)),
            "errors": dict(top.errors),
            "offers": offers,
            "below": len(stack) - 1,
        }
    return shown


def _mail(number: int, mail: EmailMessage) -> Json:
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    return {
        "number": number,
        "from": str(mail["from"]),
        "to": str(mail["to"]),
        "subject": str(mail["subject"]),
        "date": str(mail["date"] or ""),
        "text": text.get_content() if text else "",
        "html": html is not None,
    }
