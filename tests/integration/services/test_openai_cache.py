"""The result cache against a service: what a batch did finish is never paid for twice, however it ended."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import orjson
import pytest
from airflow.sdk.exceptions import AirflowFailException

from integration.task_instances import Task, run_all
from overnight.cache import sorted_index
from overnight.operators.openai import REUSED_KEY, OpenAIBatchInputOperator, OpenAIBatchOperator
from overnight.operators.sources import open_stored_answers, to_uris
from overnight.services.openai.input import RequestTemplate
from overnight.storage import Storage

from .conftest import Bench

COUNT = 400
TEMPLATE = RequestTemplate.embeddings("text-embedding-3-small", dimensions=8)


class Pipeline:
    """The steps of a run with a cache, without a load."""

    def __init__(self, bench: Bench, work: str) -> None:
        self.bench = bench
        self.work = work
        self.documents = bench.folder / "documents.jsonl"

    def write(self, texts: dict[str, str]) -> None:
        lines = [orjson.dumps({"id": name, "text": text}) for name, text in texts.items()]
        self.documents.write_bytes(b"\n".join(lines))

    def prepare(self, run: str, **changes: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the parts, and those that are reused."""
        pushed: dict[str, Any] = {}
        given = {"documents": str(self.documents), "target": f"{self.work}/{run}", "cache_uri": f"{self.work}/cache"}
        operator = OpenAIBatchInputOperator(task_id="prepare", template=TEMPLATE, **(given | changes))
        ti = type("", (), {"xcom_push": lambda _, *, key, value: pushed.update({key: value})})()
        parts = operator.execute({"ti": ti})  # type: ignore[typeddict-item]
        return parts, pushed[REUSED_KEY]

    def build_task(self, part: dict[str, Any], run: str, **changes: Any) -> Task:
        given = {"poll_interval": 0.1, "deferrable": True, "cache_uri": f"{self.work}/cache", **changes}
        build: Callable[[], Any] = lambda: OpenAIBatchOperator(  # noqa: E731
            task_id="embed", input_uri=part["uri"], endpoint="/v1/embeddings", **given
        )
        return Task(build, f"{self.work}/{run}")

    def embed(self, part: dict[str, Any], run: str, **changes: Any) -> dict[str, Any]:
        outcome: dict[str, Any] = run_all([self.build_task(part, run, **changes)])[0]
        return outcome

    def count_batches(self) -> int:
        return len(self.bench.requests("POST", "/v1/batches"))


@pytest.fixture
def pipeline(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    connection = {"conn_type": "overnight_openai", "host": bench.url, "password": "sandbox"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps({"conn_type": "aws", "login": "k", "password": "s"}))
    bench.set("limits", input_tokens=100)
    bench.set("pace", validating=0.05)
    pipeline = Pipeline(bench, str(bench.folder / "work"))
    pipeline.write({f"d{number}": f"the text of document {number}" for number in range(COUNT)})
    return pipeline


def test_what_an_expired_batch_and_its_further_rounds_finished_is_kept(bench: Bench, pipeline: Pipeline) -> None:
    (part,), _ = pipeline.prepare("first")
    bench.set("faults", batch_expired=1.0)
    # The further round expires, too: something is left of both.
    outcome = pipeline.embed(part, "first", allowed_failures="99%")
    rounds = outcome["results"]["detail"]["rounds"]
    assert len(rounds) == 2
    succeeded = outcome["status"]["counts"]["succeeded"]
    assert 0 < rounds[0]["succeeded"] < succeeded < COUNT
    bench.set("faults")
    (part,), (reused,) = pipeline.prepare("second")
    assert (part["requests"], reused["documents"]) == (COUNT - succeeded, succeeded)
    pipeline.embed(part, "second")
    assert [found["documents"] for found in pipeline.prepare("third")[1]] == [COUNT]


@pytest.mark.parametrize("allowed", ["50%", "0"])
def test_what_a_partial_batch_finished_is_kept_whether_that_is_a_success_or_not(
    bench: Bench, pipeline: Pipeline, allowed: str
) -> None:
    (part,), _ = pipeline.prepare("first")
    bench.set("faults", lines_failed={"share": 1.0, "custom_id": r"^d\d*7$"})
    if allowed == "0":
        with pytest.raises(AirflowFailException, match="ended partial"):
            pipeline.embed(part, "first", allowed_failures=allowed)
    else:
        pipeline.embed(part, "first", allowed_failures=allowed)
    bench.set("faults")
    (part,), (reused,) = pipeline.prepare("second")
    assert (part["requests"], reused["documents"]) == (COUNT // 10, COUNT - COUNT // 10)


def test_the_cleared_steps_of_a_batch_that_failed_send_only_what_failed(bench: Bench, pipeline: Pipeline) -> None:
    (part,), _ = pipeline.prepare("run")
    bench.set("faults", lines_failed={"share": 1.0, "custom_id": r"^d\d*7$"})
    task = pipeline.build_task(part, "run")
    with pytest.raises(AirflowFailException, match="ended partial"):
        run_all([task])
    bench.set("faults")
    # The same files, with fewer requests.
    (part,), (reused,) = pipeline.prepare("run")
    assert (part["requests"], reused["documents"]) == (COUNT // 10, COUNT - COUNT // 10)
    with pytest.raises(AirflowFailException, match="submitted with another spec"):
        run_all([task])
    task.build = pipeline.build_task(part, "run", on_changed_spec="restart_ended").build
    (outcome,) = run_all([task])
    assert outcome["status"]["counts"] == {"total": COUNT // 10, "succeeded": COUNT // 10, "failed": 0}
    assert pipeline.prepare("after")[0] == []


def test_a_try_that_comes_after_a_worker_died_at_the_end_adds_what_is_not_there(
    bench: Bench, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    (part,), _ = pipeline.prepare("first")
    task = pipeline.build_task(part, "first")

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("overnight.services.openai.result_cache.keep_answers", die)
        with pytest.raises(KeyboardInterrupt):
            run_all([task])
    assert pipeline.prepare("before")[1] == []
    # The same task instance, with what it remembers.
    run_all([task])
    run_all([task])
    assert pipeline.count_batches() == 1
    parts, (reused,) = pipeline.prepare("after")
    assert (parts, reused["documents"]) == ([], COUNT)
    assert len(list(Path(pipeline.work, "cache", "v1", "keys").iterdir())) == 1


def test_two_runs_at_once_lose_nothing_and_a_third_pays_nothing(pipeline: Pipeline) -> None:
    def run(name: str) -> list[dict[str, Any]]:
        parts, _ = pipeline.prepare(name, limits={"requests": 100})
        run_all([pipeline.build_task(part, f"{name}-{number}") for number, part in enumerate(parts)])
        return parts

    with ThreadPoolExecutor(2) as pool:
        done = [future.result() for future in [pool.submit(run, name) for name in ("first", "second")]]
    assert all(sum(part["requests"] for part in parts) <= COUNT for parts in done)
    assert pipeline.prepare("third")[0] == []


def test_a_cache_in_an_object_store(bench: Bench, pipeline: Pipeline, s3_endpoint: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    bucket = f"cache-{uuid.uuid4().hex[:8]}"
    boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    pipeline.work = f"s3://{bucket}/work"
    (part,), reused = pipeline.prepare("first")
    assert (part["requests"], reused) == (COUNT, [])
    pipeline.embed(part, "first")
    pipeline.write({f"d{number}": f"the text of document {number + number // 399}" for number in range(COUNT)})
    (part,), (found,) = pipeline.prepare("second")
    assert (part["requests"], found["documents"]) == (1, COUNT - 1)

    item = {"reused": found, "template": TEMPLATE.model_dump(), "cache_uri": f"{pipeline.work}/cache"}
    answers = open_stored_answers([item], Storage(), None)
    (uri,) = to_uris(item)
    assert answers.looks["reused"](uri)[1] != ""
    lines = [orjson.loads(line) for line in b"".join(answers.openers["reused"](uri, 0)).splitlines()]
    assert {line["custom_id"] for line in lines} == {f"d{number}" for number in range(COUNT - 1)}
    assert all(len(line["response"]["body"]["data"][0]["embedding"]) == 8 for line in lines)
    (used,) = answers.usage
    assert used.answers == COUNT - 1
    monkeypatch.setattr(sorted_index, "MERGE_FILES", 1)
    pipeline.embed(part, "second")
    files = Storage().list_files(f"{pipeline.work}/cache/v1/keys/*.parquet").files
    folders = Storage().list_files(f"{pipeline.work}/cache/v1/documents/*/*.parquet").files
    assert (len(files), len(folders)) == (1, 1)
    assert pipeline.prepare("third")[0] == []
    whole = b"".join(answers.openers["reused"](uri, 0))
    assert b"".join(answers.openers["reused"](uri, 1_000)) == whole[1_000:]
