"""common-ai's own operators and decorator, through our adapters, in a real Airflow against the emulator."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from overnight.sandbox.airflow import Airflow

MODELS = {"azure": "gpt-4o-mini", "overnight": "gpt-4o-mini", "openai-responses": "gpt-4.1"}
COUNT = 40
DAGS = """
# The word airflow makes this a file of DAGs.
from typing import Literal

from airflow.providers.common.ai.operators.llm_batch import LLMBatchOperator
from airflow.sdk import dag, task
from pydantic import BaseModel


class Animal(BaseModel):
    kind: Literal["dogs", "cats"]
    count: int
    summary: str


def make(prefix, model, deferrable):
    @dag(f"animals-{{prefix}}")
    def animals():
        @task.llm_batch(
            llm_conn_id=f"{{prefix}}_conn",
            model_id=f"{{prefix}}:{{model}}",
            result_path="file://{folder}/{{{{ dag.dag_id }}}}",
            system_prompt="Say which animals there are.",
            output_type=Animal,
            deferrable=deferrable,
        )
        def build_prompts():
            return [f"There are {{number}} {{'dogs' if number % 2 else 'cats'}}." for number in range({count})]

        batch = build_prompts()
        # The operator polls no more often than every 30 seconds, which is long for a test.
        batch.operator.poll_interval = 0.2

    return animals()


dags = [make(prefix, model, prefix == "azure") for prefix, model in {models}.items()]
"""


@pytest.fixture
def airflow(tmp_path: Path, openai_url: str, migrated_airflow: Airflow) -> Iterator[Airflow]:
    admin = openai_url.removesuffix("/v1") + "/_sandbox"
    for section in ("faults", "pace"):
        httpx.put(f"{admin}/{section}", json={}).raise_for_status()
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "animals.py").write_text(DAGS.format(folder=tmp_path, count=COUNT, models=MODELS))
    azure = openai_url.removesuffix("/v1") + "/openai/v1"
    connections = {
        "AZURE": {"conn_type": "pydanticai_azure", "host": azure, "password": "sandbox"},
        "OVERNIGHT": {"conn_type": "overnight_openai", "host": openai_url, "password": "sandbox"},
        "OPENAI-RESPONSES": {"conn_type": "pydanticai", "host": openai_url, "password": "sandbox"},
    }
    variables = {f"AIRFLOW_CONN_{name}_CONN": json.dumps(value) for name, value in connections.items()}
    yield replace(migrated_airflow.copy(tmp_path / "home"), dags=tmp_path / "dags", variables=variables)
    httpx.put(f"{admin}/faults", json={}).raise_for_status()


def list_batches(url: str, tag: str) -> list[dict[str, Any]]:
    page = httpx.get(f"{url}/batches", params={"limit": 100}, headers={"api-key": "sandbox"}).raise_for_status().json()
    return [batch for batch in page["data"] if (batch["metadata"] or {}).get("idempotency_key") == tag]


@pytest.mark.parametrize("prefix", MODELS)
def test_a_dag_of_the_provider_runs_a_batch_through_our_adapter(
    prefix: str, airflow: Airflow, openai_url: str, tmp_path: Path
) -> None:
    admin = openai_url.removesuffix("/v1") + "/_sandbox"
    # The answer to the creation is lost once, 1 of 20 answers is no JSON, and some lines fail.
    faults = {"lost_create": {"share": 1, "times": 1}, "answers_invalid": 0.1, "lines_failed": 0.1}
    httpx.put(f"{admin}/faults", json=faults).raise_for_status()
    log = tmp_path / "log"
    run = airflow.run_dag(f"animals-{prefix}", {}, xcoms={"build_prompts": "return_value"}, log=log)
    assert run.state == "success", log.read_text()
    manifest = run.xcoms["build_prompts"]
    assert (manifest["adapter"], manifest["request_count"]) == (prefix, COUNT)
    rows = [json.loads(line) for line in Path(manifest["result_uri"].removeprefix("file://")).read_text().splitlines()]
    assert {row["index"] for row in rows} == set(range(COUNT))
    statuses = Counter(row["status"] for row in rows)
    assert statuses.keys() == {"success", "invalid_output", "error"}
    assert manifest["counts"]["succeeded"] == statuses["success"] > COUNT / 2
    for row in rows:
        if row["status"] == "success":
            assert row["output"]["kind"] == ("dogs" if row["index"] % 2 else "cats")
            assert row["output"]["count"] == row["index"]
    # It is paid for once, although the first creation had no answer.
    (batch,) = list_batches(openai_url, rows[0]["custom_id"].rpartition("-")[0])
    assert batch["id"] == manifest["batch_id"]
    assert batch["endpoint"] == ("/v1/responses" if prefix == "openai-responses" else "/v1/chat/completions")
