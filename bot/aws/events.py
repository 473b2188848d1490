"""Events of AWS Batch, which EventBridge puts into a queue of SQS.

They are hints: an event names a job, and AWS Batch is asked how the job is. Whoever may write to the queue can bring
about a question, and no more.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from bot.aws.clients import Clients, translated
from bot.aws.config import AwsConfig
from bot.aws.observations import SENSELESS, is_job_id, observation, slimmed
from bot.domain.work import Hint, Observation

log = logging.getLogger(__name__)

TOGETHER = 10
"""Messages that one ReceiveMessage gives, and one DeleteMessageBatch takes, at most."""
RECEIVED = 100
"""Events of one `receive` at most, so that compute is asked about them in one call."""
KINDS = frozenset({"Batch Job State Change", "Batch Job Queue Blocked"})
"""Detail types of AWS Batch whose detail is a job, as DescribeJobs has it."""


class BatchEvents:
    """The port Events on a queue of SQS."""

    def __init__(self, *, config: AwsConfig, clients: Clients) -> None:
        """`config.events_queue` is the queue's URL."""
        self._queue = config.events_queue
        self._clients = clients

    def receive(self, *, within: float) -> Sequence[Hint]:
        """The next events, RECEIVED at most; see the port. An event that is not AWS Batch's names no job."""
        found: list[Hint] = []
        while len(found) < RECEIVED:
            with translated("SQS did not give AWS Batch's events"):
                answer = self._clients.sqs.receive_message(
                    QueueUrl=self._queue,
                    MaxNumberOfMessages=TOGETHER,
                    WaitTimeSeconds=0 if found else max(0, int(within)),
                )
            messages = answer.get("Messages", [])  # SQS leaves the field out where there is none
            found += [_hint(message["Body"], message["ReceiptHandle"]) for message in messages]
            if len(messages) < TOGETHER:
                break
        return found

    def acknowledge(self, hints: Sequence[Hint]) -> None:
        """Delete the messages. One that SQS does not delete comes again, and is then no news."""
        for first in range(0, len(hints), TOGETHER):
            some = hints[first : first + TOGETHER]
            with translated("SQS did not delete AWS Batch's events"):
                answer = self._clients.sqs.delete_message_batch(
                    QueueUrl=self._queue,
                    Entries=[{"Id": str(number), "ReceiptHandle": hint.receipt} for number, hint in enumerate(some)],
                )
            if failed := answer.get("Failed"):
                log.info("SQS did not delete %d events of AWS Batch; they come again.", len(failed))


def _hint(body: str, receipt: str) -> Hint:
    """What one message names; nothing where it is no event of AWS Batch about a job."""
    detail: Any = None
    with suppress(ValueError, RecursionError):
        event = json.loads(body)
        if isinstance(event, dict) and event.get("source") == "aws.batch":
            kind = event.get("detail-type")
            detail = event.get("detail") if isinstance(kind, str) and kind in KINDS else None
    job = detail.get("jobId") if isinstance(detail, dict) else None
    if not isinstance(job, str) or not is_job_id(job):
        log.info("A message in the queue of AWS Batch's events is no event about a job.")
        return Hint("", of_child=False, claims=None, receipt=receipt)
    array, child, _ = job.partition(":")
    return Hint(array, of_child=bool(child), claims=None if child else _claims(detail), receipt=receipt)


def _claims(detail: Mapping[str, Any]) -> Observation | None:
    with suppress(*SENSELESS):
        return observation(slimmed(detail))
    return None
