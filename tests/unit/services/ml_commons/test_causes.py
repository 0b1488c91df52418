from __future__ import annotations

from typing import Any

import httpx
import pytest

from overnight.errors import (
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    UnavailableError,
    UnsupportedError,
)
from overnight.jobs import FailureCause
from overnight.jobs.poller import PollEnd, Poller, PollOutcome, Wait
from overnight.services.ml_commons.answers import ask
from overnight.services.ml_commons.causes import FINAL_CODES, TEXT_CAUSES, THROTTLED_CODES, get_cause
from overnight.services.ml_commons.connection import transport
from overnight.services.ml_commons.status import read_ingestion
from overnight.transport.http import HttpCall
from overnight.transport.opensearch import OpenSearchConnection


def _refusal(status: int, reason: str, kind: str = "status_exception") -> Any:
    return {"error": {"type": kind, "reason": reason}, "status": status}


def _answer(status: int, body: Any) -> ServiceError:
    plugin = transport(OpenSearchConnection("http://localhost:9200"), attempts=1)
    handler = httpx.MockTransport(lambda request: httpx.Response(status, json=body))
    plugin._client = httpx.Client(base_url=plugin.base_url, transport=handler)
    with plugin, pytest.raises(ServiceError) as error:
        plugin.run(ask(HttpCall("POST", "_plugins/_ml/x")))
    return error.value


REMOTE = 'Error from remote service: {"error":{"message":"no"}}'

CASES: list[tuple[int, Any, type[ServiceError], str]] = [
    (400, {"error": "no handler found for uri [/x] and method [POST]"}, UnsupportedError, "2.17 to 2.19 only"),
    (404, _refusal(404, "Failed to find task"), NotFoundError, "does not know this ML task"),
    # 2.19 answers a cancel on a cluster without the task index with 500.
    (500, _refusal(500, "Fail to find task"), NotFoundError, "does not know this ML task"),
    (404, _refusal(404, "no such index [.plugins-ml-task]"), RequestRefusedError, "registering any model makes it"),
    (500, _refusal(500, 'X is currently disabled. To enable it, update "a.b"'), RequestRefusedError, "administrator"),
    (400, _refusal(400, "The task ID you provided does not have any associated batch job"), UnsupportedError, "Only"),
    (404, _refusal(404, "Failed to find model"), RequestRefusedError, "MLCommonsRegisterModelOperator"),
    (404, _refusal(404, "Failed to find connector:nope"), RequestRefusedError, "MLCommonsConnectorOperator"),
    (404, _refusal(404, "Failed to retrieve the ML model for the given task ID"), RequestRefusedError, "runs on"),
    (409, _refusal(409, "1 models are still using this connector"), RequestRefusedError, "DeleteModel"),
    (500, _refusal(500, "Fetching master key timed out."), RateLimitedError, "encryption key"),
    (500, _refusal(500, "Batch Ingestion request has empty body"), RequestRefusedError, "malformed"),
    (500, _refusal(500, "class String cannot be cast to class List"), RequestRefusedError, "malformed"),
    (500, _refusal(500, "Can't get text on a VALUE_NULL at 1:84"), RequestRefusedError, "malformed"),
    (400, _refusal(400, "[1:200] Failed to parse list: expecting START_ARRAY"), RequestRefusedError, "malformed"),
    (429, _refusal(429, "Exceeded maximum limit for BATCH_INGEST tasks."), RateLimitedError, "raise the setting"),
    (400, _refusal(400, "Invalid payload: { }"), RequestRefusedError, "objects as objects"),
    (401, _refusal(401, REMOTE), RequestRefusedError, "connector's credential"),
    (409, _refusal(409, REMOTE), RequestRefusedError, "connector's credential"),
    (404, _refusal(404, REMOTE), NotFoundError, "remote service does not know"),
    (429, _refusal(429, REMOTE), RateLimitedError, "remote service"),
    (503, _refusal(503, REMOTE), UnavailableError, "remote service"),
    (500, _refusal(500, "System Error"), UnavailableError, "System Error"),
    (400, _refusal(400, 'Error from remote service: {"__type":"ResourceInUse"}'), RequestRefusedError, "already"),
    # AWS's throttling, passed on with a status that says something else.
    (400, _refusal(400, f"{REMOTE} denied due to remote server throttling"), RateLimitedError, "not carried out"),
    (
        400,
        _refusal(400, 'Error from remote service: {"__type":"ThrottlingException"}'),
        RateLimitedError,
        "not carried",
    ),
    (
        500,
        _refusal(500, 'Error from remote service: {"__type":"ThrottlingException"}'),
        RateLimitedError,
        "not carried",
    ),
    (400, _refusal(400, "Request is denied due to remote server throttling."), RateLimitedError, "not carried out"),
    (400, _refusal(400, f"{REMOTE} ResourceLimitExceeded: limit is 4 Instances"), RateLimitedError, "not carried out"),
    (400, _refusal(400, f"{REMOTE} ResourceLimitExceeded: limit is 0 Instances"), RequestRefusedError, "quota there"),
    (400, _refusal(400, f"{REMOTE} Rate exceeded"), RateLimitedError, "not carried out"),
    (
        500,
        _refusal(500, "Please configure the action type to get the batch job details in the connector"),
        UnsupportedError,
        "batch_predict_status",
    ),
    (500, _refusal(500, "PKIX path building failed: unable to find"), RequestRefusedError, "trust store"),
    (
        400,
        _refusal(400, "Connector URL is not matching the trusted connector endpoint regex"),
        RequestRefusedError,
        "trusted_connector_endpoints_regex",
    ),
    (400, _refusal(400, "Remote inference host name has private ip address: 10.0.0.1"), RequestRefusedError, "private"),
    (
        400,
        _refusal(400, "Some parameter placeholder not filled in payload: input_file_id"),
        RequestRefusedError,
        "default in the connector",
    ),
]


def test_every_row_has_a_case() -> None:
    errors = {_answer(status, body).code for status, body, *_ in CASES}
    assert errors >= FINAL_CODES | THROTTLED_CODES


@pytest.mark.parametrize(("status", "body", "kind", "remedy"), CASES)
def test_every_error_is_one_exception_that_names_the_remedy(
    status: int, body: Any, kind: type[ServiceError], remedy: str
) -> None:
    error = _answer(status, body)
    assert type(error) is kind
    assert remedy in str(error)


@pytest.mark.parametrize("reason", ["Failed to find model", "Failed to retrieve the ML model", "no such index [docs]"])
def test_only_a_task_or_job_that_is_gone_ends_a_watch_as_lost(reason: str) -> None:
    from overnight.jobs import JobRef

    watch = Poller(JobRef(service="s", id="i", conn_id="c"), poll_interval=1, answered=True)
    over = watch.on_error(_answer(404, _refusal(404, reason)), 0.0)
    assert isinstance(over, PollOutcome)
    assert over.end is PollEnd.REFUSED
    over = watch.on_error(_answer(404, _refusal(404, "Failed to find task")), 0.0)
    assert isinstance(over, PollOutcome)
    assert over.end is PollEnd.LOST


def test_an_outage_of_the_remote_service_is_borne() -> None:
    from overnight.jobs import JobRef

    watch = Poller(JobRef(service="s", id="i", conn_id="c"), poll_interval=1)
    assert isinstance(watch.on_error(_answer(502, _refusal(502, REMOTE)), 0.0), Wait)


def test_throttling_in_disguise_is_waited_for_in_a_watch() -> None:
    from overnight.jobs import JobRef

    watch = Poller(JobRef(service="s", id="i", conn_id="c"), poll_interval=1)
    throttled = _answer(400, _refusal(400, 'Error from remote service: {"__type":"ThrottlingException"}'))
    assert isinstance(watch.on_error(throttled, 0.0), Wait)
    unconfigured = _answer(500, _refusal(500, "Please configure the action type to get the batch job details"))
    over = watch.on_error(unconfigured, 0.0)
    assert isinstance(over, PollOutcome)
    assert over.end is PollEnd.REFUSED


CREDENTIALS, SERVICE, LIMITS, INPUT = (
    FailureCause.CREDENTIALS, FailureCause.SERVICE, FailureCause.LIMITS, FailureCause.INPUT,
)  # fmt: skip

# What each row is found by, in the order of the rows.
TEXTS: list[tuple[FailureCause, list[str]]] = [
    (CREDENTIALS, ["PKIX path building failed", "javax.net.ssl.SSLHandshakeException: certificate_unknown"]),
    (SERVICE, ["Server returned HTTP response code: 429 for URL: https://api.openai.com/v1/files",
               "Server returned HTTP response code: 503 for URL: https://x", "Reduce your request rate. SlowDown",
               "ThrottlingException: Rate exceeded"]),
    (CREDENTIALS, ["region must not be null."]),
    (CREDENTIALS, ["Server returned HTTP response code: 401 for URL: https://x", "Access Denied (Service: S3)",
                   "The security token is expired: ExpiredToken", "Incorrect API key provided"]),
    (LIMITS, ["rejected execution of coordinating operation", "circuit_breaking_exception: Data too large"]),
    (LIMITS, ["You exceeded your current quota", "ResourceLimitExceeded: transform jobs"]),
    (INPUT, ["com.google.gson.JsonParseException: Unexpected end of stream", "MalformedJsonException: at line 1"]),
    (SERVICE, ["Read timed out", "java.net.SocketException: Connection reset", "Premature EOF",
               "java.net.UnknownHostException: x"]),
    (SERVICE, ["Server returned HTTP response code: 500 for URL: https://x", "InternalFailure", "CapacityError: none"]),
    (INPUT, ["Connection pool shut down"]),
    (INPUT, ["The specified key does not exist", "NoSuchKey", "Server returned HTTP response code: 404 for URL: x"]),
    (INPUT, ["No results for path: $['x']", "Missing property in path $['x']", "mapper_parsing_exception"]),
    (INPUT, ["version conflict, current version [2]"]),
    (INPUT, ["AlgorithmError: See job logs", "ClientError: 400"]),
]  # fmt: skip
ROWS = [(row, cause, text) for row, (cause, texts) in enumerate(TEXTS) for text in texts]


@pytest.mark.parametrize(("row", "cause", "text"), ROWS)
def test_each_text_of_a_failed_task_has_a_row(row: int, cause: FailureCause, text: str) -> None:
    found = get_cause(text)
    assert found is TEXT_CAUSES[row].cause
    assert (found.cause, found.retryable) == (cause, cause is SERVICE)
    status = read_ingestion({"state": "FAILED", "error": text})
    assert status.cause is cause
    assert found.remedy in str(status.errors[0])
    assert text in str(status.errors[0])
    assert any("may be in the index" in warning for warning in status.warnings)


def test_no_row_is_left_out_here() -> None:
    assert len(TEXTS) == len(TEXT_CAUSES)


def test_each_row_is_reached_and_has_a_sentence_as_its_remedy() -> None:
    assert all(row.cause.remedy.endswith(".") for row in TEXT_CAUSES)
    unknown = read_ingestion({"state": "FAILED", "error": "We are out of ideas"})
    assert unknown.cause is None
    assert "We are out of ideas" in str(unknown.errors[0])
    assert "does not know" in str(unknown.errors[0])
    assert any("may be in the index" in warning for warning in unknown.warnings)
