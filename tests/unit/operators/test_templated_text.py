"""Every templated field of every operator and sensor, given text that makes no sense: no error is a raw one."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException, TaskDeferred

import overnight.operators
import overnight.sensors
from overnight.errors import OvernightError

NOBODY = "http://127.0.0.1:9"
"""Nothing listens there: what is not refused before a call ends with an error that names the address."""
JOB = {"service": "openai", "id": "batch_1", "conn_id": "openai_default"}
REQUEST = {
    "index_name": "docs",
    "field_map": {"text": "$.text", "_id": "$.id"},
    "data_source": {"type": "local", "source": ["/nowhere/in.jsonl"]},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "AzureIngestionJobOperator": {},
    "BatchJobSensor": {"job": JOB, "poke_interval": 0.01, "timeout": 0.0},
    "CancelBatchJobOperator": {"job": JOB},
    "ChunkDocumentsOperator": {"documents": "/nowhere/in.jsonl", "target": "/nowhere/out"},
    "CutShardsOperator": {"request": REQUEST},
    "ListTransformInputsOperator": {"input_uri": "s3://b/in/", "output_uri": "s3://b/out"},
    "LlamaCloudBatchOperator": {
        "job_type": "parse",
        "configuration_id": "c",
        "sources": "/nowhere/*.pdf",
        "results_uri": "/nowhere/results",
    },
    "LlamaCloudResultsOperator": {"job": {**JOB, "service": "llamacloud"}, "results_uri": "/nowhere/results"},
    "MLCommonsBatchIngestOperator": {"request": REQUEST},
    "MLCommonsBatchPredictOperator": {"model_id": "m"},
    "MLCommonsConnectorOperator": {
        "blueprint": {"name": "n"},
        "config": {"kind": "openai", "name": "n", "model": "m"},
        "credential_conn_id": "openai_default",
    },
    "MLCommonsDeleteConnectorOperator": {"connector_id": "c"},
    "MLCommonsDeleteModelOperator": {"model_id": "m"},
    "MLCommonsRegisterModelOperator": {"model_name": "m", "connector_id": "c"},
    "OpenAIBatchInputOperator": {
        "documents": "/nowhere/in.jsonl",
        "target": "/nowhere/out",
        "template": {"endpoint": "/v1/embeddings", "model": "m", "input": "$.text"},
    },
    "OpenAIBatchOperator": {"input_file_id": "file-1", "endpoint": "/v1/embeddings"},
    "OpenAIBatchResultsOperator": {"job": JOB, "target": "/nowhere/out"},
    "OpenSearchCreateIndexOperator": {"index_name": "docs"},
    "OpenSearchLoadOperator": {"request": REQUEST},
    "OpenSearchSwapAliasOperator": {"alias": "docs", "index_name": "docs-1"},
    "OpenSearchVerifyIndexOperator": {"index_name": "docs", "count": 3, "dimensions": {"e": 3}},
    "PlanTransformLoadsOperator": {"input_uri": "s3://b/in/", "output_uri": "s3://b/out", "request": REQUEST},
    "SageMakerBatchTransformOperator": {
        "model_name": "m",
        "input_uri": "s3://b/in/",
        "output_uri": "s3://b/out",
        "instance_type": "ml.m5.xlarge",
    },
}
"""What each needs to get past its constructor."""
TEXTS = ("no such thing", "-1", "x" * 50_000)


def find_operators() -> Iterator[type[BaseOperator]]:
    packages: tuple[ModuleType, ...] = (overnight.operators, overnight.sensors)
    for package in packages:
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            for name, kind in vars(module).items():
                if not inspect.isclass(kind) or not issubclass(kind, BaseOperator) or inspect.isabstract(kind):
                    continue
                if kind.__module__ == module.__name__ and name[0] != "_":
                    yield kind


OPERATORS = {kind.__name__: kind for kind in find_operators()}
FIELDS = [(name, field) for name, kind in OPERATORS.items() for field in kind.template_fields]


def test_every_operator_is_tried() -> None:
    assert set(ARGUMENTS) == set(OPERATORS)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connections = {
        "openai_default": {"conn_type": "openai_batch", "host": NOBODY, "password": "k"},
        "llamacloud_default": {"conn_type": "llamacloud", "host": NOBODY, "password": "k"},
        "opensearch_default": {"conn_type": "opensearch", "host": NOBODY},
        "azure_openai_default": {"conn_type": "azure_openai", "host": NOBODY, "password": "k"},
        "aws_default": {
            "conn_type": "aws",
            "login": "k",
            "password": "s",
            "extra": {"endpoint_url": NOBODY, "region_name": "eu-west-1"},
        },
    }
    for name, connection in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
    # What waits between attempts waits for nothing here.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[f"{name}.{field}" for name, field in FIELDS])
def test_text_in_a_templated_field_is_refused_or_read(task_run: Any, name: str, field: str) -> None:
    raw: list[str] = []
    for text in TEXTS:
        task = OPERATORS[name](task_id="t", **ARGUMENTS[name])
        # As a rendered template does, behind the constructor.
        setattr(task, field, text)
        try:
            task.execute(task_run.context)
        except (AirflowNotFoundException, TaskDeferred):
            continue
        except (AirflowException, OvernightError) as error:
            if len(str(error)) < 10_000:
                continue
            raw.append(f"{text[:20]!r}: {len(str(error))} characters")
        except Exception as error:
            raw.append(f"{text[:20]!r}: {type(error).__name__}: {str(error)[:200]}")
    assert raw == []
