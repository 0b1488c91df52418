from __future__ import annotations

from typing import Any

import pytest

from overnight.errors import SpecError, UnavailableError
from overnight.jobs import JobKey
from overnight.services.ml_commons.ingest import (
    MLCommonsIngestService,
    MLCommonsIngestSpec,
    OpenAICredential,
    S3Credential,
    choose_engine,
    on_the_wire,
)
from overnight.transport.flow import Flow, Pause
from overnight.transport.opensearch import OpenSearchConnection, ServerVersion


def _version(number: str, distribution: str = "opensearch") -> ServerVersion:
    return ServerVersion(distribution, number)


S3 = ("s3://bucket/key.jsonl",)


@pytest.mark.parametrize(
    ("version", "source_type", "sources", "engine", "why"),
    [
        (_version("2.19.6"), "s3", S3, "server", "OpenSearch 2.19.6 has batch ingestion"),
        (_version("2.17.0"), "s3", S3 * 2, "server", "2.17.0"),
        (_version("2.18.0"), "openAI", ("file-1", "file-2"), "server", "2.18.0"),
        (_version("2.19.0"), "openAI", ("file-1", "file-2"), "server", "2.19.0"),
        (_version("2.19.0"), "s3", S3 * 2, "client", "Connection pool shut down"),
        (_version("2.16.0"), "s3", S3, "client", "came with OpenSearch 2.17"),
        (_version("1.3.20"), "s3", S3, "client", "came with OpenSearch 2.17"),
        (_version("3.0.0"), "s3", S3, "client", "3.0 removed it"),
        (_version("3.6.0"), "openAI", ("file-1",), "client", "3.0 removed it"),
        (_version("", "serverless"), "s3", S3, "client", "Serverless has no"),
        (_version("7.10.2", "elasticsearch"), "s3", S3, "client", "Elasticsearch 7.10.2 has no"),
        (_version("2.19.6"), "file", ("/x",), "client", "not file"),
        (_version("2.19.6"), None, ("/x",), "client", "mixed kinds"),
        (_version("2.19.6"), "s3", ("s3://bucket/*.jsonl",), "client", "globs"),
        (_version("2.19.6"), "s3", ("s3://bucket/folder/",), "client", "prefixes"),
        (_version("2.19.6"), "openAI", (("file-1", "file-2"),), "client", "lists of files"),
    ],
)
def test_the_engine_that_is_right_is_chosen_and_says_why(
    version: ServerVersion, source_type: Any, sources: Any, engine: str, why: str
) -> None:
    choice = choose_engine("auto", version, source_type, sources)
    assert choice.engine == engine
    assert why in choice.why
    assert choose_engine("client", version, source_type, sources).engine == "client"
    if engine == "client":
        with pytest.raises(SpecError, match="engine='client' or 'auto'"):
            choose_engine("server", version, source_type, sources)
    else:
        assert choose_engine("server", version, source_type, sources).engine == "server"


def test_a_server_without_the_plugin_and_a_path_it_fails_for_go_to_the_client() -> None:
    version = _version("2.19.6")
    assert "not installed" in choose_engine("auto", version, "s3", S3, endpoint=False).why
    assert choose_engine("auto", version, "s3", S3, paths=["source[0].$['a']"]).engine == "client"
    assert choose_engine("auto", version, "s3", S3, paths=["$['a']", "source[0].$.a['$x']"]).engine == "server"


KEYS = S3Credential("ak", "sk", "eu-west-1")
TEMPORARY = S3Credential("ak", "sk", "eu-west-1", "token")


@pytest.mark.parametrize(
    ("number", "credential", "fields"),
    [
        ("2.17.0", KEYS, {"region": "eu-west-1"}),
        ("2.18.0", TEMPORARY, {"region": "eu-west-1", "session_token": "token"}),
        ("2.19.0", KEYS, {"session_token": "eu-west-1"}),
        ("2.19.6", TEMPORARY, {"session_token": "eu-west-1", "region": "token"}),
    ],
)
def test_region_and_token_are_where_the_version_reads_them(
    number: str, credential: S3Credential, fields: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    wire = on_the_wire(credential, _version(number))
    assert wire == {"access_key": "ak", "secret_key": "sk", **fields}
    assert ("swaps" in caplog.text) == number.startswith("2.19")
    assert "token" not in caplog.text.replace("session_token", "").replace("the token as", "")


def test_a_region_that_cannot_be_is_refused_and_secrets_are_not_shown() -> None:
    with pytest.raises(SpecError, match="region_name"):
        on_the_wire(S3Credential("ak", "sk", "somewhere"), _version("2.19.6"))
    assert on_the_wire(OpenAICredential("k"), _version("2.19.6")) == {"openAI_key": "k"}
    assert "sk" not in repr(TEMPORARY)
    assert "k'" not in repr(OpenAICredential("k"))


class FakeCluster:
    """Answers calls from a table of its own; what it was asked is in ``calls``."""

    def __init__(self, tasks: list[dict[str, Any]]) -> None:
        self.tasks = tasks
        self.calls: list[str] = []
        self.lose = 0

    def run(self, flow: Flow[Any]) -> Any:
        answer: Any = None
        error: Exception | None = None
        while True:
            try:
                call = flow.throw(error) if error else flow.send(answer)
            except StopIteration as stop:
                return stop.value
            error, answer = None, None
            if isinstance(call, Pause):
                continue
            self.calls.append(f"{call.method} {call.path}")
            if call.path == "":
                answer = {"version": {"distribution": "opensearch", "number": "2.19.6"}}
            elif call.path.endswith("_search"):
                answer = {"hits": {"hits": [{"_id": task["task_id"], "_source": task} for task in self.tasks]}}
                self.tasks = [{**task, "state": "COMPLETED"} for task in self.tasks]
            elif call.path == "_nodes/jvm":
                answer = {"nodes": {}}
            elif call.path.endswith("_batch_ingestion"):
                self.lose -= 1
                if self.lose >= 0:
                    error = UnavailableError("lost")
                else:
                    answer = {"task_id": "new"}

    @property
    def ingestions(self) -> int:
        return sum(call.endswith("_batch_ingestion") for call in self.calls)


KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
SPEC = MLCommonsIngestSpec(index_name="i", field_map={"_id": "$.id", "a": "$.a"}, source_type="s3", sources=S3)
STRANGER = {"task_id": "old", "state": "CREATED", "task_type": "BATCH_INGEST", "create_time": 1}


def _service() -> MLCommonsIngestService:
    return MLCommonsIngestService("os", OpenSearchConnection("http://localhost:9200"), lambda _: KEYS)


def test_a_lost_answer_waits_for_what_may_have_been_started() -> None:
    cluster = FakeCluster([STRANGER])
    cluster.lose = 1
    assert cluster.run(_service().submit(SPEC, KEY)).id == "new"
    first, second = (n for n, call in enumerate(cluster.calls) if call.endswith("_batch_ingestion"))
    # One look that saw it run, and one that saw its end, before the second request.
    assert sum(call.endswith("_search") for call in cluster.calls[first:second]) == 2


def test_a_lost_answer_is_not_repeated_when_documents_would_double() -> None:
    cluster = FakeCluster([STRANGER])
    cluster.lose = 1
    with pytest.raises(SpecError, match="double"):
        cluster.run(_service().submit(SPEC.model_copy(update={"field_map": {"a": "$.a"}}), KEY))
    assert cluster.ingestions == 1


def test_a_first_submit_does_not_look_at_strangers() -> None:
    cluster = FakeCluster([STRANGER])
    cluster.run(_service().submit(SPEC, KEY))
    assert not any(call.endswith("_search") for call in cluster.calls)
