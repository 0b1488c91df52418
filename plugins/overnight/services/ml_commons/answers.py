"""
ML Commons' tasks, which batch prediction and batch ingestion share: the calls about them, with checked answers.

API: https://docs.opensearch.org/latest/ml-commons-plugin/api/tasks-apis/.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from overnight.errors import ServiceError, UnavailableError, shorten
from overnight.services.ml_commons.causes import NO_TASK_INDEX, explain
from overnight.services.ml_commons.connection import ML
from overnight.transport.flow import Flow, Pause
from overnight.transport.http import HttpCall, Retry

PAGE: Final = 200
MAX_ID: Final = 512
"""Bytes of a document's id in OpenSearch, and so of a task's."""
MAX_QUOTED: Final = 300
"""Characters of an unreadable answer that an error quotes."""
MAX_EXACT: Final = 2**53
"""From here on a float does not say which whole number it was."""
MAX_INT64: Final = 2**63
SEARCH_LAG: Final = 1.5
"""Seconds after which a new task is in the task list: an index is refreshed once a second."""

_KMEANS: Final = {
    "parameters": {"centroids": 1, "iterations": 1},
    "input_data": {
        "column_metas": [{"name": "x", "column_type": "DOUBLE"}],
        "rows": [{"values": [{"column_type": "DOUBLE", "value": value}]} for value in (0.0, 1.0)],
    },
}
_CURE_WAITS: Final = (1.0, 1.0, 2.0, 3.0, 5.0, 8.0)


def ask(call: HttpCall) -> Flow[Any]:
    """Carry out one call of the plugin, with each error raised as the kind that it is."""
    try:
        return (yield call)
    except ServiceError as error:
        raise explain(error) from error


def get_task(task_id: str) -> Flow[dict[str, Any]]:
    """
    Read a task. Of a batch prediction the cluster asks the remote service first and keeps what that says.

    :raises NotFoundError: neither the cluster nor the remote service knows it (any more).
    """
    task = yield from ask(HttpCall("GET", task_path(task_id)))
    if not isinstance(task, dict) or not isinstance(task.get("state"), str):
        raise UnavailableError(f"OpenSearch's answer about the ML task {task_id} is not a task.")
    return task


def tasks_since(task_type: str, since: datetime) -> Flow[list[dict[str, Any]]]:
    """
    List tasks of one type that were created since a time, newest first, each with its ``task_id``.

    The list shows what the cluster knows, without asking remote services.
    """
    filters = [
        {"term": {"task_type": task_type}},
        {"range": {"create_time": {"gte": int(since.timestamp() * 1000)}}},
    ]
    return (yield from _search_tasks({"bool": {"filter": filters}}))


def get_tasks(task_ids: Collection[str]) -> Flow[list[dict[str, Any]]]:
    """Read tasks as the cluster knows them, each with its ``task_id``, without asking remote services."""
    return (yield from _search_tasks({"ids": {"values": sorted(task_ids)}}))


def _search_tasks(query: Mapping[str, Any]) -> Flow[list[dict[str, Any]]]:
    listed: list[dict[str, Any]] = []
    body: dict[str, Any] = {"size": PAGE, "query": query, "sort": [{"create_time": "desc"}]}
    while True:
        try:
            answer = yield from ask(HttpCall("POST", f"{ML}/tasks/_search", json=body))
        except ServiceError as error:
            if error.code == NO_TASK_INDEX:
                return listed
            raise
        hits = read_hits(answer, "ML tasks")
        listed += [{**hit["_source"], "task_id": hit["_id"]} for hit in hits]
        if len(hits) < PAGE:
            return listed
        if not isinstance(hits[-1].get("sort"), list):
            raise UnavailableError("OpenSearch's list of ML tasks has no 'sort', so its next page cannot be asked for.")
        body["search_after"] = hits[-1]["sort"]


def read_hits(answer: Any, what: str) -> list[dict[str, Any]]:
    """
    Read a search's hits, each with its ``_id`` and ``_source``.

    :param what: What is listed, for an error.
    :raises UnavailableError: the answer is none of a search; an unreadable list must never read as an empty one.
    """
    outer = answer.get("hits") if isinstance(answer, dict) else None
    hits = outer.get("hits") if isinstance(outer, dict) else None
    if isinstance(outer, dict) and "hits" in outer and hits is None:
        # An empty list, as some serializers write it.
        return []
    if not isinstance(hits, list) or not all(map(_is_hit, hits)):
        raise UnavailableError(f"OpenSearch's list of {what} cannot be read: {quote_answer(answer)}.")
    return hits


def _is_hit(hit: Any) -> bool:
    return (
        isinstance(hit, dict)
        and isinstance(hit.get("_source"), dict)
        and isinstance(hit.get("_id"), str)
        and 0 < len(hit["_id"]) <= MAX_ID
    )


def read_task_id(answer: Any) -> str | None:
    """Read the task id of an answer; ``None`` when it has none that can be used in a path."""
    task_id = answer.get("task_id") if isinstance(answer, dict) else None
    return task_id if isinstance(task_id, str) and 0 < len(task_id) <= MAX_ID else None


def quote_answer(answer: Any) -> str:
    """Return an answer's JSON, shortened, for an error's text."""
    return shorten(json.dumps(answer, default=str), MAX_QUOTED)


def make_task_index() -> Flow[None]:
    """
    Cure a fresh cluster, which refuses batch ingestion until some other ML task has made the plugin's task index.

    The smallest task there is trains a model on two numbers; the model is deleted again. Making the index by hand
    would give it a wrong mapping.
    """
    answer = yield from ask(HttpCall("POST", f"{ML}/_train/kmeans", params={"async": "true"}, json=_KMEANS))
    task_id = read_task_id(answer)
    if task_id is None:
        raise UnavailableError(f"OpenSearch answered a training without a task id: {quote_answer(answer)}.")
    for seconds in _CURE_WAITS:
        yield Pause(seconds)
        task = yield from get_task(task_id)
        if task["state"] not in ("CREATED", "RUNNING"):
            break
    model_id = task.get("model_id")
    if model_id:
        yield from ask(HttpCall("DELETE", f"{ML}/models/{quote_part(model_id)}", retry=Retry.REJECTED))


def task_path(task_id: str) -> str:
    """Return the path of a task."""
    return f"{ML}/tasks/{quote_part(task_id)}"


def created_at(task: Mapping[str, Any], default: datetime) -> datetime:
    """Read a task's ``create_time``, which is in milliseconds."""
    value = task.get("create_time")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    try:
        return datetime.fromtimestamp(value / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return default


def plain(value: Any) -> Any:
    """Return JSON with whole numbers as ints again: the plugin makes every number of a remote answer a float."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < MAX_EXACT else value
    # What JSON writers cannot write as an integer.
    return float(value) if isinstance(value, int) and abs(value) >= MAX_INT64 else value


def quote_part(part: object) -> str:
    """Return an id as one part of a path."""
    return quote(str(part), safe="")
