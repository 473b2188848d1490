"""`/nomads` and its words."""

from __future__ import annotations

from typing import Any

from slack_bolt import Ack
from slack_sdk import WebClient

from bot import words
from bot.catalog import Catalog
from handlers.submit import Submit
from handlers.token import Token


class Commands:
    """One slash command; its first word says what is wanted."""

    def __init__(self, *, catalog: Catalog, submit: Submit, token: Token) -> None:
        self._catalog = catalog
        self._submit = submit
        self._token = token

    def run(self, ack: Ack, command: dict[str, Any], client: WebClient) -> None:
        """Open the form, or answer with usage, only to the person who asked."""
        text = (command.get("text") or "").split(maxsplit=1)
        word, rest = text[0].casefold() if text else "", text[1] if len(text) > 1 else ""
        if word == "submit":
            self._submit.open(
                client,
                trigger_id=command["trigger_id"],
                user=command["user_id"],
                channel=command["channel_id"],
                text=rest,
            )
            ack()
        elif word == "token" and rest:  # it may be one: not even repeated
            ack("Tokens are not typed in a command: `/nomads token` opens a form for yours.")
        elif word == "token":
            self._token.open(client, trigger_id=command["trigger_id"], user=command["user_id"])
            ack()
        elif word in ("", "help"):
            ack(self.usage())
        else:
            ack(f"NOMADS does not know “{words.mrkdwn(word[:50])}”.\n{self.usage()}")

    def usage(self) -> str:
        """What can be typed, and which pipelines there are."""
        pipelines = "\n".join(f"• `{p.name}`: {words.mrkdwn(p.description)}" for p in self._catalog) or "• none yet"
        return (
            "*NOMADS finds synapses in BOSS volumes.*\n"
            "• `/nomads submit` opens the form\n"
            "• `/nomads submit nomads-unsupervised demo/cortex x=0,512 y=0,512 z=0,16` opens it filled in\n"
            "• `/nomads token` shows, replaces or forgets your saved BOSS token\n"
            "• `/nomads help` shows this\n"
            f"*Pipelines*\n{pipelines}"
        )
