from __future__ import annotations

import pytest

from overnight.jobs import FailureCause
from overnight.services.openai.causes import CAUSES, FINAL_CODES, get_cause
from overnight.services.openai.status import read_status

EXPECTED: dict[tuple[FailureCause, bool], set[str]] = {
    (FailureCause.LIMITS, False): {
        "access_terminated", "billing_hard_limit_reached", "billing_not_active", "insufficient_quota", "quota_exceeded",
    },
    (FailureCause.LIMITS, True): {"token_limit_exceeded"},
    (FailureCause.SERVICE, True): {
        "rate_limit_exceeded", "rate_limit_error", "too_many_requests", "overloaded", "overloaded_error",
        "engine_overloaded", "service_unavailable", "serviceunavailable", "capacity_exceeded", "429", "503",
        "api_connection_error", "api_error", "bad_gateway", "batch_failed", "internal_error", "internal_server_error",
        "internalerror", "internalservererror", "server_error", "500", "502", "gateway_timeout", "request_timeout",
        "timeout", "vector_store_timeout", "failed_to_download_image", "408", "504", "batch_expired", "request_expired",
        "batch_cancelled", "file_not_found", "input_file_expired", "input_no_longer_accessible", "invalid_output",
    },
    (FailureCause.CREDENTIALS, False): {
        "input_no_permissions", "invalid_api_key", "invalid_organization", "organization_deactivated",
        "permission_denied", "unauthorized", "401", "403",
    },
    (FailureCause.INPUT, False): {
        "empty_batch", "empty_file", "input_modified", "invalid_custom_id", "duplicate_custom_id", "invalid_file",
        "invalid_file_format", "invalid_json_line", "invalid_method", "invalid_request", "invalid_request_error",
        "invalid_type", "invalid_url", "invalid_value", "missing_required_parameter", "unknown_parameter",
        "unsupported_parameter", "unsupported_value", "url_mismatch", "400", "404", "413", "422", "file_too_large",
        "too_many_requests_in_batch", "mismatched_model", "model_mismatch", "deploymentnotfound", "model_not_found",
        "model_not_supported", "content_filter", "content_policy_violation", "context_length_exceeded",
        "invalid_image", "invalid_prompt", "responsibleaipolicyviolation", "string_above_max_length",
        "too_many_tasks", "bio_policy", "empty_image_file", "image_content_policy_violation", "image_file_not_found",
        "image_file_too_large", "image_generation_user_error", "image_parse_error", "image_too_large",
        "image_too_small",
        "invalid_base64_image", "invalid_image_format", "invalid_image_mode", "invalid_image_url",
        "misalignment_policy_violation", "moderation_blocked", "unsupported_image_media_type",
    },
}  # fmt: skip
ROWS = [(code, cause, retryable) for (cause, retryable), codes in EXPECTED.items() for code in sorted(codes)]


@pytest.mark.parametrize(("code", "cause", "retryable"), ROWS)
def test_every_row(code: str, cause: FailureCause, retryable: bool) -> None:
    row = get_cause(code.upper())
    assert row is not None
    assert (row.cause, row.retryable, row.remedy[-1]) == (cause, retryable, ".")
    status = read_status({"status": "failed", "errors": {"data": [{"code": code, "message": "m"}]}})
    assert (status.cause, status.warnings) == (cause, (row.remedy,))


def test_no_row_is_left_out_here() -> None:
    assert {code for code, *_ in ROWS} == set(CAUSES)


def test_only_limits_that_waiting_does_not_lift_are_final_whatever_the_status() -> None:
    assert EXPECTED[FailureCause.LIMITS, False] == FINAL_CODES


@pytest.mark.parametrize("status", [0, 500, 502, 529, 599])
def test_a_status_of_the_services_own_failures_is_retryable(status: int) -> None:
    row = get_cause("never_heard_of", status)
    assert row is not None
    assert row.retryable


@pytest.mark.parametrize(("code", "status"), [(None, None), ("never_heard_of", None), ("x", 418), (None, 200)])
def test_what_is_not_known_is_not_guessed(code: str | None, status: int | None) -> None:
    assert get_cause(code, status) is None


def test_an_unknown_code_is_said_and_quoted() -> None:
    status = read_status({"status": "failed", "errors": {"data": [{"code": "never_heard_of", "message": "the words"}]}})
    assert status.cause is None
    assert "does not know what this error means: [never_heard_of] the words" in status.warnings[0]
