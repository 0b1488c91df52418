"""
ML Commons in OpenSearch: what batch prediction and batch ingestion share.

API: https://docs.opensearch.org/latest/ml-commons-plugin/api/.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from overnight.errors import ServiceError, UnavailableError
from overnight.services.ml_commons.errors import FINAL_CODES, NO_TASK_INDEX, ask, read_ml_error
from overnight.transport.flow import Flow, Pause
from overnight.transport.http import HttpCall, HttpTransport, Retry
from overnight.transport.opensearch import OpenSearchConnection

ML: Final = "_plugins/_ml"
PAGE: Final = 200
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


def transport(reach: OpenSearchConnection, *, attempts: int = 6) -> HttpTransport:
    """Return a transport that understands the plugin's errors. Does no I/O."""
    return reach.transport(attempts=attempts, error_reader=read_ml_error, final_codes=FINAL_CODES)


def get_task(task_id: str) -> Flow[dict[str, Any]]:
    """
    Read a task. Of a batch prediction the cluster asks the remote service first and keeps what that says.

    :raises NotFoundError: neither the cluster nor the remote service knows it (any more).
    """
    task = yield from ask(HttpCall("GET", task_path(task_id)))
    if not isinstance(task, dict) or "state" not in task:
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
        hits = answer.get("hits", {}).get("hits") if isinstance(answer, dict) else None
        if not isinstance(hits, list):
            raise UnavailableError("OpenSearch's list of ML tasks has no hits.")
        listed += [{**hit["_source"], "task_id": hit["_id"]} for hit in hits]
        if len(hits) < PAGE:
            return listed
        body["search_after"] = hits[-1]["sort"]


def make_task_index() -> Flow[None]:
    """
    Cure a fresh cluster, which refuses batch ingestion until some other ML task has made the plugin's task index.

    The smallest task there is trains a model on two numbers; the model is deleted again. Making the index by hand
    would give it a wrong mapping.
    """
    answer = yield from ask(HttpCall("POST", f"{ML}/_train/kmeans", params={"async": "true"}, json=_KMEANS))
    for seconds in _CURE_WAITS:
        yield Pause(seconds)
        task = yield from get_task(str(answer["task_id"]))
        if task["state"] not in ("CREATED", "RUNNING"):
            break
    model_id = task.get("model_id")
    if model_id:
        yield from ask(HttpCall("DELETE", f"{ML}/models/{quote(str(model_id), safe='')}", retry=Retry.REJECTED))


def task_path(task_id: str) -> str:
    """Return the path of a task."""
    return f"{ML}/tasks/{quote(task_id, safe='')}"


def created_at(task: Mapping[str, Any], default: datetime) -> datetime:
    """Read a task's ``create_time``, which is in milliseconds."""
    value = task.get("create_time")
    return datetime.fromtimestamp(value / 1000, UTC) if isinstance(value, int | float) else default


def plain(value: Any) -> Any:
    """Return JSON with whole numbers as ints again: the plugin makes every number of a remote answer a float."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
