"""The five verbs that make a remote API a batch service, and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from overnight.errors import RateLimitedError, ServiceError, UnsupportedError
from overnight.jobs import FoundJob, JobKey, JobRecord, JobRef, JobStatus, ResultManifest, compute_fingerprint
from overnight.jobs.model import ListedOwnJob
from overnight.jobs.queue import Amount, ListedJob, QueueFull
from overnight.transport.flow import Flow

MAX_OTHER_PAGES: Final = 5
JOBS_PER_OTHER_PAGE: Final = 20


def get_max_other_pages(missing: int) -> int:
    """
    Return for how many pages in a row without a wanted job a list is read on; the rest is asked for singly.

    A page is one call, as is a job that is asked for.

    :param missing: How many wanted jobs have not been seen.
    """
    return max(MAX_OTHER_PAGES, missing // JOBS_PER_OTHER_PAGE)


class JobSpec(BaseModel):
    """
    What a service is asked to do. It never holds a credential.

    A service's spec refuses, with :class:`~overnight.errors.SpecError` or pydantic's own error, whatever
    the service would reject or silently mangle.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def fingerprint(self, conn_id: str) -> str:
        """
        Return the digest that tells this spec from another one for the same task instance.

        :param conn_id: The connection that pays; the same work on another account is another job.
        """
        return compute_fingerprint({"spec": self.model_dump(mode="json"), "conn_id": conn_id})


SpecT = TypeVar("SpecT", bound=JobSpec)


class Service(ABC, Generic[SpecT]):
    """
    A remote API in five verbs, each a :data:`~overnight.transport.flow.Flow`.

    Every verb raises :class:`~overnight.errors.ServiceError`. ``status``, ``cancel`` and ``find`` also run on the
    triggerer's event loop; the others only in a worker.

    :param conn_id: The connection that every :class:`~overnight.jobs.JobRef` made here names.
    """

    name: ClassVar[str]
    """What ``JobRef.service`` says."""
    queue_units: ClassVar[frozenset[str]] = frozenset({"jobs"})
    """The units, of :data:`~overnight.jobs.queue.UNITS`, in which :meth:`list_queue` counts."""

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self.on_upload: Callable[[str], object] | None = None
        """Called by :meth:`submit` with the service's id of the job's input, before the job is created: what a later
        try finds the job by where a server drops its tags (:attr:`~overnight.jobs.record.JobRecord.input_id`)."""

    def ref(self, job_id: str) -> JobRef:
        """Return the reference to a job of this service and connection."""
        return JobRef(service=self.name, id=job_id, conn_id=self.conn_id)

    @abstractmethod
    def find(self, key: JobKey, since: datetime, record: JobRecord | None = None) -> Flow[FoundJob | None]:
        """
        Look for this task instance's job at the service.

        :param key: Only ``key.tag`` must match: :func:`~overnight.jobs.choose_found` picks one of several, and the
            caller decides about its generation and fingerprint.
        :param since: Jobs created before this (aware) time are not ours; it bounds the listing.
        :param record: What the task remembers of an earlier try (when it meant to submit, the job it submitted), for a
            service whose jobs carry no name of ours; ``None`` when nothing is known.
        :return: The newest job; an older one that is still live when there is none of the key's generation; or
            ``None``. A failed listing raises: "unknown" must never read as "absent".
        """

    @abstractmethod
    def submit(self, spec: SpecT, key: JobKey) -> Flow[JobRef]:
        """
        Create the job, tagged so that :meth:`find` sees it, and return its reference.

        When the answer to the creating call is lost, look the job up before creating it again.
        """

    @abstractmethod
    def status(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Poll the job once.

        :raises NotFoundError: the service answers that it does not know it; the caller confirms that
            (:func:`~overnight.jobs.wait.poll`).
        """

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        """
        Return what the service's list of jobs says of as many of them as it shows, by id; others may be among them.

        It may end before it has seen all that are wanted; those are asked for singly.

        :param wanted: The ids of jobs that somebody waits for.
        :raises UnsupportedError: there is no such list.
        """
        del wanted
        raise UnsupportedError(f"{self.name} cannot list jobs with their states.")
        yield  # pragma: no cover - makes this a flow

    def list_own(self, since: datetime) -> Flow[Sequence[ListedOwnJob]]:
        """
        List the jobs with a name of ours that were created since a time, for people to read.

        :param since: Aware.
        :raises UnsupportedError: the service cannot tell whose a job is.
        """
        del since
        raise UnsupportedError(f"{self.name} does not tell whose a job is, so Overnight's own cannot be listed.")
        yield  # pragma: no cover - makes this a flow

    def cancel(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Ask for the job's end and return its status after that; a job that is over stays as it is.

        :raises UnsupportedError: the service cannot cancel; the text says what is left running.
        """
        raise UnsupportedError(f"{self.name} cannot cancel {ref.id}; it runs on until it ends by itself.")
        yield  # pragma: no cover - makes this a flow

    @abstractmethod
    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        """Say where the results of a job are. Called for SUCCEEDED, PARTIAL, EXPIRED and CANCELLED jobs."""

    def has_results(self, ref: JobRef, succeeded: int | None) -> Flow[bool]:
        """
        Say whether the results of a job that ended are still there, so that they can be used once more.

        :param succeeded: How many items had a result when the job's task succeeded; ``None`` where that is not known.
        :raises NotFoundError: there are none.
        """
        manifest = yield from self.results(ref)
        found = manifest.counts.succeeded
        return succeeded is None or found is None or found >= succeeded

    def get_queue(self, spec: SpecT) -> tuple[str, Amount]:
        """
        Return which of the service's queues a job goes through, and what it takes up there.

        One queue for each connection, counted in jobs, unless a service says otherwise.
        """
        del spec
        return "", Amount()

    def list_queue(self, queue: str, /) -> Flow[Collection[ListedJob]]:
        """
        List the jobs in a queue that are not over, whoever submitted them. Those that are over take up nothing.

        :raises UnsupportedError: the service cannot list them.
        """
        raise UnsupportedError(f"{self.name} cannot list the jobs in its queue {queue!r}.")
        yield  # pragma: no cover - makes this a flow

    def find_refusal(self, answer: ServiceError | JobStatus) -> QueueFull | None:
        """
        Say whether a submit that failed, or a job that failed, found the service's queue full.

        :param answer: What :meth:`submit` raised, or the status of a job that is over.
        :return: ``None``: it failed for another reason. Without an override that is all but a
            :class:`~overnight.errors.RateLimitedError`, which says that nothing was created.
        """
        if isinstance(answer, RateLimitedError):
            return QueueFull(str(answer), retry_after=answer.retry_after)
        return None

    def console_url(self, ref: JobRef) -> str | None:
        """Return the address of the service's own page about a job, for the link in Airflow's UI."""
        del ref
        return None
