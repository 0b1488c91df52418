"""
What an error code of OpenAI, Azure OpenAI or a compatible server means: one table, for batches, their lines and calls.

Codes: https://developers.openai.com/api/docs/guides/error-codes, https://developers.openai.com/api/docs/guides/batch,
https://learn.microsoft.com/azure/ai-services/openai/how-to/batch and https://github.com/openai/openai-python/issues/2084.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overnight.jobs.cause import Cause, find_cause
from overnight.jobs.model import FailureCause

_QUOTA = Cause(FailureCause.LIMITS, False, "Raise the account's quota or pay its bill; waiting does not help.")
_QUEUE = Cause(
    FailureCause.LIMITS, True, "The model's queue of batches is full; submit again when some of them have ended."
)
_BUSY = Cause(FailureCause.SERVICE, True, "The service was too busy; submit again.")
_BROKEN = Cause(FailureCause.SERVICE, True, "The service failed; submit again.")
_FILE_LOST = Cause(FailureCause.SERVICE, True, "The service no longer has the input file; submit again.")
_LATE = Cause(FailureCause.SERVICE, True, "The service ran out of time; submit what is left again.")
_KEY = Cause(FailureCause.CREDENTIALS, False, "Check the connection's API key, organization and project.")
_INPUT = Cause(FailureCause.INPUT, False, "Mend the request; the service refuses it as it is.")
_MODEL = Cause(
    FailureCause.INPUT, False, "Name a model that the account has, and that can be used in batches of this endpoint."
)
_ONE_MODEL = Cause(FailureCause.INPUT, False, "Give every request of a batch the same model.")
_TOO_LARGE = Cause(FailureCause.INPUT, False, "Build the input with smaller limits, so that it has more parts.")
_INVALID = Cause(
    FailureCause.SERVICE,
    True,
    "The answer is not what the schema says; send it again with what is wrong (resubmit, repair).",
)
_CONTENT = Cause(FailureCause.INPUT, False, "The service refuses the content; the same request is refused again.")

CAUSES: Final[Mapping[str, Cause]] = {
    # Limits that waiting does not lift
    "access_terminated": _QUOTA,
    "billing_hard_limit_reached": _QUOTA,
    "billing_not_active": _QUOTA,
    "insufficient_quota": _QUOTA,
    "quota_exceeded": _QUOTA,
    # Limits that lift when other batches end
    "token_limit_exceeded": _QUEUE,
    # The service's own failures
    "rate_limit_exceeded": _BUSY,
    "rate_limit_error": _BUSY,
    "too_many_requests": _BUSY,
    "overloaded": _BUSY,
    "overloaded_error": _BUSY,
    "engine_overloaded": _BUSY,
    "service_unavailable": _BUSY,
    "serviceunavailable": _BUSY,
    "capacity_exceeded": _BUSY,
    "429": _BUSY,
    "503": _BUSY,
    "api_connection_error": _BROKEN,
    "api_error": _BROKEN,
    "bad_gateway": _BROKEN,
    "batch_failed": _BROKEN,
    "internal_error": _BROKEN,
    "internal_server_error": _BROKEN,
    "internalerror": _BROKEN,
    "failed_to_download_image": _BROKEN,
    "internalservererror": _BROKEN,
    "server_error": _BROKEN,
    "500": _BROKEN,
    "502": _BROKEN,
    "gateway_timeout": _LATE,
    "request_timeout": _LATE,
    "timeout": _LATE,
    "vector_store_timeout": _LATE,
    "408": _LATE,
    "504": _LATE,
    "batch_expired": _LATE,
    "request_expired": _LATE,
    "batch_cancelled": Cause(FailureCause.SERVICE, True, "The batch was cancelled before this request's turn."),
    # The file that was uploaded is gone or unreadable there: not the fault of what is in it.
    "file_not_found": _FILE_LOST,
    "input_file_expired": _FILE_LOST,
    "input_no_longer_accessible": _FILE_LOST,
    # Credentials
    "input_no_permissions": _KEY,
    "invalid_api_key": _KEY,
    "invalid_organization": _KEY,
    "organization_deactivated": _KEY,
    "permission_denied": _KEY,
    "unauthorized": _KEY,
    "401": _KEY,
    "403": _KEY,
    # The input
    "empty_batch": _INPUT,
    "empty_file": _INPUT,
    "input_modified": _INPUT,
    "invalid_custom_id": _INPUT,
    "duplicate_custom_id": _INPUT,
    "invalid_file": _INPUT,
    "invalid_file_format": _INPUT,
    "invalid_json_line": _INPUT,
    "invalid_method": _INPUT,
    "invalid_request": _INPUT,
    "invalid_request_error": _INPUT,
    "invalid_type": _INPUT,
    "invalid_url": _INPUT,
    "invalid_value": _INPUT,
    "missing_required_parameter": _INPUT,
    "unknown_parameter": _INPUT,
    "unsupported_parameter": _INPUT,
    "unsupported_value": _INPUT,
    "url_mismatch": _INPUT,
    "400": _INPUT,
    "404": _INPUT,
    "413": _INPUT,
    "422": _INPUT,
    "file_too_large": _TOO_LARGE,
    "too_many_requests_in_batch": _TOO_LARGE,
    "too_many_tasks": _TOO_LARGE,
    "mismatched_model": _ONE_MODEL,
    "model_mismatch": _ONE_MODEL,
    "deploymentnotfound": _MODEL,
    "model_not_found": _MODEL,
    "model_not_supported": _MODEL,
    # Our own code of an answer
    "invalid_output": _INVALID,
    # The content
    "content_filter": _CONTENT,
    "content_policy_violation": _CONTENT,
    "context_length_exceeded": _CONTENT,
    "bio_policy": _CONTENT,
    "empty_image_file": _CONTENT,
    "image_content_policy_violation": _CONTENT,
    "image_file_not_found": _CONTENT,
    "image_file_too_large": _CONTENT,
    "image_generation_user_error": _CONTENT,
    "image_parse_error": _CONTENT,
    "image_too_large": _CONTENT,
    "image_too_small": _CONTENT,
    "invalid_base64_image": _CONTENT,
    "invalid_image": _CONTENT,
    "invalid_image_format": _CONTENT,
    "invalid_image_mode": _CONTENT,
    "invalid_image_url": _CONTENT,
    "invalid_prompt": _CONTENT,
    "misalignment_policy_violation": _CONTENT,
    "moderation_blocked": _CONTENT,
    "responsibleaipolicyviolation": _CONTENT,
    "string_above_max_length": _CONTENT,
    "unsupported_image_media_type": _CONTENT,
}
"""By lower-case code, or HTTP status where a line or a batch has that alone."""

QUEUE_CODES: Final = frozenset(code for code, row in CAUSES.items() if row is _QUEUE)
"""Codes of a queue that is full, whatever HTTP status they come with: the batch waits for its turn."""

FINAL_CODES: Final = frozenset(
    code for code, row in CAUSES.items() if row.cause is FailureCause.LIMITS and not row.retryable
)
"""Codes of a limit that waiting does not lift, whatever HTTP status they come with (some answer 429)."""


def get_cause(code: str | None, status: int | None = None) -> Cause | None:
    """
    Return what a code, or else a status, means; ``None`` when the table has neither.

    :param status: The HTTP status of a call or of a line's request. Any 5xx is the service's failure, and so is 0,
        which some servers write where a request got no answer.
    """
    row = find_cause(CAUSES, (code, str(status) if status is not None else None))
    if row is None and status is not None and (status == 0 or status >= 500):
        return _BROKEN
    return row
