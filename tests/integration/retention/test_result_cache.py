"""A corpus night after night with a cache in S3 whose answers expire: what is paid for, and what the index has."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest
import s3fs
from airflow.sdk.exceptions import AirflowFailException
from typer.testing import CliRunner

from integration.task_instances import Task, run_all
from overnight.cli.app import app
from overnight.operators.clean import CleanWorkFolderOperator
from overnight.operators.load import OpenSearchLoadOperator
from overnight.operators.openai import REUSED_KEY, OpenAIBatchInputOperator, OpenAIBatchOperator
from overnight.retention import CacheRetention, clean_cache, plan_cache
from overnight.services.openai.input import RequestTemplate
from overnight.storage import Storage

COUNT = 60
AGE = "30d"
TEMPLATE = RequestTemplate.embeddings("text-embedding-3-small", dimensions=8)
TEXTS = {f"d{number}": f"the text of document {number}" for number in range(COUNT)}


class Corpus:
    """The steps of a pipeline with a cache, each of whose runs loads into an index of its own."""

    def __init__(self, work: str, index: str, openai: str, opensearch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.work = work
        self.index = index
        self._openai = openai
        self._opensearch = opensearch
        self._monkeypatch = monkeypatch

    def write_days_ago(self, days: float) -> None:
        """Let what is written into the cache from now on have been written some days ago."""
        ago = timedelta(days=days)

        def tell() -> int:
            return int((datetime.now(UTC) - ago).timestamp() * 1e9)

        for module in ("files", "answers"):
            self._monkeypatch.setattr(f"overnight.cache.{module}.time", SimpleNamespace(time_ns=tell))

    def prepare(self, run: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the parts of a run, and those that are reused."""
        pushed: dict[str, Any] = {}
        operator = OpenAIBatchInputOperator(
            task_id="prepare",
            documents=f"{self.work}-documents/",
            target=f"{self.work}/corpus/{run}",
            template=TEMPLATE,
            cache_uri=f"{self.work}/cache",
        )
        ti = SimpleNamespace(xcom_push=lambda *, key, value: pushed.update({key: value}))
        parts = operator.execute({"ti": ti})  # type: ignore[typeddict-item]
        return parts, pushed[REUSED_KEY]

    def embed(self, part: dict[str, Any], run: str) -> dict[str, Any]:
        build: Callable[[], Any] = lambda: OpenAIBatchOperator(  # noqa: E731
            task_id="embed",
            input_uri=part["uri"],
            endpoint=TEMPLATE.endpoint,
            cache_uri=f"{self.work}/cache",
            poll_interval=0.1,
            deferrable=True,
        )
        outcome: dict[str, Any] = run_all([Task(build, f"{self.work}/{run}")])[0]
        return outcome

    def load(self, part: dict[str, Any], results: dict[str, Any], run: str) -> dict[str, Any]:
        operator = OpenSearchLoadOperator(
            task_id="load",
            request={
                "index_name": f"{self.index}-{run}",
                "field_map": {
                    "_id": ["source[0].$.id", "source[1].$.custom_id"],
                    "text": "source[0].$.text",
                    "embedding": "source[1].$.response.body.data[0].embedding",
                },
                "data_source": {"source": [part["documents_uri"], results]},
            },
        )
        return operator.execute({"ti": SimpleNamespace(xcom_push=lambda *, key, value: None)})  # type: ignore[typeddict-item]

    def load_reused(self, part: dict[str, Any], run: str, age: str | None = None) -> dict[str, Any]:
        results = {
            "reused": part,
            "template": TEMPLATE.model_dump(),
            "cache_uri": f"{self.work}/cache",
            "cache_older_than": age,
        }
        return self.load(part, results, run)

    def run(self, run: str, age: str | None = None) -> tuple[int, dict[str, Any]]:
        """Run all steps; return how many batches were submitted for it, and what its index has."""
        self.create_index(run)
        before = self._count_batches()
        parts, reused = self.prepare(run)
        for part in parts:
            self.load(part, self.embed(part, run), run)
        for part in reused:
            self.load_reused(part, run, age)
        return self._count_batches() - before, self.read_index(run)

    def create_index(self, run: str) -> None:
        fields = {"embedding": {"type": "knn_vector", "dimension": 8, "method": {"name": "hnsw", "engine": "lucene"}}}
        settings = {"number_of_replicas": 0, "number_of_shards": 1, "index.knn": True}
        body = {"settings": settings, "mappings": {"properties": fields}}
        httpx.put(f"{self._opensearch}/{self.index}-{run}", json=body, timeout=60).raise_for_status()

    def read_index(self, run: str) -> dict[str, Any]:
        address = f"{self._opensearch}/{self.index}-{run}"
        httpx.post(f"{address}/_refresh", timeout=60).raise_for_status()
        found = httpx.post(f"{address}/_search", json={"size": 10 * COUNT}, timeout=60).raise_for_status().json()
        return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}

    def clean_later(self, days: float) -> int:
        """Clean the cache some days from now; return how many files were deleted."""
        retention, now = CacheRetention(timedelta(days=30)), datetime.now(UTC) + timedelta(days=days)
        return clean_cache(plan_cache(f"{self.work}/cache", Storage(), retention, now), Storage()).files

    def _count_batches(self) -> int:
        address = self._openai.removesuffix("/v1") + "/_sandbox/requests"
        answer = httpx.get(address, params={"method": "POST", "path": "/v1/batches"}).raise_for_status()
        return len(answer.json()["data"])


@pytest.fixture
def corpus(
    openai_url: str, opensearch_url: str, s3_endpoint: str, index_name: str, monkeypatch: pytest.MonkeyPatch
) -> Corpus:
    connections = {
        "OPENSEARCH": {"conn_type": "overnight_opensearch", "host": opensearch_url},
        "OPENAI": {"conn_type": "overnight_openai", "host": openai_url, "password": "sandbox"},
        "AWS": {"conn_type": "aws", "login": "k", "password": "s"},
    }
    for name, value in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}_DEFAULT", json.dumps(value))
    access = {
        "ENDPOINT_URL": s3_endpoint,
        "ACCESS_KEY_ID": "k",
        "SECRET_ACCESS_KEY": "s",
        "DEFAULT_REGION": "us-east-1",
    }
    for name, text in access.items():
        monkeypatch.setenv(f"AWS_{name}", text)
    filesystem = s3fs.S3FileSystem(endpoint_url=s3_endpoint, key="k", secret="s", skip_instance_cache=True)
    bucket = f"expiry-{uuid.uuid4().hex[:8]}"
    filesystem.mkdir(bucket)
    lines = b"".join(
        orjson.dumps({"id": name, "text": text}, option=orjson.OPT_APPEND_NEWLINE) for name, text in TEXTS.items()
    )
    filesystem.pipe_file(f"{bucket}/work-documents/corpus.jsonl", lines)
    return Corpus(f"s3://{bucket}/work", index_name, openai_url, opensearch_url, monkeypatch)


def clean_by_command(work: str) -> dict[str, int]:
    done = CliRunner().invoke(app, ["clean", work, "--cache-older-than", AGE, "--yes", "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, int] = json.loads(done.stdout)["cache"]["deleted"]
    return found


def clean_by_operator(work: str) -> dict[str, int]:
    operator = CleanWorkFolderOperator(task_id="clean", work_uri=work, cache_older_than=AGE)
    done = operator.execute({"ti": SimpleNamespace(get_dr_count=lambda **_: 0)})  # type: ignore[typeddict-item]
    found: dict[str, int] = done["cache"]
    return found


@pytest.mark.parametrize("clean", [clean_by_command, clean_by_operator])
def test_what_has_expired_is_paid_for_again_and_who_looked_it_up_before_still_loads_it(
    corpus: Corpus, clean: Callable[[str], dict[str, int]]
) -> None:
    corpus.write_days_ago(31)
    submitted, index = corpus.run("first")
    assert (submitted, {name: document["text"] for name, document in index.items()}) == (1, TEXTS)
    corpus.write_days_ago(10)
    assert corpus.run("second") == (0, index)
    corpus.write_days_ago(0)
    parts, (waiting,) = corpus.prepare("waiting")
    assert (parts, waiting["documents"]) == ([], COUNT)
    corpus.create_index("waiting")

    done = clean(corpus.work)
    assert (done["entries"], done["files"]) == (COUNT, 0)
    assert corpus.run("third") == (1, index)
    assert corpus.clean_later(6.9) == 0
    assert corpus.load_reused(waiting, "waiting")["indexed"] == COUNT
    assert corpus.read_index("waiting") == index

    # The grace period is over for what the first run added, and for nothing else.
    assert corpus.clean_later(7.1) == 1
    with pytest.raises(AirflowFailException, match="Clear the task that looked it up"):
        corpus.load_reused(waiting, "waiting")
    assert corpus.run("fourth") == (0, index)


def test_answers_that_are_used_each_night_are_not_paid_for_again(corpus: Corpus) -> None:
    corpus.write_days_ago(31)
    _, index = corpus.run("first")
    corpus.write_days_ago(10)
    assert corpus.run("second", AGE) == (0, index)
    corpus.write_days_ago(0)
    assert clean_by_command(corpus.work)["entries"] == COUNT
    assert corpus.run("third", AGE) == (0, index)
    assert corpus.clean_later(8) == 1
    assert corpus.run("fourth", AGE) == (0, index)
