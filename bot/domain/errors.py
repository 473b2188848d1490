"""The errors that NOMADS raises on purpose."""

from __future__ import annotations

from collections.abc import Mapping


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


class Refused(NomadsError):
    """A service said no, and would say it again: repeating the call is pointless."""


class NotFound(Refused):
    """The thing asked for does not exist (any more)."""
