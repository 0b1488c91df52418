"""The print shop's API in five verbs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import quote

from pydantic import Field

from overnight.errors import UnavailableError, shorten
from overnight.jobs import (
    FailureCause,
    FoundJob,
    JobCounts,
    JobKey,
    JobRecord,
    JobRef,
    JobState,
    JobStatus,
    ResultFile,
    ResultManifest,
    choose_found,
)
from overnight.jobs.cause import Cause, find_cause
from overnight.jobs.service import JobSpec, Service
from overnight.services.create import CLOCK_SKEW, create_once
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall, Retry

STATES = {
    "waiting": JobState.QUEUED,
    "printed": JobState.SUCCEEDED,
    "jammed": JobState.FAILED,
    "withdrawn": JobState.CANCELLED,
}

CAUSES = {
    "jammed": Cause(FailureCause.SERVICE, retryable=True, remedy="The shop's printer failed; order again."),
    "paper": Cause(FailureCause.SERVICE, retryable=True, remedy="The shop has new paper; order again."),
    "ink": Cause(FailureCause.LIMITS, retryable=False, remedy="Buy more ink for the account."),
}


class PrintSpec(JobSpec):
    """What is printed, and on how many pages (1 to 500)."""

    text_uri: str = Field(min_length=1)
    pages: int = Field(ge=1, le=500)


class PrintService(Service[PrintSpec]):
    """Orders at a print shop."""

    name: ClassVar[str] = "slowprint"

    def find(self, key: JobKey, since: datetime, record: JobRecord | None = None) -> Flow[FoundJob | None]:
        """Look for this task instance's order by the name that every order of ours has, newest page first."""
        found: list[FoundJob] = []
        params: dict[str, Any] = {"limit": 100}
        while True:
            orders = _read_list((yield HttpCall("GET", "orders", params=params)))
            found += [job for order in orders if (job := self._found(order, key)) is not None]
            if not orders or _created_at(orders[-1]) < since - CLOCK_SKEW:
                return choose_found(found, key)
            params = {**params, "after": orders[-1]["id"]}

    def submit(self, spec: PrintSpec, key: JobKey) -> Flow[JobRef]:
        """Order once: when the answer is lost, the order is looked for before anything is ordered again."""

        def create() -> Flow[JobRef | None]:
            body = {"name": key.name, "text": spec.text_uri, "pages": spec.pages}
            order = yield HttpCall("POST", "orders", json=body, retry=Retry.REJECTED)
            return self.ref(order["id"]) if isinstance(order, dict) and _is_id(order.get("id")) else None

        return (yield from create_once(create, lambda since: self.find(key, since), key))

    def status(self, ref: JobRef) -> Flow[JobStatus]:
        """Look at the order; spoiled pages make it PARTIAL."""
        return _read((yield HttpCall("GET", f"orders/{quote(ref.id, safe='')}")))

    def cancel(self, ref: JobRef) -> Flow[JobStatus]:
        """Withdraw the order."""
        return _read((yield HttpCall("POST", f"orders/{quote(ref.id, safe='')}/withdraw", json={})))

    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        """Say where the pages lie."""
        order = yield HttpCall("GET", f"orders/{quote(ref.id, safe='')}")
        status = _read(order)
        file = ResultFile(kind="output", uri=f"{shorten(str(order.get('text')))}.printed")
        return ResultManifest(ref=ref, files=(file,), counts=status.counts)

    def _found(self, order: dict[str, Any], key: JobKey) -> FoundJob | None:
        ref, state = self.ref(order["id"]), _read(order).state
        return FoundJob.from_name(order.get("name"), key, ref=ref, created_at=_created_at(order), state=state)


def _read(order: Any) -> JobStatus:
    if not isinstance(order, dict) or not isinstance(order.get("status"), str):
        raise UnavailableError("The print shop's answer is not an order.", status=200)
    word = order["status"]
    state = STATES.get(word, JobState.RUNNING)
    pages, spoiled = (number if isinstance(number := order.get(name), int) else 0 for name in ("pages", "spoiled"))
    if state is JobState.SUCCEEDED and spoiled:
        state = JobState.PARTIAL
    cause, warnings = None, []
    if word not in STATES:
        warnings.append(f"The shop calls the order {shorten(word, 80)!r}, which is not known here.")
    if state is JobState.FAILED:
        reason = str(order.get("reason") or word)
        cause = find_cause(CAUSES, [reason])
        warnings.append(cause.remedy if cause else f"It is not known here what {shorten(reason, 80)!r} means.")
    return JobStatus(
        state=state,
        raw=shorten(word, 80),
        counts=JobCounts(total=pages, succeeded=pages - spoiled, failed=spoiled),
        cause=cause.cause if cause is not None else None,
        warnings=tuple(warnings),
    )


def _read_list(answer: Any) -> list[dict[str, Any]]:
    orders = answer.get("orders") if isinstance(answer, dict) else None
    if not isinstance(orders, list):
        raise UnavailableError("The print shop's answer is not a list of orders.", status=200)
    return [order for order in orders if isinstance(order, dict) and _is_id(order.get("id"))]


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200


def _created_at(order: dict[str, Any]) -> datetime:
    at = order.get("created_at")
    # Without a readable time an order is not taken for an old one.
    return datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) and 0 <= at < 2**33 else datetime.now(UTC)
