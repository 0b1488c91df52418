"""The load against a real OpenSearch, a real S3 API, and the emulated OpenAI."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from overnight.errors import SpecError
from overnight.ingest import (
    LoadOptions,
    OpenSearchTarget,
    Progress,
    VerificationError,
    cut,
    load,
    read_dead_letters,
    replace_index,
)
from overnight.ingest.read.openers import openai_opener
from overnight.ingest.write.index import create_index, swap_alias, verify
from overnight.sandbox.opensearch import Node

DIMENSION = 8
VECTOR = {"type": "knn_vector", "dimension": DIMENSION, "method": {"name": "hnsw", "engine": "lucene"}}
BODY = {
    "settings": {"index.knn": True, "index.number_of_replicas": 0},
    "mappings": {"properties": {"text": {"type": "text"}, "n": {"type": "long"}, "vector": VECTOR}},
}
FIELD_MAP = {"_id": "$.id", "text": "$.text", "n": "$.n", "vector": "$.vector"}


def rows(count: int, *, size: int = 20) -> list[dict[str, Any]]:
    dice = random.Random(7)

    def vector() -> list[float]:
        # OpenSearch 3 keeps a vector as float32 only and gives it back so; these survive that.
        return [dice.randrange(1, 64) / 64 for _ in range(8)]

    return [
        {"id": f"d{n}", "text": f"text {n} " + "x" * size, "n": 2**53 + n, "vector": vector()} for n in range(count)
    ]


def jsonl(items: list[Any]) -> bytes:
    return b"".join((item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n" for item in items)


def documents(target: OpenSearchTarget, index: str) -> dict[str, dict[str, Any]]:
    target.post(f"{index}/_refresh")
    hits = target.post(f"{index}/_search", {"size": 10_000, "query": {"match_all": {}}})["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def request(index: str, *sources: Any, **changes: Any) -> dict[str, Any]:
    return {"index_name": index, "field_map": FIELD_MAP, "data_source": {"source": [*map(str, sources)]}, **changes}


def test_a_file_becomes_searchable(target: OpenSearchTarget, index_name: str, tmp_path: Path) -> None:
    items = rows(3_000)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(jsonl(items)))
    options = LoadOptions(create_index=BODY, bulk_bytes=100_000)
    report = load(request(index_name, tmp_path / "a.jsonl.gz"), target=target, options=options)
    assert (report.submitted, report.indexed) == (3_000, 3_000)
    found = documents(target, index_name)
    assert found["d17"] == {key: value for key, value in items[17].items() if key != "id"}
    query = {"query": {"knn": {"vector": {"vector": items[5]["vector"], "k": 1}}}}
    verify(target, index_name, count=3_000, dimensions={"vector": DIMENSION}, query=query)
    with pytest.raises(VerificationError, match="3000 documents, not 3001"):
        verify(target, index_name, count=3_001)
    with pytest.raises(VerificationError, match="vector of 8, not one of 9"):
        verify(target, index_name, dimensions={"vector": 9})
    with pytest.raises(VerificationError, match="finds nothing"):
        verify(target, index_name, query={"query": {"match": {"text": "unheard"}}})


def test_opensearch_refuses_single_documents_and_takes_the_rest(
    target: OpenSearchTarget, index_name: str, tmp_path: Path
) -> None:
    items: list[Any] = rows(50)
    items[10]["vector"] = [1.0, 2.0]
    items[20]["n"] = "no number"
    items[30:30] = [b"", b"{", {"id": "i" * 513, "text": "x", "n": 1, "vector": []}]
    (tmp_path / "a.jsonl").write_bytes(jsonl(items))
    letters = str(tmp_path / "letters.jsonl")
    options = LoadOptions(create_index=BODY, dead_letter_uri=letters)
    report = load(request(index_name, tmp_path / "a.jsonl"), target=target, options=options)
    assert (report.submitted, report.indexed, report.rejected) == (52, 48, 4)
    found = {letter.line: letter for letter in read_dead_letters(letters)}
    assert sorted(found) == [11, 21, 32, 33]
    assert "dimension" in found[11].reason
    assert json.loads(found[21].text or "")["n"] == "no number"
    assert len(documents(target, index_name)) == 48


def test_an_index_that_is_missing_stays_missing(target: OpenSearchTarget, index_name: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows(1)))
    with pytest.raises(SpecError, match="guessed types"):
        load(request(index_name, tmp_path / "a.jsonl"), target=target)
    assert httpx.head(f"{target.url}/{index_name}").status_code == 404


def test_vectors_of_another_model_write_nothing(target: OpenSearchTarget, index_name: str, tmp_path: Path) -> None:
    create_index(target, index_name, BODY)
    create_index(target, index_name, BODY)
    (tmp_path / "a.jsonl").write_bytes(jsonl([{**row, "vector": [1.0] * 9} for row in rows(10)]))
    with pytest.raises(SpecError, match=r"vector of 8 .* have 9"):
        load(request(index_name, tmp_path / "a.jsonl"), target=target)
    assert documents(target, index_name) == {}


@pytest.mark.parametrize("write", ["index", "update"])
def test_a_load_killed_again_and_again_ends_with_every_document_once(
    write: str, target: OpenSearchTarget, opensearch_url: str, index_name: str, tmp_path: Path
) -> None:
    create_index(target, index_name, BODY)
    items: list[Any] = rows(6_000, size=1_000)
    items[100:100] = [b"broken"]
    items[5_000:5_000] = [b"broken"]
    (tmp_path / "a.jsonl").write_bytes(jsonl(items))
    (tmp_path / "request.json").write_text(json.dumps(request(index_name, tmp_path / "a.jsonl")))
    options = {"bulk_bytes": 50_000, "checkpoint_seconds": 0, "progress_seconds": 0, "write": write, "max_in_flight": 1}
    command = [sys.executable, "-c", _COMMAND, str(tmp_path / "request.json"), "--url", opensearch_url]
    command += ["--allowed-failures", "2"]
    for name, value in options.items():
        command += ["-o", f"{name}={json.dumps(value)}"]
    checkpoint = tmp_path / "request.json.checkpoint.json"
    for indexed in (500, 2_000, 5_200):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while process.poll() is None and _indexed(checkpoint) < indexed:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert _indexed(checkpoint) >= indexed
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    report = json.loads(done.stdout)
    assert report["resumed"]
    assert (report["submitted"], report["indexed"], report["rejected"]) == (6_002, 6_000, 2)
    letters = read_dead_letters(str(tmp_path / "request.json.dead-letters.jsonl"))
    assert [letter.line for letter in letters] == [101, 5_001]
    assert set(documents(target, index_name)) == {f"d{n}" for n in range(6_000)}
    assert not checkpoint.exists()


_COMMAND = """
import typer
from overnight.cli.load import load
app = typer.Typer()
app.command()(load)
app()
"""


def _indexed(checkpoint: Path) -> int:
    return int(json.loads(checkpoint.read_bytes())["tally"]["indexed"]) if checkpoint.exists() else 0


def test_the_command_answers_by_its_exit_status(opensearch_url: str, index_name: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl([*rows(10), b"broken"]))
    (tmp_path / "mapping.json").write_text(json.dumps(BODY))
    (tmp_path / "request.json").write_text(json.dumps(request(index_name, tmp_path / "a.jsonl")))
    environment = {**os.environ, "OPENSEARCH_URL": opensearch_url}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _COMMAND, str(tmp_path / "request.json"), *arguments]
        return subprocess.run(command, capture_output=True, check=False, text=True, env=environment)

    missing = run()
    assert missing.returncode == 2
    assert "There is no index" in missing.stderr
    assert missing.stdout == ""
    incomplete = run("--mapping", str(tmp_path / "mapping.json"))
    assert incomplete.returncode == 1
    assert "1 of 11 documents were not indexed (1 rejected, 0 missing: 1 invalid_line)" in incomplete.stderr
    assert json.loads(incomplete.stdout)["rejected"] == 1
    assert "10 indexed" in incomplete.stderr
    assert run("--allowed-failures", "10%").returncode == 0
    assert run("-o", "bulk_bytes=lots").returncode == 2


def test_an_existing_document_keeps_what_is_not_mapped(
    target: OpenSearchTarget, index_name: str, tmp_path: Path
) -> None:
    create_index(target, index_name, BODY)
    target.put(f"{index_name}/_doc/d1?refresh=true", {"kept": True, "n": 1})
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows(2)))
    load(request(index_name, tmp_path / "a.jsonl", field_map={"_id": "$.id", "n": "$.n"}), target=target)
    assert documents(target, index_name) == {"d0": {"n": 2**53}, "d1": {"kept": True, "n": 2**53 + 1}}


def test_settings_are_changed_and_restored(target: OpenSearchTarget, index_name: str, tmp_path: Path) -> None:
    create_index(target, index_name, {**BODY, "settings": {**BODY["settings"], "index.refresh_interval": "17s"}})
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows(100)))
    during: list[Any] = []

    def look(_: Any) -> None:
        during.append(settings())

    def settings() -> Any:
        answer = target.get(f"{index_name}/_settings", flat_settings="true")
        found = answer[index_name]["settings"]
        return found.get("index.refresh_interval"), found.get("index.translog.durability")

    changed = {"refresh_interval": "-1", "index.translog.durability": "async"}
    load(
        request(index_name, tmp_path / "a.jsonl"),
        target=target,
        options=LoadOptions(load_settings=changed, progress_seconds=0),
        on_progress=look,
    )
    assert set(during) == {("-1", "async")}
    assert settings() == ("17s", None)


def test_an_alias_moves_to_the_new_index_in_one_step(target: OpenSearchTarget, index_name: str, tmp_path: Path) -> None:
    alias = f"{index_name}-alias"
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows(10)))
    for number in range(3):
        create_index(target, f"{index_name}-{number}", BODY)
    assert swap_alias(target, alias, f"{index_name}-0") == []
    report = load(request(alias, tmp_path / "a.jsonl"), target=target)
    assert report.indexed == 10
    assert len(documents(target, f"{index_name}-0")) == 10
    assert swap_alias(target, alias, f"{index_name}-1") == [f"{index_name}-0"]
    assert swap_alias(target, alias, f"{index_name}-2", drop_old=True) == [f"{index_name}-1"]
    assert list(target.get(f"_alias/{alias}")) == [f"{index_name}-2"]
    assert len(documents(target, f"{index_name}-0")) == 10
    assert httpx.head(f"{target.url}/{index_name}-1").status_code == 404
    with pytest.raises(SpecError, match="is an index"):
        swap_alias(target, f"{index_name}-0", f"{index_name}-2")


def test_an_index_is_replaced_only_by_one_that_is_complete(
    target: OpenSearchTarget, index_name: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl([*rows(10), b"broken"]))
    wanted = request(index_name, tmp_path / "a.jsonl")
    options = LoadOptions(create_index=BODY, allowed_failures=1)
    query = {"query": {"match": {"text": "text"}}}
    assert replace_index(wanted, "1", target=target, options=options, sample_query=query).indexed == 10
    assert list(target.get(f"_alias/{index_name}")) == [f"{index_name}-1"]
    with pytest.raises(VerificationError, match=r"1 of 11 documents were not indexed.*stays where it was"):
        replace_index(wanted, "2", target=target, options=LoadOptions(create_index=BODY))
    nothing = {"query": {"match": {"text": "unheard"}}}
    with pytest.raises(VerificationError, match="finds nothing"):
        replace_index(wanted, "2", target=target, options=options, sample_query=nothing)
    assert list(target.get(f"_alias/{index_name}")) == [f"{index_name}-1"]
    # What somebody has given the alias since stays with it.
    alias = {"filter": {"match": {"text": "text"}}}
    target.put(f"{index_name}-1/_alias/{index_name}", alias)
    replace_index(wanted, "2", target=target, options=options, drop_old=True)
    assert target.get(f"_alias/{index_name}") == {f"{index_name}-2": {"aliases": {index_name: alias}}}
    assert httpx.head(f"{target.url}/{index_name}-1").status_code == 404


@pytest.fixture
def bucket(s3_endpoint: str, index_name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {
        "AWS_ENDPOINT_URL_S3": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "sandbox",
        "AWS_SECRET_ACCESS_KEY": "sandbox",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3 = boto3.resource("s3")
    return s3.create_bucket(Bucket=index_name[-63:].strip("-"))


def test_s3_is_source_dead_letters_and_checkpoint(bucket: Any, target: OpenSearchTarget, index_name: str) -> None:
    create_index(target, index_name, BODY)
    items = rows(300)
    bucket.put_object(Key="in/part-0.jsonl", Body=jsonl([*items[:100], b"broken"]))
    bucket.put_object(Key="in/part-1.jsonl.gz", Body=gzip.compress(jsonl(items[100:])))
    bucket.put_object(Key="in/_SUCCESS", Body=b"")
    letters, checkpoint = (f"s3://{bucket.name}/{name}" for name in ("letters.jsonl", "checkpoint.json"))
    options = LoadOptions(
        dead_letter_uri=letters, checkpoint_uri=checkpoint, checkpoint_seconds=0, progress_seconds=0, bulk_bytes=10_000
    )
    states: list[bytes] = []

    def look(_: Any) -> None:
        states.extend(found.get()["Body"].read() for found in bucket.objects.filter(Prefix="checkpoint"))

    credential = {"region": "us-east-1", "access_key": "sandbox", "secret_key": "sandbox"}
    wanted = request(index_name, f"s3://{bucket.name}/in/", credential=credential)
    wanted["data_source"]["type"] = "s3"
    whole = load(wanted, target=target, options=options, on_progress=look)
    assert (whole.submitted, whole.indexed, whole.rejected) == (301, 300, 1)
    assert [letter.line for letter in read_dead_letters(letters)] == [101]
    assert not list(bucket.objects.filter(Prefix="checkpoint"))
    assert set(documents(target, index_name)) == {f"d{n}" for n in range(300)}
    for state in (states[0], states[len(states) // 2], states[-1]):
        bucket.put_object(Key="checkpoint.json", Body=state)
        again = load(wanted, target=target, options=options)
        assert again.model_dump(exclude={"seconds", "resumed"}) == whole.model_dump(exclude={"seconds", "resumed"})
        assert [letter.line for letter in read_dead_letters(letters)] == [101]


def test_documents_in_s3_are_joined_with_results_at_openai(
    bucket: Any, openai_url: str, target: OpenSearchTarget, index_name: str
) -> None:
    create_index(target, index_name, BODY)
    items = rows(500)
    results = [
        {"custom_id": row["id"], "response": {"status_code": 200, "body": {"data": [{"embedding": row["vector"]}]}}}
        for row in items[:-1]
    ]
    random.Random(3).shuffle(results)
    key = {"Authorization": "Bearer sandbox"}
    answer = httpx.post(
        f"{openai_url}/files", headers=key, data={"purpose": "batch"}, files={"file": ("r.jsonl", jsonl(results))}
    )
    file_id = answer.raise_for_status().json()["id"]
    bucket.put_object(Key="docs.jsonl", Body=jsonl(items))
    field_map = {
        "_id": ["source[0].$.id", "source[1].$.custom_id"],
        "text": "source[0].$.text",
        "vector": "source[1].$.response.body.data[0].embedding",
    }
    wanted = request(index_name, f"s3://{bucket.name}/docs.jsonl", f"openai://{file_id}", field_map=field_map)
    report = load(wanted, target=target, openers={"openai": openai_opener("sandbox", openai_url)})
    assert (report.submitted, report.indexed, report.missing_sample) == (500, 499, ("d499",))
    found = documents(target, index_name)
    assert found["d7"] == {"text": items[7]["text"], "vector": items[7]["vector"]}


def test_a_source_on_a_web_server_is_read(
    bucket: Any, s3_endpoint: str, target: OpenSearchTarget, index_name: str
) -> None:
    create_index(target, index_name, BODY)
    bucket.put_object(Key="a.jsonl", Body=jsonl(rows(20)), ACL="public-read")
    report = load(request(index_name, f"{s3_endpoint}/{bucket.name}/a.jsonl"), target=target)
    assert report.indexed == 20


def test_shards_give_the_documents_of_an_uncut_load(
    bucket: Any, s3_endpoint: str, target: OpenSearchTarget, index_name: str
) -> None:
    items = rows(2_000)
    content = jsonl([*items[:500], b"broken", *items[500:]])
    bucket.put_object(Key="a.jsonl", Body=content, ACL="public-read")
    field_map = {"text": "$.text", "n": "$.n", "vector": "$.vector"}  # no _id: ids are made of the line's place
    for uri in (f"s3://{bucket.name}/a.jsonl", f"{s3_endpoint}/{bucket.name}/a.jsonl"):
        name = f"{index_name}-{uri.partition(':')[0]}"
        shards = cut(uri, 100_000)
        assert len(shards) == len(content) // 100_000 + 1
        create_index(target, name, BODY)
        reports = [load(request(name, shard.uri, field_map=field_map), target=target) for shard in shards]
        assert sum(report.bytes for report in reports) == len(content)
        in_shards = documents(target, name)
        assert len(in_shards) == sum(report.indexed for report in reports) == 2_000
        assert sum(report.rejected for report in reports) == 1
        load(request(f"{name}-uncut", uri, field_map=field_map), target=target, options=LoadOptions(create_index=BODY))
        assert documents(target, f"{name}-uncut") == in_shards
        assert sorted(document["n"] for document in in_shards.values()) == [row["n"] for row in items]


def test_a_shard_that_was_killed_goes_on(bucket: Any, target: OpenSearchTarget, index_name: str) -> None:
    create_index(target, index_name, BODY)
    bucket.put_object(Key="a.jsonl", Body=jsonl(rows(1_000)))
    shard = cut(f"s3://{bucket.name}/a.jsonl", 100_000)[1]
    letters, checkpoint = (f"s3://{bucket.name}/{name}" for name in ("letters.jsonl", "checkpoint.json"))
    options = LoadOptions(
        dead_letter_uri=letters, checkpoint_uri=checkpoint, checkpoint_seconds=0, progress_seconds=0, bulk_bytes=10_000
    )
    states: list[bytes] = []

    def look(_: Any) -> None:
        states.extend(found.get()["Body"].read() for found in bucket.objects.filter(Prefix="checkpoint"))

    whole = load(request(index_name, shard.uri), target=target, options=options, on_progress=look)
    before = documents(target, index_name)
    state = states[len(states) // 2]
    assert shard.part is not None
    assert json.loads(state)["cursor"][1][0] > shard.part.start
    bucket.put_object(Key="checkpoint.json", Body=state)
    again = load(request(index_name, shard.uri), target=target, options=options)
    assert again.resumed
    assert again.model_dump(exclude={"seconds", "resumed"}) == whole.model_dump(exclude={"seconds", "resumed"})
    assert documents(target, index_name) == before


def test_odd_lines_are_refused_by_us_or_by_the_server_and_the_rest_goes_in(
    target: OpenSearchTarget, index_name: str, tmp_path: Path
) -> None:
    create_index(target, index_name, {"settings": {"index.number_of_replicas": 0}})
    lines = {
        "plain": b'{"id":"plain","text":"x"}',
        "nul": rb'{"id":"nul\u0000","text":"a\u0000b"}',
        "pair": rb'{"id":"\ud83d\ude00","text":"\ud83d\ude00"}',
        "surrogate": rb'{"id":"surrogate","text":"\ud800 alone"}',
        "nan": b'{"id":"nan","text":NaN}',
        "deep": b'{"id":"deep","text":' + b'{"a":' * 900 + b"1" + b"}" * 901,
        "twice": b'{"id":"twice","text":{"a":1,"a":2}}',
        "last": b'{"id":"last","text":"x"}',
    }
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines.values()))
    wanted = request(index_name, path, field_map={"_id": "$.id", "text": "$.text"})
    for write in ("index", "update"):
        letters = str(tmp_path / f"{write}.jsonl")
        report = load(wanted, target=target, options=LoadOptions(write=write, dead_letter_uri=letters))
        assert report.submitted == len(lines)
        refused = {list(lines)[letter.line - 1] for letter in read_dead_letters(letters)}
        assert {"surrogate", "nan", "deep", "twice"} <= refused
        found = documents(target, index_name)
        assert len(found) == report.indexed == len(lines) - len(refused)
        assert found["nul\0"] == {"text": "a\0b"}
        assert found["😀"] == {"text": "😀"}
        assert {"plain", "last"} <= set(found)


def test_a_load_outlives_a_restart_of_the_node(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    node = Node(home=tmp_path_factory.mktemp("restarted") / "node", heap="512m", short_lived=True)
    items = rows(20_000, size=200)
    (tmp_path / "a.jsonl").write_bytes(jsonl(items))
    restarted = threading.Event()

    def restart() -> None:
        node.stop()
        node.start()
        node.wait_ready()
        restarted.set()

    restarting = threading.Thread(target=restart)

    def look(progress: Progress) -> None:
        if progress.indexed >= 2_000 and restarting.ident is None:
            restarting.start()

    try:
        with node, OpenSearchTarget(node.url) as target:
            options = LoadOptions(create_index=BODY, bulk_bytes=50_000, progress_seconds=0, max_in_flight=4)
            report = load(request("docs", tmp_path / "a.jsonl"), target=target, options=options, on_progress=look)
            restarting.join()
            assert restarted.is_set()
            assert (report.submitted, report.indexed, report.resumed) == (20_000, 20_000, False)
            verify(target, "docs", count=20_000)
    finally:
        node.remove()
