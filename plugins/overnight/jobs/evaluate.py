"""What the end of a job means for its task. Free of I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from overnight.errors import (
    DeadlineExceededError,
    JobCancelledError,
    JobFailedError,
    JobLostError,
    OvernightError,
    RequestRefusedError,
    TransientError,
)
from overnight.jobs.allowance import Allowance
from overnight.jobs.model import JobCounts, JobRef, JobState, JobStatus, ResultManifest
from overnight.jobs.poller import PollEnd, PollOutcome
from overnight.jobs.resume import build_unknown_text

RESUBMITS = "a retry submits the work again."


@dataclass(frozen=True)
class Evaluation:
    """What the end of the polling means for the task: success when there is no ``error``."""

    error: OvernightError | None = None
    releases_job: bool = True
    """Whether the task has finished with the job. If not, its next run attaches to the same job."""


def evaluate(ref: JobRef, outcome: PollOutcome, allowed: Allowance) -> Evaluation:
    """
    Say what the end of the polling means for the task that submitted the job.

    :param allowed: How many items may have failed, or be missing, in a PARTIAL or EXPIRED job.
    :return: An error of the class that says whether a retry can mend it: ``retryable`` is set on
        :class:`~overnight.errors.JobLostError`, :class:`~overnight.errors.DeadlineExceededError` and
        :class:`~overnight.errors.TransientError` only.
    """
    text = outcome.message
    match outcome.end:
        case PollEnd.ENDED:
            if outcome.status is None:
                raise ValueError(f"the polling of {ref} ended without a status")
            return _evaluate_status(ref, outcome.status, allowed)
        case PollEnd.DEADLINE:
            return Evaluation(DeadlineExceededError(text), releases_job=outcome.cancelled)
        case PollEnd.TRY_TIMEOUT:
            text = f"{text} It runs on, and a retry attaches to it; deadline is what bounds the job itself."
            return Evaluation(DeadlineExceededError(text), releases_job=False)
        case PollEnd.LOST:
            return Evaluation(JobLostError(f"{text} {ref} is lost; {RESUBMITS}"))
        case PollEnd.UNKNOWN:
            return Evaluation(RequestRefusedError(f"{text} {build_unknown_text(ref)}", status=404))
        case PollEnd.REFUSED:
            text = f"{text} {ref} was left as it is; mend that and clear the task."
            return Evaluation(RequestRefusedError(text), releases_job=False)
        case PollEnd.SILENT:
            return Evaluation(TransientError(text), releases_job=False)
        case _:
            assert_never(outcome.end)


def evaluate_for_watcher(ref: JobRef, outcome: PollOutcome, allowed: Allowance) -> Evaluation:
    """
    Say what the end of the polling means for a task that only waits for another task's job.

    It can submit nothing, so an end of the job is final for it, and the remedy is at the task that submitted.
    """
    evaluation = evaluate(ref, outcome, allowed)
    match outcome.end:
        case PollEnd.ENDED | PollEnd.LOST | PollEnd.UNKNOWN:
            if evaluation.error is None:
                return evaluation
            what = (
                f"{ref} ended {outcome.status.describe()}."
                if outcome.status is not None
                else f"{outcome.message} The service does not know {ref}."
            )
            if not evaluation.releases_job:
                what += (
                    f" More items are without a result than allowed_failures={allowed} permits; raise it and clear "
                    "this task to accept that."
                )
            text = f"{what} This task only waits for the job: clear the task that submitted it to have the work redone."
            return replace(evaluation, error=JobFailedError(text))
        case PollEnd.REFUSED:
            text = f"{outcome.message} {ref} was left as it is; correct the connection and clear this task."
            return replace(evaluation, error=RequestRefusedError(text))
        case PollEnd.SILENT | PollEnd.DEADLINE | PollEnd.TRY_TIMEOUT:
            return evaluation
        case _:
            assert_never(outcome.end)


def evaluate_results(ref: JobRef, results: ResultManifest, allowed: Allowance) -> Evaluation:
    """
    Say what the results that were collected mean for the task: fewer can be there than the status promised.

    :param results: Where the service counts what it collected, those counts decide.
    """
    counts = results.counts
    if counts.total is None or counts.succeeded is None or _is_within(counts, allowed):
        return Evaluation()
    text = f"{ref} ended, and results were collected of {counts.succeeded} of its {counts.total} items."
    return _keep_results(text, "What was collected is paid for and there", allowed)


def _evaluate_status(ref: JobRef, status: JobStatus, allowed: Allowance) -> Evaluation:
    text = f"{ref} ended {status.describe()}."
    match status.state:
        case JobState.SUCCEEDED:
            return Evaluation()
        case JobState.PARTIAL | JobState.EXPIRED if _is_within(status.counts, allowed):
            return Evaluation()
        case JobState.PARTIAL:
            return _keep_results(text, "The good results are paid for and there", allowed)
        case JobState.EXPIRED if status.counts.succeeded:
            done = f"{status.counts.succeeded} items were finished in time, are paid for and there"
            return _keep_results(text, done, allowed)
        case JobState.EXPIRED:
            return Evaluation(JobLostError(f"{text} The service ran out of time; {RESUBMITS}"))
        case JobState.CANCELLED:
            text += " It was not this task that cancelled it, so no retry submits it again; clear the task to do so."
            return Evaluation(JobCancelledError(text))
        case JobState.FAILED if status.cause is not None and status.cause.is_retryable:
            return Evaluation(JobLostError(f"{text} The fault is the service's; {RESUBMITS}"))
        case JobState.FAILED:
            cause = f" The fault is in the {status.cause}." if status.cause else ""
            return Evaluation(JobFailedError(f"{text}{cause} Mend that and clear the task."))
        case JobState.QUEUED | JobState.RUNNING | JobState.CANCELLING:
            raise ValueError(f"{ref} is {status.state}, which is not an end")
        case _:
            assert_never(status.state)


def _keep_results(text: str, what: str, allowed: Allowance) -> Evaluation:
    """Fail for good, and keep the job: to submit it again would pay for its finished items a second time."""
    remedy = (
        f"More items are without a result than allowed_failures={allowed} permits. {what}, listed in this task's XCom. "
        "Raise allowed_failures and clear the task to go on with them, and submit only the others again."
    )
    return Evaluation(JobFailedError(f"{text} {remedy}"), releases_job=False)


def _is_within(counts: JobCounts, allowed: Allowance) -> bool:
    if counts.total is None:
        return False
    failed = counts.total - counts.succeeded if counts.succeeded is not None else counts.failed
    return failed is not None and allowed.allows(failed, counts.total)
