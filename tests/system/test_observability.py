"""What others see of a run: counters in StatsD, and an event of the index, on which another DAG is scheduled."""

from __future__ import annotations

from .conftest import Services, Standalone
from .console import eventually
from .metrics import StatsD
from .pipeline import A_DAY, Nights

JOBS = ("job.submitted", "job.ended", "job.duration", "triggerer.waiting")
LOADS = ("load.submitted", "load.indexed", "load.duration")


def test_jobs_and_loads_are_counted(nights: Nights, statsd: StatsD) -> None:
    assert nights.scheduled.finish() == "success"
    wanted = {f"airflow.overnight.{name}" for name in (*JOBS, *LOADS)}
    eventually(lambda: wanted <= statsd.seen.keys(), why=f"{wanted} are sent")
    assert statsd.seen["airflow.overnight.load.indexed"] >= A_DAY


def test_a_dag_is_scheduled_on_the_index_that_another_has_loaded_into(
    nights: Nights, airflow: Standalone, services: Services
) -> None:
    assert nights.scheduled.finish() == "success"
    asset = f"{services.environment['OPENSEARCH_URL'].replace('http://', 'opensearch://')}/documents"

    def look() -> list[str]:
        runs = airflow.console.get("/dags/downstream/dagRuns", run_type="asset_triggered")["dag_runs"]
        return [run["dag_run_id"] for run in runs if run["state"] == "success"]

    first, *_ = eventually(look, why="the index's event starts a run")
    seen = airflow.console.get(f"/dags/downstream/dagRuns/{first}/taskInstances/see/xcomEntries/return_value")
    assert int(seen["value"]) >= A_DAY
    events = airflow.console.get("/assets/events", source_dag_id=nights.scheduled.dag_id)["asset_events"]
    assert asset in {event["uri"] for event in events}
