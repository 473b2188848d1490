"""The command `/nomads` and its first words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from slack_bolt import Ack
from slack_sdk import WebClient
from slack_sdk.models.blocks import Block

from bot.application.queries import Queries, Which
from bot.domain import words
from bot.domain.catalog import Catalog, Pipeline
from bot.domain.errors import NomadsError
from bot.slack import cards
from handlers.logs import Logs
from handlers.look import Look
from handlers.steer import Steer
from handlers.submit import Submit
from handlers.token import Token

HELP = (
    ("/nomads submit", "opens the form"),
    (
        "/nomads submit {pipeline} demo/cortex x=0,512 y=0,512 z=0,16",
        "opens it filled in; options of a pipeline are words too: name=value",
    ),
    ("/nomads status", "shows your jobs that have not ended"),
    ("/nomads status 7k2m9x4q", "shows one job, with its buttons"),
    ("/nomads list running", "shows jobs: mine, all, running, failed, mine running or mine failed"),
    ("/nomads logs 7k2m9x4q", "opens a job's log"),
    ("/nomads cancel 7k2m9x4q", "ends a job of yours"),
    ("/nomads go 7k2m9x4q", "lets a job in blocks go on after its pilot, or without one"),
    ("/nomads retry 7k2m9x4q", "tries a job again that failed or was cancelled"),
    ("/nomads pipelines", "shows what can be run"),
    ("/nomads token", "shows, replaces or forgets your saved BOSS token"),
    ("/nomads help", "shows this"),
)
"""An example of each command, and what it does; `{pipeline}` is one that can run here."""


class Commands:
    """One slash command, whose first word says what to do. Only the person who typed the command sees the answer."""

    def __init__(
        self,
        *,
        queries: Queries,
        catalog: Catalog,
        first_choice: Callable[[], str],
        submit: Submit,
        token: Token,
        look: Look,
        logs: Logs,
        steer: Steer,
    ) -> None:
        self._queries = queries
        self._catalog = catalog
        self._first_choice = first_choice
        self._submit = submit
        self._token = token
        self._look = look
        self._logs = logs
        self._steer = steer
        self._words: Mapping[str, Callable[[WebClient, dict[str, Any], str], str | list[Block]]] = {
            "submit": self._open_form,
            "status": lambda _, command, rest: self._look.status(_first(rest), command["user_id"]),
            "list": self._list,
            "logs": self._log,
            "cancel": lambda _, command, rest: self._steer.cancelled(_named(rest, "cancel"), command["user_id"]),
            "go": lambda _, command, rest: self._steer.went(_named(rest, "go"), command["user_id"]),
            "retry": self._retry,
            "pipelines": lambda *_: self._pipelines(),
            "token": self._open_token,
            "help": lambda *_: self.usage(),
            "": lambda *_: self.usage(),
        }

    def run(self, ack: Ack, command: dict[str, Any], client: WebClient) -> None:
        """Do what the first word says; answer an unknown word with the usage."""
        text = (command.get("text") or "").split(maxsplit=1)
        word, rest = text[0].casefold() if text else "", text[1].strip() if len(text) > 1 else ""
        try:
            known = self._words.get(word)
            answer = (
                known(client, command, rest)
                if known
                else [cards.section(f"NOMADS does not know “{words.mrkdwn(word[:50])}”."), *self.usage()]
            )
        except NomadsError as error:
            answer = str(error)
        if isinstance(answer, list):
            ack(text=cards.plain(answer), blocks=answer)
        elif answer:
            ack(words.mrkdwn(answer))
        else:
            ack()

    def _open_form(self, client: WebClient, command: dict[str, Any], rest: str) -> str:
        self._submit.open(
            client,
            trigger_id=command["trigger_id"],
            user=command["user_id"],
            channel=command["channel_id"],
            text=rest,
        )
        return ""

    def _open_token(self, client: WebClient, command: dict[str, Any], rest: str) -> str | list[Block]:
        if rest:  # the text may be a token, so it is not repeated
            return [cards.section("Tokens are not typed in a command: `/nomads token` opens a form for yours.")]
        self._token.open(client, trigger_id=command["trigger_id"], user=command["user_id"])
        return ""

    def _list(self, _client: WebClient, command: dict[str, Any], rest: str) -> list[Block]:
        wanted = " ".join(sorted(rest.casefold().split(), key=lambda word: word != "mine")) or Which.MINE
        if wanted not in set(Which):
            raise NomadsError(f"A list is of jobs that are {', '.join(Which)}: such as /nomads list running.")
        return self._look.page(f"{wanted}:", command["user_id"])

    def _log(self, client: WebClient, command: dict[str, Any], rest: str) -> str:
        user = command["user_id"]
        self._logs.open(client, command, self._queries.named(_named(rest, "logs"), actor=user).id, user)
        return ""

    def _retry(self, client: WebClient, command: dict[str, Any], rest: str) -> str:
        return self._steer.retried(client, command, _named(rest, "retry"), command["user_id"])

    def usage(self) -> list[Block]:
        """What can be typed, and which pipelines there are."""
        pipeline = self._first_choice()
        examples = [(example, what) for example, what in HELP if pipeline or "{pipeline}" not in example]
        lines = "\n".join(f"• `{example.replace('{pipeline}', pipeline)}` {what}" for example, what in examples)
        return [cards.section(f"*NOMADS finds synapses in BOSS volumes.*\n{lines}"), *self._pipelines()]

    def _pipelines(self) -> list[Block]:
        lines = [line for pipeline in self._catalog for line in _about(pipeline)] or ["• none yet"]
        return [cards.section(text) for text in cards.packed(["*Pipelines*", *lines])]


def _about(pipeline: Pipeline) -> list[str]:
    """The pipeline, and a line for each option with its default, as a word for `/nomads submit`."""
    options = [f"      `{one.name}={one.initial}` {words.mrkdwn(one.about)}" for one in pipeline.options]
    return [f"• `{pipeline.name}`: {words.mrkdwn(pipeline.description)}", *options]


def _named(rest: str, word: str) -> str:
    if not rest:
        raise NomadsError(f"Name a job: /nomads {word} and its id, which stands on its card; /nomads list shows them.")
    return _first(rest)


def _first(rest: str) -> str:
    """The first word: what people write behind an id, such as “please”, is no part of it."""
    return next(iter(rest.split()), "")
