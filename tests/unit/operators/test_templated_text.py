"""Every templated field of every operator and sensor, given text that makes no sense: no error is a raw one."""

from __future__ import annotations

import asyncio
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
from airflow.sdk.bases.decorator import DecoratedOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException, TaskDeferred

import overnight.operators
import overnight.sensors
from overnight.costs.estimate import CostEstimate, Workload
from overnight.costs.prices import PriceTable
from overnight.errors import OvernightError
from overnight.operators.job import JobOperator
from overnight.operators.parameters import check_parameters

NOBODY = "http://127.0.0.1:9"
"""Nothing listens there: what is not refused before a call ends with an error that names the address."""
NOWHERE = "/dev/null"
"""No folder: nobody, root neither, can write below it."""
JOB = {"service": "openai", "id": "batch_1", "conn_id": "openai_default"}
REQUEST = {
    "index_name": "docs",
    "field_map": {"text": "$.text", "_id": "$.id"},
    "data_source": {"type": "file", "source": ["/nowhere/in.jsonl"]},
}
ESTIMATE = CostEstimate.of(
    Workload(input=9, output=0, requests=1, bytes=9, parts=1, model="m", counted="by hand"), PriceTable.shipped()
).model_dump(mode="json")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "AzureIngestionJobOperator": {},
    "BatchJobSensor": {"job": JOB, "poke_interval": 0.01, "timeout": 0.0},
    "CancelBatchJobOperator": {"job": JOB},
    "ChunkDocumentsOperator": {"documents": "/nowhere/in.jsonl", "target": f"{NOWHERE}/out"},
    "CleanWorkFolderOperator": {"work_uri": "s3://b/work"},
    "CostApprovalOperator": {"estimate": ESTIMATE},
    "CutShardsOperator": {"request": REQUEST},
    "ListTransformInputsOperator": {"input_uri": "s3://b/in/", "output_uri": "s3://b/out"},
    "LlamaCloudBatchOperator": {
        "job_type": "parse_v2",
        "configuration_id": "c",
        "sources": "/nowhere/*.pdf",
        "results_uri": f"{NOWHERE}/results",
    },
    "LlamaCloudCleanupOperator": {"job": {"ref": {**JOB, "service": "llamacloud"}}},
    "LlamaCloudResultsOperator": {"job": {**JOB, "service": "llamacloud"}, "results_uri": f"{NOWHERE}/results"},
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
        "target": f"{NOWHERE}/out",
        "template": {"endpoint": "/v1/embeddings", "model": "m", "input": "$.text"},
    },
    "OpenAIBatchOperator": {"input_file_id": "file-1", "endpoint": "/v1/embeddings"},
    "OpenAIBatchResultsOperator": {"job": JOB, "target": f"{NOWHERE}/out"},
    "OpenAICleanupOperator": {"job": {"ref": JOB}},
    "OpenSearchCreateIndexOperator": {"index_name": "docs"},
    "OpenSearchLoadOperator": {"request": REQUEST},
    "OpenSearchMirrorOperator": {"index_name": "docs", "documents": "/nowhere/in.jsonl"},
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
                # A decorator's operator is given its arguments by the call of the function: test_openai_decorator.
                is_ours = kind.__module__ == module.__name__ and name[0] != "_"
                if is_ours and not issubclass(kind, DecoratedOperator):
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
    pause = asyncio.sleep
    monkeypatch.setattr("asyncio.sleep", lambda seconds: pause(0))
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


NOT_TEXT: tuple[Any, ...] = (
    None,
    [],
    {},
    [None],
    [["a"]],
    {"a": None},
    {1: 2},
    -1,
    10**400,
    float("nan"),
    float("inf"),
    True,
    b"bytes",
    "\ud800",
    "a\x00b",
    "[" * 5_000,
    {**JOB, "version": 99},
    {"ref": JOB, "results": {"ref": JOB, "files": [{"kind": "output", "uri": None}]}},
)
"""What XComs of other tasks, and templates that are rendered as native objects, make of a parameter."""


def is_raw(task: BaseOperator, task_run: Any) -> str | None:
    """Return what is wrong with the exception of a task, if it is none that names a remedy."""
    try:
        task.execute(task_run.context)
    except (AirflowException, OvernightError, TaskDeferred) as error:
        return None if len(str(error)) < 10_000 else f"{len(str(error))} characters"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]!a}"
    return None


TRANSFORM_STEPS = ("ListTransformInputsOperator", "PlanTransformLoadsOperator")
"""They call S3 with whatever is a text."""
# What all job operators inherit is read in one place, and tried with one of them.
TYPED = [
    (name, field)
    for name, field in FIELDS
    if name not in TRANSFORM_STEPS
    and (
        name == "OpenAIBatchOperator"
        or field not in JobOperator.template_fields
        or not issubclass(OPERATORS[name], JobOperator)
    )
]


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(("name", "field"), TYPED, ids=[f"{name}.{field}" for name, field in TYPED])
def test_a_value_of_another_type_is_refused_or_read(task_run: Any, name: str, field: str) -> None:
    raw = []
    for value in NOT_TEXT:
        task = OPERATORS[name](task_id="t", **ARGUMENTS[name])
        setattr(task, field, value)
        if (what := is_raw(task, task_run)) is not None:
            raw.append(f"{ascii(value)[:40]}: {what}")
    assert raw == []


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("name", TRANSFORM_STEPS)
@pytest.mark.parametrize("field", ["input_uri", "output_uri"])
@pytest.mark.parametrize("value", [None, 3, [], {}, ["s3://b/"], b"s3://b/"], ids=str)
def test_a_transforms_step_refuses_what_is_no_address(task_run: Any, name: str, field: str, value: Any) -> None:
    task = OPERATORS[name](task_id="t", **ARGUMENTS[name])
    setattr(task, field, value)
    with pytest.raises(AirflowFailException, match=f"{field}=.* is not a text"):
        task.execute(task_run.context)


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("name", "field"), [("PlanTransformLoadsOperator", "files_per_load"), ("CutShardsOperator", "shard_bytes")]
)
@pytest.mark.parametrize("value", [None, 0, "many", [], float("nan"), float("inf")], ids=str)
def test_a_size_that_is_no_count_is_refused(task_run: Any, name: str, field: str, value: Any) -> None:
    task = OPERATORS[name](task_id="t", **ARGUMENTS[name])
    setattr(task, field, value)
    with pytest.raises(AirflowFailException, match=f"{field}=.* is no whole number"):
        task.execute(task_run.context)


RESULTS = {"ref": JOB, "files": [{"kind": "output", "uri": "/nowhere/out.jsonl"}]}
SOURCES: dict[str, Any] = {
    "none": None,
    "a number": 3,
    "a text": "/nowhere/in.jsonl",
    "a mapping": {"a": 1},
    "a job without a reference": [{"results": RESULTS}],
    "a job whose reference is null": [{"ref": None, "results": RESULTS}],
    "a job whose service is a list": [{"ref": {"service": []}, "results": RESULTS}],
    "a job that has not ended": [{"ref": JOB, "results": None}],
    "the result of another operator": [{"index": "docs", "dimensions": {}}],
}


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("name", ["OpenSearchLoadOperator", "MLCommonsBatchIngestOperator", "CutShardsOperator"])
def test_a_source_of_another_kind_is_refused_or_read(task_run: Any, name: str, source: Any) -> None:
    request = {**REQUEST, "data_source": {"type": "file", "source": source}}
    assert is_raw(OPERATORS[name](task_id="t", request=request), task_run) is None


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("event", [None, [], {}, {"context": None}, {"context": {}}, {"context": JOB, "end": "later"}])
@pytest.mark.parametrize("name", ["OpenAIBatchOperator", "BatchJobSensor"])
def test_an_event_that_cannot_be_read_is_named(task_run: Any, name: str, event: Any) -> None:
    task: Any = OPERATORS[name](task_id="t", **ARGUMENTS[name])
    with pytest.raises((AirflowException, OvernightError)):
        task.execute_complete(task_run.context, event)


def test_good_parameters_pass() -> None:
    for name, kind in OPERATORS.items():
        check_parameters(kind(task_id="t", **ARGUMENTS[name]))


@pytest.mark.parametrize("documents", ["a", "", ["a", "b"], ("a",), {"results": {}}])
def test_texts_lists_and_mappings_pass_where_they_may_be(documents: Any) -> None:
    kind = OPERATORS["ChunkDocumentsOperator"]
    check_parameters(kind(task_id="t", documents=documents, target="é", config={"a": {"b": ["é"]}}))
