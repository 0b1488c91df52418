"""Each service lists the jobs that bear a name of ours, and no others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from job_fakes import drive
from overnight.errors import UnsupportedError
from overnight.jobs import JobKey, JobState
from overnight.jobs.service import Service
from overnight.services.llamacloud.service import LlamaCloudService
from overnight.services.llamacloud.spec import part_name
from overnight.services.ml_commons.predict.service import MLCommonsPredictService
from overnight.services.openai.service import OpenAIBatchService
from overnight.services.sagemaker.service import SageMakerTransformService
from unit.services.azure_ingestion.test_answers import SERVICE as AZURE
from unit.services.ml_commons.test_answers import INGEST

KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
CREATED = datetime(2026, 11, 27, 12, tzinfo=UTC)
SECONDS = int(CREATED.timestamp())


def answer_openai(_: Any) -> Any:
    ours = {"overnight_name": KEY.name, "overnight_dag": "d", "overnight_task": "t", "overnight_run": "r"}
    batches = [("batch_1", ours), ("batch_2", {"overnight_name": "theirs"}), ("batch_3", None)]
    listed = [{"id": one, "status": "in_progress", "created_at": SECONDS, "metadata": m} for one, m in batches]
    return {"data": listed, "has_more": False}


def answer_sagemaker(_: Any) -> Any:
    names = (KEY.name, "overnight-of-somebody")
    facts = {"TransformJobStatus": "InProgress", "CreationTime": CREATED, "TransformJobArn": "arn"}
    return {"TransformJobSummaries": [{"TransformJobName": name, **facts} for name in names]}


def answer_azure(_: Any) -> Any:
    return {"value": [{"id": KEY.name, "status": "running"}, {"id": "theirs", "status": "running"}]}


def answer_ml_commons(_: Any) -> Any:
    def hit(number: int, name: str) -> dict[str, Any]:
        remote = {"TransformJobName": name, "TransformJobStatus": "InProgress"}
        task = {
            "state": "RUNNING",
            "task_type": "BATCH_PREDICTION",
            "create_time": SECONDS * 1000,
            "remote_job": remote,
        }
        return {"_id": f"task-{number}", "_source": task, "sort": [number]}

    return {"hits": {"hits": [hit(1, KEY.name), hit(2, "theirs")]}}


def answer_llamacloud(call: Any) -> Any:
    if "director" in call.path:
        names = {"dir-1": part_name(KEY, 1, 2), "dir-2": part_name(KEY, 2, 2), "dir-3": "theirs"}
        return {"items": [{"id": one, "name": name} for one, name in names.items()]}
    facts = {"status": "RUNNING", "created_at": CREATED.isoformat()}
    return {"items": [{"id": f"bat-{n}", "source_directory_id": f"dir-{n}", **facts} for n in (1, 2, 3)]}


@pytest.mark.parametrize(
    ("service", "answer", "job_id", "created_at"),
    [
        (OpenAIBatchService("c"), answer_openai, "batch_1", CREATED),
        (SageMakerTransformService("c"), answer_sagemaker, KEY.name, CREATED),
        (AZURE, answer_azure, KEY.name, None),
        (MLCommonsPredictService("c"), answer_ml_commons, "task-1", CREATED),
        (LlamaCloudService("c"), answer_llamacloud, "bat-1+bat-2", CREATED),
    ],
    ids=["openai", "sagemaker", "azure_ingestion", "ml_commons_predict", "llamacloud"],
)
def test_the_jobs_of_ours_are_listed(
    service: Service[Any], answer: Callable[[Any], Any], job_id: str, created_at: datetime | None
) -> None:
    (job,) = drive(service.list_own(datetime(2026, 11, 26, tzinfo=UTC)), answer)
    assert (job.ref, job.name, job.created_at) == (service.ref(job_id), KEY.name, created_at)
    assert job.status.state is JobState.RUNNING
    assert job.task == ("d / t / r" if service.name == "openai" else "")


def test_a_service_whose_jobs_bear_no_name_says_so() -> None:
    with pytest.raises(UnsupportedError, match="does not tell whose"):
        drive(INGEST.list_own(CREATED))
