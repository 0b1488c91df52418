"""
What ML Commons' errors mean and what to do about each: one table for refused calls, one for the texts of failed tasks.

The plugin's statuses say little: a switched-off feature, an empty body and a JSON ``null`` are 500, which reads like an
outage; what the *remote* service answered (401, 409 …) is passed on as if OpenSearch had said it. So the words decide.
Seen on 2.19.6; https://docs.opensearch.org/latest/ml-commons-plugin/.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from overnight.errors import (
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    TransientError,
    UnsupportedError,
)
from overnight.jobs.cause import Cause, find_text_cause, text_cause
from overnight.jobs.model import FailureCause
from overnight.transport.errors import add_remedy
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
REMOTE_THROTTLED = "remote_throttled"
NO_ACTION = "no_action"
IN_USE = "in_use"

_RULES = (
    _rule(
        NO_ACTION,
        r"please configure the action type|no (batch_|cancel_)?\w+ action (found|type)",
        UnsupportedError,
        "The model's connector has no such action: add batch_predict_status to poll and cancel_batch_predict to "
        "cancel, as the blueprints in include/connectors have them.",
    ),
    _rule(
        "untrusted_certificate",
        r"PKIX path|SSLHandshake|certificate_unknown|unable to find valid certification path",
        RequestRefusedError,
        "The cluster does not trust the remote service's certificate; put its CA into the trust store of the nodes.",
    ),
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
    # A cluster that has just started; it comes before anything is created or sent.
    _rule(
        "not_ready",
        r"fetching master key timed out",
        RateLimitedError,
        "ML Commons has not got its encryption key yet; it does once the cluster has started.",
    ),
)

_THROTTLED = re.compile(
    r"remote server throttling|throttl(ing|ed)|too ?many ?requests|rate ?exceeded|slow ?down|request ?limit ?exceeded"
    r"|ResourceLimitExceeded|provisioned ?throughput ?exceeded|service ?quota ?exceeded ?exception",
    re.IGNORECASE,
)
"""AWS's words for "later". The plugin passes them on with 400 or 500 (seen on 2.19.6)."""
_NO_INSTANCES = re.compile(r"\bis 0 Instances\b", re.IGNORECASE)
_REMOTE = re.compile(r"error from remote service:?\s*", re.IGNORECASE)
_NAME_TAKEN = re.compile(r"ResourceInUse|must be unique within an AWS account|already exists", re.IGNORECASE)
_BY_CODE = {rule.code: rule for rule in _RULES}
_REMOTE_REMEDIES = {
    NAME_TAKEN: "Something of this name is at the remote service already.",
    REMOTE_JOB_GONE: "The remote service does not know the job (any more).",
    REMOTE_THROTTLED: "The remote service has too much to do for this account; the call was not carried out.",
    REMOTE_REFUSED: "The remote service refuses: check the connector's credential, parameters and quota there.",
}

THROTTLED_CODES = frozenset({rule.code for rule in _RULES if rule.kind is RateLimitedError} | {REMOTE_THROTTLED})
"""The codes of :func:`read_ml_error` that say "not carried out, try later", whatever the status."""
FINAL_CODES = frozenset({rule.code for rule in _RULES} | set(_REMOTE_REMEDIES)) - THROTTLED_CODES
"""The codes of :func:`read_ml_error` that no waiting mends, whatever the status."""


TEXT_CAUSES: Final = (
    text_cause(
        r"PKIX path|SSLHandshake|certification path|certificate_unknown",
        FailureCause.CREDENTIALS,
        "Put the CA of the remote service into the trust store of the cluster's nodes.",
    ),
    text_cause(
        r"throttl|too ?many ?requests|rate ?exceeded|slow ?down|response code: (429|503)|status code: (429|503)",
        FailureCause.SERVICE,
        "The remote service was too busy; submit again.",
    ),
    text_cause(
        r"region must not be null",
        FailureCause.CREDENTIALS,
        "Put region_name into the extra of the AWS connection.",
    ),
    text_cause(
        r"access key|secret|credential|signature|access ?denied|not authorized|(status|response) code: 40[13]"
        r"|expired ?token|invalid_api_key|incorrect api key",
        FailureCause.CREDENTIALS,
        "Check the keys that the cluster was given: those of the AWS or OpenAI connection, or of the connector.",
    ),
    text_cause(
        r"rejected execution|indexing pressure|circuit_breaking|data too large",
        FailureCause.LIMITS,
        "The cluster cannot take the bulk requests that it sends to itself; use engine='client', which waits for it.",
    ),
    text_cause(
        r"limit ?exceeded|quota",
        FailureCause.LIMITS,
        "Raise the account's quota at the remote service, or submit fewer jobs at a time.",
    ),
    text_cause(
        # Before the broken connections: a line that is cut is an "Unexpected End Of File", too.
        r"ParseException|JsonParse|MalformedJson",
        FailureCause.INPUT,
        "A line is not JSON; mend it, or use engine='client', which rejects single lines.",
    ),
    text_cause(
        r"(read|connect|connection|socket) ?timed? ?out|timeoutexception|connection (reset|refused|closed)|broken pipe"
        r"|premature (EOF|end)|unexpected end of (file|stream)|no ?route ?to ?host|unknownhostexception",
        FailureCause.SERVICE,
        "The connection between the cluster and the remote service broke; submit again.",
    ),
    text_cause(
        r"internal ?(server|service)? ?(error|failure)|capacityerror|(status|response) code: 5\d\d"
        r"|service ?unavailable",
        FailureCause.SERVICE,
        "The remote service failed; submit again.",
    ),
    text_cause(
        r"connection pool shut down",
        FailureCause.INPUT,
        "The plugin reads only the first of several S3 sources; use engine='client'.",
    ),
    text_cause(
        r"does not exist|no ?such ?key|(status|response) code: 404",
        FailureCause.INPUT,
        "Check the names of bucket, key, file and index.",
    ),
    text_cause(
        r"no results for path|missing property|can't find class|cannot be null|null value|json|parse|field_?map|mapper",
        FailureCause.INPUT,
        "A line is not JSON, or lacks a value that the field_map names; mend it, or use engine='client', which rejects "
        "single lines.",
    ),
    text_cause(
        r"version conflict",
        FailureCause.INPUT,
        "Two lines have one _id; use engine='client', which writes them one after the other.",
    ),
    text_cause(
        r"algorithm ?error|client ?error",
        FailureCause.INPUT,
        "The model refuses a record, or broke on it; see the job's logs at the remote service.",
    ),
)
"""Texts of failed tasks: Java's, AWS's, OpenSearch's and the remote services'."""


def get_cause(text: str) -> Cause | None:
    """Return what a failed task's text means; ``None`` for words that no row has."""
    return find_text_cause(TEXT_CAUSES, text)


def read_ml_error(body: Any) -> tuple[str | None, str] | None:
    """Read an error body of the plugin, giving what has a remedy a code of ours."""
    read = read_opensearch_error(body)
    if read is None:
        return None
    code, text = read
    status = body.get("status") if isinstance(body, dict) else None
    if _REMOTE.search(text) or _THROTTLED.search(text):
        return _remote_code(text, status), text
    rule = next((rule for rule in _RULES if rule.pattern.search(text) or rule.pattern.search(code or "")), None)
    return (rule.code if rule else code), text


def _remote_code(text: str, status: object) -> str | None:
    if _NAME_TAKEN.search(text):
        return NAME_TAKEN
    if _NO_INSTANCES.search(text):
        # A quota of none: no waiting mends it.
        return REMOTE_REFUSED
    if _THROTTLED.search(text):
        return REMOTE_THROTTLED
    if not isinstance(status, int) or status == 429 or status >= 500:
        return None
    return REMOTE_JOB_GONE if status == 404 else REMOTE_REFUSED


def explain(error: ServiceError) -> ServiceError:
    """
    Return the error as the kind that it is.

    Only an unknown task or remote job is :class:`~overnight.errors.NotFoundError`; an error that is somebody
    else's 404 or 401 carries no status, so that nobody reads it as this job's end or these credentials' fault.
    """
    code = error.code or ""
    if code in _REMOTE_REMEDIES:
        text = add_remedy(str(error), _REMOTE_REMEDIES[code])
        if code == REMOTE_JOB_GONE:
            return NotFoundError(text, status=404, code=code)
        if code == REMOTE_THROTTLED:
            return RateLimitedError(text, status=429, code=code, retry_after=_retry_after(error))
        return RequestRefusedError(text, code=code)
    rule = _BY_CODE.get(code)
    if rule is None:
        if isinstance(error, NotFoundError):
            return RequestRefusedError(str(error), code=error.code)
        return error
    text = add_remedy(str(error), rule.remedy)
    if issubclass(rule.kind, RateLimitedError):
        return RateLimitedError(text, status=429, code=code, retry_after=_retry_after(error))
    return rule.kind(text, status=404 if rule.kind is NotFoundError else None, code=code)


def _retry_after(error: ServiceError) -> float | None:
    return error.retry_after if isinstance(error, TransientError) else None
