from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from overnight.jobs import FailureCause, JobState
from overnight.services.llamacloud.outcomes import FileOutcome, FileState
from overnight.services.llamacloud.status import (
    MAX_ERRORS,
    ended_status,
    mapping_state,
    parse_moment,
    raw_word,
    working_status,
)


def batches(*words: str) -> list[dict[str, Any]]:
    return [{"id": f"bat-{number}", "status": word} for number, word in enumerate(words)]


def files(**counts: int) -> list[FileOutcome]:
    return [
        FileOutcome(f"dfl-{state}-{n}", f"{state}.txt", FileState(state), error=None if state == "succeeded" else "why")
        for state, count in counts.items()
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (["PENDING"], JobState.QUEUED),
        (["THROTTLED"], JobState.QUEUED),
        (["THROTTLED", "PENDING"], JobState.QUEUED),
        (["RUNNING"], JobState.RUNNING),
        (["PENDING", "COMPLETED"], JobState.RUNNING),
        (["CANCELLED", "RUNNING"], JobState.RUNNING),
        (["FAILED", "THROTTLED"], JobState.RUNNING),
        (["A_WORD_OF_TOMORROW"], JobState.RUNNING),
        (["COMPLETED", "COMPLETED"], JobState.SUCCEEDED),
        (["COMPLETED", "FAILED"], JobState.PARTIAL),
        (["FAILED", "FAILED"], JobState.FAILED),
        (["COMPLETED", "CANCELLED"], JobState.CANCELLED),
    ],
)
def test_several_batches_are_one_state(words: list[str], state: JobState) -> None:
    assert mapping_state(batches(*words)) is state


def test_the_services_word_is_kept_where_the_batches_agree_and_counted_where_not() -> None:
    assert raw_word(batches("COMPLETED", "COMPLETED")) == "COMPLETED"
    assert raw_word(batches("RUNNING", "COMPLETED", "RUNNING")) == "1 COMPLETED, 2 RUNNING"


@pytest.mark.parametrize(
    ("words", "counts", "state", "cause"),
    [
        (["COMPLETED"], {"succeeded": 3}, JobState.SUCCEEDED, None),
        (["COMPLETED"], {"succeeded": 2, "failed": 1}, JobState.PARTIAL, None),
        (["COMPLETED"], {"succeeded": 2, "missing": 1}, JobState.PARTIAL, None),
        (["COMPLETED"], {"failed": 2, "missing": 1}, JobState.FAILED, None),
        (["COMPLETED"], {"succeeded": 2, "cancelled": 1}, JobState.CANCELLED, None),
        (["CANCELLED"], {"succeeded": 2, "missing": 1}, JobState.CANCELLED, None),
        (["FAILED"], {"missing": 3}, JobState.FAILED, FailureCause.SERVICE),
        (["FAILED", "COMPLETED"], {"succeeded": 1, "missing": 1}, JobState.PARTIAL, None),
        (["FAILED", "COMPLETED"], {"failed": 1, "missing": 1}, JobState.FAILED, None),
    ],
)
def test_completed_is_not_succeeded(
    words: list[str], counts: dict[str, int], state: JobState, cause: FailureCause | None
) -> None:
    status = ended_status(batches(*words), files(**counts))
    assert (status.state, status.cause) == (state, cause)
    assert status.counts.total == sum(counts.values())
    assert status.counts.succeeded == counts.get("succeeded", 0)
    assert status.counts.failed == counts.get("failed", 0) + counts.get("cancelled", 0)


def test_errors_name_the_file_and_are_not_carried_along_without_end() -> None:
    errors = ended_status(batches("COMPLETED"), files(succeeded=1, failed=1_000)).errors
    assert len(errors) == MAX_ERRORS
    assert (errors[0].param, str(errors[0])) == ("dfl-failed-0", "failed.txt: why")


def test_files_at_work_count_what_was_seen() -> None:
    jobs = [{"status": word} for word in ("COMPLETED", "FAILED", "CANCELLED", "RUNNING", "PENDING")]
    status = working_status(batches("COMPLETED"), jobs, total=10)
    assert status.state is JobState.RUNNING
    assert (status.counts.total, status.counts.succeeded, status.counts.failed) == (10, 1, 2)
    assert status.progress == pytest.approx(0.3)


def test_times_are_read_with_and_without_a_zone() -> None:
    expected = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert parse_moment("2026-01-02T03:04:05Z") == parse_moment("2026-01-02T03:04:05") == expected
    assert parse_moment(None) is None
