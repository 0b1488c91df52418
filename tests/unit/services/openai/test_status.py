from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow._shared.secrets_masker import DEFAULT_SENSITIVE_FIELDS, _secrets_masker
from hypothesis import example, given
from hypothesis import strategies as st

from overnight.jobs import FailureCause, JobCounts, JobState
from overnight.services.openai.status import MAX_ERRORS, read_status, read_usage


def counts(total: int, completed: int, failed: int) -> dict[str, int]:
    return {"total": total, "completed": completed, "failed": failed}


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("validating", JobState.QUEUED),
        ("in_progress", JobState.RUNNING),
        ("finalizing", JobState.RUNNING),
        ("completed", JobState.SUCCEEDED),
        ("failed", JobState.FAILED),
        ("expired", JobState.EXPIRED),
        ("cancelling", JobState.CANCELLING),
        ("cancelled", JobState.CANCELLED),
        ("Completed", JobState.SUCCEEDED),
        ("IN-PROGRESS", JobState.RUNNING),
        ("canceled", JobState.CANCELLED),
    ],
)
def test_every_word_has_its_state(word: str, state: JobState) -> None:
    status = read_status({"status": word})
    assert (status.state, status.raw) == (state, word)


@pytest.mark.parametrize(
    ("batch", "state"),
    [
        ({"status": "pondering"}, JobState.RUNNING),
        ({}, JobState.RUNNING),
        ({"status": None, "completed_at": 1_700_000_000}, JobState.SUCCEEDED),
        ({"status": "gone wrong", "failed_at": 1_700_000_000, "completed_at": 0}, JobState.FAILED),
        ({"status": "pondering", "expired_at": None, "cancelled_at": 1_700_000_000}, JobState.CANCELLED),
    ],
)
def test_a_word_that_is_not_known_is_read_from_the_times(batch: dict[str, Any], state: JobState) -> None:
    assert read_status(batch).state is state


@pytest.mark.parametrize(
    ("request_counts", "state"),
    [
        (counts(3, 3, 0), JobState.SUCCEEDED),
        (counts(3, 2, 1), JobState.PARTIAL),
        (counts(3, 0, 3), JobState.PARTIAL),
        (counts(3, 2, 0), JobState.PARTIAL),
        (counts(0, 0, 0), JobState.SUCCEEDED),
        (None, JobState.SUCCEEDED),
        ({}, JobState.SUCCEEDED),
        ({"failed": 1}, JobState.PARTIAL),
    ],
)
def test_completed_is_not_succeeded(request_counts: Any, state: JobState) -> None:
    assert read_status({"status": "completed", "request_counts": request_counts}).state is state


def test_an_expired_batch_keeps_its_counts() -> None:
    status = read_status({"status": "expired", "request_counts": counts(4, 1, 1)})
    assert (status.state, status.progress) == (JobState.EXPIRED, 0.5)
    assert status.counts == JobCounts(total=4, succeeded=1, failed=1)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("token_limit_exceeded", FailureCause.LIMITS),
        ("insufficient_quota", FailureCause.LIMITS),
        ("billing_hard_limit_reached", FailureCause.LIMITS),
        ("invalid_json_line", FailureCause.INPUT),
        ("model_not_found", FailureCause.INPUT),
        ("duplicate_custom_id", FailureCause.INPUT),
        ("invalid_api_key", FailureCause.CREDENTIALS),
        ("file_not_found", FailureCause.SERVICE),
        ("internal_error", FailureCause.SERVICE),
        ("never_heard_of", None),
    ],
)
def test_a_failed_batch_says_who_can_mend_it(code: str, cause: FailureCause | None) -> None:
    error = {"code": code, "message": "m", "param": None, "line": None}
    status = read_status({"status": "failed", "errors": {"object": "list", "data": [error]}})
    assert status.cause is cause
    assert status.errors[0].code == code


def test_an_error_in_a_line_is_the_inputs_fault() -> None:
    data = [{"code": "odd", "message": "m", "param": "body.x", "line": 7}]
    status = read_status({"status": "failed", "errors": {"data": data}})
    assert status.cause is FailureCause.INPUT
    assert str(status.errors[0]) == "line 7: [odd] m"


def test_a_batch_that_failed_without_a_word_is_the_services_fault() -> None:
    for errors in (None, {}, {"data": []}, {"data": None}, []):
        assert read_status({"status": "failed", "errors": errors}).cause is FailureCause.SERVICE


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ("the queue is on fire", "the queue is on fire"),
        ({"message": "on fire", "code": "odd"}, "on fire"),
        ({"object": "list", "reason": "fire"}, '{"object":"list","reason":"fire"}'),
        (["fire"], "fire"),
        ([[1, 2]], "[1,2]"),
        ({"data": "fire"}, "fire"),
        ({"data": {"message": "fire"}}, "fire"),
        (7, "7"),
    ],
)
def test_errors_in_another_shape_are_quoted_and_not_blamed_on_the_service(errors: Any, message: str) -> None:
    status = read_status({"status": "failed", "errors": errors})
    assert status.errors[0].message == message
    assert status.cause is None
    assert message in status.warnings[-1]


def test_a_single_error_is_read_as_well() -> None:
    status = read_status({"status": "failed", "error": {"code": "server_error", "message": "m"}})
    assert (status.cause, str(status.errors[0])) == (FailureCause.SERVICE, "[server_error] m")


def test_what_is_quoted_is_bounded() -> None:
    status = read_status({"status": "x" * 9_000_000, "errors": ["y" * 9_000_000], "failed_at": 1})
    assert len(status.model_dump_json()) < 10_000


def test_a_state_that_is_not_known_is_said() -> None:
    (warning,) = read_status({"status": "pondering"}).warnings
    assert '"pondering"' in warning


def test_an_end_without_an_output_file_is_a_failure() -> None:
    assert read_status({"status": "completed", "output_file_id": None}).state is JobState.FAILED


def test_a_long_list_of_errors_is_cut() -> None:
    data = [{"code": "invalid_json_line", "message": "m", "line": n} for n in range(1_000)]
    assert len(read_status({"status": "failed", "errors": {"data": data}}).errors) == MAX_ERRORS


def test_a_repeated_expiry_tells_when_the_results_lapse() -> None:
    batch = {"completed_at": 1_000_000, "output_expires_after": {"anchor": "created_at", "seconds": 3_600}}
    at = datetime.fromtimestamp(1_003_600, UTC)
    assert read_status({"status": "completed", **batch}).results_expire_at == at
    assert read_status({"status": "in_progress", **batch}).results_expire_at is None


def test_an_expiry_beyond_all_calendars_reads_as_unknown() -> None:
    batch = {"status": "completed", "completed_at": 1, "output_expires_after": {"seconds": 10**20}}
    assert read_status(batch).results_expire_at is None


def test_what_a_batch_used_is_under_names_that_airflow_does_not_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    masker = _secrets_masker()
    monkeypatch.setattr(masker, "sensitive_variables_fields", list(DEFAULT_SENSITIVE_FIELDS))
    usage = read_usage(
        {
            "input_tokens": 7, "input_tokens_details": {"cached_tokens": 3},
            "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 12,
        }
    )  # fmt: skip
    assert usage == {"input": 7, "cached_input": 3, "output": 5, "reasoning_output": 2, "total": 12}
    assert masker.redact({"results": {"detail": {"usage": usage}}}) == {"results": {"detail": {"usage": usage}}}
    # The names of the older endpoints.
    assert read_usage({"prompt_tokens": 7, "total_tokens": 7}) == {"input": 7, "total": 7}


@pytest.mark.parametrize(
    "value",
    [
        None, [], "text", {}, {"input_tokens": "7"}, {"input_tokens_details": None},
        # llama.cpp and others that do not count.
        {"prompt_tokens": 0, "total_tokens": 0}, {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
    ],
)  # fmt: skip
def test_usage_that_is_not_given_is_not_made_up(value: Any) -> None:
    assert read_usage(value) == {}


ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none()) | st.just({})


@given(
    st.dictionaries(
        st.sampled_from(
            ["status", "errors", "request_counts", "completed_at", "failed_at", "output_expires_after", "expires_at"]
        ),
        ODD | st.dictionaries(st.sampled_from(["data", "total", "completed", "failed", "seconds"]), ODD),
    )
)
@example({"status": -(2**63) - 1})
def test_no_batch_object_breaks_the_reading(batch: dict[str, Any]) -> None:
    assert isinstance(read_status(batch).state, JobState)
