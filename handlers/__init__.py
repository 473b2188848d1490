"""The Slack listeners. `register` is the whole route table."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from slack_bolt import App

from bot.cards import EDIT
from bot.catalog import Catalog
from bot.ports import Volumes
from bot.service import JobService
from handlers import errors, modal, token
from handlers.commands import Commands
from handlers.options import Options
from handlers.submit import Submit
from handlers.token import Token
from handlers.workspace import Workspace

COMMAND = "/nomads"
SHORTCUT = "nomads_submit"


def register(
    app: App,
    *,
    service: JobService,
    catalog: Catalog,
    volumes: Volumes,
    workspace: Workspace,
    later: Executor,
    address: Callable[[str], str],
) -> None:
    """Tell the app who listens to what. Called once an app."""
    submit = Submit(
        service=service, catalog=catalog, volumes=volumes, workspace=workspace, later=later, address=address
    )
    options = Options(service=service, volumes=volumes)
    tokens = Token(service=service, volumes=volumes)
    commands = Commands(catalog=catalog, submit=submit, token=tokens)

    app.command(COMMAND)(commands.run)
    app.shortcut(SHORTCUT)(submit.open_from_shortcut)
    app.options(modal.COLLECTION)(options.collections)
    app.options(modal.EXPERIMENT)(options.experiments)
    app.action(modal.COLLECTION)(submit.chosen)
    app.action(modal.EXPERIMENT)(submit.chosen)
    app.action(EDIT)(submit.edit)
    app.view(modal.CALLBACK)(submit.take)
    app.view(token.CALLBACK)(tokens.take)
    app.error(errors.answer)
