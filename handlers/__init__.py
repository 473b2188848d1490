"""The Slack listeners. `register` is the whole route table."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from slack_bolt import App, BoltResponse

from bot.application.browsing import Browsing
from bot.application.output import Output
from bot.application.people import People
from bot.application.ports import Workspace
from bot.application.queries import Queries
from bot.application.steering import Steering
from bot.application.submission import Submission
from bot.domain.catalog import Catalog
from bot.domain.messages import Home
from bot.domain.people import Steps
from bot.slack import cards
from bot.slack.requests import refused
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


def _needing(place: str, has: Callable[[dict[str, Any], dict[str, Any]], bool]) -> Callable[..., BoltResponse | None]:
    """A listener's middleware for what the listener reads beyond the shape of its kind of request.

    `has` is given what was done (an action, an event) and the body. A request without it is none of Slack's; `place`
    says what it lacks.
    """

    def check(payload: dict[str, Any], body: dict[str, Any], next: Callable[[], None]) -> BoltResponse | None:
        if not has(payload, body):
            return refused(place)
        next()
        return None

    return check


_VALUED = [_needing("an action without its value", lambda action, _: action.get("value") is not None)]
_TICKED = [_needing("a choice without its options", lambda action, _: action.get("selected_options") is not None)]
_STEPS = [
    _needing(
        "a choice of no known steps", lambda action, _: (action.get("selected_option") or {}).get("value") in set(Steps)
    )
]
_IN_VIEW = [_needing("an action without its view", lambda _, body: body.get("view") is not None)]
_BY_A_PERSON = [_needing("an event of nobody", lambda event, _: isinstance(event.get("user"), str))]


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
    app.action(modal.PIPELINE, middleware=_IN_VIEW)(submit.chosen)
    app.action(modal.COLLECTION, middleware=_IN_VIEW)(submit.chosen)
    app.action(modal.EXPERIMENT, middleware=_IN_VIEW)(submit.chosen)
    app.action(modal.REMEMBER)(submit.ticked)
    app.view(modal.CALLBACK)(submit.take)
    app.view(token.CALLBACK)(tokens.take)
    # a job's buttons
    app.action(cards.CANCEL, middleware=_VALUED)(steering_.cancel)
    app.action(cards.RETRY, middleware=_VALUED)(steering_.retry)
    app.action(cards.GO, middleware=_VALUED)(steering_.go)
    app.view(steer.CALLBACK)(steering_.take)
    app.action(cards.EDIT, middleware=_VALUED)(submit.edit)
    app.action(cards.LOGS, middleware=_VALUED)(open_logs.show)
    app.action(logs.WHOLE, middleware=[*_VALUED, *_IN_VIEW])(open_logs.whole)
    app.view_closed(re.compile(".*"))(open_logs.closed)
    app.action(cards.RESULTS, middleware=_VALUED)(look.results)
    app.action(cards.DETAILS, middleware=_VALUED)(look.details)
    app.action(re.compile(f"{cards.LIST}(_newer|_older)?"), middleware=_VALUED)(look.turn)
    # the home tab
    app.event("app_home_opened", middleware=_BY_A_PERSON)(home.opened)
    app.action(cards.NEW)(home.new)
    app.action(cards.TOKEN)(tokens.button)
    app.action(cards.TELL, middleware=_STEPS)(home.steps)
    app.action(cards.HEAR, middleware=_TICKED)(home.hear)
    app.error(errors.answer)
    return open_logs
