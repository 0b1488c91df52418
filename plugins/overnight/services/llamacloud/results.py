"""The contents of a job's files, streamed to where the load reads them: JSONL, one line for each file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from overnight.errors import NotFoundError, SpecError, shorten
from overnight.jobs import JobRef, ResultFile, ResultManifest
from overnight.services.llamacloud.answers import AT_ONCE, JOBS, batched, get_batches, path, raising
from overnight.services.llamacloud.choices import Content
from overnight.services.llamacloud.outcomes import FileOutcome, FileState, job_ids, look_at_jobs, outcomes
from overnight.services.llamacloud.status import is_over, lacks_results, to_counts
from overnight.storage import Storage
from overnight.transport.flow import Flow, Gather, Pause
from overnight.transport.http import HttpCall

log = logging.getLogger(__name__)

FETCHED_AT_ONCE: Final = 32
"""Files whose contents are in memory together."""
RESULT_TIMEOUT: Final = 300.0
RESULT_WAITS: Final = (1.0, 3.0, 8.0)
"""Seconds before asking again for the result of a COMPLETED job that is not there, or cannot be read."""
_FIELD_FORMS: Final = ("document_metadata", "page_metadata", "row_metadata")
PAGE_BREAK: Final = "\n\n"
"""Between the pages of a document."""


def batch_ids(ref: JobRef) -> list[str]:
    """Return the batches that make up a job."""
    return ref.id.split("+")


def collect(
    ref: JobRef, results_uri: str, storage: Storage, content: Sequence[Content] = ("markdown",)
) -> Flow[ResultManifest]:
    """
    Fetch the result of every file and write it below ``results_uri``.

    Succeeded files are lines of the ``output`` file: ``file_id``, ``name``, ``source_uri``, ``source_file_id``,
    ``metadata``, ``job_id``, and ``pages`` with ``markdown`` or ``text`` (``failed_pages`` names those without), or
    ``extracted`` with ``field_metadata`` (citations and confidence, where the configuration asks for them). Failed and
    missing files are lines of the ``error`` file, with ``state`` and ``error``. The names of both follow from the job,
    so that collecting again replaces them. Memory is bounded by 32 files' contents.

    :param results_uri: A folder.
    :param content: What to fetch of a parse job.
    :raises SpecError: the job is not over.
    """
    ids = batch_ids(ref)
    base = f"{results_uri.rstrip('/')}/{ids[0]}"
    output_uri, error_uri = f"{base}.output.jsonl", f"{base}.error.jsonl"
    tally: Counter[FileState] = Counter()
    with storage.open(output_uri, "wb") as output, storage.open(error_uri, "wb") as errors:
        for one in ids:
            (batch,) = yield from get_batches([one], results=True)
            job_type = str(batch["config"]["job"]["type"])
            jobs = yield from look_at_jobs(job_type, job_ids(batch))
            if not is_over(batch) or lacks_results(batch) or not jobs.all_over:
                raise SpecError(
                    f"{ref} is still at work. Wait for its end, with a BatchJobSensor say, and collect then."
                )
            files = yield from outcomes(batch, jobs.by_id)
            for some in batched(files, FETCHED_AT_ONCE):
                bodies = yield from _fetch(some, job_type, content)
                for file in some:
                    state, line = _line(file, bodies.get(file.file_id))
                    tally[state] += 1
                    target = output if state is FileState.SUCCEEDED else errors
                    target.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    found = [ResultFile(kind="output", uri=output_uri)]
    if tally.total() > tally[FileState.SUCCEEDED]:
        found.append(ResultFile(kind="error", uri=error_uri))
    else:
        storage.delete(error_uri)
    counts = {state.value: tally[state] for state in FileState}
    log.info("Collected %s into %s.", ", ".join(f"{count} {state}" for state, count in counts.items()), output_uri)
    return ResultManifest(
        ref=ref, files=tuple(found), counts=to_counts(tally), detail={"batches": ids, "job_type": job_type, **counts}
    )


def _fetch(files: Sequence[FileOutcome], job_type: str, content: Sequence[Content]) -> Flow[dict[str, Any]]:
    """
    Return what the succeeded files' jobs read as, :func:`_read_body` has the forms.

    A result that is not there, or cannot be read, of a job that the service calls COMPLETED is asked for again.
    """
    left = [file for file in files if file.state is FileState.SUCCEEDED]
    params = {"expand": list(content) if job_type == "parse_v2" else ["extract_metadata"]}
    read: dict[str, Any] = {}
    for wait in (0.0, *RESULT_WAITS):
        if wait:
            yield Pause(wait)
        calls = [
            HttpCall("GET", path(JOBS[job_type], str(file.job_id)), params=params, timeout=RESULT_TIMEOUT)
            for file in left
        ]
        answers = yield Gather(calls, AT_ONCE)
        raising([answer for answer in answers if not isinstance(answer, NotFoundError)])
        for file, answer in zip(left, answers, strict=True):
            read[file.file_id] = answer if isinstance(answer, NotFoundError) else _read_body(answer, job_type, content)
        left = [file for file in left if not isinstance(read[file.file_id], dict)]
        if not left:
            break
    return read


def _line(file: FileOutcome, read: Any) -> tuple[FileState, dict[str, Any]]:
    line: dict[str, Any] = {
        "file_id": file.file_id,
        "name": file.name,
        "source_uri": file.source_uri,
        "source_file_id": file.source_file_id,
        "metadata": file.metadata,
        "job_id": file.job_id,
    }
    state, error = file.state, file.error
    if isinstance(read, dict):
        return state, line | read
    if isinstance(read, NotFoundError):
        state, error = FileState.MISSING, f"the service no longer has the result of {file.job_id}"
    elif read is not None:
        state, error = FileState.FAILED, str(read)
    return state, line | {"state": state.value, "error": error}


def _read_body(body: Any, job_type: str, content: Sequence[Content]) -> dict[str, Any] | str:
    """Return what a job's result adds to a line, or why there is nothing in it."""
    if not isinstance(body, dict):
        return "the service says COMPLETED and its result cannot be read"
    error = body.get("error") or body.get("detail")
    if error and body.keys() <= {"error", "detail", "message", "status"}:
        return f"the service says COMPLETED and answers: {shorten(str(error), 500)}"
    return _parsed(body, content) if job_type == "parse_v2" else _extracted(body)


def _parsed(body: Mapping[str, Any], content: Sequence[Content]) -> dict[str, Any] | str:
    """Return the pages of a parse job joined, or why there is nothing to join."""
    read: dict[str, Any] = {}
    failed: dict[int, Any] = {}
    for kind in content:
        whole = body.get(kind)
        pages = whole.get("pages") if isinstance(whole, dict) else None
        if not isinstance(pages, list):
            return f"the service says COMPLETED and gives no {kind}"
        good: list[str] = []
        for number, page in enumerate(pages, 1):
            if isinstance(page, dict) and page.get("success") is False:
                failed[_get_number(page, number)] = shorten(str(page.get("error")))
            elif isinstance(page, dict) and isinstance(page.get(kind), str):
                good.append(page[kind])
            else:
                return f"the service says COMPLETED and gives no {kind} of page {number}"
        if pages and not good:
            return f"all {len(pages)} pages failed: {next(iter(failed.values()))}"
        read |= {kind: PAGE_BREAK.join(good), "pages": len(pages)}
    if failed:
        read["failed_pages"] = [{"page": page, "error": error} for page, error in sorted(failed.items())]
    return read


def _get_number(page: Mapping[str, Any], position: int) -> int:
    number = page.get("page_number")
    return number if isinstance(number, int) and 0 <= number < 2**31 else position


def _extracted(body: Mapping[str, Any]) -> dict[str, Any] | str:
    result = body.get("extract_result")
    if result is None:
        return "the service says COMPLETED and gives no extract_result"
    fields = _find_field_metadata(body)
    return {"extracted": result} | ({"field_metadata": fields} if fields else {})


def _find_field_metadata(body: Mapping[str, Any]) -> Any:
    """Return what the service says of each field, in the form of the result: an object, or a list of them."""
    metadata = body.get("extract_metadata")
    fields = metadata.get("field_metadata") if isinstance(metadata, dict) else None
    if not isinstance(fields, dict):
        return None
    forms = [fields.get(name) for name in _FIELD_FORMS]
    # Earlier versions of the API have the fields without a level of forms above them.
    return next((form for form in forms if form), None if fields.keys() & set(_FIELD_FORMS) else fields)
