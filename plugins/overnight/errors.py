"""
What can go wrong with a remote job, by who can mend it.

.. code-block:: text

    OvernightError
    ├── SpecError                  refused before anything was submitted; also a ValueError
    │   └── ChangedSpecError       the task's job is running with another spec
    ├── ServiceError               a call failed
    │   ├── RequestRefusedError    400, 409, 413, 422: the request is wrong
    │   │   └── ConnectionConfigError    no call can be made: a CA file, a proxy, a scheme
    │   ├── CredentialsError       401, 403
    │   ├── NotFoundError       404, 410
    │   ├── UnsupportedError       the service cannot do that, ever (cancelling an ingestion, say)
    │   ├── CreatedUnknownError    something was created, or may have been, and cannot be found
    │   └── TransientError         worth another try
    │       ├── RateLimitedError   429
    │       │   └── QueueFullError     the service's queue has no room for a job
    │       └── UnavailableError   5xx, time-outs, broken connections and bodies
    └── JobEndedError              the job itself ended badly
        ├── QueueDeadlineError     it never began: the service's queue had no room for it in time
        ├── JobFailedError         FAILED, or PARTIAL beyond ``allowed_failures``
        ├── JobLostError           EXPIRED, or gone from the service: a retry starts a new generation
        ├── JobCancelledError      cancelled by somebody else
        └── DeadlineExceededError  our own wall-clock deadline passed
"""

from __future__ import annotations

from typing import ClassVar, Final

MAX_TEXT: Final = 2_000
"""Characters of a text from outside (a server's words, a line, a name) that are quoted at most."""


def shorten(text: str, limit: int = MAX_TEXT) -> str:
    """Return a text of at most ``limit`` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class OvernightError(Exception):
    """Base of everything this package raises on purpose."""

    retryable: ClassVar[bool] = False
    """Whether a task that fails with this is worth Airflow's retry."""


class SpecError(OvernightError, ValueError):
    """What was asked for is wrong; nothing was submitted and nothing is paid."""


class ChangedSpecError(SpecError):
    """The task instance already has a job, submitted with another spec."""


class ServiceError(OvernightError):
    """
    A call to a service failed.

    :param message: What happened and what to do about it, without any credential.
    :param status: The HTTP status, where there was one.
    :param code: The service's own error code.
    """

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class RequestRefusedError(ServiceError):
    """The service understood the request and refuses it; sending it again changes nothing."""


class ConnectionConfigError(RequestRefusedError):
    """
    No call can be made with what the connection, or the task's environment, says.

    A CA file that cannot be read, a proxy that cannot be used, a certificate that is not trusted, ``https`` where the
    server speaks ``http``.
    """


class CredentialsError(ServiceError):
    """The connection's credentials are missing, wrong, or not allowed to do this."""


class NotFoundError(ServiceError):
    """The service does not know the job (any more)."""


class UnsupportedError(ServiceError):
    """The service has no such operation."""


class CreatedUnknownError(ServiceError):
    """
    The service created something, or may have, and neither its answer nor its list says what.

    Creating it again could pay twice, so that is left to a person.
    """


class TransientError(ServiceError):
    """
    The call may succeed when it is made again.

    :param retry_after: Seconds the service asked us to wait.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.retry_after = retry_after


class RateLimitedError(TransientError):
    """Too many requests; the call was not carried out."""


class QueueFullError(RateLimitedError):
    """
    The service's queue of jobs has no room for one more; the job was not created.

    Only the end of other jobs makes room, so the call is not repeated: the job waits for its turn.
    """


class UnavailableError(TransientError):
    """
    No usable answer came.

    For a call that creates something this leaves open whether it was carried out: look before repeating it.
    """


class ProxyUnavailableError(UnavailableError):
    """The proxy that the environment names cannot be reached, or did not reach the service."""


class UnknownHostError(UnavailableError):
    """The name of a host has no address. A name server that is not there for a while says so, too."""


class JobEndedError(OvernightError):
    """A remote job ended in a way that its task cannot accept."""


class JobFailedError(JobEndedError):
    """The job failed, or more of its items failed than ``allowed_failures`` lets pass."""


class JobLostError(JobEndedError):
    """The service lost the job: it expired, broke, or is gone. A retry submits it again."""

    retryable = True


class JobCancelledError(JobEndedError):
    """The job was cancelled, and not by this task."""


class QueueDeadlineError(JobEndedError):
    """A job waited for room in its service's queue until ``queue_deadline``; it was never submitted."""


class DeadlineExceededError(JobEndedError):
    """The job was not over by its deadline."""

    retryable = True
