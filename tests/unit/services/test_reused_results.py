"""Whether the results of a job that ended are still there, asked of each service."""

from __future__ import annotations

from typing import Any

import pytest

from job_fakes import drive
from overnight.errors import NotFoundError
from overnight.jobs import JobCounts, JobRef, ResultManifest
from overnight.jobs.service import Service
from overnight.services.azure_ingestion.service import AzureIngestionService
from overnight.services.llamacloud.service import LlamaCloudService
from overnight.services.ml_commons.ingest.service import MLCommonsIngestService
from overnight.services.ml_commons.predict.service import MLCommonsPredictService
from overnight.services.openai.service import OpenAIBatchService
from overnight.services.sagemaker.service import SageMakerTransformService
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall

COUNTING = [
    AzureIngestionService,
    LlamaCloudService,
    MLCommonsIngestService,
    MLCommonsPredictService,
    SageMakerTransformService,
]


@pytest.mark.parametrize("kind", COUNTING)
@pytest.mark.parametrize(
    ("kept", "then", "there"),
    [(5, 5, True), (6, 5, True), (4, 5, False), (0, 5, False), (None, 5, True), (3, None, True)],
)
def test_there_are_as_many_results_as_there_were(
    kind: type[Service[Any]], kept: int | None, then: int | None, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def results(_service: Any, ref: JobRef) -> Flow[ResultManifest]:
        return ResultManifest(ref=ref, counts=JobCounts(succeeded=kept))
        yield

    monkeypatch.setattr(kind, "results", results)
    service = kind.__new__(kind)
    Service.__init__(service, "conn")  # what else one is given is not asked for
    assert drive(service.has_results(service.ref("j"), then)) is there


def ask_openai(batch: dict[str, Any], files: dict[str, Any]) -> bool:
    def answer(call: HttpCall) -> Any:
        assert call.method == "GET"
        if call.path.startswith("batches/"):
            return {"id": "b", "status": "completed", **batch}
        if call.path.removeprefix("files/") in files:
            return {"id": "f"}
        raise NotFoundError("no such file", status=404)

    service = OpenAIBatchService("conn")
    found: bool = drive(service.has_results(service.ref("b"), 5), answer)
    return found


def test_an_output_file_of_openai_is_looked_for() -> None:
    batch = {"output_file_id": "file-o", "error_file_id": "file-e", "input_file_id": "file-i"}
    assert ask_openai(batch, {"file-o": {}})
    with pytest.raises(NotFoundError):
        ask_openai(batch, {"file-i": {}, "file-e": {}})


def test_a_batch_of_openai_with_failures_alone_has_an_error_file() -> None:
    assert ask_openai({"output_file_id": None, "error_file_id": "file-e"}, {"file-e": {}})


@pytest.mark.parametrize("batch", [{}, {"output_file_id": None, "input_file_id": "file-i"}])
def test_a_batch_of_openai_without_files_has_no_results(batch: dict[str, Any]) -> None:
    assert not ask_openai(batch, {})
