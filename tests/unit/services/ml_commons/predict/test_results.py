from __future__ import annotations

from typing import Any

from overnight.jobs import JobRef
from overnight.services.ml_commons.predict.results import build_result_manifest

REF = JobRef(service="ml_commons_predict", id="t", conn_id="os")


def test_usage_of_an_openai_batch_has_names_that_airflow_shows() -> None:
    usage = {"input_tokens": 7, "output_tokens": 0, "total_tokens": 7, "input_tokens_details": {"cached_tokens": 3}}
    remote: dict[str, Any] = {"object": "batch", "id": "batch_1", "status": "completed", "model": "m", "usage": usage}
    detail = build_result_manifest(REF, {"state": "COMPLETED", "remote_job": remote}).detail
    assert detail["usage"] == {"input": 7, "cached_input": 3, "output": 0, "total": 7}
    assert detail["model"] == "m"
    assert "usage" not in build_result_manifest(REF, {"remote_job": {**remote, "usage": None}}).detail
