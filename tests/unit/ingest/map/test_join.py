from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overnight.ingest import LoadOptions, OpenSearchTarget, load, read_dead_letters
from overnight.ingest.map.field_map import compile_field_map
from overnight.ingest.map.join import choose_driver
from overnight.ingest.read.sources import Source, SourceFile
from unit.ingest.fake_opensearch import FakeOpenSearch

FIELD_MAP = {
    "_id": ["source[0].$.id", "source[1].$.custom_id"],
    "text": "source[0].$.t",
    "vector": "source[1].$.response.body.data[0].embedding",
}


def result(key: Any, *vector: float) -> dict[str, Any]:
    body = {"data": [{"embedding": list(vector)}]}
    return {"custom_id": key, "response": {"status_code": 200, "body": body}, "error": None}


def failure(key: Any) -> dict[str, Any]:
    return {"custom_id": key, "response": None, "error": {"code": "batch_expired", "message": "too late"}}


def jsonl(rows: list[Any]) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def request(*sources: Any, **changes: Any) -> dict[str, Any]:
    return {"index_name": "docs", "field_map": FIELD_MAP, "data_source": {"source": list(sources)}, **changes}


@pytest.fixture(params=["plain", "gzip", "remote first", "remote second", "remote both"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Put both sources where the test says: this decides which is streamed, and whether the other is copied."""
    stored: dict[str, bytes] = {}

    def read(uri: str, start: int) -> Iterator[bytes]:
        data = stored[uri]
        for at in range(start, len(data), 7):
            yield data[at : at + 7]

    def put(first: list[Any], second: list[Any]) -> tuple[list[str], dict[str, Any]]:
        uris = []
        for number, rows in enumerate((first, second)):
            data = gzip.compress(jsonl(rows)) if request.param == "gzip" else jsonl(rows)
            if request.param in ("remote both", ("remote first", "remote second")[number]):
                uris.append(f"openai://file-{number}")
                stored[uris[-1]] = data
            else:
                path = tmp_path / f"{number}.jsonl"
                path.write_bytes(data)
                uris.append(str(path))
        return uris, {"openai": read}

    return put


def test_rows_are_joined_by_id_in_one_write_whatever_their_order(
    place: Any, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    texts = [{"id": f"d{n}", "t": f"text {n}"} for n in range(200)]
    vectors = [result(f"d{n}", n, 0.5) for n in range(200)]
    random.Random(1).shuffle(vectors)
    uris, openers = place(texts, vectors)
    report = load(request(*uris), target=target, openers=openers, options=LoadOptions(bulk_bytes=2_000))
    assert opensearch.documents == {f"d{n}": {"text": f"text {n}", "vector": [n, 0.5]} for n in range(200)}
    assert (report.submitted, report.indexed, [source.lines for source in report.sources]) == (200, 200, [200, 200])
    written = [key for bulk in opensearch.bulks for key in bulk]
    assert len(written) == len(set(written)) == 200


def test_every_id_ends_once_and_every_reason_is_named(
    place: Any, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    texts = [{"id": "ok", "t": 1}, {"id": "no result", "t": 1}, {"id": "failed", "t": 1}, b"", {"t": "no id"}]
    texts += [{"id": "ok", "t": 2}, {"id": "no text"}, {"id": 7, "t": 7}]
    vectors = [failure("failed"), result("ok", 1), result("no document", 1), result("no text", 1), b"{"]
    vectors += [failure("failed, no document"), result("ok", 2), result("7", 7)]
    uris, openers = place(texts, vectors)
    letters = str(tmp_path / "letters.jsonl")
    options = LoadOptions(dead_letter_uri=letters, format=(None, "openai"))
    report = load(request(*uris), target=target, openers=openers, options=options)
    assert opensearch.documents == {"ok": {"text": 1, "vector": [1]}, "7": {"text": 7, "vector": [7]}}
    found = sorted((letter.outcome, letter.code, letter.source, letter.line) for letter in read_dead_letters(letters))
    assert found == [
        ("missing", "no_partner", 0, 2),
        ("missing", "no_partner", 1, 3),
        ("rejected", "batch_expired", 1, 1),
        ("rejected", "batch_expired", 1, 6),
        ("rejected", "duplicate_id", 0, 6),
        ("rejected", "duplicate_id", 1, 7),
        ("rejected", "invalid_line", 1, 5),
        ("rejected", "missing_id", 0, 5),
        ("rejected", "missing_value", 0, 7),
    ]
    assert (report.submitted, report.indexed, report.rejected, report.missing) == (11, 2, 7, 2)
    assert [source.blank for source in report.sources] == [1, 0]
    assert sorted(report.missing_sample) == ["no document", "no result"]
    assert [source.missing for source in report.sources] == [1, 1]


def test_unmatched_rows_can_be_written_with_what_is_there(
    place: Any, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    uris, openers = place([{"id": "a", "t": 1}, {"id": "b", "t": 2}], [result("b", 2), result("c", 3), failure("a")])
    report = load(
        request(*uris), target=target, openers=openers, options=LoadOptions(unmatched="index", format=(None, "openai"))
    )
    assert opensearch.documents == {"b": {"text": 2, "vector": [2]}, "c": {"vector": [3]}}
    assert (report.submitted, report.indexed, report.rejected, report.missing) == (3, 2, 1, 0)


def test_output_and_error_file_are_one_source(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    names = ("texts", "output", "errors", "none")
    rows = ([{"id": key, "t": key} for key in "abc"], [result("c", 3), result("a", 1)], [failure("b")], [])
    paths = []
    for name, part in zip(names, rows, strict=True):
        paths.append(str(tmp_path / name))
        (tmp_path / name).write_bytes(jsonl(part))
    report = load(request(paths[0], paths[1:]), target=target, options=LoadOptions(format=(None, "openai")))
    assert set(opensearch.documents) == {"a", "c"}
    assert report.reasons == {"batch_expired": 1}
    (sample,) = report.rejected_sample
    assert (sample.source, sample.line, sample.id) == (1, 1, "b")


def test_a_source_with_nothing_but_ids_only_adds_its_refusals(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    rows = ([{"id": key, "t": key} for key in "ab"], [result("a", 1)], [failure("b")])
    for number, part in enumerate(rows):
        (tmp_path / str(number)).write_bytes(jsonl(part))
    field_map = {**FIELD_MAP, "_id": [*FIELD_MAP["_id"], "source[2].$.custom_id"]}
    wanted = request(*(str(tmp_path / str(n)) for n in range(3)), field_map=field_map)
    report = load(wanted, target=target, options=LoadOptions(format=(None, "openai", "openai")))
    assert set(opensearch.documents) == {"a"}
    assert (report.submitted, report.rejected, report.missing) == (2, 1, 0)


def test_a_field_of_several_sources_is_merged_as_partial_updates_would(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    (tmp_path / "0").write_bytes(b'{"i":1,"m":{"a":1.0,"b":{"c":1}},"s":1}\n')
    (tmp_path / "1").write_bytes(b'{"i":1,"m":{"b":{"d":9007199254740993}},"s":{"x":1}}\n')
    field_map = {"_id": ["source[0].$.i", "source[1].$.i"], "m": ["source[0].$.m", "source[1].$.m"]}
    field_map["s"] = ["source[0].$.s", "source[1].$.s"]
    load(request(str(tmp_path / "0"), str(tmp_path / "1"), field_map=field_map), target=target)
    merged = {"a": 1.0, "b": {"c": 1, "d": 9007199254740993}}
    assert opensearch.documents == {"1": {"m": merged, "s": {"x": 1}}}


def test_a_killed_join_goes_on_and_counts_the_whole(
    place: Any, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    texts: list[Any] = [{"id": f"d{n}", "t": "x" * 50} for n in range(120)]
    vectors: list[Any] = [result(f"d{n}", n) if n % 9 else failure(f"d{n}") for n in range(10, 130)]
    texts[50:50] = [b"broken", texts[3]]
    vectors[70:70] = [b"broken", vectors[3]]
    random.Random(1).shuffle(vectors)
    uris, openers = place(texts, vectors)
    letters, checkpoint = tmp_path / "letters.jsonl", tmp_path / "checkpoint.json"
    options = LoadOptions(
        bulk_bytes=1_000,
        dead_letter_uri=str(letters),
        checkpoint_uri=str(checkpoint),
        checkpoint_seconds=0,
        progress_seconds=0,
    )
    states: list[bytes] = []
    whole = load(
        request(*uris),
        target=target,
        openers=openers,
        options=options,
        on_progress=lambda _: states.append(checkpoint.read_bytes()),
    )
    documents, named = dict(opensearch.documents), sorted(letters.read_bytes().splitlines())
    assert whole.missing == 19  # d0 to d9 have no result; d120 to d129 no document, and d126 failed
    for state in states[::5]:
        checkpoint.write_bytes(state)
        opensearch.bulks.clear()
        again = load(request(*uris), target=target, openers=openers, options=options)
        assert again.model_dump(exclude={"seconds", "resumed"}) == whole.model_dump(exclude={"seconds", "resumed"})
        assert sum(map(len, opensearch.bulks)) == whole.indexed - json.loads(state)["tally"]["indexed"]
        assert sorted(letters.read_bytes().splitlines()) == named
        assert opensearch.documents == documents


keys = st.sampled_from("abcdefgh")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    texts=st.lists(keys),
    results=st.lists(st.tuples(keys, st.sampled_from(["ok", "error", "broken", "no value"]))),
    keep=st.booleans(),
)
def test_a_join_always_adds_up(
    texts: list[str],
    results: list[tuple[str, str]],
    keep: bool,
    opensearch: FakeOpenSearch,
    target: OpenSearchTarget,
    tmp_path: Path,
) -> None:
    make = {"ok": lambda key: result(key, 1), "error": failure, "broken": lambda _: b"{"}
    make["no value"] = lambda key: {"custom_id": key}
    (tmp_path / "0").write_bytes(jsonl([{"id": key, "t": 1} for key in texts]))
    (tmp_path / "1").write_bytes(jsonl([make[kind](key) for key, kind in results]))
    opensearch.documents.clear()
    options = LoadOptions(unmatched="index" if keep else "missing", allow_empty=True)
    report = load(request(str(tmp_path / "0"), str(tmp_path / "1")), target=target, options=options)
    first = {}
    for key, kind in results:
        if kind != "broken":
            first.setdefault(key, kind)
    has_result = {key for key, kind in first.items() if kind == "ok"}
    is_bad = first.keys() - has_result
    complete = (has_result | set(texts)) - is_bad if keep else has_result & set(texts)
    assert set(opensearch.documents) == complete
    unreadable = sum(kind == "broken" for _, kind in results)
    readable = [key for key, kind in results if kind != "broken"]
    repeated = len(texts) - len(set(texts)) + len(readable) - len(set(readable))
    assert report.submitted == len(set(texts) | first.keys()) + unreadable + repeated
    assert report.indexed == len(complete)
    assert report.rejected == unreadable + repeated + len(is_bad)


def test_the_side_that_is_dear_to_read_at_random_is_streamed() -> None:
    def source(index: int, size: int | None, *, local: bool) -> Source:
        return Source(index, "", (SourceFile("", size, local_path="x" if local else None),))

    maps = compile_field_map({**FIELD_MAP, "_id": [*FIELD_MAP["_id"], "source[2].$.i"]}, [], 3)
    third = source(2, 1 << 40, local=False)  # gives no field, so it is never the one
    assert choose_driver([source(0, 9_000, local=True), source(1, 10, local=False), third], maps) == 1
    assert choose_driver([source(0, 9_000, local=False), source(1, 10, local=False), third], maps) == 0
    assert choose_driver([source(0, 9_000, local=False), source(1, None, local=False), third], maps) == 1
    assert choose_driver([source(0, 10, local=True), source(1, 20, local=True), third], maps) == 1
