from __future__ import annotations

from typing import Any

import pytest

from overnight.errors import JobLostError, NotFoundError, SpecError, UnavailableError
from overnight.jobs import JobKey
from overnight.jobs.allowance import Allowance
from overnight.jobs.evaluate import evaluate
from overnight.jobs.poller import Poller, PollOutcome
from overnight.services.ml_commons.causes import NO_TASK
from overnight.services.ml_commons.ingest.credential import S3Credential
from overnight.services.ml_commons.ingest.service import MLCommonsIngestService
from overnight.services.ml_commons.ingest.spec import MLCommonsIngestSpec
from overnight.transport.flow import Flow, Pause
from overnight.transport.http import HttpCall
from overnight.transport.opensearch import OpenSearchConnection
from unit.services.answers import Service

S3 = ("s3://bucket/key.jsonl",)
KEYS = S3Credential("ak", "sk", "eu-west-1")


class FakeCluster:
    """Answers calls from a table of its own; what it was asked is in ``calls``."""

    def __init__(self, tasks: list[dict[str, Any]]) -> None:
        self.tasks = tasks
        self.calls: list[str] = []
        self.lose = 0

    def run(self, flow: Flow[Any]) -> Any:
        answer: Any = None
        error: Exception | None = None
        while True:
            try:
                call = flow.throw(error) if error else flow.send(answer)
            except StopIteration as stop:
                return stop.value
            error, answer = None, None
            if isinstance(call, Pause):
                continue
            self.calls.append(f"{call.method} {call.path}")
            if call.path == "":
                answer = {"version": {"distribution": "opensearch", "number": "2.19.6"}}
            elif call.path.endswith("_search"):
                answer = {"hits": {"hits": [{"_id": task["task_id"], "_source": task} for task in self.tasks]}}
                self.tasks = [{**task, "state": "COMPLETED"} for task in self.tasks]
            elif call.path == "_nodes/jvm":
                answer = {"nodes": {}}
            elif call.path.endswith("_batch_ingestion"):
                self.lose -= 1
                if self.lose >= 0:
                    error = UnavailableError("lost")
                else:
                    answer = {"task_id": "new"}

    @property
    def ingestions(self) -> int:
        return sum(call.endswith("_batch_ingestion") for call in self.calls)


KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
SPEC = MLCommonsIngestSpec(index_name="i", field_map={"_id": "$.id", "a": "$.a"}, source_type="s3", sources=S3)
STRANGER = {"task_id": "old", "state": "CREATED", "task_type": "BATCH_INGEST", "create_time": 1}


def _service() -> MLCommonsIngestService:
    return MLCommonsIngestService("os", OpenSearchConnection("http://localhost:9200"), lambda _: KEYS)


def test_a_lost_answer_waits_for_what_may_have_been_started() -> None:
    cluster = FakeCluster([STRANGER])
    cluster.lose = 1
    assert cluster.run(_service().submit(SPEC, KEY)).id == "new"
    first, second = (n for n, call in enumerate(cluster.calls) if call.endswith("_batch_ingestion"))
    # One look that saw it run, and one that saw its end, before the second request.
    assert sum(call.endswith("_search") for call in cluster.calls[first:second]) == 2


def test_a_lost_answer_is_not_repeated_when_documents_would_double() -> None:
    cluster = FakeCluster([STRANGER])
    cluster.lose = 1
    with pytest.raises(SpecError, match="double"):
        cluster.run(_service().submit(SPEC.model_copy(update={"field_map": {"a": "$.a"}}), KEY))
    assert cluster.ingestions == 1


def test_a_first_submit_does_not_look_at_strangers() -> None:
    cluster = FakeCluster([STRANGER])
    cluster.run(_service().submit(SPEC, KEY))
    assert not any(call.endswith("_search") for call in cluster.calls)


def test_an_ingestion_that_is_gone_says_that_a_part_may_be_in_the_index() -> None:
    service = _service()
    ref = service.ref("task-1")

    def answer(call: HttpCall) -> Any:
        raise NotFoundError("Failed to find task.", status=404, code=NO_TASK)

    with pytest.raises(NotFoundError) as gone:
        Service(answer).run(service.status(ref))
    over = Poller(ref, poll_interval=1, answered=True).on_error(gone.value, 0.0)
    assert isinstance(over, PollOutcome)
    error = evaluate(ref, over, Allowance.parse(0)).error
    assert isinstance(error, JobLostError)
    assert "A part of the documents may be in the index already. With an _id in the field_map another run" in str(error)
