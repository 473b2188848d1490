"""One transaction: what it reads and changes, by aggregate."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bot.storage.followers import Followers
from bot.storage.jobs import Jobs
from bot.storage.leader import LeaderLeases
from bot.storage.outages import Outages
from bot.storage.outbox import Outbox
from bot.storage.people import People
from bot.storage.rate_limits import RateLimits
from bot.storage.refusals import MailRefusals
from bot.storage.sealed import SealedTokens
from bot.storage.story import Messages, Story


class Transaction:
    """Reads and changes that happen together or not at all. No rule lives here."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.jobs = Jobs(connection)
        self.story = Story(connection)
        self.messages = Messages(connection)
        self.outbox = Outbox(connection)
        self.people = People(connection)
        self.followers = Followers(connection)
        self.refusals = MailRefusals(connection)
        self.sealed = SealedTokens(connection)
        self.outages = Outages(connection)
        self.leader = LeaderLeases(connection)
        self.rate_limits = RateLimits(connection)

    def advisory_lock(self, what: str) -> None:
        """Hold the advisory lock of that name until this transaction ends; other transactions wait for it.

        On SQLite only one transaction writes at a time anyway.
        """
        if self.connection.dialect.name == "postgresql":
            number = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], signed=True)
            self.connection.execute(sa.text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
