"""The S3 and SageMaker pipeline: paid once and complete, whichever worker dies; and repaired file by file."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from .bench.connections import clear_from, counts
from .bench.store import lines
from .conftest import Services
from .sagemaker_runs import BAD, EACH, Pipeline

STEPS = {"configure", "create_index", "list_inputs", "transform", "plan", "load", "mirror", "report", "verify"}


@pytest.fixture(scope="module")
def with_a_bad_record(pipelines: dict[str, Pipeline]) -> Pipeline:
    """The run that has ended with four of its five inputs."""
    pipeline = pipelines["mended"]
    assert pipeline.run.finish() == "success", [(task["task_id"], task["state"]) for task in pipeline.run.tasks()]
    return pipeline


@pytest.fixture(scope="module")
def before(with_a_bad_record: Pipeline, services: Services) -> dict[str, Any]:
    """What was there at that time."""
    report = with_a_bad_record.run.xcom("report")
    return {"report": report, "indexed": services.documents.indexed("mended")}


def test_the_inputs_beside_a_bad_one_are_indexed_and_the_report_names_the_bad_one(
    with_a_bad_record: Pipeline, before: dict[str, Any], services: Services
) -> None:
    total = 5 * EACH
    report = before["report"]
    assert counts(report) == (total, total - EACH, 0, EACH)
    assert report["without_result"] == EACH
    assert report["reasons"] == {"without_result": EACH}
    assert before["indexed"].keys() == with_a_bad_record.documents.keys() - {
        document["id"] for document in with_a_bad_record.inputs[BAD]
    }
    (uri,) = report["dead_letter_uris"]
    assert uri.endswith("/missing.jsonl")
    (named,) = map(orjson.loads, services.documents.read(uri).splitlines())
    assert (named["uri"], named["documents"]) == (f"{with_a_bad_record.store.uri}{BAD}.jsonl", EACH)
    state = with_a_bad_record.run.xcom("transform")["status"]
    assert (state["state"], state["counts"]["succeeded"], state["counts"]["failed"]) == ("partial", 4, 1)


def test_clearing_the_list_of_inputs_transforms_only_the_mended_one_and_completes_the_index(
    with_a_bad_record: Pipeline, before: dict[str, Any], services: Services
) -> None:
    pipeline = with_a_bad_record
    (first,) = pipeline.sagemaker.jobs()
    pipeline.store.put(f"{BAD}.jsonl", lines(pipeline.inputs[BAD]))
    clear_from(pipeline.run, "list_inputs")
    assert pipeline.run.finish() == "success", [(task["task_id"], task["state"]) for task in pipeline.run.tasks()]

    listed = pipeline.run.xcom("list_inputs")
    assert (listed["inputs"], listed["done"], listed["todo"]) == (5, 4, 1)
    prefix, *named = orjson.loads(services.documents.read(listed["manifest"]))
    assert (prefix, named) == ({"prefix": pipeline.store.uri}, [f"{BAD}.jsonl"])
    jobs = pipeline.sagemaker.jobs()
    assert [job["TransformJobName"] for job in jobs[:1]] == [first["TransformJobName"]]
    assert [job["TransformJobStatus"] for job in jobs] == ["Failed", "Completed"]
    assert jobs[1]["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] == listed["manifest"]

    report = pipeline.run.xcom("report")
    assert counts(report) == (5 * EACH, 5 * EACH, 0, 0)
    assert (report["without_result"], report["dead_letter_uris"]) == (0, [])
    indexed = services.documents.indexed("mended")
    assert indexed.keys() == pipeline.documents.keys()
    assert {name: document["module"] for name, document in indexed.items()} == {
        name: document["module"] for name, document in pipeline.documents.items()
    }


def test_a_worker_that_dies_at_any_step_costs_no_second_job_and_no_document(
    pipelines: dict[str, Pipeline], services: Services
) -> None:
    pipeline = pipelines["dying"]
    assert pipeline.run.finish() == "success", [(task["task_id"], task["state"]) for task in pipeline.run.tasks()]
    tries = {(task["task_id"], task["map_index"]): task["try_number"] for task in pipeline.run.tasks()}
    loads = {("load", 0): 2, ("load", 1): 2}
    others = {(step, -1): 3 if step == "transform" else 2 for step in STEPS - {"load"}}
    assert tries == others | loads

    (job,) = pipeline.sagemaker.jobs()
    assert job["TransformJobStatus"] == "Completed"
    assert [call["status"] for call in pipeline.sagemaker.calls("CreateTransformJob")] == [200]
    assert "was created by an earlier try that died before recording it" in pipeline.run.log("transform", 2)

    assert counts(pipeline.run.xcom("report")) == (60, 60, 0, 0)
    indexed = services.documents.indexed("dying")
    assert {name: document["text"] for name, document in indexed.items()} == {
        name: document["text"] for name, document in pipeline.documents.items()
    }
    assert {len(document["embedding"]) for document in indexed.values()} == {384}
