"""The Slack listeners. `register` is the whole route table."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Executor

from slack_bolt import App

from bot.application.browsing import Browsing
from bot.application.output import Output
from bot.application.people import People
from bot.application.ports import Workspace
from bot.application.queries import Queries
from bot.application.steering import Steering
from bot.application.submission import Submission
from bot.domain.catalog import Catalog
from bot.domain.messages import Home
from bot.slack import cards
from handlers import errors, logs, modal, steer, token
from handlers.commands import Commands
from handlers.describing import Describing
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
    submission: Submission,
    steering: Steering,
    queries: Queries,
    people: People,
    browsing: Browsing,
    output: Output,
    catalog: Catalog,
    workspace: Workspace,
    first_choice: Callable[[], str],
    show_home: Callable[[str, Home], None],
    later: Executor,
) -> Logs:
    """Register all listeners, once an app. Returns the Logs, which the caller closes at the end."""
    windows = Windows(later=later)
    describing = Describing(browsing=browsing, windows=windows)
    submit = Submit(
        submission=submission,
        queries=queries,
        people=people,
        output=output,
        catalog=catalog,
        workspace=workspace,
        windows=windows,
        describing=describing,
        first_choice=first_choice,
    )
    options = Options(browsing=browsing)
    look = Look(
        queries=queries, steering=steering, output=output, catalog=catalog, workspace=workspace, windows=windows
    )
    open_logs = Logs(queries=queries, output=output, windows=windows)
    steering_ = Steer(steering=steering, queries=queries, look=look, windows=windows)
    home = HomeTab(people=people, queries=queries, submit=submit, windows=windows, publish=show_home)
    tokens = Token(browsing=browsing, people=people, changed=home.refresh)
    commands = Commands(
        queries=queries,
        catalog=catalog,
        first_choice=first_choice,
        submit=submit,
        token=tokens,
        look=look,
        logs=open_logs,
        steer=steering_,
    )

    app.command(COMMAND)(commands.run)
    app.shortcut(SHORTCUT)(submit.open_from_shortcut)
    # the form
    app.options(modal.COLLECTION)(options.collections)
    app.options(modal.EXPERIMENT)(options.experiments)
    app.action(modal.PIPELINE)(submit.chosen)
    app.action(modal.COLLECTION)(submit.chosen)
    app.action(modal.EXPERIMENT)(submit.chosen)
    app.action(modal.REMEMBER)(submit.ticked)
    app.view(modal.CALLBACK)(submit.take)
    app.view(token.CALLBACK)(tokens.take)
    # a job's buttons
    app.action(cards.CANCEL)(steering_.cancel)
    app.action(cards.RETRY)(steering_.retry)
    app.view(steer.CALLBACK)(steering_.take)
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
    app.action(cards.TOKEN)(tokens.button)
    app.action(cards.TELL)(home.steps)
    app.action(cards.HEAR)(home.hear)
    app.error(errors.answer)
    return open_logs
