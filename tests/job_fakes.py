"""A service, a transport and a record store that do what a test says and remember what was asked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from overnight.jobs import FoundJob, JobKey, JobRecord, JobRef, JobState, JobStatus, ResultManifest
from overnight.jobs.client import JobClient
from overnight.jobs.service import JobSpec, Service
from overnight.transport.flow import Flow, Transport


class Spec(JobSpec):
    """What the service is asked to do."""

    work: str = "w"


class Silent(Transport[Any, Any]):
    """Carries nothing out: these services ask for no call. Pauses cost no time."""

    def _carry_out(self, call: Any) -> Any:
        return None

    def send(self, call: Any) -> Any:
        raise AssertionError(call)

    async def asend(self, call: Any) -> Any:
        raise AssertionError(call)

    def close(self) -> None:
        pass


class FakeService(Service[Spec]):
    """
    Answers each poll with the next of ``statuses``, the last one for ever; an exception is raised.

    :param found: What the list answers.
    """

    name = "fake"

    def __init__(
        self,
        *statuses: JobStatus | Exception,
        found: FoundJob | Exception | None = None,
        events: list[Any] | None = None,
        conn_id: str = "now",
    ) -> None:
        super().__init__(conn_id)
        self.statuses = list(statuses) or [JobStatus(state=JobState.RUNNING, raw="running")]
        self.found = found
        self.events: list[Any] = events if events is not None else []

    def find(self, key: JobKey, since: datetime, record: JobRecord | None = None) -> Flow[FoundJob | None]:
        self.events.append(("find", key, since, record))
        if isinstance(self.found, Exception):
            raise self.found
        return self.found
        yield

    def submit(self, spec: Spec, key: JobKey) -> Flow[JobRef]:
        self.events.append(("submit", key.generation))
        return self.ref(f"job-{key.generation}")
        yield

    def status(self, ref: JobRef) -> Flow[JobStatus]:
        self.events.append(("status", ref))
        answer = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(answer, Exception):
            raise answer
        return answer
        yield

    def cancel(self, ref: JobRef) -> Flow[JobStatus]:
        self.events.append(("cancel", ref))
        return JobStatus(state=JobState.CANCELLING, raw="cancelling")
        yield

    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        return ResultManifest(ref=ref)
        yield

    def asked(self, verb: str) -> list[Any]:
        return [event for event in self.events if event[0] == verb]


class MemoryStore:
    """A record store; what is written goes through JSON, as in every real one."""

    def __init__(self, record: JobRecord | None = None, events: list[Any] | None = None) -> None:
        self.stored = record.model_dump_json() if record is not None else None
        self.events = events if events is not None else []

    def get(self) -> JobRecord | None:
        return JobRecord.model_validate_json(self.stored) if self.stored is not None else None

    def set(self, record: JobRecord) -> None:
        self.events.append(("set", record))
        self.stored = record.model_dump_json()


def client(service: FakeService) -> JobClient[FakeService]:
    return JobClient(service, Silent())


def drive(flow: Iterator[Any], on_call: Callable[[Any], Any] = lambda _: None) -> Any:
    """Run a flow to its end and return what it returns."""
    try:
        call = next(flow)
        while True:
            call = flow.send(on_call(call))  # type: ignore[attr-defined]
    except StopIteration as stop:
        return stop.value
