"""The events that an OpenLineage server gets of our tasks, from a real Airflow, held against the specification."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from referencing import Registry, Resource

from overnight.sandbox.airflow import Airflow
from overnight.sandbox.services import running

SCHEMAS = Path(__file__).parents[2] / "data" / "openlineage"
DAGS = """
# The word airflow makes this a file of DAGs.
from airflow.sdk import DAG, TriggerRule
from overnight.operators.load import OpenSearchLoadOperator
from overnight.operators.openai import OpenAIBatchOperator

def load(name, source, **others):
    request = {{
        "index_name": "docs",
        "field_map": {{"_id": "$.id", "text": "$.text"}},
        "data_source": {{"type": "file", "source": [source]}},
    }}
    return OpenSearchLoadOperator(task_id=name, request=request, trigger_rule=TriggerRule.ALL_DONE, **others)

with DAG("watched", schedule=None) as dag:
    whole = load("whole", "{folder}/good.jsonl")
    partial = load("partial", "{folder}/bad.jsonl", allowed_failures=1)
    failed = load("failed", "{folder}/bad.jsonl")
    job = OpenAIBatchOperator(
        task_id="job", input_uri="{folder}/input.jsonl", endpoint="/v1/embeddings", poll_interval=0.2,
        trigger_rule=TriggerRule.ALL_DONE,
    )
    whole >> partial >> failed >> job
"""
GOOD, BAD = b'{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n', b'{"id": "c", "text": "three"}\nno JSON\n'


@pytest.fixture
def openai(tmp_path: Path) -> Iterator[dict[str, str]]:
    with running("openai", tmp_path / "openai") as server:
        yield {"conn_type": "overnight_openai", "host": f"{server.url}/v1", "password": "sandbox"}


def test_each_end_of_a_task_is_a_valid_event(
    opensearch_url: str, openai: dict[str, str], tmp_path: Path, migrated_airflow: Airflow
) -> None:
    for name, content in (("good", GOOD), ("bad", BAD)):
        (tmp_path / f"{name}.jsonl").write_bytes(content)
    body = {"model": "text-embedding-3-small", "input": "x"}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": body}
    (tmp_path / "input.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "watched.py").write_text(DAGS.format(folder=tmp_path))
    httpx.put(f"{opensearch_url}/docs", timeout=60).raise_for_status()
    events_file = tmp_path / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(events_file), "append": True}
    connections = {
        "OPENSEARCH": {"conn_type": "overnight_opensearch", "host": opensearch_url},
        "OPENAI": openai,
    }
    variables = {f"AIRFLOW_CONN_{name}_DEFAULT": json.dumps(value) for name, value in connections.items()}
    variables["AIRFLOW__OPENLINEAGE__TRANSPORT"] = json.dumps(transport)
    airflow = replace(migrated_airflow.copy(tmp_path / "home"), dags=tmp_path / "dags", variables=variables)

    log = tmp_path / "log"
    run = airflow.run_dag("watched", {}, log=log)
    assert {task.task_id: task.state for task in run.tasks} == {
        "whole": "success", "partial": "success", "failed": "failed", "job": "success",
    }, log.read_text()  # fmt: skip

    events = [json.loads(line) for line in events_file.read_text().splitlines()]
    ends = {}
    for event in events:
        check(event)
        if event["eventType"] in ("COMPLETE", "FAIL"):
            ends[event["job"]["name"].removeprefix("watched.")] = event
    cluster = opensearch_url.replace("http://", "opensearch://")
    written = {name: get_written(ends[name]) for name in ("whole", "partial", "failed")}
    assert written == {
        "whole": ("COMPLETE", cluster, "docs", 2, len(GOOD)),
        "partial": ("COMPLETE", cluster, "docs", 1, len(BAD)),
        "failed": ("FAIL", cluster, "docs", 1, len(BAD)),
    }
    assert [(one["namespace"], one["name"]) for one in ends["whole"]["inputs"]] == [
        ("file", str(tmp_path / "good.jsonl"))
    ]
    assert ends["job"]["run"]["facets"]["externalQuery"]["externalQueryId"].startswith("batch_")
    assert ends["job"]["run"]["facets"]["externalQuery"]["source"] == "openai"
    assert "allowed_failures" in ends["failed"]["run"]["facets"]["errorMessage"]["message"]


def get_written(event: dict[str, Any]) -> tuple[Any, ...]:
    """Return an event's kind, and what it says was written."""
    (index,) = event["outputs"]
    statistics = index["outputFacets"]["outputStatistics"]
    return event["eventType"], index["namespace"], index["name"], statistics["rowCount"], statistics["size"]


def check(event: dict[str, Any]) -> None:
    """Validate an event, and those of its facets whose schemas are here."""
    schemas = [json.loads(file.read_text()) for file in sorted(SCHEMAS.glob("*.json"))]
    registry: Registry[Any] = Registry().with_resources([(one["$id"], Resource.from_contents(one)) for one in schemas])
    base = next(one["$id"] for one in schemas if one["$id"].endswith("/OpenLineage.json"))
    checks = [(f"{base}#/$defs/RunEvent", event)]
    for dataset in event.get("outputs", []):
        checks += [(facet["_schemaURL"], facet) for facet in dataset.get("outputFacets", {}).values()]
    checks += [(facet["_schemaURL"], facet) for facet in event["run"].get("facets", {}).values()]
    known = {one["$id"] for one in schemas}
    for reference, instance in checks:
        if reference.partition("#")[0] in known:
            jsonschema.Draft202012Validator({"$ref": reference}, registry=registry).validate(instance)
