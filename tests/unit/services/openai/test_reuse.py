"""Batch input of what is not in the cache, and the results that are taken from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from overnight.cache import open_cache
from overnight.errors import SpecError
from overnight.jobs import JobRef, ResultFile, ResultManifest
from overnight.services.openai import documents as documents_module
from overnight.services.openai import reuse
from overnight.services.openai.cached_answers import (
    CachedService,
    CacheMode,
    keep_answers,
    parse_cache_mode,
    read_repeated,
    read_reused,
)
from overnight.services.openai.input import BuiltInput, InputError, Limits, RequestTemplate, build, read_documents
from overnight.services.openai.reuse import build_reusing
from overnight.storage import Storage

TEMPLATE = RequestTemplate.embeddings("m")


class Night:
    """Runs over a corpus with one cache; the service answers each request with a vector of its text's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base_url = "https://one.example/v1"
        self.paid: list[str] = []

    @property
    def service(self) -> CachedService:
        return CachedService(open_cache(f"{self.folder}/cache", Storage()), self.base_url)

    def prepare(
        self, documents: Iterable[Any], mode: CacheMode = "write", template: RequestTemplate = TEMPLATE, **others: Any
    ) -> BuiltInput:
        return build_reusing(documents, template, f"{self.folder}/out", service=self.service, mode=mode, **others)

    def run(self, documents: list[Any], mode: CacheMode = "write", **others: Any) -> dict[str, bytes]:
        """Return the response of each document, by its id."""
        built = self.prepare(documents, mode, **others)
        self.paid = []
        lines: list[bytes] = []
        for part in built.parts:
            output = Path(part.uri.replace("requests", "output"))
            output.write_bytes(b"".join(map(self.answer, Path(part.uri).read_bytes().splitlines())))
            manifest = ResultManifest(
                ref=JobRef(service="openai", id="b", conn_id="c"), files=(ResultFile(kind="output", uri=str(output)),)
            )
            if mode != "read":
                keep_answers(
                    manifest,
                    read_chunks,
                    self.service,
                    requests_uri=part.uri,
                    endpoint=TEMPLATE.endpoint,
                    storage=Storage(),
                    replace=mode == "refresh",
                )
            results = output.read_bytes().splitlines()
            lines += results
            documents_of = Path(part.documents_uri).read_bytes().splitlines()
            if part.repeated_uri is not None and part.repeated_documents_uri is not None:
                lines += read_repeated(part.repeated_uri, results, Storage())
                documents_of += Path(part.repeated_documents_uri).read_bytes().splitlines()
            assert len(documents_of) == part.requests + part.repeated
        for reused in built.reused:
            lines += read_reused(reused, TEMPLATE, self.service.cache, Storage())
        found = {
            str(orjson.loads(line)["custom_id"]): line.partition(b'"response":')[2].rstrip()[:-1] for line in lines
        }
        assert len(found) == len(lines) == built.documents - built.rejected
        return found

    def answer(self, line: bytes) -> bytes:
        request = orjson.loads(line)
        text = request["body"]["input"]
        self.paid.append(request["custom_id"])
        if text == "refused":
            return b'{"custom_id":"%b","response":{"status_code":400,"body":{"error":{"code":"x"}}}}\n' % (
                request["custom_id"].encode()
            )
        body = b'{"data":[{"embedding":[%d.10000000000000001, 1E-2]}]}' % len(text)
        return b'{"custom_id":"%b","response":{"status_code":200,"body":%b}}\n' % (request["custom_id"].encode(), body)


def read_chunks(uri: str) -> Iterator[bytes]:
    yield Path(uri).read_bytes()


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def make_documents(count: int, **changed: str) -> list[dict[str, str]]:
    return [{"id": f"d{number}", "text": changed.get(f"d{number}", "x" * number)} for number in range(1, count + 1)]


def test_what_was_paid_for_is_not_sent_again(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "BLOCK_DOCUMENTS", 7)
    monkeypatch.setattr(documents_module, "BLOCK_DOCUMENTS", 5)
    documents = make_documents(30)
    first = night.run(documents)
    assert len(night.paid) == 30
    assert night.run(documents) == first
    assert night.paid == []
    second = night.run(make_documents(32, d3="other", d4="one more"))
    assert night.paid == ["d3", "d4", "d31", "d32"]
    assert {name: second[name] for name in first if name not in ("d3", "d4")} == {
        name: first[name] for name in first if name not in ("d3", "d4")
    }


def test_an_answer_comes_back_byte_for_byte_for_another_document_with_the_same_text(night: Night) -> None:
    first = night.run([{"id": "a", "text": "same"}])
    assert night.run([{"id": "b", "text": "same", "year": 1}]) == {"b": first["a"]}
    assert night.paid == []


def test_the_model_the_endpoint_and_the_server_decide_an_answer(night: Night) -> None:
    documents = make_documents(1)
    night.run(documents)
    assert night.prepare(documents, template=RequestTemplate.embeddings("other")).requests == 1
    assert night.prepare(documents, template=RequestTemplate.embeddings("m", endpoint="/v2/embeddings")).requests == 1
    night.base_url = "https://two.example/v1"
    assert night.prepare(documents).requests == 1


def test_the_same_request_is_sent_once_and_its_answer_given_to_all(night: Night) -> None:
    documents = [{"id": f"d{number}", "text": "ab"[number % 2]} for number in range(9)]
    found = night.run(
        [*documents, {"id": "r", "text": "refused"}, {"id": "s", "text": "refused"}], limits=Limits(requests=1)
    )
    assert night.paid == ["d0", "d1", "r"]
    assert len(set(found.values())) == 2
    assert found["s"] == found["r"]
    assert b'"status_code":400' in found["s"]


def test_what_failed_is_sent_again(night: Night) -> None:
    documents = [{"id": "r", "text": "refused"}]
    night.run(documents)
    night.run(documents)
    assert night.paid == ["r"]


def test_refresh_pays_again_and_replaces(night: Night) -> None:
    documents = make_documents(3)
    night.run(documents)
    night.run(documents, "refresh")
    assert len(night.paid) == 3
    night.run(documents)
    assert night.paid == []


def test_read_adds_nothing(night: Night) -> None:
    night.run(make_documents(2))
    before = sorted((night.folder / "cache").rglob("*"))
    night.run(make_documents(3), "read")
    assert night.paid == ["d3"]
    assert sorted((night.folder / "cache").rglob("*")) == before


def test_reused_parts_are_cut_as_batches_are_and_old_ones_go(night: Night) -> None:
    documents = make_documents(5)
    night.run(documents)
    assert [part.documents for part in night.prepare(documents, limits=Limits(requests=2)).reused] == [2, 2, 1]
    night.prepare(documents)
    assert {path.name for path in (night.folder / "out").glob("reused-*")} == {
        "reused-00000.answers.jsonl",
        "reused-00000.documents.jsonl",
    }


@pytest.mark.parametrize("is_known", [False, True], ids=["new lines", "known lines"])
def test_bad_documents_are_rejected_as_without_a_cache(tmp_path: Path, night: Night, is_known: bool) -> None:
    documents = [b'{"id": "a", "text": "x"}', b"", b"no JSON", b'{"id": "a", "text": "y"}', b'{"id": "b", "text": " "}']
    if is_known:
        night.run([documents[0]])
        night.run([documents[3]])
    with pytest.raises(InputError) as with_cache:
        night.prepare(documents)
    assert not list((tmp_path / "out").glob("reused-*"))
    with pytest.raises(InputError) as without:
        build(documents, TEMPLATE, f"{tmp_path}/plain")
    assert str(with_cache.value) == str(without.value)
    uris = [f"{tmp_path}/{name}.jsonl" for name in "ab"]
    for uri in uris:
        Path(uri).write_bytes(b"\n".join(documents))
    # What is wrong is told in the same words, however many files are looked up together.
    with pytest.raises(InputError) as with_cache:
        night.prepare(read_documents(uris))
    with pytest.raises(InputError) as without:
        build(read_documents(uris), TEMPLATE, f"{tmp_path}/plain")
    assert str(with_cache.value) == str(without.value)
    rejecting = night.prepare(documents, on_bad="reject")
    assert (rejecting.documents, rejecting.rejected, rejecting.blank_lines) == (4, 3, 1)


def test_a_mode_needs_a_cache_and_a_word() -> None:
    assert [parse_cache_mode(unset, None) for unset in (None, "", "None")] == ["off"] * 3
    assert parse_cache_mode(None, "s3://b/cache") == "write"
    assert parse_cache_mode("off", "s3://b/cache") == "off"
    for mode in ("read", "write", "refresh"):
        with pytest.raises(SpecError, match=f"cache={mode} needs a cache"):
            parse_cache_mode(mode, "")
    with pytest.raises(SpecError, match="none of off, read, write, refresh"):
        parse_cache_mode("rw", "s3://b/cache")
