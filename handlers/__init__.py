"""The Slack listeners. `register` is the whole route table."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Executor

from slack_bolt import App

from bot.application.output import Output
from bot.application.ports import Volumes
from bot.application.service import JobService
from bot.domain.catalog import Catalog
from bot.slack import cards
from bot.slack.workspace import Workspace
from handlers import errors, logs, modal, steer, token
from handlers.commands import Commands
from handlers.home import HomeTab
from handlers.logs import Logs
from handlers.look import Look
from handlers.options import Options
from handlers.steer import Steer
from handlers.submit import Submit
from handlers.token import Token
from handlers.windows import Windows

COMMAND = "/nomads"
SHORTCUT = "nomads_submit"


def register(
    app: App,
    *,
    service: JobService,
    catalog: Catalog,
    volumes: Volumes,
    output: Output,
    workspace: Workspace,
    later: Executor,
    show_home: Callable[[str], None],
) -> Logs:
    """Tell the app who listens to what. Called once an app. Returns what looks after open logs, to be closed."""
    windows = Windows(later=later)
    submit = Submit(
        service=service, catalog=catalog, volumes=volumes, workspace=workspace, windows=windows, output=output
    )
    options = Options(service=service, volumes=volumes)
    tokens = Token(service=service, volumes=volumes, changed=lambda user: windows.later(lambda: show_home(user)))
    look = Look(service=service, output=output, workspace=workspace, windows=windows)
    open_logs = Logs(service=service, output=output, windows=windows)
    steering = Steer(service=service, workspace=workspace, windows=windows)
    home = HomeTab(service=service, submit=submit, token=tokens, windows=windows, show=show_home)
    commands = Commands(
        service=service, catalog=catalog, submit=submit, token=tokens, look=look, logs=open_logs, steer=steering
    )

    app.command(COMMAND)(commands.run)
    app.shortcut(SHORTCUT)(submit.open_from_shortcut)
    # the form
    app.options(modal.COLLECTION)(options.collections)
    app.options(modal.EXPERIMENT)(options.experiments)
    app.action(modal.COLLECTION)(submit.chosen)
    app.action(modal.EXPERIMENT)(submit.chosen)
    app.view(modal.CALLBACK)(submit.take)
    app.view(token.CALLBACK)(tokens.take)
    # a job's buttons
    app.action(cards.CANCEL)(steering.cancel)
    app.action(cards.RETRY)(steering.retry)
    app.view(steer.CALLBACK)(steering.take)
    app.action(cards.EDIT)(submit.edit)
    app.action(cards.LOGS)(open_logs.show)
    app.action(logs.WHOLE)(open_logs.whole)
    app.view_closed(re.compile(".*"))(open_logs.closed)
    app.action(cards.RESULTS)(look.results)
    app.action(cards.DETAILS)(look.details)
    app.action(re.compile(f"{cards.LIST}(_newer|_older)?"))(look.turn)
    # the home tab
    app.event("app_home_opened")(home.opened)
    app.action(cards.NEW)(home.new)
    app.action(cards.TOKEN)(home.token)
    app.action(cards.TELL)(home.steps)
    app.action(cards.HEAR)(home.hear)
    app.error(errors.answer)
    return open_logs
