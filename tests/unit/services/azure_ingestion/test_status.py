from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import (
    CredentialsError,
    JobFailedError,
    JobLostError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    UnavailableError,
)
from overnight.jobs import FailureCause, JobRef, JobState
from overnight.jobs.allowance import Allowance
from overnight.jobs.evaluate import evaluate
from overnight.jobs.poller import PollEnd, PollOutcome
from overnight.services.azure_ingestion.causes import CAUSES, explain, get_cause
from overnight.services.azure_ingestion.status import read_state, read_status

# By error code of the API's reference: what a refused call raises, and what a job that failed with it comes to.
CODES: dict[str, tuple[type[ServiceError], FailureCause]] = {
    "conflict": (RequestRefusedError, FailureCause.INPUT),
    "contentFilter": (RequestRefusedError, FailureCause.INPUT),
    "fileImportFailed": (RequestRefusedError, FailureCause.INPUT),
    "forbidden": (CredentialsError, FailureCause.CREDENTIALS),
    "internalFailure": (UnavailableError, FailureCause.SERVICE),
    "invalidPayload": (RequestRefusedError, FailureCause.INPUT),
    "itemDoesAlreadyExist": (RequestRefusedError, FailureCause.INPUT),
    "jsonlValidationFailed": (RequestRefusedError, FailureCause.INPUT),
    "notFound": (NotFoundError, FailureCause.INPUT),
    "quotaExceeded": (RequestRefusedError, FailureCause.LIMITS),
    "serviceUnavailable": (UnavailableError, FailureCause.SERVICE),
    "tooManyRequests": (RateLimitedError, FailureCause.SERVICE),
    "unauthorized": (CredentialsError, FailureCause.CREDENTIALS),
    "unexpectedEntityState": (RequestRefusedError, FailureCause.INPUT),
}
REF = JobRef(service="azure_ingestion", id="j", conn_id="c")
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def progress(*stages: tuple[str, int, int]) -> dict[str, Any]:
    listed = [{"name": name, "totalItems": total, "processedItems": done} for name, total, done in stages]
    return {"progress": {"stageProgress": listed}}


def test_every_code_of_the_reference_is_known_and_no_other() -> None:
    assert set(CAUSES) == {code.lower() for code in CODES}


@pytest.mark.parametrize("code", CODES)
def test_a_refused_call_raises_what_its_code_says_with_a_remedy(code: str) -> None:
    error = explain(RequestRefusedError("Azure OpenAI answered PUT /x with 418: no.", status=418, code=code))
    assert type(error) is CODES[code][0]
    assert error.code == code
    assert str(error).startswith("Azure OpenAI answered PUT /x with 418: no. ")
    assert str(error).endswith(CAUSES[code.lower()].remedy)


@pytest.mark.parametrize("code", CODES)
def test_a_failed_job_is_blamed_on_who_can_mend_it(code: str) -> None:
    status = read_status({"status": "failed", "error": {"code": code, "message": "so"}})
    assert status.state is JobState.FAILED
    assert status.cause is CODES[code][1]
    assert status.errors[0].code == code
    assert CAUSES[code.lower()].remedy in str(status.errors[0])
    error = evaluate(REF, PollOutcome(PollEnd.ENDED, status), Allowance(count=0)).error
    assert type(error) is (JobLostError if CODES[code][1] is FailureCause.SERVICE else JobFailedError)
    assert CAUSES[code.lower()].remedy in str(error)


@given(st.sampled_from(sorted(CODES)), st.data())
def test_a_code_is_known_however_it_is_capitalised(code: str, data: st.DataObject) -> None:
    flips = data.draw(st.lists(st.booleans(), min_size=len(code), max_size=len(code)))
    written = "".join(letter.swapcase() if flip else letter for letter, flip in zip(code, flips, strict=True))
    assert get_cause(written) is CAUSES[code.lower()]


@pytest.mark.parametrize(
    ("code", "kind"),
    [("401", CredentialsError), ("403", CredentialsError), ("404", NotFoundError), ("429", RateLimitedError)],
)
def test_the_gateways_numbers_are_codes_too(code: str, kind: type[ServiceError]) -> None:
    assert type(explain(RequestRefusedError("no", status=400, code=code))) is kind


def test_a_code_out_of_no_reference_leaves_the_error_as_it_is() -> None:
    error = RequestRefusedError("no", status=400, code="BadRequest")
    assert explain(error) is error


def test_the_wait_that_the_service_asked_for_is_kept() -> None:
    error = explain(RateLimitedError("no", status=429, code="tooManyRequests", retry_after=7))
    assert isinstance(error, RateLimitedError)
    assert error.retry_after == 7


def test_a_remedy_is_not_said_twice() -> None:
    remedy = CAUSES["unauthorized"].remedy
    error = explain(CredentialsError(f"no. {remedy}", status=401, code="unauthorized"))
    assert str(error).count(remedy) == 1


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("notRunning", JobState.QUEUED),
        ("NotRunning", JobState.QUEUED),
        ("running", JobState.RUNNING),
        ("Running", JobState.RUNNING),
        ("succeeded", JobState.SUCCEEDED),
        ("SUCCEEDED", JobState.SUCCEEDED),
        ("Failed", JobState.FAILED),
        ("Canceled", JobState.CANCELLED),
        ("purring", JobState.RUNNING),
        (None, JobState.RUNNING),
    ],
)
def test_states_are_read_however_they_are_capitalised(word: str | None, state: JobState) -> None:
    assert read_state({"status": word}) is state


def test_progress_is_the_mean_of_the_stages_and_counts_are_chunks() -> None:
    job = {"status": "running", **progress(("Preprocessing", 100, 100), ("Indexing", 350, 70))}
    status = read_status(job)
    assert status.progress == pytest.approx(0.6)
    assert (status.counts.total, status.counts.succeeded, status.counts.failed) == (350, 70, None)
    assert status.describe() == "running, 70/350 items"


def test_before_there_are_chunks_the_progress_is_told() -> None:
    status = read_status({"status": "running", **progress(("Preprocessing", 10, 5), ("Indexing", 0, 0))})
    assert status.counts.total is None
    assert status.describe() == "running, 25% done"


def test_a_success_that_left_chunks_out_is_partial() -> None:
    job = {"status": "succeeded", **progress(("Preprocessing", 2, 2), ("Indexing", 10, 9))}
    status = read_status(job)
    assert status.state is JobState.PARTIAL
    assert status.counts.failed == 1


def test_a_success_without_progress_is_whole() -> None:
    status = read_status({"status": "succeeded", "warnings": []})
    assert status.state is JobState.SUCCEEDED
    assert status.progress == 1.0


def test_warnings_are_kept_and_told() -> None:
    status = read_status({"status": "succeeded", "warnings": ["a.docx was left out", "b.xls too"]})
    assert status.warnings == ("a.docx was left out", "b.xls too")
    assert status.describe() == "succeeded, 2 warnings, the first: a.docx was left out"


def test_details_and_inner_errors_are_told() -> None:
    error = {
        "code": "BadRequest",
        "message": "Could not execute skill.",
        "target": "skillset",
        "innererror": {"code": "outer", "innererror": {"code": "invalidPayload"}},
        "details": [{"code": "quotaExceeded", "message": "No more tokens."}],
    }
    status = read_status({"status": "failed", "error": error})
    assert str(status.errors[0]) == "[BadRequest] Could not execute skill. (outer > invalidPayload)"
    assert status.errors[0].param == "skillset"
    assert str(status.errors[1]).startswith("[quotaExceeded] No more tokens. ")
    assert status.cause is FailureCause.LIMITS


def test_a_failure_that_says_nothing_is_the_services() -> None:
    assert read_status({"status": "failed"}).cause is FailureCause.SERVICE


def test_a_failure_with_an_unknown_code_is_blamed_on_nobody() -> None:
    assert read_status({"status": "failed", "error": {"code": "BadRequest", "message": "no"}}).cause is None


def test_every_word_of_the_service_is_scrubbed() -> None:
    error = {"code": "conflict", "message": "hush 1", "target": "hush 2", "details": [{"message": "hush 3"}]}
    job = {"status": "failed", "error": error, "warnings": ["hush 4"]}
    status = read_status(job, scrub=lambda text: text.replace("hush", "***"))
    assert "hush" not in status.model_dump_json()
    assert status.model_dump_json().count("***") == 4


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("status", "error", "warnings", "progress", "id", "completionAction"), any_json)
    )
)
def test_whatever_the_service_says_is_read(job: dict[str, Any]) -> None:
    status = read_status(job)
    assert status.progress is None or 0 <= status.progress <= 1
    assert len(status.describe()) < 10_000


@given(
    st.lists(st.tuples(st.integers(-5, 50), st.integers(-5, 50)), max_size=4), st.sampled_from(["running", "succeeded"])
)
def test_counts_never_contradict_each_other(numbers: list[tuple[int, int]], word: str) -> None:
    names = ["Preprocessing", "Indexing", "Other", "indexing"]
    stages = [(name, total, done) for name, (total, done) in zip(names, numbers, strict=False)]
    status = read_status({"status": word, **progress(*stages)})
    assert status.progress is None or 0 <= status.progress <= 1
    assert (status.state is JobState.PARTIAL) == bool(status.counts.failed)
