from __future__ import annotations

import gzip
import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from overnight.errors import (
    DeadlineExceededError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    SpecError,
    UnsupportedError,
)
from overnight.jobs import FailureCause, JobKey, JobRecord, JobState
from overnight.jobs.client import JobClient
from overnight.operators.job import RECORD
from overnight.operators.ml_commons_ingest import MLCommonsBatchIngestOperator
from overnight.services.ml_commons.answers import ask
from overnight.services.ml_commons.ingest.service import MLCommonsIngestService
from overnight.services.ml_commons.ingest.spec import MLCommonsIngestSpec
from overnight.transport.http import HttpCall
from patience import PATIENCE

from .conftest import Cluster, TaskRun, wait

LINES = [{"id": f"d{n}", "text": f"text {n}", "v": [n + 0.25, 0.5]} for n in range(5)]
FIELD_MAP = {"_id": "$.id", "text": "$.text", "vector": "$.v"}
DOCUMENTS = {line["id"]: {"text": line["text"], "vector": line["v"]} for line in LINES}


def _request(index: str, *sources: str, **fields: Any) -> dict[str, Any]:
    # The documented request; its credential comes from the connections.
    data_source = {"type": "s3", "source": list(sources)}
    return {"index_name": index, "field_map": FIELD_MAP, "data_source": data_source, **fields}


def _spec(index: str, *sources: str, **fields: Any) -> MLCommonsIngestSpec:
    values: dict[str, Any] = {"index_name": index, "field_map": FIELD_MAP, "source_type": "s3", "sources": sources}
    return MLCommonsIngestSpec(**{**values, **fields})


def _ingest(cluster: Cluster, task_run: TaskRun, **parameters: Any) -> dict[str, Any]:
    operator = MLCommonsBatchIngestOperator(task_id="ingest", poll_interval=0.2, **parameters)
    return operator.execute(task_run.context)


@pytest.mark.parametrize("engine", ["server", "client", "auto"])
def test_the_documented_request_gives_the_same_documents_on_every_engine(
    cluster: Cluster, task_run: TaskRun, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    index, uri = cluster.index(), cluster.put("in.jsonl", LINES)
    with caplog.at_level(logging.INFO):
        outcome = _ingest(cluster, task_run, request=_request(index, uri), engine=engine)
    assert outcome["engine"] == ("client" if engine == "client" else "server")
    assert cluster.documents(index) == DOCUMENTS
    if engine != "client":
        assert outcome["status"]["state"] == "succeeded"


def test_temporary_keys_are_swapped_with_the_region(cluster: Cluster, task_run: TaskRun, connect: Any) -> None:
    extra = {"endpoint_url": str(cluster.s3.meta.endpoint_url), "region_name": "us-east-1", "aws_session_token": "tok"}
    connect("aws_sts", conn_type="aws", login="sandbox", password="sandbox", extra=extra)
    index, uri = cluster.index(), cluster.put("in.jsonl", LINES)
    outcome = _ingest(cluster, task_run, request=_request(index, uri), engine="server", aws_conn_id="aws_sts")
    assert outcome["status"]["state"] == "succeeded"
    assert cluster.documents(index) == DOCUMENTS


def test_a_fresh_cluster_is_cured(cluster: Cluster, ingestion: JobClient[MLCommonsIngestService], key: JobKey) -> None:
    before = cluster.models()
    cluster.http.delete("/.plugins-ml-task", params={"ignore_unavailable": "true"}).raise_for_status()
    index, uri = cluster.index(), cluster.put("in.jsonl", LINES)
    ref = ingestion.run(ingestion.service.submit(_spec(index, uri), key))
    assert wait(ingestion, ref).state is JobState.SUCCEEDED
    assert cluster.documents(index) == DOCUMENTS
    # The cure leaves no model behind.
    assert cluster.models() == before


def test_several_s3_sources_go_to_the_client_by_themselves(
    cluster: Cluster, task_run: TaskRun, caplog: pytest.LogCaptureFixture
) -> None:
    index = cluster.index()
    one = cluster.put("one.jsonl", [{"id": "a", "text": "t"}])
    two = cluster.put("two.jsonl", [{"id": "a", "v": [1]}])
    request = _request(index, one, two)
    request["field_map"] = {
        "_id": ["source[0].$.id", "source[1].$.id"],
        "text": "source[0].$.text",
        "vector": "source[1].$.v",
    }
    with pytest.raises(AirflowFailException, match=r"Connection pool shut down.*engine='client'"):
        _ingest(cluster, task_run, request=request, engine="server")
    with caplog.at_level(logging.INFO):
        outcome = _ingest(cluster, task_run, request=request)
    assert outcome["engine"] == "client"
    assert cluster.documents(index) == {"a": {"text": "t", "vector": [1]}}


@pytest.mark.parametrize(("name", "reason"), [("gzip", "is gzip"), ("mark", "byte order mark"), ("size", "at a time")])
def test_a_file_that_the_server_would_fail_at_goes_to_the_client(
    cluster: Cluster,
    task_run: TaskRun,
    name: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index, uri = cluster.index(), cluster.put("in.jsonl", LINES)
    content = b"".join(json.dumps(line).encode() + b"\n" for line in LINES)
    if name == "size":
        monkeypatch.setattr("overnight.services.ml_commons.ingest.engine._SHARE", 1e-7)
    else:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        body = gzip.compress(content) if name == "gzip" else b"\xef\xbb\xbf" + content
        cluster.s3.put_object(Bucket=bucket, Key=key, Body=body)
    with pytest.raises(AirflowFailException, match=reason):
        _ingest(cluster, task_run, request=_request(index, uri), engine="server")
    outcome = _ingest(cluster, task_run, request=_request(index, uri))
    assert outcome["engine"] == "client"
    assert cluster.documents(index) == DOCUMENTS


def test_an_option_that_only_the_client_has_goes_to_the_client(cluster: Cluster, task_run: TaskRun) -> None:
    index, uri = cluster.index(), cluster.put("in.jsonl", LINES)
    outcome = _ingest(cluster, task_run, request=_request(index, uri), options={"bulk_bytes": 10_000})
    assert outcome["engine"] == "client"
    assert outcome["report"]["indexed"] == len(LINES)


def test_a_missing_index_is_refused_before_the_server_makes_it(
    cluster: Cluster, ingestion: JobClient[MLCommonsIngestService], key: JobKey
) -> None:
    uri = cluster.put("in.jsonl", LINES)
    with pytest.raises(SpecError, match=r"does not exist.*mapping first"):
        ingestion.run(ingestion.service.submit(_spec("nowhere-at-all", uri), key))
    assert cluster.http.head("/nowhere-at-all").status_code == 404


def test_credentials_in_dag_code_are_refused_and_not_repeated(cluster: Cluster, task_run: TaskRun) -> None:
    index, uri = cluster.index(), cluster.put("in.jsonl", LINES)
    request = _request(index, uri, credential={"access_key": "AKIASECRETSECRET", "secret_key": "sssecrettt"})
    with pytest.raises(AirflowFailException) as refusal:
        _ingest(cluster, task_run, request=request)
    assert "Airflow connections" in str(refusal.value)
    assert "SECRET" not in str(refusal.value)
    assert "sssecrettt" not in str(refusal.value)


def test_a_running_ingestion_cannot_be_cancelled_and_says_what_is_left(
    cluster: Cluster, ingestion: JobClient[MLCommonsIngestService], key: JobKey
) -> None:
    cluster.set(batch_ingestion_bulk_size=100)
    index, uri = cluster.index(), cluster.put("in.jsonl", [{**LINES[0], "id": f"d{n}"} for n in range(8_000)])
    ref = ingestion.run(ingestion.service.submit(_spec(index, uri), key))
    with pytest.raises(UnsupportedError, match="stays in the index"):
        ingestion.run(ingestion.service.cancel(ref))
    # The server's own refusal is the same.
    with pytest.raises(UnsupportedError, match="Only batch predictions"):
        ingestion.run(ask(HttpCall("POST", f"_plugins/_ml/tasks/{ref.id}/_cancel")))
    wait(ingestion, ref)
    assert ingestion.run(ingestion.service.cancel(ref)).state.is_terminal


def test_an_unrecorded_ingestion_is_waited_for_and_then_written_again(
    cluster: Cluster,
    task_run: TaskRun,
    ingestion: JobClient[MLCommonsIngestService],
    key: JobKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("overnight.services.ml_commons.ingest.service.SETTLE_INTERVAL", 0.5)
    cluster.set(batch_ingestion_bulk_size=100)
    lines = [{**LINES[0], "id": f"d{n}"} for n in range(5_000)]
    index, uri = cluster.index(), cluster.put("in.jsonl", lines)
    intent = JobRecord.intent(key.model_copy(update={"fingerprint": "0123456789abcdef"}))
    task_run.store.set(RECORD, intent.model_dump(mode="json"))
    orphan = ingestion.run(ingestion.service.submit(_spec(index, uri), key))
    outcome = _ingest(cluster, task_run, request=_request(index, uri), engine="server")
    assert outcome["ref"]["id"] != orphan.id
    assert len(cluster.documents(index)) == 5_000
    # Were both at it at once, one would have failed of version conflicts.
    first, second = (next(t for t in cluster.tasks("BATCH_INGEST") if t["task_id"] == i)
                     for i in (orphan.id, outcome["ref"]["id"]))  # fmt: skip
    assert first["last_update_time"] <= second["create_time"]
    assert first["state"] == second["state"] == "COMPLETED"


def test_without_ids_an_unrecorded_ingestion_is_not_doubled(
    cluster: Cluster, ingestion: JobClient[MLCommonsIngestService], key: JobKey
) -> None:
    index, uri = cluster.index(), cluster.put("in.jsonl", LINES)
    spec = _spec(index, uri, field_map={"text": "$.text"})
    began = datetime.now(UTC)
    wait(ingestion, ingestion.run(ingestion.service.submit(spec, key)))
    ingestion.service.doubtful_since = began
    with pytest.raises(SpecError, match="double"):
        ingestion.run(ingestion.service.submit(spec, key))
    assert len(cluster.documents(index)) == len(LINES)


def test_a_retry_attaches_to_the_running_ingestion(cluster: Cluster, task_run: TaskRun) -> None:
    index, uri = cluster.index(), cluster.put("in.jsonl", LINES)
    before = {task["task_id"] for task in cluster.tasks("BATCH_INGEST")}
    operator = MLCommonsBatchIngestOperator(
        task_id="ingest", request=_request(index, uri), engine="server", poll_interval=0.2
    )
    with operator.make_client() as client:
        attempt = operator.begin_attempt(task_run.context, client, operator.parse_settings())
        record = attempt.attach_or_submit(operator.build_spec(task_run.context))
    outcome = operator.execute(task_run.context)
    assert outcome["ref"]["id"] == record.job.id
    assert {task["task_id"] for task in cluster.tasks("BATCH_INGEST")} - before == {record.job.id}


def test_an_ingestion_that_misses_its_deadline_runs_on_and_is_attached_to(cluster: Cluster, task_run: TaskRun) -> None:
    cluster.set(batch_ingestion_bulk_size=100)
    index, uri = cluster.index(), cluster.put("in.jsonl", [{**LINES[0], "id": f"d{n}"} for n in range(8_000)])
    request = _request(index, uri)
    with pytest.raises(DeadlineExceededError, match="stays in the index"):
        _ingest(cluster, task_run, request=request, engine="server", deadline=0.1)
    running = task_run.store.values[RECORD]["ref"]["id"]
    outcome = _ingest(cluster, task_run, request=request, engine="server", deadline=PATIENCE)
    assert outcome["ref"]["id"] == running
    assert len(cluster.documents(index)) == 8_000


FAILURES = {
    "no bucket": ({"sources": ("s3://no-such-bucket-here/x.jsonl",)}, FailureCause.INPUT),
    "no key": ({"sources": ("s3://{bucket}/nothing.jsonl",)}, FailureCause.INPUT),
    "path": ({"field_map": {"_id": "$.id", "text": "$.nope"}}, FailureCause.INPUT),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_ingestion_says_who_can_mend_it(
    cluster: Cluster, ingestion: JobClient[MLCommonsIngestService], key: JobKey, name: str
) -> None:
    fields, cause = FAILURES[name]
    index, uri = cluster.index(), cluster.put("in.jsonl", LINES)
    sources = tuple(source.format(bucket=cluster.bucket) for source in fields.get("sources", (uri,)))
    spec = _spec(index, *sources, **{k: v for k, v in fields.items() if k != "sources"})
    status = wait(ingestion, ingestion.run(ingestion.service.submit(spec, key)))
    assert (status.state, status.cause) == (JobState.FAILED, cause), status.describe()


def test_a_line_that_is_not_json_fails_the_ingestion_for_its_input(
    cluster: Cluster, ingestion: JobClient[MLCommonsIngestService], key: JobKey
) -> None:
    index, uri = cluster.index(), cluster.put("in.jsonl", [LINES[0], "{broken", LINES[1]])
    status = wait(ingestion, ingestion.run(ingestion.service.submit(_spec(index, uri), key)))
    assert (status.state, status.cause) == (JobState.FAILED, FailureCause.INPUT), status.describe()


ENDPOINT = "_plugins/_ml/_batch_ingestion"
GOOD = {"index_name": "i", "field_map": {"a": "$.a"}, "data_source": {"type": "s3", "source": ["s3://b/k"]}}
MALFORMED: dict[str, Any] = {
    "no index_name": {k: v for k, v in GOOD.items() if k != "index_name"},
    "no data_source": {k: v for k, v in GOOD.items() if k != "data_source"},
    "no type": {**GOOD, "data_source": {"source": ["s3://b/k"]}},
    "no source": {**GOOD, "data_source": {"type": "s3"}},
    "bad S3 URI": {**GOOD, "data_source": {"type": "s3", "source": ["b/k"]}},
    "ingest_fields null": {**GOOD, "ingest_fields": None},
    "source as a string": {**GOOD, "data_source": {"type": "s3", "source": "s3://b/k"}},
    "credential null": {**GOOD, "credential": {"access_key": None}},
    "empty body": None,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_every_malformed_request_is_refused_with_a_remedy_whatever_the_status(
    cluster: Cluster, ingestion: JobClient[MLCommonsIngestService], name: str
) -> None:
    # The package's own models let none of these pass; this is what a server's refusal reads like.
    with pytest.raises(RequestRefusedError, match="The request is malformed: index_name"):
        ingestion.run(ask(HttpCall("POST", ENDPOINT, json=MALFORMED[name])))


def test_a_feature_that_is_off_names_its_setting_and_is_not_an_outage(
    cluster: Cluster, ingestion: JobClient[MLCommonsIngestService], key: JobKey
) -> None:
    cluster.set(offline_batch_ingestion_enabled=False)
    with pytest.raises(RequestRefusedError, match=r"plugins.ml_commons.offline_batch_ingestion_enabled"):
        ingestion.run(ingestion.service.submit(_spec(cluster.index(), cluster.put("k", LINES)), key))


def test_too_many_tasks_are_a_matter_of_time(cluster: Cluster, key: JobKey, monkeypatch: pytest.MonkeyPatch) -> None:
    from overnight.hooks.ml_commons import MLCommonsIngestHook
    from overnight.hooks.opensearch import OpenSearchHook
    from overnight.services.ml_commons.connection import transport

    cluster.set(max_batch_ingestion_tasks=0)
    service = MLCommonsIngestHook().service(OpenSearchHook().get_config())
    with (
        transport(OpenSearchHook().get_config(), attempts=1) as plugin,
        pytest.raises(RateLimitedError, match="max_batch_ingestion_tasks") as error,
    ):
        plugin.run(service.submit(_spec(cluster.index(), cluster.put("k", LINES)), key))
    assert error.value.retryable


def test_an_unknown_task_is_not_found(cluster: Cluster, ingestion: JobClient[MLCommonsIngestService]) -> None:
    with pytest.raises(NotFoundError):
        ingestion.run(ingestion.service.status(ingestion.service.ref("nothing-of-this-id")))


def test_the_connection_can_be_tried(cluster: Cluster) -> None:
    from overnight.hooks.ml_commons import MLCommonsIngestHook
    from overnight.hooks.opensearch import OpenSearchHook

    assert MLCommonsIngestHook().test_connection() == (True, "ML Commons answers.")
    assert OpenSearchHook().test_connection() == (True, "OpenSearch 2.19.6 answers.")


def test_opensearch_3_goes_to_the_client_and_says_why(
    opensearch3_url: str, cluster: Cluster, task_run: TaskRun, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import httpx

    connect("os3", conn_type="opensearch", host=opensearch3_url)
    index, uri = f"os3-{cluster.bucket}", cluster.put("in.jsonl", LINES)
    with httpx.Client(base_url=opensearch3_url) as http:
        http.put(f"/{index}").raise_for_status()
        request = _request(index, uri)
        with pytest.raises(AirflowFailException, match=r"OpenSearch 3.0 removed it.*engine='client' or 'auto'"):
            _ingest(cluster, task_run, request=request, engine="server", conn_id="os3")
        outcome = _ingest(cluster, task_run, request=request, conn_id="os3")
        assert outcome["engine"] == "client"
        http.post(f"/{index}/_refresh")
        hits = http.get(f"/{index}/_search").json()["hits"]["hits"]
        assert {hit["_id"]: hit["_source"] for hit in hits} == DOCUMENTS
        http.delete(f"/{index}")
