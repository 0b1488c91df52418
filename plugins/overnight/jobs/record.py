"""What a task (or a script) remembers of its job between tries."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from overnight.jobs.identity import JobKey
from overnight.jobs.model import JobRef, JobStatus, Stored
from overnight.jobs.queue import QueueRequest


class Ending(StrEnum):
    """Why a task released its job."""

    ACCEPTED = "accepted"
    """The job ended, and the task succeeds with its results."""
    FINISHED = "finished"
    """The job ended, and the task fails for that; its next run is to have another job."""
    HANDED_OVER = "handed over"
    """``wait_for_completion=False``: another task waits for the job."""


class JobRecord(Stored):
    """
    What a task remembers of its job between tries, in a :class:`~overnight.jobs.record_store.RecordStore`.

    It is written before the submit (``ref`` is ``None``: only the intent is known), after it, and at the end.
    """

    generation: int
    fingerprint: str
    intent_at: datetime
    ref: JobRef | None = None
    submitted_at: datetime | None = None
    ending: Ending | None = None
    key: JobKey | None = None
    """By which the service's list is asked for the job. Version 1 did not have it."""
    answered: bool = False
    """Whether the service has answered a poll of this job: then a later 404 means that it is gone."""
    deferred_with: int | None = None
    """Airflow's ``max_tries`` of the task while it is deferred: clearing a task raises it, a retry does not."""
    queued: QueueRequest | None = None
    """Set while the job waits at our side for room in the service's queue: it is not submitted yet."""
    input_id: str | None = None
    """What the service calls the uploaded input of a job that is about to be created: a job over it is this one,
    whatever a server has made of its tags."""
    ended_with: int | None = None
    """The same when the job had its ending."""
    succeeded: int | None = None
    """How many items had a result when the task succeeded, where the service says so."""

    @classmethod
    def intent(cls, key: JobKey, former: JobRecord | None = None) -> JobRecord:
        """
        Return the record to write before submitting.

        An intent that was never carried out keeps its time: the search for its orphan starts there.
        """
        carried = former is not None and former.ref is None and former.generation == key.generation
        intent_at = former.intent_at if former is not None and carried else datetime.now(UTC)
        return cls(
            generation=key.generation,
            fingerprint=key.fingerprint,
            intent_at=intent_at,
            key=key,
            queued=former.queued if former is not None and carried else None,
            deferred_with=former.deferred_with if former is not None and carried else None,
            input_id=former.input_id if former is not None and carried else None,
        )

    @classmethod
    def attached(cls, ref: JobRef, key: JobKey, submitted_at: datetime) -> JobRecord:
        """Return the record of a job that was already there; ``key`` has its generation."""
        return cls(
            generation=key.generation,
            fingerprint=key.fingerprint,
            intent_at=submitted_at,
            ref=ref,
            submitted_at=submitted_at,
            key=key,
        )

    @property
    def job(self) -> JobRef:
        """The job, once there is one."""
        if self.ref is None:
            raise ValueError("this record holds an intent only")
        return self.ref

    @property
    def is_waiting(self) -> bool:
        """Whether the job waits for room in the service's queue, and is not submitted yet."""
        return self.ref is None and self.queued is not None

    def submitted(self, ref: JobRef, at: datetime) -> JobRecord:
        """Return the record of the intent carried out."""
        return self.model_copy(update={"ref": ref, "submitted_at": at, "deferred_with": None})

    def queued_as(self, request: QueueRequest, max_tries: int) -> JobRecord:
        """Return the record of an intent that waits for room in the service's queue."""
        return self.model_copy(update={"queued": request, "deferred_with": max_tries})

    def with_answer(self) -> JobRecord:
        """Return the record of a job that the service has answered a poll of."""
        return self.model_copy(update={"answered": True})

    def deferred(self, max_tries: int) -> JobRecord:
        """Return the record of a job that a trigger is about to poll."""
        return self.model_copy(update={"deferred_with": max_tries})

    def may_be_cancelled(self, seen: JobStatus | None, max_tries: int) -> bool:
        """
        Whether somebody cleared the task while it was deferred, and its trigger may just be about to cancel the job.

        :param seen: The job's status just now.
        :param max_tries: The task's, now.
        """
        cleared = self.ending is None and self.deferred_with is not None and max_tries > self.deferred_with
        return cleared and seen is not None and not seen.state.is_terminal and not seen.state.is_stopped

    def ended(self, ending: Ending, max_tries: int) -> JobRecord:
        """Return the record of a job that this task has released."""
        return self.model_copy(update={"ending": ending, "ended_with": max_tries})

    def is_unacknowledged(self, max_tries: int) -> bool:
        """
        Whether the worker died when the task was about to succeed, and before Airflow knew.

        Then this try is a retry, and the job is as good for it as for the one before.

        :param max_tries: The task's, now; it is the same as then unless the task was cleared.
        """
        delivered = self.ending in (Ending.ACCEPTED, Ending.HANDED_OVER)
        return delivered and self.ended_with is not None and max_tries <= self.ended_with
