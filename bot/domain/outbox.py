"""What a transaction enqueues to be done after its commit: an effect, its kind, and the kind's lane."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Lane(StrEnum):
    """A queue of the outbox. Effects of one job are done in order within a lane; lanes are independent."""

    COMPUTE = "compute"
    CHAT = "chat"
    EDIT = "edit"
    HOME = "home"
    MAIL = "mail"


class Kind(StrEnum):
    """What an effect does."""

    CHECK = "check"
    SUBMIT = "submit"
    ADVANCE = "advance"
    CANCEL = "cancel"
    COLLECT = "collect"
    CARD = "card"
    REPLY = "reply"
    PREVIEW = "preview"
    DIRECT = "direct"
    EDIT = "edit"
    HOME = "home"
    NOTICE = "notice"
    MAIL_ACCEPTED = "mail-accepted"
    MAIL_FINISHED = "mail-finished"

    @property
    def lane(self) -> Lane:
        """The lane of effects of this kind."""
        return _LANES[self]

    @property
    def meaning(self) -> str:
        """What the effect does, in words for an admin."""
        return _MEANINGS[self]

    @property
    def final(self) -> bool:
        """Whether giving up an effect of this kind decides what becomes of the job, so that it is not tried again."""
        return self in (Kind.CHECK, Kind.SUBMIT, Kind.ADVANCE, Kind.CANCEL)


_LANES = {
    Kind.CHECK: Lane.COMPUTE,
    Kind.SUBMIT: Lane.COMPUTE,
    Kind.ADVANCE: Lane.COMPUTE,
    Kind.CANCEL: Lane.COMPUTE,
    Kind.COLLECT: Lane.COMPUTE,
    Kind.CARD: Lane.CHAT,
    Kind.REPLY: Lane.CHAT,
    Kind.PREVIEW: Lane.CHAT,
    Kind.DIRECT: Lane.CHAT,
    Kind.EDIT: Lane.EDIT,
    Kind.HOME: Lane.HOME,
    Kind.NOTICE: Lane.HOME,  # a job whose card cannot be posted must not hold up what admins are told
    Kind.MAIL_ACCEPTED: Lane.MAIL,
    Kind.MAIL_FINISHED: Lane.MAIL,
}

_MEANINGS = {
    Kind.CHECK: "check with BOSS",
    Kind.SUBMIT: "submission",
    Kind.ADVANCE: "next stage of a job in blocks",
    Kind.CANCEL: "cancellation",
    Kind.COLLECT: "collection of the results",
    Kind.CARD: "card",
    Kind.REPLY: "reply",
    Kind.PREVIEW: "preview",
    Kind.DIRECT: "direct message to its owner",
    Kind.EDIT: "edit of the card",
    Kind.HOME: "home tab",
    Kind.NOTICE: "direct message to an admin",
    Kind.MAIL_ACCEPTED: "mail about the acceptance",
    Kind.MAIL_FINISHED: "mail about the end",
}


@dataclass(frozen=True, slots=True)
class GivenUp:
    """An effect that was given up. It is kept for good, and may be tried again unless its kind is final."""

    job_id: str
    kind: Kind
    subject: str
    at: datetime
    """When it was given up."""
    error: str
    """Why, in words for a person."""

    @property
    def meaning(self) -> str:
        """What was not done, in words for an admin."""
        match self.kind:
            case Kind.REPLY:
                return f"reply {self.subject}"
            case Kind.DIRECT if self.subject:
                return f"{self.kind.meaning} ({self.subject})"
            case Kind.MAIL_FINISHED if self.subject:
                return f"{self.kind.meaning} to {self.subject}, who follows it"
            case _:
                return self.kind.meaning

    @property
    def instead(self) -> str:
        """Why the effect is not tried again, and what can be done instead; empty where it can be tried again."""
        if self.kind is Kind.CANCEL:
            return f"This is not tried again: the job went on. Cancel it again: nomads cancel {self.job_id}."
        if self.kind.final:
            return f"This is not tried again: the job has ended. Retry the job: nomads retry {self.job_id}."
        return ""


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect whose lease this process holds."""

    id: int
    job_id: str
    kind: Kind
    subject: str
    """Number of a REPLY; `card` or `end` for a DIRECT; of a NOTICE what `Stalls` makes it; `Job.stage` for SUBMIT
    and ADVANCE; empty for other kinds."""
    attempts: int
    """How often the effect was claimed, this time included."""
    in_doubt: bool
    """Whether an earlier attempt may have gone through: look for its outcome before repeating the effect."""
    faults: int
    """How many attempts failed in a way that nobody foresaw."""
    lease: str
    """Random; another worker that claims the effect gets another one."""
