"""What is told where compute does not answer: each job's thread once, admins once for all jobs, and that it is over.

All of it is in the database, so any number of processes, and of restarts, tell it once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from bot.application.ledger import MAX_REASON, Ledger
from bot.domain import words
from bot.domain.errors import NomadsError, Unavailable
from bot.domain.job import Job, Outage
from bot.domain.outbox import Effect, Kind

log = logging.getLogger(__name__)

PATIENCE = timedelta(minutes=1)
"""Time without an answer of compute's after which people are told."""
_LOCK = "outage"
_BEGUN, _OVER = "begun", "over"


class Stalls:
    """Records for which jobs compute does not answer, and tells people."""

    def __init__(self, *, ledger: Ledger, admins: Sequence[str] = ()) -> None:
        """`admins` get a direct message for each outage, and one when it is over."""
        self._ledger = ledger
        self._database = ledger.database
        self._ages = ledger.ages
        self._admins = tuple(admins)

    @contextmanager
    def noticed(self, job: Job) -> Iterator[None]:
        """Record whether compute answered for the job in this block, which asks compute and nobody else."""
        try:
            yield
        except Unavailable as error:
            try:
                self.failed([job.id], str(error))
            except NomadsError as trouble:  # the block's own error says more
                log.info("Job %s: that compute does not answer could not be recorded: %s", job.id, trouble)
            raise
        if job.stalled_since:
            self.answered([job.id])

    def failed(self, ids: Sequence[str], why: str) -> None:
        """Record that compute does not answer for these jobs. Raises Unavailable."""
        why = words.shortened(words.printable(why).rstrip("."), MAX_REASON)
        with self._database.begin() as transaction:
            transaction.jobs.stall(ids, at=self._ledger.clock(), why=why)

    def answered(self, ids: Sequence[str]) -> None:
        """Record that compute answers for these jobs again, and tell the threads that were told. Raises Unavailable."""
        for job_id in ids:
            with self._ledger.change(job_id) as change:
                job = change.job
                if job.stalled_since is None:
                    continue
                change.set(stalled_since=None, stalled="", stalled_told=False)
                if job.stalled_told:
                    change.note(f"It goes on: there is an answer again, after {self._lasted(job)}.")
                    change.show()

    def look(self) -> None:
        """Tell whoever is to be told by now; to be called by one process at a time. Raises Unavailable."""
        with self._database.read() as transaction:
            stalled = transaction.jobs.stalled()
            lasting = transaction.outages.lasting()
            due = [job_id for job_id, since in stalled if self._ages.of(job_id, since) >= PATIENCE]
            over = lasting is not None and not due and not transaction.jobs.any_told_to_be_stalled()
        for job_id in due:
            self._tell(job_id)
        if lasting:
            lasted = self._ages.of(_LOCK, lasting.began_at)
            if over:
                self._end(lasting, lasted)

    def _tell(self, job_id: str) -> None:
        with self._ledger.change(job_id) as change:
            job = change.job
            if job.stalled_since is None or job.stalled_told:
                return
            change.set(stalled_told=True)
            told = " The admins of NOMADS are told." if self._admins else ""
            change.note(
                f"It waits, for {self._lasted(job)} by now: {job.stalled}. It goes on by itself once there is an "
                f"answer.{told}"
            )
            change.show()
            change.transaction.advisory_lock(_LOCK)
            if change.transaction.outages.lasting() is None:
                log.error("Compute does not answer: %s", job.stalled)
                began = change.at - self._ages.of(job_id, job.stalled_since)
                self._ages.of(_LOCK, began)  # its age is known from here on
                number = change.transaction.outages.begin(job_id, at=began, why=job.stalled)
                for admin in self._admins:
                    change.enqueue(Kind.NOTICE, f"{number} {_BEGUN} {admin}")

    def _end(self, outage: Outage, lasted: timedelta) -> None:
        with self._ledger.change(outage.job_id) as change:
            change.transaction.advisory_lock(_LOCK)
            now = change.transaction.outages.lasting()
            if now is None or now.number != outage.number or change.transaction.jobs.any_told_to_be_stalled():
                return
            log.warning("Compute answers again.")
            change.transaction.outages.end(outage.number, at=outage.began_at + lasted)
            for admin in self._admins:
                change.enqueue(Kind.NOTICE, f"{outage.number} {_OVER} {admin}")

    def notice(self, effect: Effect) -> tuple[str, str]:
        """Whom the NOTICE is for, and its text."""
        number, which, admin = effect.subject.split(" ", 2)
        with self._database.read() as transaction:
            outage = transaction.outages.get(int(number))
        assert outage  # outages are never deleted
        if which == _OVER:
            lasted = words.duration((outage.over_at or self._ledger.clock()) - outage.began_at)
            return admin, f"NOMADS has answers from compute again, after {lasted}. The jobs that waited go on."
        return admin, (
            f"NOMADS has had no answer from compute since {outage.began_at:%H:%M} UTC: {outage.why}. Jobs wait and go "
            "on by themselves once there is one; nothing is lost. This is told once for all jobs; `nomads doctor` "
            "tells more."
        )

    def _lasted(self, job: Job) -> str:
        return words.duration(self._ages.of(job.id, job.stalled_since) if job.stalled_since else timedelta())
