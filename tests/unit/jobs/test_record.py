"""What a task remembers of its job, and what it reads from that."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from overnight.jobs import JobRef, JobState, JobStatus
from overnight.jobs.record import Ending, JobRecord

NOW = datetime(2026, 11, 23, tzinfo=UTC)
RECORD = JobRecord(
    generation=0,
    fingerprint="0" * 16,
    intent_at=NOW,
    ref=JobRef(service="openai", id="batch_1", conn_id="openai_default"),
    submitted_at=NOW,
)


def seen(state: JobState) -> JobStatus:
    return JobStatus(state=state, raw=state.value)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
def test_a_live_job_of_a_task_that_was_cleared_while_deferred_may_be_about_to_be_cancelled(state: JobState) -> None:
    assert RECORD.deferred(2).may_be_cancelled(seen(state), 5)


@pytest.mark.parametrize("state", [state for state in JobState if state.is_terminal or state.is_stopped])
def test_a_job_that_is_over_or_stopped_is_not_waited_for(state: JobState) -> None:
    assert not RECORD.deferred(2).may_be_cancelled(seen(state), 5)


def test_a_job_that_is_gone_is_not_waited_for() -> None:
    assert not RECORD.deferred(2).may_be_cancelled(None, 5)


def test_a_retry_is_not_a_clear() -> None:
    assert not RECORD.deferred(2).may_be_cancelled(seen(JobState.RUNNING), 2)


def test_a_task_that_was_not_deferred_has_no_trigger_that_could_cancel() -> None:
    assert not RECORD.may_be_cancelled(seen(JobState.RUNNING), 5)


@pytest.mark.parametrize("ending", list(Ending))
def test_a_job_that_the_task_let_go_of_has_no_trigger_that_could_cancel(ending: Ending) -> None:
    assert not RECORD.deferred(2).ended(ending, 2).may_be_cancelled(seen(JobState.RUNNING), 5)


def test_a_record_of_an_earlier_release_is_read() -> None:
    stored = RECORD.model_dump(mode="json")
    del stored["deferred_with"]
    assert JobRecord.model_validate(stored) == RECORD
