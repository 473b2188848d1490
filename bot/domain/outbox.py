"""What a transaction leaves to be done after it: an effect, its kind, and the lane it runs in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Lane(StrEnum):
    """Effects of one job keep their order within a lane; lanes know nothing of one another."""

    COMPUTE = "compute"
    CHAT = "chat"
    EDIT = "edit"
    HOME = "home"
    MAIL = "mail"


class Kind(StrEnum):
    """What an effect does."""

    CHECK = "check"
    SUBMIT = "submit"
    CANCEL = "cancel"
    COLLECT = "collect"
    CARD = "card"
    REPLY = "reply"
    PREVIEW = "preview"
    EDIT = "edit"
    HOME = "home"
    MAIL_ACCEPTED = "mail-accepted"
    MAIL_FINISHED = "mail-finished"

    @property
    def lane(self) -> Lane:
        """The lane it runs in."""
        return _LANES[self]


_LANES = {
    Kind.CHECK: Lane.COMPUTE,
    Kind.SUBMIT: Lane.COMPUTE,
    Kind.CANCEL: Lane.COMPUTE,
    Kind.COLLECT: Lane.COMPUTE,
    Kind.CARD: Lane.CHAT,
    Kind.REPLY: Lane.CHAT,
    Kind.PREVIEW: Lane.CHAT,
    Kind.EDIT: Lane.EDIT,
    Kind.HOME: Lane.HOME,
    Kind.MAIL_ACCEPTED: Lane.MAIL,
    Kind.MAIL_FINISHED: Lane.MAIL,
}


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect this process holds the lease of."""

    id: int
    job_id: str
    kind: Kind
    subject: str
    attempts: int
    """How often it was claimed, this time included."""
    in_doubt: bool
    """An earlier attempt may have gone through: look before doing it again."""
    lease: str
