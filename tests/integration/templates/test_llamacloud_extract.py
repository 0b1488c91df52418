"""Fields that LlamaCloud extracts, by the template, in a real Airflow: into the index with their confidence."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from overnight.sandbox.airflow import Airflow
from overnight.sandbox.emulator.launch import launch
from overnight.sandbox.process import free_port, start, wait_ready
from unit.ingest.fake_opensearch import FakeOpenSearch

DAGS = """
# The word airflow makes this a file of DAGs.
from overnight.templates.llamacloud_extract_to_index import LlamaCloudExtractToIndexConfig, llamacloud_extract_to_index

schema = {{
    "type": "object",
    "properties": {{"invoice_number": {{"type": "integer"}}, "issued": {{"type": "string", "format": "date"}}}},
}}
dag = llamacloud_extract_to_index(
    "invoices",
    LlamaCloudExtractToIndexConfig(
        sources="{folder}/invoices/",
        work_uri="{folder}/work",
        index_name="invoices",
        output_schema=schema,
        extract_options={{"cite_sources": True, "confidence_scores": True}},
        allowed_failures=1,
        poll_seconds=0.2,
        cleanup="delete",
    ),
)
"""
COUNT = 5


@pytest.fixture
def opensearch() -> Iterator[FakeOpenSearch]:
    fake = FakeOpenSearch()
    fake.create("invoices")
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.server.shutdown()
        fake.server.server_close()
        thread.join()


@pytest.fixture
def llamacloud(tmp_path: Path) -> Iterator[str]:
    starting = launch("llamacloud", tmp_path / "emulator", free_port())
    process = start(starting)
    try:
        wait_ready(starting, process)
        yield starting.url
    finally:
        process.stop()


def test_the_fields_of_every_file_are_in_the_index_and_an_empty_day_is_one(
    opensearch: FakeOpenSearch, llamacloud: str, tmp_path: Path, migrated_airflow: Airflow
) -> None:
    for name in ("dags", "invoices", "none"):
        (tmp_path / name).mkdir()
    (tmp_path / "dags" / "invoices.py").write_text(DAGS.format(folder=tmp_path))
    for number in range(COUNT):
        text = f"Invoice number: {number}\n" + (f"Issued: 2026-11-0{number}\n" if number else "")
        (tmp_path / "invoices" / f"{number}.txt").write_text(text)
    (tmp_path / "invoices" / "image.bin").write_bytes(b"\x00\x01")
    connections = {
        "OPENSEARCH": {"conn_type": "overnight_opensearch", "host": opensearch.url},
        "LLAMACLOUD": {"conn_type": "overnight_llamacloud", "host": llamacloud, "password": "sandbox"},
        "AWS": {"conn_type": "aws", "login": "k", "password": "s"},
    }
    variables = {f"AIRFLOW_CONN_{name}_DEFAULT": json.dumps(value) for name, value in connections.items()}
    airflow = replace(migrated_airflow.copy(tmp_path / "home"), dags=tmp_path / "dags", variables=variables)
    log = tmp_path / "log"
    wanted = {"report": "report", "cleanup": "return_value"}
    run = airflow.run_dag("invoices", {}, xcoms=wanted, log=log)
    assert run.state == "success", log.read_text()
    counts = {name: run.xcoms["report"][name] for name in ("submitted", "indexed", "rejected", "missing")}
    assert counts == {"submitted": COUNT + 1, "indexed": COUNT, "rejected": 1, "missing": 0}
    assert (len(run.xcoms["cleanup"]["deleted"]), run.xcoms["cleanup"]["kept"]) == (COUNT + 1, [])
    found = {document["file.name"]: document for document in opensearch.documents.values()}
    assert found.keys() == {f"{number}.txt" for number in range(COUNT)}
    for number in range(COUNT):
        document = found[f"{number}.txt"]
        assert document["invoice_number"] == number
        assert document.get("issued") == (f"2026-11-0{number}" if number else None)
        described = document["field_metadata"]["invoice_number"]
        assert described["citation"] == [{"page": 1, "matching_text": f"Invoice number: {number}"}]
        assert 0 < described["confidence"] <= 1
        assert ("issued" in document["field_metadata"]) is (number > 0)

    empty = airflow.run_dag(
        "invoices", {"sources": f"{tmp_path}/none/", "allow_empty": True}, xcoms={"report": "report"}, log=log
    )
    assert empty.state == "success", log.read_text()
    assert (empty.xcoms["report"]["submitted"], empty.xcoms["report"]["indexed"]) == (0, 0)
