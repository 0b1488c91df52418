"""The project's own DAG, over real text: complete, whatever the services do, and the same when it runs twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from overnight.ingest.report.dead_letters import read_dead_letters

from .accounts import FAILED, MISSING
from .conftest import Services, Standalone
from .console import Run
from .pipeline import A_DAY, BACKFILLED, PIPELINE, Nights, first

COUNT = 120
PLAIN = {"account": "quick", "index": "plain", "count": COUNT, "parts": 2}


def counts(report: dict[str, Any]) -> tuple[int, int, int, int]:
    return report["submitted"], report["indexed"], report["rejected"], report["missing"]


@pytest.mark.dag_run(PIPELINE, PLAIN)
def test_every_document_is_in_the_index_with_its_vector_and_a_second_run_changes_nothing(
    run: Run, services: Services, airflow: Standalone
) -> None:
    again = airflow.console.trigger(PIPELINE, services.documents.conf(**PLAIN)) if run.finish() == "success" else None
    report = run.xcom("report")
    assert counts(report) == (COUNT, COUNT, 0, 0)
    assert orjson.loads(services.documents.read(report["uri"]))["indexed"] == COUNT
    indexed = services.documents.indexed("plain")
    shown = {name: {key: doc[key] for key in ("text", "module", "signature")} for name, doc in indexed.items()}
    assert shown == {doc["id"]: {key: doc[key] for key in ("text", "module", "signature")} for doc in first(COUNT)}
    assert {len(doc["embedding"]) for doc in indexed.values()} == {384}

    assert again is not None
    assert again.finish() == "success"
    assert counts(again.xcom("report")) == counts(report)
    assert services.documents.indexed("plain") == indexed


@pytest.mark.dag_run(PIPELINE, {"account": "faulty", "index": "faulty", "count": COUNT, "parts": 2})
def test_a_fifth_of_all_answers_may_go_wrong(run: Run, services: Services) -> None:
    assert run.finish() == "success", [(task["task_id"], task["state"]) for task in run.tasks()]
    assert counts(run.xcom("report")) == (COUNT, COUNT, 0, 0)
    assert services.documents.indexed("faulty").keys() == {doc["id"] for doc in first(COUNT)}
    faults = {request["fault"] for request in services.accounts["faulty"].requests()}
    assert len(faults - {None}) > 1


@pytest.mark.dag_run(PIPELINE, {"account": "lossy", "index": "lossy", "count": COUNT, "allowed": "60%"})
def test_failed_and_missing_lines_are_named_one_by_one(run: Run, services: Services, tmp_path: Path) -> None:
    assert run.finish() == "success", [(task["task_id"], task["state"]) for task in run.tasks()]
    ids = [doc["id"] for doc in first(COUNT)]
    failed = {name for name in ids if re.search(FAILED, name)}
    missing = {name for name in ids if re.search(MISSING, name)}
    assert failed
    assert missing
    report = run.xcom("report")
    assert counts(report) == (COUNT, COUNT - len(failed) - len(missing), len(failed), len(missing))
    assert services.documents.indexed("lossy").keys() == set(ids) - failed - missing

    (uri,) = report["dead_letter_uris"]
    file = tmp_path / "dead-letters.jsonl"
    file.write_bytes(services.documents.read(uri))
    records = list(read_dead_letters(str(file)))
    assert {record.id for record in records if record.outcome == "rejected"} == failed
    assert {record.id for record in records if record.outcome == "missing"} == missing
    assert len(records) == len(failed | missing)
    assert all(record.reason and record.code and record.line for record in records)


@pytest.mark.dag_run(PIPELINE, {"account": "lossy", "index": "strict", "count": COUNT})
def test_lines_that_are_not_allowed_to_fail_fail_the_run_and_the_report_says_so(run: Run, services: Services) -> None:
    assert run.finish() == "failed"
    tasks = {task["task_id"]: (task["state"], task["try_number"]) for task in run.tasks()}
    assert tasks["batch.embed"] == ("failed", 1)
    assert tasks["report"][0] == "failed"
    report = run.xcom("report", "report")
    assert counts(report) == (COUNT, 0, 0, COUNT)
    assert report["failed_parts"] == [0]
    assert services.documents.indexed("strict") == {}


def test_a_scheduled_run_takes_the_documents_of_its_day(nights: Nights, services: Services) -> None:
    scheduled = nights.scheduled
    assert scheduled.finish() == "success", [(task["task_id"], task["state"]) for task in scheduled.tasks()]
    day = scheduled.facts()["logical_date"][:10]
    assert scheduled.xcom("configure")["input_uri"] == f"s3://overnight/documents/{day}/"
    assert services.documents.indexed("documents").keys() == {doc["id"] for doc in first(A_DAY)}


def test_a_backfill_takes_the_documents_of_the_day_that_it_fills(nights: Nights, services: Services) -> None:
    backfilled = nights.backfilled
    assert backfilled.finish() == "success", [(task["task_id"], task["state"]) for task in backfilled.tasks()]
    assert backfilled.xcom("configure")["input_uri"] == f"s3://overnight/documents/{BACKFILLED}/"
    assert counts(backfilled.xcom("report")) == (A_DAY, A_DAY, 0, 0)
    assert services.documents.indexed("backfilled").keys() == {doc["id"] for doc in first(A_DAY)}
