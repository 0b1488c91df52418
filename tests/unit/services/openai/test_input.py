from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from overnight.ingest.report.dead_letters import read_dead_letters
from overnight.services.openai.input import InputError, Limits, RequestTemplate, build, read_documents, scan
from overnight.services.openai.scan import estimate_tokens

TEMPLATE = RequestTemplate.embeddings("m")


def documents(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {"id": f"d{number}", "text": f"text {number}", "more": {"n": number}}


def read(uri: str) -> list[Any]:
    return [orjson.loads(line) for line in Path(uri).read_bytes().splitlines()]


def test_parts_hold_every_document_once_and_beside_it_its_source(tmp_path: Path) -> None:
    built = build(documents(7), TEMPLATE, str(tmp_path), limits=Limits(requests=3))
    assert [part.requests for part in built.parts] == [3, 3, 1]
    assert (built.documents, built.requests, built.rejected, built.rejected_uri) == (7, 7, 0, None)
    sources = []
    for part in built.parts:
        ids = [request["custom_id"] for request in read(part.uri)]
        assert ids == [document["id"] for document in read(part.documents_uri)]
        sources += read(part.documents_uri)
    assert sources == list(documents(7))


def test_what_is_built_passes_the_scan_with_the_same_measures(tmp_path: Path) -> None:
    for part in build(documents(5), TEMPLATE, str(tmp_path), limits=Limits(requests=2)).parts:
        found = scan(part.uri, "/v1/embeddings")
        assert (found.requests, found.bytes, found.sha256, found.embedding_inputs) == (
            part.requests,
            part.bytes,
            part.sha256,
            part.embedding_inputs,
        )
        assert hashlib.sha256(Path(part.uri).read_bytes()).hexdigest() == part.sha256


@pytest.mark.parametrize(
    "limits",
    [
        Limits(bytes=1_000),
        Limits(embedding_inputs=9),
        Limits(requests=3),
        Limits(bytes=1_000, requests=4),
        Limits(tokens=9),
    ],
)
def test_parts_keep_to_each_limit_and_are_no_smaller_than_it_asks(tmp_path: Path, limits: Limits) -> None:
    many = [{"id": n, "text": ["x"] * (n % 4 + 1)} for n in range(40)]
    parts = build(many, TEMPLATE, str(tmp_path), limits=limits).parts
    assert sum(part.requests for part in parts) == 40
    assert len(parts) > 1
    assert all(scan(part.uri, "/v1/embeddings", limits=limits) for part in parts)
    for part, following in pairwise(parts):
        first = Path(following.uri).read_bytes().splitlines(keepends=True)[0]
        body = orjson.loads(first)["body"]
        inputs = len(body["input"])
        assert (
            part.requests + 1 > limits.requests
            or part.bytes + len(first) > limits.bytes
            or part.embedding_inputs + inputs > limits.embedding_inputs
            or (limits.tokens is not None and part.tokens + estimate_tokens(body) > limits.tokens)
        )


def test_a_request_that_alone_is_over_the_tokens_of_a_part_has_a_part_of_its_own(tmp_path: Path) -> None:
    texts = ["a", "long " * 40, "b", "c"]
    limits = Limits(tokens=10)
    parts = build(
        [{"id": n, "text": text} for n, text in enumerate(texts)], TEMPLATE, str(tmp_path), limits=limits
    ).parts
    assert [(part.requests, part.tokens) for part in parts] == [(1, 1), (1, 50), (2, 2)]
    assert [scan(part.uri, "/v1/embeddings", limits=limits).tokens for part in parts] == [1, 50, 2]


def test_a_file_with_more_tokens_than_a_part_may_have_is_refused(tmp_path: Path) -> None:
    (part,) = build(documents(5), TEMPLATE, str(tmp_path)).parts
    with pytest.raises(InputError, match=rf"it has about {part.tokens} tokens, and one batch takes {part.tokens - 1}"):
        scan(part.uri, "/v1/embeddings", limits=Limits(tokens=part.tokens - 1))


def test_source_lines_are_kept_byte_for_byte(tmp_path: Path) -> None:
    lines = [b'{"id": 1,  "text": "a", "n": 1e-7}\r\n', '{"text":"\u00e9", "id":2, "n": 9007199254740993}'.encode()]
    built = build(lines, TEMPLATE, str(tmp_path))
    assert Path(built.parts[0].documents_uri).read_bytes() == lines[0].strip() + b"\n" + lines[1] + b"\n"


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    first = build(documents(9), TEMPLATE, str(tmp_path / "a"), limits=Limits(requests=4))
    second = build(documents(9), TEMPLATE, str(tmp_path / "b"), limits=Limits(requests=4))
    assert [part.sha256 for part in first.parts] == [part.sha256 for part in second.parts]


def test_fewer_parts_leave_none_of_the_former_behind_and_touch_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("keep\n")
    build([*documents(5), {"id": "x"}], TEMPLATE, str(tmp_path), limits=Limits(requests=1), on_bad="reject")
    built = build(documents(1), TEMPLATE, str(tmp_path))
    assert len(built.parts) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mine.jsonl",
        "part-00000.documents.jsonl",
        "part-00000.requests.jsonl",
    ]


def test_no_documents_give_no_parts(tmp_path: Path) -> None:
    built = build([], TEMPLATE, str(tmp_path))
    assert (built.parts, built.documents) == ((), 0)


BAD: list[tuple[Any, str]] = [
    (b"{", "not_json"),
    (b'{"id": 1, "text": "\xff"}', "not_json"),
    (b"[1]", "not_an_object"),
    ({"text": "x"}, "no_id"),
    ({"id": 1.5, "text": "x"}, "bad_id"),
    ({"id": "x" * 600, "text": "x"}, "id_too_long"),
    ({"id": 1}, "missing"),
    ({"id": 1, "text": " "}, "empty"),
    ({"id": 1, "text": 7}, "not_text"),
    ({"id": 1, "text": "x" * 5_000}, "too_large"),
    ({"id": "good", "text": "again"}, "duplicate"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_a_bad_document_is_refused_with_its_line(tmp_path: Path, bad: Any, reason: str) -> None:
    stream = [{"id": "good", "text": "x"}, bad, {"id": "other", "text": "x"}]
    with pytest.raises(InputError) as caught:
        build(stream, TEMPLATE, str(tmp_path), limits=Limits(bytes=2_000))
    assert [(one.line, one.code) for one in caught.value.rejections] == [(2, reason)]
    assert list(tmp_path.iterdir()) == []


def test_bad_documents_are_rejected_with_reason_and_the_rest_goes_in(tmp_path: Path) -> None:
    stream = [{"id": "good", "text": "x"}, *(bad for bad, _ in BAD), {"id": "other", "text": "x"}]
    built = build(stream, TEMPLATE, str(tmp_path), limits=Limits(bytes=2_000), on_bad="reject")
    assert [request["custom_id"] for request in read(built.parts[0].uri)] == ["good", "other"]
    assert built.rejected == len(BAD)
    assert built.rejected_uri is not None
    records = list(read_dead_letters(built.rejected_uri))
    assert [(record.line, record.code, record.outcome) for record in records] == [
        (number, code, "rejected") for number, (_, code) in enumerate(BAD, 2)
    ]
    assert records[0].text == "{"
    assert records[1].text is None
    assert records[3].text == '{"text":"x"}'


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    stream = [b"\n", {"id": 1, "text": "x"}, b" \r\n", b"", {"id": 2, "text": "x"}, b"\n"]
    built = build(stream, TEMPLATE, str(tmp_path))
    assert (built.documents, built.requests, built.rejected, built.blank_lines) == (2, 2, 0, 4)


def test_of_several_files_the_file_and_its_own_line_are_named(tmp_path: Path) -> None:
    good, bad = b'{"id": 1, "text": "x"}\n', b'{"text": "x"}\n'
    uris = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    (tmp_path / "a.jsonl").write_bytes(good + bad)
    (tmp_path / "b.jsonl").write_bytes(b"\n" + bad + good)
    with pytest.raises(InputError) as caught:
        build(read_documents(uris), TEMPLATE, str(tmp_path / "out"))
    assert [(one.uri, one.line, one.code) for one in caught.value.rejections] == [
        (uris[0], 2, "no_id"),
        (uris[1], 2, "no_id"),
        (uris[1], 3, "duplicate"),
    ]
    assert f"{uris[1]}, line 3: its id was used in line 1 of {uris[0]} already." in str(caught.value)
    built = build(read_documents(uris), TEMPLATE, str(tmp_path / "out"), on_bad="reject")
    assert built.rejected_uri is not None
    records = list(read_dead_letters(built.rejected_uri))
    assert [(one.uri, one.line, one.offset) for one in records] == [
        (uris[0], 2, len(good)),
        (uris[1], 2, 1),
        (uris[1], 3, 1 + len(bad)),
    ]


def test_an_error_in_the_stream_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield from documents(3)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        build(broken(), TEMPLATE, str(tmp_path), limits=Limits(requests=1))
    assert list(tmp_path.iterdir()) == []


@given(
    st.lists(
        st.one_of(
            st.fixed_dictionaries({"id": st.integers(0, 20) | st.text(max_size=3), "text": st.text(max_size=5)}),
            st.binary(max_size=10),
        ),
        max_size=25,
    ),
    st.integers(1, 5),
)
def test_every_line_is_either_in_one_part_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, stream: list[Any], per_part: int
) -> None:
    folder = tmp_path_factory.mktemp("build")
    built = build(stream, TEMPLATE, str(folder), limits=Limits(requests=per_part), on_bad="reject")
    assert built.documents == built.requests + built.rejected
    assert built.documents + built.blank_lines == len(stream)
    ids = [request["custom_id"] for part in built.parts for request in read(part.uri)]
    assert len(ids) == len(set(ids)) == built.requests
    assert all(scan(part.uri, "/v1/embeddings").requests == part.requests for part in built.parts)
    rejected = read(built.rejected_uri) if built.rejected_uri else []
    assert len({record["line"] for record in rejected}) == built.rejected


def test_documents_are_read_from_many_files_plain_and_compressed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"id":1}\n{"id":2}')
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"id":3}\n'))
    uris = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl.gz")]
    assert [line.data for line in read_documents(uris)] == [b'{"id":1}\n', b'{"id":2}', b'{"id":3}\n']


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("between", [b"\n", b"\r\n"])
@pytest.mark.parametrize("per_part", [2, 5, 9])
def test_the_lines_of_a_file_are_in_the_parts_with_a_line_feed_each(
    tmp_path: Path, between: bytes, end: bytes, per_part: int
) -> None:
    lines = [orjson.dumps(document) for document in documents(5)]
    (tmp_path / "a.jsonl").write_bytes(between.join(lines) + end)
    files = read_documents([str(tmp_path / "a.jsonl")])
    built = build(files, TEMPLATE, str(tmp_path / "out"), limits=Limits(requests=per_part))
    assert [Path(part.documents_uri).read_bytes().splitlines(keepends=True) for part in built.parts] == [
        [line + b"\n" for line in lines[at : at + per_part]] for at in range(0, 5, per_part)
    ]


def test_the_rows_of_tables_are_documents(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,x\n")
    parquet.write_table(pa.table({"id": [2], "text": ["y"]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet.gz").write_bytes(gzip.compress((tmp_path / "b.parquet").read_bytes()))
    uris = [str(tmp_path / name) for name in ("a.csv", "b.parquet", "c.parquet.gz")]
    assert [line.data for line in read_documents(uris)] == [
        b'{"id":"1","text":"x"}\n',
        b'{"id":2,"text":"y"}\n',
        b'{"id":2,"text":"y"}\n',
    ]
