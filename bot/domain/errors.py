"""What goes wrong on purpose: each error's text is meant for a person and holds no secret."""

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
    """No job has that id."""


class NotYours(NomadsError):
    """Somebody asks for what only a job's owner, or an admin, may do."""


class TooLate(NomadsError):
    """The job is not, or no longer, in a state in which that can be done."""


class Unavailable(NomadsError):
    """A service did not answer or asked for patience: the same call may succeed later.

    `retry_after` is the number of seconds it asked for, where it named one.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(NomadsError):
    """A service said no, and would say it again: repeating the call is pointless."""


class NotFound(Refused):
    """The thing asked for does not exist (any more)."""
