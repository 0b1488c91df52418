"""
The calls of LlamaCloud's API that batches need, as flows over its objects.

API: https://developers.llamaindex.ai/reference/resources/batches and …/beta/directories, …/configurations, …/parsing,
…/extract. Lists answer ``{"items": […], "next_page_token": …}``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

from overnight.errors import UnavailableError, shorten
from overnight.transport.flow import Flow, Gather
from overnight.transport.http import HttpCall

BATCHES: Final = "api/v2/batches"
DIRECTORIES: Final = "api/v1/beta/directories"
CONFIGURATIONS: Final = "api/v1/beta/configurations"
JOBS: Final[Mapping[str, str]] = {"parse_v2": "api/v2/parse", "extract_v2": "api/v2/extract"}
"""Where the jobs of each type are."""

PAGE: Final = 100
JOBS_PER_CALL: Final = 100
"""Ids in one filter; 100 of them make a URL of some 5 KB, within what proxies take."""
AT_ONCE: Final = 8
MAX_ID: Final = 512
"""Characters of an id at most; the service's have some 40."""

Record = dict[str, Any]
T = TypeVar("T")


def path(base: str, *ids: str) -> str:
    """Return the path of a thing below a list."""
    return "/".join([base, *(quote(part, safe="") for part in ids)])


def get_files_path(directory_id: str) -> str:
    """Return the path of a directory's files."""
    return f"{path(DIRECTORIES, directory_id)}/files"


def read_record(answer: Any, what: str) -> Record:
    """
    Return an answer that must be an object with an id.

    :raises UnavailableError: it is not. Its ``status`` says that the service answered with a success.
    """
    if not isinstance(answer, dict) or not is_id(answer.get("id")):
        raise build_unreadable_error(what, answer)
    return answer


def read_batch(answer: Any) -> Record:
    """
    Return a batch whose fields have the types that the rest of the package counts on.

    ``results`` is a list of results that name their file, or missing.

    :raises UnavailableError: something in it cannot be read.
    """
    batch = read_record(answer, "a batch")
    config = batch.get("config")
    job = config.get("job") if isinstance(config, dict) else None
    is_whole = (
        isinstance(batch.get("status"), str)
        and len(batch["status"]) <= MAX_ID
        and is_id(batch.get("source_directory_id"))
        and isinstance(job, dict)
        and isinstance(job.get("type"), str)
        and job["type"] in JOBS
    )
    results = batch.get("results")
    if not is_whole or not (results is None or (isinstance(results, list) and all(map(_is_result, results)))):
        raise build_unreadable_error("a batch", answer)
    return batch


def is_id(value: object) -> bool:
    """Whether a value can be the id of something at the service."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID


def build_unreadable_error(what: str, answer: Any) -> UnavailableError:
    """Return the error for a success whose body is not what it should be."""
    return UnavailableError(
        f"LlamaCloud's answer about {what} cannot be read; does something else answer there? It answered: "
        f"{shorten(str(answer), 300)}",
        status=200,
    )


def _is_result(result: Any) -> bool:
    if not isinstance(result, dict) or not is_id(result.get("source_directory_file_id")):
        return False
    reference = result.get("job_reference")
    return reference is None or (isinstance(reference, dict) and is_id(reference.get("id")))


def list_all(
    url: str, params: Mapping[str, Any], enough: Callable[[Sequence[Record]], bool] | None = None
) -> Flow[list[Record]]:
    """
    Read a list to its end, page by page.

    :param enough: Asked after each page with what was read so far; ``True`` stops.
    :raises UnavailableError: an answer is no list, or the list never ends.
    """
    items: list[Record] = []
    tokens: set[str] = set()
    query = {"page_size": PAGE, **params}
    while True:
        answer = yield HttpCall("GET", url, params=query)
        page = answer.get("items", False) if isinstance(answer, dict) else False
        token = answer.get("next_page_token") if isinstance(answer, dict) else None
        # An empty list is null where a server is written in Go.
        page = [] if page is None else page
        if not isinstance(page, list) or not isinstance(token, str | None):
            raise build_unreadable_error(f"the list of {url}", answer)
        items += [item for item in page if isinstance(item, dict) and is_id(item.get("id"))]
        if not token or (enough is not None and enough(items)):
            return items
        if token in tokens:
            raise UnavailableError(f"LlamaCloud's list of {url} goes round in a circle.")
        tokens.add(token)
        query = {**query, "page_token": token}


def get_batches(ids: Sequence[str], *, results: bool = False) -> Flow[list[Record]]:
    """
    Look at batches.

    :param results: Ask for the result of every file, which is not paged.
    :raises NotFoundError: one of them is not there.
    """
    params = {"expand": "results"} if results else None
    answers = yield Gather([HttpCall("GET", path(BATCHES, one), params=params) for one in ids], AT_ONCE)
    return [read_batch(answer) for answer in raising(answers)]


def get_jobs(job_type: str, ids: Sequence[str]) -> Flow[list[Record]]:
    """
    Look at jobs of one type; those that are gone are left out.

    :raises UnavailableError: an answer cannot be read: a job that is not in it must not read as gone.
    """
    calls = [
        HttpCall("GET", JOBS[job_type], params={"job_ids": some, "page_size": JOBS_PER_CALL})
        for some in batched(ids, JOBS_PER_CALL)
    ]
    answers = yield Gather(calls, AT_ONCE)
    return [job for answer in raising(answers) for job in _read_jobs(answer)]


def _read_jobs(answer: Any) -> list[Record]:
    jobs = answer.get("items") if isinstance(answer, dict) else None
    if not isinstance(jobs, list) or not all(
        isinstance(job, dict) and is_id(job.get("id")) and isinstance(job.get("status"), str) for job in jobs
    ):
        raise build_unreadable_error("the jobs of a batch", answer)
    return jobs


def raising(answers: Sequence[Any]) -> list[Any]:
    """Return gathered answers, or raise the first error among them."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return list(answers)


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield slices of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
