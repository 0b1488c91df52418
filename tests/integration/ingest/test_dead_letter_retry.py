"""Documents that a real OpenSearch refused are in the index once it takes them."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from typer.testing import CliRunner

from overnight.cli.app import app
from overnight.ingest import LoadOptions, OpenSearchTarget, load


def test_documents_are_loaded_again_with_their_routing_when_the_mapping_takes_them(
    opensearch_url: str, index_name: str, tmp_path: Path
) -> None:
    index = f"{opensearch_url}/{index_name}"
    mappings = {"dynamic": "strict", "_routing": {"required": True}, "properties": {"text": {"type": "keyword"}}}
    httpx.put(index, json={"mappings": mappings}).raise_for_status()
    lines = ({"id": f"d{n}", "r": f"r{n}", "t": "text", **({"x": {"deep": [n]}} if n % 2 else {})} for n in range(10))
    (tmp_path / "docs.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    request = {
        "index_name": index_name,
        "field_map": {"_id": "$.id", "_routing": "$.r", "text": "$.t", "extra": "$.x"},
        "data_source": {"source": [str(tmp_path / "docs.jsonl")]},
    }
    options = LoadOptions(missing_path="omit", dead_letter_uri=str(tmp_path / "dead.jsonl"))
    with OpenSearchTarget(opensearch_url) as target:
        report = load(request, target=target, options=options)
    assert (report.indexed, report.rejected) == (5, 5)
    (tmp_path / "report.json").write_text(report.model_dump_json())

    arguments = ["dead-letters", "retry", str(tmp_path / "report.json"), "--url", opensearch_url]
    still = CliRunner().invoke(app, arguments)
    assert still.exit_code == 1
    assert "refused again: 5" in still.stdout

    extra = {"properties": {"extra": {"properties": {"deep": {"type": "integer"}}}}}
    httpx.put(f"{index}/_mapping", json=extra).raise_for_status()
    mended = CliRunner().invoke(app, arguments)
    assert mended.exit_code == 0, mended.output
    found = httpx.get(f"{index}/_doc/d3", params={"routing": "r3"}).json()
    assert found["_source"] == {"text": "text", "extra": {"deep": [3]}}
    assert httpx.get(f"{index}/_count").json()["count"] == 10
