"""The contents of a job's files, streamed to where the load reads them: JSONL, one line for each file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import orjson

from overnight.errors import NotFoundError, SpecError
from overnight.jobs import JobRef, ResultFile, ResultManifest
from overnight.services.llamacloud.api import AT_ONCE, JOBS, batched, get_batches, path, raising
from overnight.services.llamacloud.outcomes import FileOutcome, FileState, job_ids, look_at_jobs, outcomes
from overnight.services.llamacloud.status import is_over, lacks_results, to_counts
from overnight.storage import Storage
from overnight.transport.flow import Flow, Gather
from overnight.transport.http import HttpCall

log = logging.getLogger(__name__)

Content: TypeAlias = Literal["markdown", "text"]

FETCHED_AT_ONCE: Final = 32
"""Files whose contents are in memory together."""
RESULT_TIMEOUT: Final = 300.0
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
    ``extracted``. Failed and missing files are lines of the ``error`` file, with ``state`` and ``error``. The names of
    both follow from the job, so that collecting again replaces them. Memory is bounded by 32 files' contents.

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
                    state, line = _line(file, bodies.get(file.file_id), job_type, content)
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
    """Return the bodies of the succeeded files' jobs; for a job that is gone, the error."""
    good = [file for file in files if file.state is FileState.SUCCEEDED]
    params = {"expand": list(content)} if job_type == "parse_v2" else None
    calls = [
        HttpCall("GET", path(JOBS[job_type], str(file.job_id)), params=params, timeout=RESULT_TIMEOUT) for file in good
    ]
    answers = yield Gather(calls, AT_ONCE)
    raising([answer for answer in answers if not isinstance(answer, NotFoundError)])
    return dict(zip((file.file_id for file in good), answers, strict=True))


def _line(file: FileOutcome, body: Any, job_type: str, content: Sequence[Content]) -> tuple[FileState, dict[str, Any]]:
    line: dict[str, Any] = {
        "file_id": file.file_id,
        "name": file.name,
        "source_uri": file.source_uri,
        "source_file_id": file.source_file_id,
        "metadata": file.metadata,
        "job_id": file.job_id,
    }
    state, error = file.state, file.error
    if isinstance(body, NotFoundError):
        state, error = FileState.MISSING, f"the service no longer has the result of {file.job_id}"
    elif body is not None:
        read = _parsed(body, content) if job_type == "parse_v2" else _extracted(body)
        if not isinstance(read, str):
            return state, line | read
        state, error = FileState.FAILED, read
    return state, line | {"state": state.value, "error": error}


def _parsed(body: Mapping[str, Any], content: Sequence[Content]) -> dict[str, Any] | str:
    """Return the pages of a parse job joined, or why there is nothing to join."""
    read: dict[str, Any] = {}
    failed: dict[int, Any] = {}
    for kind in content:
        pages = (body.get(kind) or {}).get("pages")
        if not isinstance(pages, list):
            return f"the service says COMPLETED and gives no {kind}"
        failed |= {page["page_number"]: page.get("error") for page in pages if page.get("success") is False}
        good = [page[kind] for page in pages if page.get("success") is not False]
        if pages and not good:
            return f"all {len(pages)} pages failed: {next(iter(failed.values()))}"
        read |= {kind: PAGE_BREAK.join(good), "pages": len(pages)}
    if failed:
        read["failed_pages"] = [{"page": page, "error": error} for page, error in sorted(failed.items())]
    return read


def _extracted(body: Mapping[str, Any]) -> dict[str, Any] | str:
    result = body.get("extract_result")
    if result is None:
        return "the service says COMPLETED and gives no extract_result"
    return {"extracted": result}
