"""After each poll of a job: go on, and when; or stop, and why. Free of I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from overnight.errors import NotFoundError, ServiceError, TransientError
from overnight.jobs.model import JobRef, JobStatus


class PollEnd(StrEnum):
    """Why the polling of a job is over."""

    ENDED = "ended"
    DEADLINE = "deadline"
    TRY_TIMEOUT = "try_timeout"
    """The task's ``execution_timeout`` passed: this try is over, and the job is left alone."""
    REFUSED = "refused"
    """The service refuses to say (401, 403, 400): no later poll would do better."""
    LOST = "lost"
    """The service answered polls of the job before, and does not know it any more."""
    UNKNOWN = "unknown"
    """The service does not know the job and never answered a poll of it."""
    SILENT = "silent"
    """The service gave no usable answer for too long; the job was left alone."""


@dataclass(frozen=True)
class Wait:
    """Poll again after ``seconds``."""

    seconds: float


@dataclass(frozen=True)
class PollOutcome:
    """
    Stop polling: ``status`` is set when the job ended, ``message`` when it did not.

    :param cancelled: Whether the service took the cancellation of a job that missed its deadline.
    :param answered: Whether the service ever answered a poll of the job.
    """

    end: PollEnd
    status: JobStatus | None = None
    message: str = ""
    cancelled: bool = False
    answered: bool = False


class Poller:
    """
    Decide after each poll whether to go on, and when.

    One failing poll never ends the polling: transient errors back off, honour ``Retry-After``, and are tolerated for
    ``patience`` seconds in a row.

    :param ref: The job.
    :param poll_interval: Seconds between polls while all is well.
    :param deadline: Epoch seconds. Wall-clock, because a wait is carried from one triggerer process to another.
    :param try_until: Epoch seconds after which this try of the task is over; the job is not.
    :param patience: Seconds without any usable answer after which the polling ends.
    :param answered: Whether the service has answered a poll of the job in an earlier wait.
    """

    # A triggerer holds one for each of ten thousand jobs.
    __slots__ = (
        "_failing_since",
        "_failures",
        "_logged",
        "_logged_at",
        "_moved",
        "_unchanged_since",
        "answered",
        "deadline",
        "patience",
        "poll_interval",
        "ref",
        "try_until",
    )

    MAX_BACKOFF = 600.0
    REPEAT_LOG_SECONDS = 3600.0
    STALLED_AFTER = 3 * 3600.0
    """Seconds without any change of a job's state or counts after which a warning is due, once."""

    def __init__(
        self,
        ref: JobRef,
        *,
        poll_interval: float,
        deadline: float | None = None,
        try_until: float | None = None,
        patience: float = 3600.0,
        answered: bool = False,
    ) -> None:
        self.ref = ref
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.try_until = try_until
        self.patience = patience
        self.answered = answered
        self._failures = 0
        self._failing_since: float | None = None
        self._moved: tuple[object, ...] | None = None
        """What of the last status tells whether the job moves."""
        self._unchanged_since = 0.0
        self._logged: tuple[object, ...] = ()
        """What of the last line in the log tells whether the next is worth one."""
        self._logged_at = 0.0

    def on_status(self, status: JobStatus, now: float) -> Wait | PollOutcome:
        """Decide after a poll that was answered. The end of the job counts even when the deadline has passed."""
        self._failures = 0
        self._failing_since = None
        self.answered = True
        if status.state.is_terminal:
            return PollOutcome(PollEnd.ENDED, status, answered=True)
        return self._wait(max(self.poll_interval, status.poll_after or 0.0), now)

    def on_error(self, error: ServiceError, now: float) -> Wait | PollOutcome:
        """Decide after a poll that raised; a 404 is to be confirmed before (:func:`~overnight.jobs.wait.poll`)."""
        if isinstance(error, TransientError):
            self._failures += 1
            if self._failing_since is None:
                self._failing_since = now
            if now - self._failing_since >= self.patience:
                return self._stop(
                    PollEnd.SILENT,
                    f"No usable answer about {self.ref} for {self.patience:.0f} s: {error} The job was left "
                    "as it is; a retry attaches to it again.",
                )
            backoff = min(self.poll_interval * 2.0 ** min(self._failures - 1, 16), self.MAX_BACKOFF)
            return self._wait(max(backoff, error.retry_after or 0.0), now)
        if isinstance(error, NotFoundError):
            return self._stop(PollEnd.LOST if self.answered else PollEnd.UNKNOWN, str(error))
        return self._stop(PollEnd.REFUSED, str(error))

    def get_stall(self, status: JobStatus, now: float) -> float | None:
        """
        Return for how many seconds the job has not moved, the first time that this is :attr:`STALLED_AFTER` or more.

        :param status: The answer of the poll just made.
        """
        counts = status.counts
        moved = (status.state, status.progress, counts.total, counts.succeeded, counts.failed)
        if moved != self._moved:
            self._moved = moved
            self._unchanged_since = now
            return None
        stalled = now - self._unchanged_since
        if stalled < self.STALLED_AFTER:
            return None
        # Not again before the job has moved.
        self._unchanged_since = float("inf")
        return stalled

    def is_news(self, status: JobStatus, now: float) -> bool:
        """
        Return whether a status is worth a line in the log.

        That is: another state, another tenth of the items done, the first item that failed, other errors or warnings,
        an answer after polls that failed; or the last line is an hour old.
        """
        share = status.get_share_done()
        tenth = None if share is None else int(share * 10)
        failed = bool(status.counts.failed)
        said = tuple(map(str, status.errors[:3])), len(status.warnings)
        return self._is_other((status.state, status.raw, tenth, failed, *said), now)

    def is_error_news(self, error: ServiceError, now: float) -> bool:
        """Return whether a poll that failed is worth a line: it failed in another way, or the line is an hour old."""
        # Not by its text: a service's may name the request.
        return self._is_other((type(error), error.status), now)

    def _is_other(self, line: tuple[object, ...], now: float) -> bool:
        if line == self._logged and now - self._logged_at < self.REPEAT_LOG_SECONDS:
            return False
        self._logged, self._logged_at = line, now
        return True

    def get_seconds_left(self, now: float) -> float:
        """Return how long a call may take: to the deadline, or as long as silence is tolerated."""
        ends = [end - now for end in (self.deadline, self.try_until) if end is not None]
        return max(1.0, min([*ends, max(self.patience, 60.0)]))

    def _wait(self, seconds: float, now: float) -> Wait | PollOutcome:
        wait = _add_jitter(seconds)
        if self.deadline is not None:
            if now >= self.deadline:
                return self._stop(PollEnd.DEADLINE, f"{self.ref} was not over by its deadline, {_iso(self.deadline)}.")
            # The last poll falls on the deadline itself, not one interval after it.
            wait = min(wait, self.deadline - now)
        if self.try_until is not None:
            if now >= self.try_until:
                return self._stop(
                    PollEnd.TRY_TIMEOUT,
                    f"The task's execution_timeout passed at {_iso(self.try_until)}, before {self.ref} was over.",
                )
            wait = min(wait, self.try_until - now)
        return Wait(wait)

    def _stop(self, end: PollEnd, message: str) -> PollOutcome:
        return PollOutcome(end, message=message, answered=self.answered)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds")


def _add_jitter(seconds: float) -> float:
    # A thousand mapped tasks deferred in the same second must not poll in the same second ever after.
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - not for secrets
