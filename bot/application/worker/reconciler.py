"""When all work is looked at, whether or not events have named it: an event may be lost."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from bot.domain.job import lately

log = logging.getLogger(__name__)

EVERY = timedelta(minutes=5)
"""Time between two looks at everything while events come."""
QUIET = timedelta(minutes=15)
"""Time without any event after which everything is looked at more often: nothing may move, or events may not arrive."""
OFTEN = timedelta(minutes=1)
"""Time between two looks from then on, until an event comes."""


class Reconciler:
    """When everything is due to be looked at. For one thread.

    All work is looked at together, since one listing shows all that has moved; but for what events have brought a
    question about a short while ago.
    """

    def __init__(self, *, at: datetime) -> None:
        """`at` is when this process began to listen."""
        self._heard = at
        self._looked: datetime | None = None
        self._warned = False

    def heard(self, at: datetime) -> None:
        """Note that an event came."""
        self._heard, self._warned = at, False

    def is_due(self, at: datetime) -> bool:
        """Whether everything is to be looked at now."""
        return not lately(self._looked, at, EVERY if lately(self._heard, at, QUIET) else OFTEN)

    def looked(self, at: datetime, *, moved: bool) -> None:
        """Note that everything was looked at, and whether anything had moved of which no event told.

        Logs a warning where no event came for long although something moved: they may not arrive at all.
        """
        self._looked = at
        if moved and not lately(self._heard, at, QUIET) and not self._warned:
            log.warning("Jobs have moved, and no event has told of it for %d minutes.", QUIET / timedelta(minutes=1))
            self._warned = True
