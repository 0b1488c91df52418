from __future__ import annotations

import pytest

from overnight.jobs import FailureCause, JobState, JobStatus
from overnight.jobs.cause import Cause
from overnight.services.llamacloud.causes import CALL_CAUSES, TEXT_CAUSES, get_cause, sum_up
from overnight.services.llamacloud.outcomes import FileOutcome, FileState
from overnight.services.llamacloud.status import ended_status

INPUT, LIMITS, SERVICE, CREDENTIALS = (
    FailureCause.INPUT, FailureCause.LIMITS, FailureCause.SERVICE, FailureCause.CREDENTIALS,
)  # fmt: skip

# What each row is found by, in the order of the rows.
TEXTS: list[tuple[int, FailureCause, list[str]]] = [
    (0, LIMITS, ["Insufficient credits", "You have exceeded your credits: all are used up", "402 Payment Required",
                 "The monthly quota is reached"]),
    (1, SERVICE, ["Rate limit exceeded", "RATE_LIMIT", "429 Too Many Requests", "The job was throttled"]),
    (2, CREDENTIALS, ["Unauthorized", "403 Forbidden", "No permission to read the file"]),
    (3, INPUT, ["PDF_IS_PROTECTED", "The PDF is protected by a password", "The file is encrypted", "DRM"]),
    (4, INPUT, ["UNSUPPORTED_FILE_TYPE", "Unsupported file type: .xyz", "File type not supported"]),
    (5, INPUT, ["NO_DATA_FOUND_IN_FILE", "No text was found", "The file is empty"]),
    (6, INPUT, ["The file is too large", "Too many pages", "The page count is over the limit",
                "It exceeds the maximum"]),
    (7, INPUT, ["PDF_IS_BROKEN", "The PDF cannot be read: EOF", "corrupted file"]),
    (8, INPUT, ["data_schema: not an object", "Invalid configuration", "The schema is not valid"]),
    (9, SERVICE, ["TIMEOUT", "The job timed out", "EXPIRED"]),
    (10, SERVICE, ["INTERNAL_ERROR", "An unexpected error", "503", "Please try again later", "GENERIC_ERROR",
                   "The source file could not be associated with a job"]),
]  # fmt: skip
ROWS = [(row, cause, text) for row, cause, texts in TEXTS for text in texts]


@pytest.mark.parametrize(("row", "cause", "text"), ROWS)
def test_every_row_of_a_files_error(row: int, cause: FailureCause, text: str) -> None:
    found = get_cause(text)
    assert found == TEXT_CAUSES[row].cause
    assert found is not None
    assert (found.cause, found.retryable, found.remedy[-1]) == (cause, cause is SERVICE, ".")
    status = end(text)
    assert (status.state, status.cause, status.warnings) == (JobState.FAILED, cause, (found.remedy,))


def test_no_row_is_left_out_here() -> None:
    assert [row for row, *_ in TEXTS] == list(range(len(TEXT_CAUSES)))


@pytest.mark.parametrize(
    ("status", "cause", "retryable"),
    [
        (401, CREDENTIALS, False),
        (402, LIMITS, False),
        (403, CREDENTIALS, False),
        (404, INPUT, False),
        (413, INPUT, False),
        (429, LIMITS, True),
    ],
)
def test_every_row_of_a_call(status: int, cause: FailureCause, retryable: bool) -> None:
    row = CALL_CAUSES[status]
    assert row == Cause(cause, retryable, row.remedy)
    assert row.remedy.endswith(".")
    assert set(CALL_CAUSES) == {401, 402, 403, 404, 413, 429}


@pytest.mark.parametrize("text", ["something else", "", "pjb-12345678-4291-4012-5030-123456789abc ended FAILED"])
def test_what_is_not_known_is_not_guessed(text: str) -> None:
    assert get_cause(text) is None


def test_unknown_words_are_said_and_quoted_at_a_bounded_length() -> None:
    status = end("never heard of")
    assert status.cause is None
    assert "does not know what this error means: never heard of It is not retried" in status.warnings[0]
    assert len(sum_up(["x" * 10_000])[1]) < 1_000
    assert sum_up([""]) == (None, "The service does not say why. Look at the jobs there.")


def test_the_first_error_that_is_known_decides() -> None:
    assert end("never heard of", "TIMEOUT", "PDF_IS_PROTECTED").cause is SERVICE


def end(*errors: str) -> JobStatus:
    files = [FileOutcome(f"dfl-{n}", "a.pdf", FileState.FAILED, error=error) for n, error in enumerate(errors)]
    return ended_status([{"id": "bat-1", "status": "COMPLETED"}], files)
