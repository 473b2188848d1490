"""Which mail addresses NOMADS writes to."""

from __future__ import annotations

from collections.abc import Sequence

from bot.application.ledger import Ledger
from bot.application.links import Links
from bot.domain import words

NO_MORE = "This address has asked for no more mail; write another one."


class Addresses:
    """The lab's own addresses, where the settings name its domains, and those that have asked for no more mail."""

    def __init__(self, *, ledger: Ledger, links: Links, domains: Sequence[str] = ()) -> None:
        """`domains` are the only ones that mail goes to, with those below them; none: every one."""
        self._ledger = ledger
        self._links = links
        self._domains = [domain.strip().lstrip("@").casefold() for domain in domains]

    def outside(self, address: str) -> str:
        """Why the address is not one of the lab's, in words for whoever typed it; empty where it is. No I/O."""
        domain = address.rpartition("@")[2].casefold()
        if not address or not self._domains or any(f".{domain}".endswith(f".{known}") for known in self._domains):
            return ""
        return f"Mail goes only to addresses at {words.listed(self._domains)}; write one of those."

    def trouble(self, address: str) -> str:
        """Why no mail goes to the address, in words for whoever typed it; empty where it does. Raises Unavailable."""
        if problem := self.outside(address):
            return problem
        return NO_MORE if address and self.ended(self._links.digest(address)) else ""

    def to_end_mail(self, address: str) -> str:
        """The link with which whoever reads mail to the address ends it for good; empty without a web."""
        return self._links.to_end_mail(address)

    def ended(self, digest: str) -> bool:
        """Whether the address of that digest has asked for no more mail. Raises Unavailable."""
        with self._ledger.database.read() as transaction:
            return transaction.refusals.has(digest)

    def end(self, digest: str) -> None:
        """Send no more mail to the address of that digest, for good. Raises Unavailable."""
        at = self._ledger.clock()
        self._ledger.database.write(lambda transaction: transaction.refusals.add(digest, at=at))
