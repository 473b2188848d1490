"""The Slack listeners. `register` is the whole route table."""

from __future__ import annotations

from slack_bolt import App

from bot.catalog import Catalog
from bot.service import JobService
from handlers import errors, modal
from handlers.commands import Commands
from handlers.submit import Submit
from handlers.workspace import Workspace

COMMAND = "/nomads"
SHORTCUT = "nomads_submit"


def register(app: App, *, service: JobService, catalog: Catalog, workspace: Workspace) -> None:
    """Tell the app who listens to what. Called once an app."""
    submit = Submit(service=service, catalog=catalog, workspace=workspace)
    commands = Commands(catalog=catalog, submit=submit)

    app.command(COMMAND)(commands.run)
    app.shortcut(SHORTCUT)(submit.open_from_shortcut)
    app.view(modal.CALLBACK)(submit.take)
    app.error(errors.answer)
