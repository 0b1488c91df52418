"""
The calls of LlamaCloud's API that batches need, as flows over its objects.

API: https://developers.llamaindex.ai/reference/resources/batches and …/beta/directories, …/configurations, …/parsing,
…/extract. Lists answer ``{"items": […], "next_page_token": …}``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

from overnight.errors import UnavailableError
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

Record = dict[str, Any]
T = TypeVar("T")


def path(base: str, *ids: str) -> str:
    """Return the path of a thing below a list."""
    return "/".join([base, *(quote(part, safe="") for part in ids)])


def get_files_path(directory_id: str) -> str:
    """Return the path of a directory's files."""
    return f"{path(DIRECTORIES, directory_id)}/files"


def record(answer: Any, what: str) -> Record:
    """Return an answer that must be an object with an id."""
    if not isinstance(answer, dict) or not isinstance(answer.get("id"), str):
        raise UnavailableError(f"LlamaCloud's answer about {what} has no id; does something else answer there?")
    return answer


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
        page = answer.get("items") if isinstance(answer, dict) else None
        if not isinstance(page, list):
            raise UnavailableError(f"LlamaCloud's list of {url} has no items; does something else answer there?")
        items += [item for item in page if isinstance(item, dict) and "id" in item]
        token = answer.get("next_page_token")
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
    return [record(answer, "a batch") for answer in raising(answers)]


def get_jobs(job_type: str, ids: Sequence[str]) -> Flow[list[Record]]:
    """Look at jobs of one type; those that are gone are left out."""
    calls = [
        HttpCall("GET", JOBS[job_type], params={"job_ids": some, "page_size": JOBS_PER_CALL})
        for some in batched(ids, JOBS_PER_CALL)
    ]
    answers = yield Gather(calls, AT_ONCE)
    return [job for answer in raising(answers) for job in answer["items"]]


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
