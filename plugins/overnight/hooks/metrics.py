"""
What a deployment can watch: counters, timers and gauges through Airflow's own metrics (StatsD or OpenTelemetry).

Airflow has two clients of its metrics, and only one is configured in a process: a task uses the Task SDK's, a trigger
the core's. Where no metrics are configured, nothing is sent. The names are in ``docs/observability.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from overnight.ingest import LoadReport
    from overnight.jobs import JobRef, JobStatus

PREFIX: Final = "overnight."
LOADED: Final = ("submitted", "indexed", "unchanged", "dropped", "rejected", "missing")


class Metrics(Protocol):
    """What both halves of Airflow have."""

    def incr(self, stat: str, count: int = 1, rate: float = 1, *, tags: dict[str, Any] | None = None) -> None:
        """Add to a counter."""

    def gauge(
        self, stat: str, value: float, rate: float = 1, delta: bool = False, *, tags: dict[str, Any] | None = None
    ) -> None:
        """Set a gauge."""

    def timing(self, stat: str, dt: Any, *, tags: dict[str, Any] | None = None) -> None:
        """Note how many milliseconds something took."""


def get_task_metrics() -> Metrics:
    """Return the metrics of a process that runs a task."""
    # Not needed by a process that only parses the DAG's file.
    from airflow.sdk.observability.stats import Stats  # noqa: PLC0415

    metrics: Metrics = Stats
    return metrics


def get_trigger_metrics() -> Metrics:
    """Return the metrics of a triggerer's process."""
    from airflow.observability.stats import Stats  # noqa: PLC0415

    metrics: Metrics = Stats
    return metrics


def count_event(event: str, service: str) -> None:
    """Count a job that a task submitted, attached to, or keeps waiting for room in the service's queue."""
    get_task_metrics().incr(f"{PREFIX}job.{event}", tags={"service": service})


def count_end(ref: JobRef, status: JobStatus | None, seconds: float | None) -> None:
    """
    Count a job that is over, by its state, and note how long it took.

    :param status: ``None`` when the wait ended before the job did.
    :param seconds: From the submit to the end; ``None`` where the submit is not known.
    """
    tags = {"service": ref.service, "state": status.state.value if status is not None else "unknown"}
    metrics = get_task_metrics()
    metrics.incr(f"{PREFIX}job.ended", tags=tags)
    if seconds is not None:
        metrics.timing(f"{PREFIX}job.duration", seconds * 1000.0, tags=tags)


def count_cancel_request(ref: JobRef) -> None:
    """Count a job whose cancellation a trigger asked for: its task was marked, cleared or is past its deadline."""
    get_trigger_metrics().incr(f"{PREFIX}job.cancel_requested", tags={"service": ref.service})


def set_waiting(service: str, conn_id: str, count: int) -> None:
    """Set how many jobs of a connection this triggerer waits for."""
    get_trigger_metrics().gauge(f"{PREFIX}triggerer.waiting", count, tags={"service": service, "conn_id": conn_id})


def count_load(report: LoadReport) -> None:
    """Count the documents of a load by what became of them, and note how long it took."""
    metrics = get_task_metrics()
    tags = {"index": report.index}
    for name in LOADED:
        metrics.incr(f"{PREFIX}load.{name}", getattr(report, name), tags=tags)
    for code, count in report.reasons.items():
        metrics.incr(f"{PREFIX}load.reason", count, tags={**tags, "code": code})
    metrics.incr(f"{PREFIX}load.bytes", report.bytes, tags=tags)
    metrics.timing(f"{PREFIX}load.duration", report.seconds * 1000.0, tags=tags)
