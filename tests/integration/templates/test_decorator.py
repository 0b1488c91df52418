"""The DAG that docs/openai.md shows of a function, in a real Airflow, against the emulator."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from overnight.sandbox.airflow import Airflow
from unit.ingest.fake_opensearch import FakeOpenSearch

PAGE = Path(__file__).parents[3] / "docs" / "openai.md"


@pytest.fixture
def opensearch() -> Iterator[FakeOpenSearch]:
    fake = FakeOpenSearch()
    fake.create("reviews", {"label": {"type": "keyword"}})
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.server.shutdown()
        fake.server.server_close()
        thread.join()


def test_the_dag_of_the_page_runs(
    opensearch: FakeOpenSearch, openai_url: str, tmp_path: Path, migrated_airflow: Airflow
) -> None:
    httpx.put(openai_url.removesuffix("/v1") + "/_sandbox/faults", json={}).raise_for_status()
    (block,) = (one for one in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "def reviews" in one)
    for name in ("dags", "reviews"):
        (tmp_path / name).mkdir()
    text = block.replace("s3://overnight/reviews/{{ ds }}/", f"{tmp_path}/reviews/").replace(
        "s3://overnight", str(tmp_path)
    )
    # The operator polls every minute, which is long for a test.
    (tmp_path / "dags" / "reviews.py").write_text(text.replace("deferrable=True", "deferrable=True, poll_interval=0.2"))
    texts = {f"d{number}": f"{'good' if number % 2 else 'bad'} thing {number}" for number in range(20)}
    lines = [json.dumps({"id": name, "text": words}) + "\n" for name, words in texts.items()]
    (tmp_path / "reviews" / "a.jsonl").write_text("".join(lines))
    connections = {
        "OPENSEARCH": {"conn_type": "overnight_opensearch", "host": opensearch.url},
        "OPENAI": {"conn_type": "overnight_openai", "host": openai_url, "password": "sandbox"},
        "AWS": {"conn_type": "aws", "login": "k", "password": "s"},
    }
    variables = {f"AIRFLOW_CONN_{name}_DEFAULT": json.dumps(value) for name, value in connections.items()}
    airflow = replace(migrated_airflow.copy(tmp_path / "home"), dags=tmp_path / "dags", variables=variables)
    log = tmp_path / "log"
    run = airflow.run_dag("reviews", {}, xcoms={"ask": "return_value"}, log=log)
    assert run.state == "success", log.read_text()
    (part,) = run.xcoms["ask"]
    assert part["requests"] == len(texts)
    found = opensearch.documents
    assert found.keys() == texts.keys()
    for name, words in texts.items():
        assert (found[name]["text"], found[name]["label"]) == (words, words.split()[0])
        assert found[name]["reason"]
