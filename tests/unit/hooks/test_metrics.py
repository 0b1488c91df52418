"""What is counted, under which name and with which tags."""

from __future__ import annotations

from typing import Any

import pytest

from overnight.hooks import metrics
from overnight.ingest import LoadReport
from overnight.jobs import JobRef, JobState, JobStatus

REF = JobRef(service="openai", id="batch_1", conn_id="c")


class Sent:
    """Metrics that keep what they are sent."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Any, dict[str, Any]]] = []

    def incr(self, stat: str, count: int = 1, rate: float = 1, *, tags: dict[str, Any]) -> None:
        self.lines.append((stat, count, tags))

    def gauge(self, stat: str, value: float, rate: float = 1, delta: bool = False, *, tags: dict[str, Any]) -> None:
        self.lines.append((stat, value, tags))

    def timing(self, stat: str, dt: Any, *, tags: dict[str, Any]) -> None:
        self.lines.append((stat, dt, tags))


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Sent:
    sent = Sent()
    monkeypatch.setattr(metrics, "get_task_metrics", lambda: sent)
    return sent


@pytest.fixture
def triggerer(monkeypatch: pytest.MonkeyPatch) -> Sent:
    sent = Sent()
    monkeypatch.setattr(metrics, "get_trigger_metrics", lambda: sent)
    return sent


def test_a_job_is_counted_by_its_service_and_state(task: Sent) -> None:
    metrics.count_event("submitted", "openai")
    metrics.count_end(REF, JobStatus(state=JobState.PARTIAL, raw="completed"), 1.5)
    metrics.count_end(REF, None, None)
    partial = {"service": "openai", "state": "partial"}
    assert task.lines == [
        ("overnight.job.submitted", 1, {"service": "openai"}),
        ("overnight.job.ended", 1, partial),
        ("overnight.job.duration", 1500.0, partial),
        ("overnight.job.ended", 1, {"service": "openai", "state": "unknown"}),
    ]


def test_a_triggerer_says_how_many_jobs_it_waits_for(triggerer: Sent) -> None:
    metrics.set_waiting("openai", "c", 3)
    metrics.count_cancel_request(REF)
    assert triggerer.lines == [
        ("overnight.triggerer.waiting", 3, {"service": "openai", "conn_id": "c"}),
        ("overnight.job.cancel_requested", 1, {"service": "openai"}),
    ]


def test_a_load_is_counted_by_what_became_of_its_documents(task: Sent) -> None:
    report = LoadReport(
        index="docs", submitted=8, indexed=3, unchanged=2, rejected=2, missing=1, bytes=10, seconds=0.5,
        reasons={"invalid_json": 2, "missing_row": 1},
    )  # fmt: skip
    metrics.count_load(report)
    tags = {"index": "docs"}
    assert task.lines == [
        ("overnight.load.submitted", 8, tags),
        ("overnight.load.indexed", 3, tags),
        ("overnight.load.unchanged", 2, tags),
        ("overnight.load.dropped", 0, tags),
        ("overnight.load.rejected", 2, tags),
        ("overnight.load.missing", 1, tags),
        ("overnight.load.reason", 2, {**tags, "code": "invalid_json"}),
        ("overnight.load.reason", 1, {**tags, "code": "missing_row"}),
        ("overnight.load.bytes", 10, tags),
        ("overnight.load.duration", 500.0, tags),
    ]
