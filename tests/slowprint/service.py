"""The print shop's API in five verbs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import Field

from overnight.errors import UnavailableError
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
)
from overnight.jobs.service import JobSpec, Service
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall, Retry

STATES = {
    "waiting": JobState.QUEUED,
    "printed": JobState.SUCCEEDED,
    "jammed": JobState.FAILED,
    "withdrawn": JobState.CANCELLED,
}


class PrintSpec(JobSpec):
    """What is printed, and on how many pages (1 to 500)."""

    text_uri: str = Field(min_length=1)
    pages: int = Field(ge=1, le=500)


class PrintService(Service[PrintSpec]):
    """Orders at a print shop."""

    name: ClassVar[str] = "slowprint"

    def find(self, key: JobKey, since: datetime, record: JobRecord | None = None) -> Flow[FoundJob | None]:
        """Look for this task instance's order by the name that every order of ours has."""
        answer = yield HttpCall("GET", "orders")
        ours = [job for order in answer["orders"] if (job := self._found(order, key)) is not None]
        return max(ours, key=lambda job: job.generation, default=None)

    def submit(self, spec: PrintSpec, key: JobKey) -> Flow[JobRef]:
        """Order, and when the answer is lost look for the order before ordering again."""
        body = {"name": key.name, "text": spec.text_uri, "pages": spec.pages}
        try:
            order = yield HttpCall("POST", "orders", json=body, retry=Retry.REJECTED)
        except UnavailableError:
            found = yield from self.find(key, datetime.now(UTC))
            if found is None or found.generation != key.generation:
                raise
            return found.ref
        return self.ref(order["id"])

    def status(self, ref: JobRef) -> Flow[JobStatus]:
        """Look at the order; spoiled pages make it PARTIAL."""
        return _read((yield HttpCall("GET", f"orders/{ref.id}")))

    def cancel(self, ref: JobRef) -> Flow[JobStatus]:
        """Withdraw the order."""
        return _read((yield HttpCall("POST", f"orders/{ref.id}/withdraw", json={})))

    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        """Say where the pages lie."""
        order = yield HttpCall("GET", f"orders/{ref.id}")
        file = ResultFile(kind="output", uri=f"{order['text']}.printed")
        return ResultManifest(ref=ref, files=(file,), counts=_read(order).counts)

    def _found(self, order: dict[str, Any], key: JobKey) -> FoundJob | None:
        parts = JobKey.parse_name(order["name"])
        if parts is None or parts.tag != key.tag:
            return None
        return FoundJob(
            ref=self.ref(order["id"]),
            generation=parts.generation,
            fingerprint=parts.fingerprint,
            created_at=datetime.now(UTC),
            state=_read(order).state,
        )


def _read(order: dict[str, Any]) -> JobStatus:
    state = STATES[order["status"]]
    pages, spoiled = order["pages"], order["spoiled"]
    if state is JobState.SUCCEEDED and spoiled:
        state = JobState.PARTIAL
    return JobStatus(
        state=state,
        raw=order["status"],
        counts=JobCounts(total=pages, succeeded=pages - spoiled, failed=spoiled),
        cause=FailureCause.SERVICE if state is JobState.FAILED else None,
    )
