"""
What ML Commons' errors mean and what to do about each.

The plugin's statuses say little: a switched-off feature, an empty body and a JSON ``null`` are 500, which reads like an
outage; what the *remote* service answered (401, 409 …) is passed on as if OpenSearch had said it. So the words decide.
Seen on 2.19.6; https://docs.opensearch.org/latest/ml-commons-plugin/.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from overnight.errors import (
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    UnsupportedError,
)
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall
from overnight.transport.opensearch import read_opensearch_error


class _Rule(NamedTuple):
    code: str
    pattern: re.Pattern[str]
    kind: type[ServiceError]
    remedy: str


def _rule(code: str, pattern: str, kind: type[ServiceError], remedy: str) -> _Rule:
    return _Rule(code, re.compile(pattern, re.IGNORECASE), kind, remedy)


NO_HANDLER = "no_handler"
NO_TASK = "task_not_found"
NO_TASK_INDEX = "no_task_index"
NO_JOB_OF_TASK = "not_a_batch_job"
NAME_TAKEN = "remote_name_taken"
REMOTE_REFUSED = "remote_refused"
REMOTE_JOB_GONE = "remote_not_found"
IN_USE = "in_use"

_RULES = (
    _rule(
        NO_HANDLER,
        r"no handler found for uri",
        UnsupportedError,
        "This server has no such endpoint: ML Commons is not installed, or this version of it dropped it "
        "(_batch_ingestion is in 2.17 to 2.19 only).",
    ),
    _rule(
        NO_TASK,
        r"fail(ed)? to find task",
        NotFoundError,
        "The cluster does not know this ML task (any more).",
    ),
    _rule(
        NO_TASK_INDEX,
        r"no such index \[\.plugins-ml-task\]",
        RequestRefusedError,
        "No ML task ever ran on this cluster, so the plugin's task index is missing; registering any model makes it.",
    ),
    _rule(
        "feature_off",
        r"is currently disabled\. to enable it",
        RequestRefusedError,
        "An administrator of the cluster can switch it on in the cluster settings.",
    ),
    _rule(
        NO_JOB_OF_TASK,
        r"does not have any associated batch job",
        UnsupportedError,
        "Only batch predictions can be cancelled.",
    ),
    _rule(
        "model_gone",
        r"failed to retrieve the ml model",
        RequestRefusedError,
        "The model or its connector was deleted while its job runs, so the cluster can no longer ask about the job; it "
        "runs on at the remote service.",
    ),
    _rule(
        "model_not_found",
        r"failed to find model",
        RequestRefusedError,
        "Check the model id; register the model with MLCommonsRegisterModelOperator.",
    ),
    _rule(
        "connector_not_found",
        r"(failed to|can't) find connector",
        RequestRefusedError,
        "Check the connector id; create the connector with MLCommonsConnectorOperator.",
    ),
    _rule(
        IN_USE,
        r"models? (are|is) still using this connector|cannot be deleted in deploying or deployed state",
        RequestRefusedError,
        "Undeploy and delete the models first (MLCommonsDeleteModelOperator).",
    ),
    _rule(
        "untrusted_endpoint",
        r"connector url is not matching the trusted connector endpoint regex",
        RequestRefusedError,
        "Add the address to plugins.ml_commons.trusted_connector_endpoints_regex.",
    ),
    _rule(
        "private_address",
        r"remote inference host name has private ip",
        RequestRefusedError,
        "Set plugins.ml_commons.connector.private_ip_enabled; up to 3.x the plugin still refuses to poll or cancel an "
        "'http' connector's jobs at a private address, an 'aws_sigv4' connector can.",
    ),
    _rule(
        "bad_payload",
        r"invalid payload",
        RequestRefusedError,
        "A parameter makes the connector's request_body invalid JSON: give objects as objects, not as text.",
    ),
    _rule(
        "bad_parameter",
        r"some parameter placeholder not filled in payload",
        RequestRefusedError,
        "Give the parameter in the operator's parameters, or as a default in the connector.",
    ),
    _rule(
        "bad_request",
        r"has empty body|class_cast_exception|cannot be cast to class|can't get text on a value_null"
        r"|failed to parse (list|object)|illegalargumentexception in the batch ingestion input"
        r"|index name for data ingestion is missing|no data sources were provided",
        RequestRefusedError,
        "The request is malformed: index_name, data_source.type ('s3' or 'openAI') and data_source.source (a list of "
        "URIs) are required, and no value may be null.",
    ),
    _rule(
        "over_limit",
        r"exceeded maximum limit for batch_\w+ tasks",
        RateLimitedError,
        "Too many ML tasks run at once; wait for some, or raise the setting.",
    ),
)

_REMOTE = re.compile(r"error from remote service:?\s*", re.IGNORECASE)
_NAME_TAKEN = re.compile(r"ResourceInUse|must be unique within an AWS account|already exists", re.IGNORECASE)
_BY_CODE = {rule.code: rule for rule in _RULES}
_REMOTE_REMEDIES = {
    NAME_TAKEN: "A job of this name is at the remote service already.",
    REMOTE_JOB_GONE: "The remote service does not know the job (any more).",
    REMOTE_REFUSED: "The remote service refuses: check the connector's credential, parameters and quota there.",
}

FINAL_CODES = frozenset({rule.code for rule in _RULES if rule.kind is not RateLimitedError} | set(_REMOTE_REMEDIES))
"""The codes of :func:`read_ml_error` that no waiting mends, whatever the status."""


def read_ml_error(body: Any) -> tuple[str | None, str] | None:
    """Read an error body of the plugin, giving what has a remedy a code of ours."""
    read = read_opensearch_error(body)
    if read is None:
        return None
    code, text = read
    status = body.get("status") if isinstance(body, dict) else None
    if _REMOTE.search(text):
        return _remote_code(text, status), text
    rule = next((rule for rule in _RULES if rule.pattern.search(text) or rule.pattern.search(code or "")), None)
    return (rule.code if rule else code), text


def _remote_code(text: str, status: object) -> str | None:
    if _NAME_TAKEN.search(text):
        return NAME_TAKEN
    if not isinstance(status, int) or status == 429 or status >= 500:
        return None
    return REMOTE_JOB_GONE if status == 404 else REMOTE_REFUSED


def ask(call: HttpCall) -> Flow[Any]:
    """
    Carry out one call of the plugin, with its errors told as what they are.

    Only an unknown task or remote job is :class:`~overnight.errors.NotFoundError`; an error that is somebody
    else's 404 or 401 carries no status, so that nobody reads it as this job's end or these credentials' fault.
    """
    try:
        return (yield call)
    except ServiceError as error:
        raise _told(error) from error


def _told(error: ServiceError) -> ServiceError:
    code = error.code or ""
    if code in _REMOTE_REMEDIES:
        text = f"{error} {_REMOTE_REMEDIES[code]}"
        if code == REMOTE_JOB_GONE:
            return NotFoundError(text, status=404, code=code)
        return RequestRefusedError(text, code=code)
    rule = _BY_CODE.get(code)
    if rule is None:
        if isinstance(error, NotFoundError):
            return RequestRefusedError(str(error), code=error.code)
        return error
    text = f"{error} {rule.remedy}"
    if issubclass(rule.kind, RateLimitedError):
        return RateLimitedError(text, status=429, code=code)
    return rule.kind(text, status=404 if rule.kind is NotFoundError else None, code=code)
