from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from overnight.operators.load import REPORT_KEY, OpenSearchLoadOperator, with_formats
from overnight.operators.ml_commons_ingest import MLCommonsBatchIngestOperator
from overnight.operators.shards import CutShardsOperator
from unit.ingest.fake_opensearch import FakeOpenSearch


@pytest.fixture
def opensearch(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenSearch]:
    fake = FakeOpenSearch()
    fake.create("docs")
    monkeypatch.setenv(
        "AIRFLOW_CONN_OPENSEARCH_DEFAULT", json.dumps({"conn_type": "overnight_opensearch", "host": fake.url})
    )
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.server.shutdown()
        fake.server.server_close()
        thread.join()


class TaskInstance:
    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def request(path: Path, *lines: bytes) -> dict[str, Any]:
    path.write_bytes(b"\n".join(lines))
    source = {"type": "file", "source": [str(path)]}
    return {"index_name": "docs", "field_map": {"_id": "$.id", "text": "$.t"}, "data_source": source}


GOOD, BAD = b'{"id":"a","t":1}', b"broken"
KINDS = [OpenSearchLoadOperator, MLCommonsBatchIngestOperator]


def operator(kind: Any, wanted: dict[str, Any], **changes: Any) -> Any:
    engine = {"engine": "client", "durable": False} if kind is MLCommonsBatchIngestOperator else {}
    return kind(task_id="load", request=wanted, **engine, **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_allowed_to_fail_passes(kind: Any, opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    task = operator(kind, request(tmp_path / "a.jsonl", GOOD, BAD), allowed_failures="50%")
    found = task.execute({"ti": TaskInstance()})
    report = found.get("report", found)
    assert (report["submitted"], report["indexed"], report["rejected"]) == (2, 1, 1)
    assert opensearch.documents == {"a": {"text": 1}}


@pytest.mark.parametrize("kind", KINDS)
def test_more_failures_fail_for_good_and_leave_the_report(
    kind: Any, opensearch: FakeOpenSearch, tmp_path: Path
) -> None:
    ti = TaskInstance()
    with pytest.raises(AirflowFailException, match=r"1 of 2 documents were not indexed .*allowed_failures=0 lets pass"):
        operator(kind, request(tmp_path / "a.jsonl", GOOD, BAD)).execute({"ti": ti})
    assert ti.pushed[REPORT_KEY]["reasons"] == {"invalid_line": 1}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skip", [True, "True"], ids=repr)
def test_unchanged_documents_are_a_number_of_the_xcom(
    kind: Any, skip: Any, opensearch: FakeOpenSearch, tmp_path: Path
) -> None:
    wanted = request(tmp_path / "a.jsonl", GOOD)
    counts = []
    for _ in range(2):
        found = operator(kind, wanted, skip_unchanged=skip).execute({"ti": TaskInstance()})
        report = found.get("report", found)
        counts.append((report["submitted"], report["indexed"], report["unchanged"]))
    assert counts == [(1, 1, 0), (1, 0, 1)]
    assert len(opensearch.bulks) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_truth_value_is_no_skip_unchanged(kind: Any, opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    wanted = request(tmp_path / "a.jsonl", GOOD)
    with pytest.raises(AirflowFailException, match="skip_unchanged='perhaps' is neither true nor false"):
        operator(kind, wanted, skip_unchanged="perhaps").execute({"ti": TaskInstance()})
    with pytest.raises(AirflowFailException, match="skip_unchanged: give it as the operator's own parameter"):
        operator(kind, wanted, options={"skip_unchanged": True}).execute({"ti": TaskInstance()})
    assert opensearch.bulks == []


@pytest.mark.parametrize("kind", KINDS)
def test_options_are_refused_when_they_do_not_fit_or_are_given_twice(
    kind: Any, opensearch: FakeOpenSearch, tmp_path: Path
) -> None:
    wanted = request(tmp_path / "a.jsonl", GOOD)
    for options, text in (({"bulk_bytes": 1}, "bulk_bytes"), ({"allowed_failures": 1}, "operator's own parameter")):
        with pytest.raises(AirflowFailException, match=text):
            operator(kind, wanted, options=options).execute({"ti": TaskInstance()})
    assert opensearch.bulks == []


def test_shards_are_requests_for_mapped_loads(opensearch: FakeOpenSearch, tmp_path: Path) -> None:
    wanted = request(tmp_path / "a.jsonl", *(b'{"id":"d%d","t":%d}' % (n, n) for n in range(10)))
    parts = CutShardsOperator(task_id="cut", request=wanted, shard_bytes=50).execute({})
    assert json.loads(json.dumps(parts)) == parts
    assert len(parts) == 4
    indexed = 0
    for part in parts:
        mapped = OpenSearchLoadOperator(task_id="load", **part, options={"write": "index"})
        indexed += mapped.execute({"ti": TaskInstance()})["indexed"]
    assert indexed == 10
    assert opensearch.documents == {f"d{n}": {"text": n} for n in range(10)}
    assert CutShardsOperator(task_id="cut", request=wanted).execute({}) == [{"request": wanted}]


def test_a_join_is_not_cut(tmp_path: Path) -> None:
    wanted = request(tmp_path / "a.jsonl", GOOD)
    wanted["data_source"]["source"] *= 2
    with pytest.raises(AirflowFailException, match="joins them"):
        CutShardsOperator(task_id="cut", request=wanted).execute({})


def test_the_xcom_of_a_job_says_how_its_lines_are_read() -> None:
    xcom = {
        "ref": {"service": "openai", "id": "batch_1", "conn_id": "openai_default"},
        "status": None,
        "results": {
            "ref": {"service": "openai", "id": "batch_1", "conn_id": "openai_default"},
            "files": [{"kind": "output", "uri": "s3://bucket/out.jsonl"}],
        },
    }
    other = {**xcom, "ref": {**xcom["ref"], "service": "ml_commons_predict"}}
    given = {"data_source": {"source": ["s3://bucket/texts.jsonl", xcom, other]}}
    assert with_formats({"refresh": False}, given) == {"format": [None, "openai", None], "refresh": False}
    assert with_formats({"format": "plain"}, given) == {"format": "plain"}
    assert with_formats(None, {"data_source": {"source": ["s3://bucket/texts.jsonl"]}}) == {}


def test_the_xcom_of_a_job_says_how_many_results_are_in_its_files_at_openai() -> None:
    def xcom(*kinds: str, scheme: str = "openai://", **counts: Any) -> dict[str, Any]:
        ref = {"service": "openai", "id": "batch_1", "conn_id": "openai_default"}
        files = [{"kind": kind, "uri": f"{scheme}{kind}"} for kind in kinds]
        return {"ref": ref, "status": None, "results": {"ref": ref, "files": files, "counts": counts}}

    both = xcom("output", "error", total=5, succeeded=3, failed=1)
    without_error_file = xcom("output", total=5, succeeded=3, failed=1)
    without_output = xcom("error", total=5, succeeded=3, failed=1)
    merged = xcom("output", "error", scheme="s3://b/", total=5, succeeded=3, failed=2)
    uncounted = xcom("output", "error")
    sources = ["s3://b/a.jsonl", both, without_error_file, without_output, merged, uncounted]
    found = with_formats({}, {"data_source": {"source": sources}})
    assert found["result_counts"] == [None, 4, 3, None, None, None]
    assert "result_counts" not in with_formats({"format": "plain"}, {"data_source": {"source": sources}})
