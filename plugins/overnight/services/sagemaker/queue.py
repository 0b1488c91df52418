"""
The instances that an account has for batch transform: what a job takes of them, and which jobs have some.

Each instance type has a quota of its own, which all transform jobs of the account and region share:
https://docs.aws.amazon.com/general/latest/gr/sagemaker.html#limits_sagemaker. CreateTransformJob answers
``ResourceLimitExceeded`` when it is used up, and ``ThrottlingException`` to calls that follow too fast.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from overnight.errors import NotFoundError, RateLimitedError, ServiceError
from overnight.jobs import JobKey, JobStatus
from overnight.jobs.governor import SHOWN_SECONDS
from overnight.jobs.queue import NOTHING, Amount, Budget, ListedJob, QueueFull
from overnight.services.sagemaker.answers import list_job_pages
from overnight.services.sagemaker.spec import SageMakerTransformSpec
from overnight.transport.aws_call import SAGEMAKER, AwsCall
from overnight.transport.flow import Flow, Gather

PAGE: Final = 100
AT_ONCE: Final = 4
"""Descriptions asked for at the same time; more of them are throttled."""
_UNFINISHED: Final = ("InProgress", "Stopping")
_LIMIT: Final = re.compile(r"\bis (?P<limit>\d+) Instances?\b", re.IGNORECASE)


class InstanceQueue:
    """
    The jobs that have instances.

    The list of jobs does not say which instances a job has; each job is described once for that.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, int]] = {}

    def list_jobs(self, instance_type: str) -> Flow[list[ListedJob]]:
        """
        List the jobs with instances of a type, whoever created them.

        :raises ServiceError: a call failed.
        """
        names: list[str] = []
        for word in _UNFINISHED:
            names += yield from _list_names({"StatusEquals": word})
        # Of ours, those that ended between two looks: the room that was reserved for them is free.
        since = datetime.now(UTC) - timedelta(seconds=SHOWN_SECONDS)
        recent = yield from _list_names({"NameContains": "overnight-", "CreationTimeAfter": since})
        # A job that begins to stop between the two lists is in both.
        names = list(dict.fromkeys(names))
        self._known = {name: self._known[name] for name in names if name in self._known}
        unknown = [name for name in names if name not in self._known]
        calls = [AwsCall(SAGEMAKER, "DescribeTransformJob", {"TransformJobName": name}) for name in unknown]
        for name, answer in zip(unknown, (yield Gather(calls, AT_ONCE)) if calls else (), strict=True):
            if isinstance(answer, NotFoundError):
                continue
            if isinstance(answer, ServiceError):
                raise answer
            self._known[name] = _read_resources(answer)
        listed = [
            ListedJob(name, Amount(instances=count), _get_own(name))
            for name, (kind, count) in self._known.items()
            if kind in (instance_type, "")
        ]
        over = [name for name in recent if name not in names and _get_own(name) is not None]
        return [*listed, *(ListedJob(name, NOTHING, name) for name in over)]


def _list_names(arguments: Mapping[str, Any]) -> Flow[list[str]]:
    names: list[str] = []
    following: Mapping[str, Any] | None = {**arguments, "MaxResults": PAGE}
    while following is not None:
        items, following = yield from list_job_pages(following)
        names += [item["TransformJobName"] for item in items]
    return names


def _get_own(name: str) -> str | None:
    return name if JobKey.parse_name(name) is not None else None


def get_queue(spec: SageMakerTransformSpec) -> tuple[str, Amount]:
    """Return the queue of a job, which is its instance type's, and how many instances it takes."""
    return spec.instance_type, Amount(instances=spec.instance_count)


def find_refusal(answer: ServiceError | JobStatus) -> QueueFull | None:
    """
    Say whether a job was not created because other jobs have the instances, or because calls came too fast.

    A job that was created never fails for the quota.
    """
    if not isinstance(answer, RateLimitedError):
        return None
    found = _LIMIT.search(str(answer))
    limit = Budget(instances=int(found["limit"])) if found is not None and int(found["limit"]) else Budget()
    return QueueFull(str(answer), limit, answer.retry_after)


def _read_resources(answer: Any) -> tuple[str, int]:
    """Return type and count of a job's instances; of an answer that does not say, any type and one."""
    resources = answer.get("TransformResources") if isinstance(answer, dict) else None
    resources = resources if isinstance(resources, dict) else {}
    kind, count = resources.get("InstanceType"), resources.get("InstanceCount")
    return kind if isinstance(kind, str) else "", count if isinstance(count, int) and count > 0 else 1
