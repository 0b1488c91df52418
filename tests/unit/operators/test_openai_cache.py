"""The cache between the steps: what is sent, what a batch adds, and what a load takes from it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from airflow.sdk.exceptions import AirflowFailException

from overnight.cache import open_cache
from overnight.costs.prices import PriceTable
from overnight.costs.usage_cost import AnswerUsage, UsageCost
from overnight.errors import CredentialsError, SpecError
from overnight.jobs import JobRef, ResultFile, ResultManifest
from overnight.operators.load import OpenSearchLoadOperator, with_formats
from overnight.operators.openai import REUSED_KEY, OpenAIBatchInputOperator, OpenAIBatchOperator
from overnight.operators.sources import open_stored_answers, to_uris
from overnight.services.openai.input import RequestTemplate
from overnight.services.openai.result_cache import ResultCache
from overnight.services.openai.rounds import Round
from overnight.storage import Storage
from unit.ingest.fake_opensearch import FakeOpenSearch

TEMPLATE = RequestTemplate.embeddings("text-embedding-3-small")
BASE_URL = "https://one.example/v1"
REF = JobRef(service="openai", id="batch_1", conn_id="openai_default")


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "overnight_openai", "host": BASE_URL, "password": "k"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))


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


class Night:
    """A pipeline's steps over a folder; the batch is answered here, with a vector of each text's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache_uri = f"{folder}/cache"
        self.ti = TaskInstance()
        (folder / "in").mkdir()

    def write(self, *documents: dict[str, Any]) -> None:
        (self.folder / "in" / "a.jsonl").write_bytes(b"\n".join(map(orjson.dumps, documents)))

    def prepare(self, **changes: Any) -> list[dict[str, Any]]:
        self.ti = TaskInstance()
        given = {"cache_uri": self.cache_uri, "documents": f"{self.folder}/in/", "target": f"{self.folder}/out"}
        operator = OpenAIBatchInputOperator(task_id="t", template=TEMPLATE, aws_conn_id=None, **(given | changes))
        return operator.execute({"ti": self.ti})  # type: ignore[typeddict-item]

    @property
    def reused(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ti.pushed[REUSED_KEY]
        return found

    def answer(self, part: dict[str, Any], *failing: str) -> dict[str, Any]:
        """Answer a batch; return the XCom of its task."""
        output = Path(part["uri"].replace("requests", "output"))
        lines = []
        for line in Path(part["uri"]).read_bytes().splitlines():
            request = orjson.loads(line)
            if request["custom_id"] not in failing:
                lines.append(answer(request["custom_id"], request["body"]["input"]))
        output.write_bytes(b"".join(lines))
        counts = {"total": part["requests"], "succeeded": len(lines), "failed": 0}
        results = {"ref": REF.model_dump(), "files": [{"kind": "output", "uri": str(output)}], "counts": counts}
        return {"ref": REF.model_dump(), "status": None, "results": results}

    def embed(self, part: dict[str, Any], *, rounds: int = 0, **changes: Any) -> OpenAIBatchOperator:
        given = {"input_uri": part["uri"], "endpoint": TEMPLATE.endpoint, "cache_uri": self.cache_uri, **changes}
        operator = OpenAIBatchOperator(task_id="t", aws_conn_id=None, **given)
        operator._rounds = (None,) * rounds  # type: ignore[assignment]
        return operator

    def keep(self, part: dict[str, Any], job: dict[str, Any] | None, **changes: Any) -> None:
        operator = self.embed(part, **changes)
        results = ResultManifest.model_validate(job["results"]) if job is not None else None
        with operator.make_client() as client:
            operator.keep_results(client, REF, results)

    def load(self, documents: Any, results: Any, **changes: Any) -> dict[str, Any]:
        self.ti = TaskInstance()
        operator = OpenSearchLoadOperator(
            task_id="load",
            request={
                "index_name": "docs",
                "field_map": {
                    "_id": ["source[0].$.id", "source[1].$.custom_id"],
                    "v": "source[1].$.response.body.data[0].embedding",
                },
                "data_source": {"source": [documents, results]},
            },
            aws_conn_id=None,
            **changes,
        )
        return operator.execute({"ti": self.ti})  # type: ignore[typeddict-item]

    def load_part(self, part: dict[str, Any], job: dict[str, Any], **changes: Any) -> dict[str, Any]:
        results = {"job": job, "repeated": part["repeated"], "repeated_uri": part["repeated_uri"]}
        return self.load([part["documents_uri"], part["repeated_documents_uri"]], results, **changes)

    def load_reused(
        self, part: dict[str, Any], *, cache_older_than: str | None = None, **changes: Any
    ) -> dict[str, Any]:
        results = {
            "reused": part,
            "template": TEMPLATE.model_dump(),
            "cache_uri": self.cache_uri,
            "cache_older_than": cache_older_than,
        }
        return self.load(part["documents_uri"], results, **changes)


def answer(custom_id: str, text: str) -> bytes:
    usage = {"prompt_tokens": len(text), "total_tokens": len(text)}
    body = {"model": "text-embedding-3-small", "data": [{"embedding": [len(text), 0.5]}], "usage": usage}
    line = {"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def document(name: str, text: str) -> dict[str, str]:
    return {"id": name, "text": text}


# --- What is sent --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cache": "keep"}, "cache='keep' is none of off, read, write, refresh"),
        ({"cache": "read", "cache_uri": None}, "cache=read needs a cache"),
        ({"cache": "write", "cache_uri": ""}, "cache=write needs a cache"),
        ({"conn_id": "nowhere"}, "nowhere"),
    ],
)
def test_a_cache_that_cannot_be_used_is_refused_before_anything_is_read(
    night: Night, changes: dict[str, Any], text: str
) -> None:
    # There is no document either, and nobody says so.
    with pytest.raises(AirflowFailException, match=text):
        night.prepare(**changes)
    assert not (night.folder / "out").exists()


def test_without_a_cache_nothing_is_reused_and_a_mapped_load_gets_an_empty_list(night: Night) -> None:
    night.write(document("a", "same"), document("b", "same"))
    (part,) = night.prepare(cache_uri=None)
    assert (part["requests"], part["repeated"], night.reused) == (2, 0, [])
    (part,) = night.prepare(cache="off")
    assert part["requests"] == 2
    assert not Path(night.cache_uri).exists()


def test_only_what_is_not_in_the_cache_is_sent_and_counts_against_the_limits(night: Night) -> None:
    night.write(*(document(f"d{number}", "x" * 400 * number) for number in range(1, 11)))
    (part,) = night.prepare()
    night.keep(part, night.answer(part))
    night.write(*(document(f"d{number}", "x" * 400 * number) for number in range(1, 12)))
    # 1,100 tokens are to be paid for, and not 6,600.
    (part,) = night.prepare(max_tokens=1_100, max_cost="1100 tokens")
    assert part["requests"] == 1
    assert [reused["documents"] for reused in night.reused] == [10]
    assert night.ti.pushed["estimate"]["requests"] == 1
    (part,) = night.prepare(cache="refresh")
    assert (part["requests"], night.reused) == (11, [])


def test_a_run_of_which_everything_is_in_the_cache_sends_nothing_and_is_a_success(night: Night) -> None:
    night.write(document("a", "one"), {"id": "b"})
    (part,) = night.prepare(on_bad_document="reject")
    night.keep(part, night.answer(part))
    assert night.prepare(on_bad_document="reject") == []
    assert [reused["documents"] for reused in night.reused] == [1]
    assert night.ti.pushed["rejected"]["count"] == 1


# --- What a batch adds ---------------------------------------------------------------------------------------------


def count_kept(night: Night) -> int:
    cache = open_cache(night.cache_uri, Storage())
    keys = cache.keys.files.list_names()
    return sum(cache_file_rows(cache, name) for name in keys)


def cache_file_rows(cache: Any, name: str) -> int:
    with cache.keys.files.open(name) as file:
        return int(file.metadata.num_rows)


def test_a_try_that_is_repeated_adds_nothing_and_only_usable_answers_are_kept(night: Night) -> None:
    night.write(document("a", "one"), document("b", "three"))
    (part,) = night.prepare()
    job = night.answer(part, "b")
    night.keep(part, job)
    night.keep(part, job)
    assert count_kept(night) == 1
    (part,) = night.prepare()
    assert part["requests"] == 1


@pytest.mark.parametrize("changes", [{"cache": "read"}, {"cache": "off"}, {"cache_uri": None}, {"cache_uri": "None"}])
def test_a_cache_that_is_not_written_is_left_as_it_is(night: Night, changes: dict[str, Any]) -> None:
    night.write(document("a", "one"))
    (part,) = night.prepare(cache_uri=None)
    night.keep(part, night.answer(part), **changes)
    assert not Path(night.cache_uri).exists()


def test_refresh_replaces_what_is_there(night: Night) -> None:
    night.write(document("a", "one"))
    (part,) = night.prepare()
    night.keep(part, night.answer(part))
    job = night.answer(part)
    output = Path(job["results"]["files"][0]["uri"])
    output.write_bytes(output.read_bytes().replace(b"[3,0.5]", b"[4,0.5]"))
    night.keep(part, job, cache="write")
    assert count_kept(night) == 1
    night.keep(part, job, cache="refresh")
    assert count_kept(night) == 2


@pytest.mark.parametrize("is_merged", [True, False])
def test_the_answers_of_all_rounds_are_kept_however_the_last_one_ended(night: Night, is_merged: bool) -> None:
    night.write(*(document(name, name * 3) for name in "abc"))
    (part,) = night.prepare()
    uris = [Round(part["uri"], number).succeeded_uri for number in range(3)]
    for uri, name in zip(uris, "abc", strict=True):
        Path(uri).write_bytes(answer(name, name * 3))
    # Of a last round that failed as a whole, nobody says what the others have.
    files = tuple(ResultFile(kind="output", uri=uri) for uri in uris) if is_merged else ()
    job = {"results": ResultManifest(ref=REF, files=files).model_dump()} if is_merged else None
    night.keep(part, job, rounds=2)
    assert count_kept(night) == (3 if is_merged else 2)


def test_answers_that_cannot_be_kept_are_a_warning(night: Night, caplog: pytest.LogCaptureFixture) -> None:
    night.write(document("a", "one"))
    (part,) = night.prepare(cache_uri=None)
    Path(night.cache_uri).write_text("a file is in the folder's place")
    with caplog.at_level(logging.WARNING):
        night.keep(part, night.answer(part))
    assert "batch_1 were not added to the cache; those that are not there will be paid for again" in caplog.text
    job = night.answer(part)
    Path(job["results"]["files"][0]["uri"]).unlink()
    Path(night.cache_uri).unlink()
    night.keep(part, job)
    assert caplog.text.count("not added to the cache") == 2


def test_the_sdk_of_a_store_may_fail_in_any_way(
    night: Night, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a library's own")

    night.write(document("a", "one"))
    (part,) = night.prepare(cache_uri=None)
    monkeypatch.setattr("overnight.services.openai.result_cache.keep_answers", fail)
    with caplog.at_level(logging.WARNING):
        night.keep(part, night.answer(part))
    assert "KeyError: " in caplog.text


def test_a_schema_that_is_no_more_is_a_warning_too(night: Night, caplog: pytest.LogCaptureFixture) -> None:
    night.write(document("a", "one"))
    (part,) = night.prepare()
    with caplog.at_level(logging.WARNING):
        night.keep(part, night.answer(part), output_schema="gone.Model")
    assert "not added to the cache" in caplog.text


@pytest.mark.parametrize(
    "changes", [{"wait_for_completion": False}, {"input_uri": None, "input_file_id": "file-1"}, {"cache": "ever"}]
)
def test_a_batch_whose_answers_could_not_be_kept_is_refused_before_it_is_submitted(
    night: Night, changes: dict[str, Any]
) -> None:
    operator = night.embed({"uri": "in.jsonl"}, **changes)
    with pytest.raises(SpecError, match="cache"):
        operator.build_spec(None)  # type: ignore[arg-type]
    night.embed({"uri": "in.jsonl"}, **{**changes, "cache": "off"})._parse_cache()


def test_a_cache_of_a_rendered_template_may_be_no_text() -> None:
    assert ResultCache.parse("None", "None") == ResultCache()
    assert ResultCache.parse(None, "s3://b/cache").mode == "write"


# --- What a load takes from it -------------------------------------------------------------------------------------


def test_reused_answers_are_loaded_as_the_batchs_own_and_their_usage_is_counted(
    night: Night, opensearch: FakeOpenSearch
) -> None:
    night.write(*(document(f"d{number}", "x" * number) for number in range(1, 31)))
    (part,) = night.prepare()
    job = night.answer(part)
    night.keep(part, job)
    first = night.load_part(part, job)
    assert (first["submitted"], first["indexed"]) == (30, 30)
    assert REUSED_KEY not in night.ti.pushed
    paid = dict(opensearch.documents)
    opensearch.documents.clear()
    # Another template's ids, and another order.
    assert night.prepare() == []
    (reused,) = night.reused
    report = night.load_reused(reused)
    assert (report["submitted"], report["indexed"], report["sources"][1]["lines"]) == (30, 30, 30)
    assert opensearch.documents == paid
    assert night.ti.pushed[REUSED_KEY] == [
        {"model": "text-embedding-3-small", "answers": 30, "input": sum(range(1, 31)), "output": 0, "unstated": 0}
    ]


def test_of_a_server_that_does_not_count_answers_are_kept_and_what_they_saved_is_not_known(
    night: Night, opensearch: FakeOpenSearch
) -> None:
    night.write(document("a", "one"), document("b", "three"))
    (part,) = night.prepare()
    job = night.answer(part)
    output = Path(job["results"]["files"][0]["uri"])
    lines = [orjson.loads(line) for line in output.read_bytes().splitlines()]
    del lines[0]["response"]["body"]["usage"]
    lines[1]["response"]["body"]["usage"] = {"prompt_tokens": 0, "total_tokens": 0}
    output.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    night.keep(part, job)
    assert night.prepare() == []
    (reused,) = night.reused
    assert night.load_reused(reused)["indexed"] == 2
    (usage,) = night.ti.pushed[REUSED_KEY]
    assert usage == {"model": "text-embedding-3-small", "answers": 2, "input": 0, "output": 0, "unstated": 2}
    saved = UsageCost.of([AnswerUsage.model_validate(usage)], PriceTable.shipped())
    assert str(saved) == "unknown: the answers do not say what was used for them"


def find_place(night: Night, key: bytes) -> Any:
    return open_cache(night.cache_uri, Storage()).find([key])[key]


def reuse_old_answer(night: Night, monkeypatch: pytest.MonkeyPatch, *, days: int) -> tuple[dict[str, Any], bytes]:
    """Return a part whose answer was added some days ago, and the answer's key."""
    night.write(document("a", "one"))
    (part,) = night.prepare()
    with monkeypatch.context() as patch:
        written = time.time_ns() - days * 86_400 * 10**9
        patch.setattr("overnight.cache.answers.make_name", lambda: f"{written:020d}-{'a' * 12}")
        night.keep(part, night.answer(part))
    assert night.prepare() == []
    (reused,) = night.reused
    return reused, bytes.fromhex(orjson.loads(Path(reused["uri"]).read_bytes())["key"])


@pytest.mark.parametrize(
    ("days", "age", "is_renewed"), [(16, "30d", True), (14, "30d", False), (16, None, False), (16, "None", False)]
)
def test_an_answer_that_a_load_reads_is_written_again_when_half_of_its_age_is_over(
    night: Night,
    opensearch: FakeOpenSearch,
    monkeypatch: pytest.MonkeyPatch,
    days: int,
    age: str | None,
    is_renewed: bool,
) -> None:
    reused, key = reuse_old_answer(night, monkeypatch, days=days)
    before = find_place(night, key)
    for _ in range(2):
        report = night.load_reused(reused, cache_older_than=age)
        assert (report["indexed"], report["missing"]) == (1, 0)
        after = find_place(night, key)
        assert (after != before) == is_renewed
    assert len(list(Path(night.cache_uri, "v1", "answers").iterdir())) == 1 + is_renewed
    assert night.ti.pushed[REUSED_KEY][0]["answers"] == 1


def test_an_age_that_is_none_is_refused_before_anything_is_loaded(
    night: Night, opensearch: FakeOpenSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    reused, _ = reuse_old_answer(night, monkeypatch, days=16)
    with pytest.raises(AirflowFailException, match="cache_older_than='soon' is no age"):
        night.load_reused(reused, cache_older_than="soon")
    assert opensearch.documents == {}


def test_a_cache_that_takes_nothing_is_a_warning_and_the_load_a_success(
    night: Night, opensearch: FakeOpenSearch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reused, key = reuse_old_answer(night, monkeypatch, days=16)
    before = find_place(night, key)

    def refuse(*_: object) -> None:
        raise CredentialsError("access is denied")

    monkeypatch.setattr("overnight.cache.files.Files.put", refuse)
    with caplog.at_level(logging.WARNING):
        assert night.load_reused(reused, cache_older_than="30d")["indexed"] == 1
    assert "were not written again, though they are used. access is denied" in caplog.text
    assert find_place(night, key) == before


def test_documents_with_the_same_request_get_the_same_vector_in_the_same_load(
    night: Night, opensearch: FakeOpenSearch
) -> None:
    night.write(*(document(f"d{number}", "ab"[number % 2] * 3) for number in range(9)), document("last", "other"))
    (part,) = night.prepare()
    assert (part["requests"], part["repeated"]) == (3, 7)
    report = night.load_part(part, night.answer(part))
    assert (report["submitted"], report["indexed"]) == (10, 10)
    assert opensearch.documents["d8"] == {"v": [3, 0.5]}
    assert [used["answers"] for used in night.ti.pushed[REUSED_KEY]] == [7]


def test_what_got_no_answer_is_missing_with_all_who_asked_the_same(night: Night, opensearch: FakeOpenSearch) -> None:
    night.write(*(document(f"d{number}", "same") for number in range(4)), document("e", "other"))
    (part,) = night.prepare()
    report = night.load_part(part, night.answer(part, "d0"), allowed_failures=4)
    assert (report["submitted"], report["indexed"], report["missing"]) == (5, 1, 4)


def test_an_answer_that_is_gone_from_the_cache_fails_the_load_and_names_what_to_clear(
    night: Night, opensearch: FakeOpenSearch
) -> None:
    night.write(document("a", "one"))
    (part,) = night.prepare()
    night.keep(part, night.answer(part))
    night.prepare()
    for file in Path(night.cache_uri, "v1", "answers").iterdir():
        file.unlink()
    with pytest.raises(AirflowFailException, match="Clear the task that looked it up"):
        night.load_reused(night.reused[0])
    assert opensearch.documents == {}


def test_a_load_of_answers_that_changed_does_not_go_on_at_the_old_ones_checkpoint(
    night: Night, opensearch: FakeOpenSearch
) -> None:
    night.write(*(document(f"d{number}", "x" * number) for number in range(1, 4)))
    (part,) = night.prepare()
    job = night.answer(part)
    night.keep(part, job)
    night.prepare()
    before = to_look(night)
    night.keep(part, job, cache="refresh")
    night.prepare()
    assert to_look(night) != before


def to_look(night: Night) -> Any:
    item = {"reused": night.reused[0], "template": TEMPLATE.model_dump(), "cache_uri": night.cache_uri}
    answers = open_stored_answers([item], Storage(), None)
    (uri,) = to_uris(item)
    return answers.looks["reused"](uri)


def test_the_sources_of_a_request_say_what_they_are_read_as_and_how_many_results_they_have(night: Night) -> None:
    job = {
        "ref": REF.model_dump(),
        "status": None,
        "results": {
            "ref": REF.model_dump(),
            "files": [{"kind": "output", "uri": "openai://file-1"}],
            "counts": {"total": 5, "succeeded": 5, "failed": 0},
        },
    }
    reused = {
        "reused": {
            "uri": "s3://b/r.jsonl",
            "documents_uri": "",
            "dead_letter_uri": "",
            "checkpoint_uri": "",
            "documents": 7,
        },
        "template": TEMPLATE.model_dump(),
        "cache_uri": "s3://b/cache",
    }
    repeated = {"job": job, "repeated": 2, "repeated_uri": "s3://b/p.jsonl"}
    plain = {"job": job, "repeated": 0, "repeated_uri": None}
    sources = [["s3://b/a.jsonl", None], reused, repeated, plain]
    assert [to_uris(item) for item in sources] == [
        ["s3://b/a.jsonl"],
        ["reused://s3://b/r.jsonl"],
        ["openai://file-1", "repeated://s3://b/p.jsonl"],
        ["openai://file-1"],
    ]
    found = with_formats({}, {"data_source": {"source": sources}})
    assert found == {"format": [None, "openai", "openai", "openai"], "result_counts": [None, 7, 7, 5]}
    # Of a batch that has not all, nobody says how many documents have no result of a request that was sent once.
    job["results"]["counts"] = {"total": 5, "succeeded": 4, "failed": 1}
    assert with_formats({}, {"data_source": {"source": sources}})["result_counts"] == [None, 7, 4, 4]
    with pytest.raises(SpecError, match="a source with reused answers does not fit: template"):
        to_uris({"reused": reused["reused"], "cache_uri": "c"})
