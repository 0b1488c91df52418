"""
The tasks that a cluster runs at a time: which are not over, and when one more is refused.

``plugins.ml_commons.max_batch_inference_tasks`` and ``max_batch_ingestion_tasks`` are their limits, 100 each:
https://docs.opensearch.org/latest/ml-commons-plugin/cluster-settings/. One more is answered with 429, which does not
name the limit. A remote service of a batch prediction that has no room is passed on with 400 or as a failed task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from overnight.errors import RateLimitedError, ServiceError
from overnight.jobs import JobKey, JobStatus
from overnight.jobs.queue import NOTHING, Amount, ListedJob, QueueFull
from overnight.services.ml_commons.answers import tasks_since
from overnight.services.openai.queue import find_refusal as find_openai_refusal
from overnight.transport.flow import Flow

OLDEST: Final = timedelta(days=7)
"""Tasks that began before are not looked at: a task that its node died with stays CREATED for ever."""
_UNFINISHED: Final = frozenset({"CREATED", "RUNNING", "CANCELLING"})
"""The states that the plugin counts or is about to count."""


def list_queue(
    task_type: str, get_name: Callable[[Mapping[str, Any]], str | None] = lambda _: None
) -> Flow[list[ListedJob]]:
    """
    List the tasks of a type that are not over, whoever started them.

    :param get_name: Returns the name of ours that a task's remote job bears, if it does.
    """
    tasks = yield from tasks_since(task_type, datetime.now(UTC) - OLDEST)
    return [_to_listed(task, get_name(task)) for task in tasks]


def _to_listed(task: Mapping[str, Any], name: str | None) -> ListedJob:
    name = name if name is not None and JobKey.parse_name(name) is not None else None
    amount = Amount() if str(task.get("state")) in _UNFINISHED else NOTHING
    return ListedJob(task["task_id"], amount, name, may_be_ours=name is None)


def find_refusal(answer: ServiceError | JobStatus) -> QueueFull | None:
    """
    Say whether the cluster, or the remote service behind it, had no room for a job.

    An OpenAI batch behind a connector fails in validation for that, and its task with it.
    """
    if isinstance(answer, ServiceError):
        if isinstance(answer, RateLimitedError):
            return QueueFull(str(answer), retry_after=answer.retry_after)
        return None
    return find_openai_refusal(answer)
