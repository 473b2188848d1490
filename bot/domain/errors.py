"""The errors that NOMADS raises on purpose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

SHORTEST_PATIENCE, LONGEST_PATIENCE = 1.0, 600.0
"""Seconds between which a service's call for patience is believed."""


class NomadsError(Exception):
    """Anything this project raises on purpose. Its text is meant for a person and holds no secret."""


class InvalidRequest(NomadsError):
    """The request cannot be taken. `errors` maps a field's name to what is wrong and what to do."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, text in errors.items()))
        self.errors = dict(errors)


class UnknownJob(NomadsError):
    """No job has that id, or none that the person may see: the words are the same."""

    def __init__(self, message: str = "There is no job of that name.") -> None:
        super().__init__(message)


class InDoubt(UnknownJob):
    """Chat does not tell now whether the person may see the job. The words are those of an unknown one."""


class NotYours(NomadsError):
    """Only the job's owner, or an admin, may do that."""


class TooLate(NomadsError):
    """The job is not, or no longer, in a state in which that can be done."""


class Unavailable(NomadsError):
    """A service did not answer or asked for patience: the same call may succeed later.

    `retry_after` is the number of seconds that the service asked for; None: it named none.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(Unavailable):
    """A service that is there turned the call away for now (429, throttling), and has done nothing of it."""


class TooSoon(Busy):
    """NOMADS itself does not do this yet, since it was done a moment ago or waits for something else of its own."""


def patience(header: str | None, *, at: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as an HTTP date seen at `at` (now).

    A time is brought between SHORTEST_PATIENCE and LONGEST_PATIENCE, whatever the service says: a wrong header must
    neither put work off for years nor have the service asked without a pause. None where the header says no time.
    """
    text = (header or "").strip()
    seconds = math.nan
    with suppress(ValueError):
        seconds = float(text)
    if math.isnan(seconds):
        try:
            until = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        seconds = (until - (at or datetime.now(UTC))).total_seconds()
    return min(max(seconds, SHORTEST_PATIENCE), LONGEST_PATIENCE)


class Refused(NomadsError):
    """A service said no, and would say it again: repeating the call is pointless."""


class NotFound(Refused):
    """The thing asked for does not exist (any more)."""
