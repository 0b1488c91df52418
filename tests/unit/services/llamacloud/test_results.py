from __future__ import annotations

from typing import Any

import orjson
import pytest

from overnight.jobs import JobRef
from overnight.services.llamacloud.results import collect
from overnight.storage import Storage
from unit.services.answers import Service

FIELD = {"total": {"citation": [{"page": 1, "matching_text": "Total: 5"}], "confidence": 0.9}}


def collected(tmp_path: Any, result: Any, metadata: Any) -> dict[str, Any]:
    def good(call: Any) -> Any:
        if "batches" in call.path:
            reference = {"id": "exj-1", "type": "extract_v2"}
            results = [{"source_directory_file_id": "dfl-1", "job_reference": reference, "error_message": None}]
            config = {"job": {"type": "extract_v2", "configuration_id": "cfg-1"}}
            return {
                "id": "bat-1", "status": "COMPLETED", "config": config, "results": results,
                "source_directory_id": "dir-1",
            }  # fmt: skip
        if call.path.endswith("/exj-1"):
            assert call.params == {"expand": ["extract_metadata"]}
            return {"id": "exj-1", "status": "COMPLETED", "extract_result": result, "extract_metadata": metadata}
        if "extract" in call.path:
            return {"items": [{"id": "exj-1", "status": "COMPLETED"}], "next_page_token": None}
        return {"items": [], "next_page_token": None}

    ref = JobRef(service="llamacloud", id="bat-1", conn_id="c")
    manifest = Service(good).run(collect(ref, str(tmp_path), Storage()))
    (uri,) = manifest.uris("output")
    line: dict[str, Any] = orjson.loads(Storage().open(uri).read())
    return line


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"field_metadata": {"document_metadata": FIELD, "page_metadata": None}}, FIELD),
        ({"field_metadata": {"document_metadata": None, "page_metadata": [FIELD]}}, [FIELD]),
        ({"field_metadata": {"row_metadata": [FIELD, {}]}}, [FIELD, {}]),
        # Earlier versions of the API.
        ({"field_metadata": FIELD}, FIELD),
    ],
)
def test_citations_and_confidence_have_one_path_whatever_form_they_come_in(
    tmp_path: Any, metadata: Any, expected: Any
) -> None:
    assert collected(tmp_path, {"total": 5}, metadata)["field_metadata"] == expected


@pytest.mark.parametrize(
    "metadata", [None, {}, "odd", {"field_metadata": None}, {"field_metadata": {"document_metadata": None}}]
)
def test_without_any_the_line_has_the_fields_alone(tmp_path: Any, metadata: Any) -> None:
    line = collected(tmp_path, {"total": 5}, metadata)
    assert line["extracted"] == {"total": 5}
    assert "field_metadata" not in line
