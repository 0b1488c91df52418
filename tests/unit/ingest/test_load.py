from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from overnight.errors import CredentialsError, SpecError, UnavailableError
from overnight.ingest import LoadOptions, LoadReport, OpenSearchTarget, Progress, SourceError, load, read_dead_letters
from overnight.ingest.write.checkpoint import Checkpoint, CheckpointFile
from unit.ingest.fake_opensearch import Answer, FakeOpenSearch

VECTOR = {"v": {"type": "knn_vector", "dimension": 2}}


def write(path: Path, rows: Iterable[Any]) -> Path:
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def request(*sources: Any, **changes: Any) -> dict[str, Any]:
    return {
        "index_name": "docs",
        "field_map": {"_id": "$.id", "text": "$.t"},
        "data_source": {"source": [str(source) if isinstance(source, Path) else source for source in sources]},
        **changes,
    }


def counts(report: LoadReport) -> tuple[int, int, int, int]:
    return report.submitted, report.indexed, report.rejected, report.missing


def test_every_line_becomes_a_document(opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": f"d{n}", "t": f"text {n}"} for n in range(50)])
    report = load(request(path), target=target, options=LoadOptions(bulk_bytes=1_000, max_in_flight=3))
    assert opensearch.documents == {f"d{n}": {"text": f"text {n}"} for n in range(50)}
    assert counts(report) == (50, 50, 0, 0)
    assert (report.bytes, report.sources[0].lines) == (path.stat().st_size, 50)
    assert len(opensearch.bulks) > 2
    assert opensearch.most_running <= 3


def test_the_memory_of_a_body_is_used_again(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[BytesIO] = []

    def make() -> BytesIO:
        made.append(BytesIO())
        return made[-1]

    monkeypatch.setattr("overnight.ingest.write.body_memory.BytesIO", make)
    rows = [{"id": f"d{n}", "t": "x" * (2_000 if n == 70 else n % 90)} for n in range(200)]
    options = LoadOptions(bulk_bytes=1_000, max_in_flight=2)
    load(request(write(tmp_path / "a.jsonl", rows)), target=target, options=options)
    assert opensearch.documents == {row["id"]: {"text": row["t"]} for row in rows}
    assert len(opensearch.bulks) > 15
    # Two on their way, one that is filled, and the document that is larger than a body.
    assert len(made) <= 4
    assert sum(len(body.getbuffer()) > 1_000 for body in made) == 1


@pytest.mark.parametrize("ids", [range(1, 40), [1, 2, 3, 2, 1, 3, 3, 4] * 5])
def test_of_the_same_id_the_later_line_wins_where_that_is_asked_for_wherever_a_body_ends(
    ids: Iterable[int], opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    rows = [{"id": key, "t": number} for number, key in enumerate(ids)]
    options = LoadOptions(duplicates="overwrite", bulk_bytes=1_000, max_in_flight=3)
    report = load(request(write(tmp_path / "a.jsonl", rows)), target=target, options=options)
    assert opensearch.documents == {str(row["id"]): {"text": row["t"]} for row in rows}
    assert report.indexed == len(rows)


def test_an_id_of_512_bytes_is_taken_and_one_of_513_is_not(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    longest = "é" * 256
    path = write(tmp_path / "a.jsonl", [{"id": longest, "t": 1}, {"id": f"{longest}x", "t": 2}])
    report = load(request(path), target=target)
    assert opensearch.documents == {longest: {"text": 1}}
    assert report.reasons == {"id_too_long": 1}


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, lambda data: b"".join(map(gzip.compress, data.splitlines(True)))]
)
def test_the_progress_is_that_of_the_stored_bytes(
    compress: Any, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several reads of each file.
    monkeypatch.setattr("overnight.ingest.read.sources.CHUNK_BYTES", 1 << 14)
    data = b"".join(b'{"id":"%d","t":"%d"}\n' % (n, n * 7919 % 1000) for n in range(4_000))
    paths = [tmp_path / f"{part}.jsonl" for part in "abcd"]
    for path in paths:
        path.write_bytes(compress(data))
        data = data.replace(b'"id":"', b'"id":"x')
    seen: list[Progress] = []
    options = LoadOptions(bulk_bytes=5_000, progress_seconds=0)
    load(request(f"{tmp_path}/*.jsonl"), target=target, options=options, on_progress=seen.append)
    total = sum(path.stat().st_size for path in paths)
    shares = [progress.stored_bytes / total for progress in seen]
    assert {progress.total_bytes for progress in seen} == {total}
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[-1] == 1
    if compress is bytes:
        # It moves within the files, too; so few compressed bytes are read at once.
        assert len(set(shares)) > len(paths) + 1
    assert "100% read" in str(seen[-1])


BAD = {
    "invalid_line": b'{"id":"x","t":',
    "missing_value": b'{"id":"x"}',
    "missing_id": b'{"t":"x"}',
    "invalid_id": b'{"id":["x"],"t":1}',
    "id_too_long": b'{"id":"%b","t":1}' % ("é" * 257).encode(),
    "duplicate_id": b'{"id":"good","t":2}',
    "line_too_long": b'{"id":"big","t":"%b"}' % (b"x" * 2_000),
}


@pytest.mark.parametrize("code", BAD)
def test_a_bad_line_is_dead_lettered_with_its_number_and_the_rest_goes_in(
    code: str, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    good, last = {"id": "good", "t": 1}, {"id": "last", "t": 3}
    path = write(tmp_path / "a.jsonl", [good, BAD[code], last])
    options = LoadOptions(dead_letter_uri=str(tmp_path / "letters.jsonl"), max_line_bytes=1_500)
    report = load(request(path), target=target, options=options)
    assert opensearch.documents == {"good": {"text": 1}, "last": {"text": 3}}
    assert counts(report) == (3, 2, 1, 0)
    assert report.reasons == {code: 1}
    (letter,) = read_dead_letters(str(tmp_path / "letters.jsonl"))
    assert (letter.code, letter.line, letter.source, letter.uri) == (code, 2, 0, str(path))
    assert letter.offset == len(json.dumps(good)) + 1
    assert letter.text == (BAD[code].decode() if code != "line_too_long" else None)
    assert report.rejected_sample[0].line == 2


def test_invalid_utf8_is_dead_lettered_without_its_text(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [b'{"id":"x","t":"\xff"}', {"id": "y", "t": 1}])
    options = LoadOptions(dead_letter_uri=str(tmp_path / "new" / "letters.jsonl"))
    assert counts(load(request(path), target=target, options=options)) == (2, 1, 1, 0)
    (letter,) = read_dead_letters(str(tmp_path / "new" / "letters.jsonl"))
    assert (letter.line, letter.text) == (1, None)
    assert "UTF-8" in letter.reason


def test_a_line_of_forty_megabytes_is_refused_and_one_below_the_limit_goes_in(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    huge, large = b'{"id":"huge","t":"%b"}' % (b"x" * 40_000_000), b'{"id":"large","t":"%b"}' % (b"x" * 20_000_000)
    path = write(tmp_path / "a.jsonl", [huge, large, {"id": "z", "t": 1}])
    report = load(request(path), target=target)
    assert set(opensearch.documents) == {"large", "z"}
    assert report.reasons == {"line_too_long": 1}


def test_integers_are_ids_and_ids_keep_their_escapes(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [b'{"id":7,"t":1}', b'{"id":"\\u00e9\\"","t":2}', b'{"id":"\xc3\xa9\\"","t":3}'])
    report = load(request(path), target=target)
    assert opensearch.documents == {"7": {"text": 1}, 'é"': {"text": 2}}
    assert report.reasons == {"duplicate_id": 1}


def test_what_opensearch_refuses_is_dead_lettered_in_its_words(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": f"d{n}", "t": n} for n in range(4)])
    error = {"type": "mapper_parsing_exception", "reason": "failed to parse", "caused_by": {"reason": "dimension"}}
    opensearch.on_item = lambda key, _: {"status": 400, "error": error} if key == "d2" else None
    options = LoadOptions(dead_letter_uri=str(tmp_path / "letters.jsonl"))
    report = load(request(path), target=target, options=options)
    assert counts(report) == (4, 3, 1, 0)
    (letter,) = read_dead_letters(str(tmp_path / "letters.jsonl"))
    assert (letter.code, letter.reason) == ("mapper_parsing_exception", "failed to parse: dimension")
    assert (letter.line, letter.id, letter.text) == (3, "d2", '{"text":2}')


def test_the_dead_letter_of_an_update_has_the_document_alone(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": "a", "t": {"doc_as_upsert": True}}])
    opensearch.on_item = lambda _key, _document: {"status": 400, "error": {"type": "x", "reason": "no"}}
    options = LoadOptions(dead_letter_uri=str(tmp_path / "letters.jsonl"), write="update")
    load(request(path), target=target, options=options)
    (letter,) = read_dead_letters(str(tmp_path / "letters.jsonl"))
    assert json.loads(letter.text or "") == {"text": {"doc_as_upsert": True}}


def test_members_that_come_twice_count_once_and_the_last_wins(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [b'{"id":"x","id":"a","t":1,"t":{"u":1},"i\\u0064":"b"}', b'{"id":"x","t":2}'])
    report = load(request(path), target=target)
    assert opensearch.documents == {"b": {"text": {"u": 1}}, "x": {"text": 2}}
    assert report.rejected == 0


def test_nul_and_surrogate_pairs_reach_the_index_as_they_were_written(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    pair = rb'{"id":"\ud83d\ude00","t":"\ud83d\ude00 \u0000"}'
    path = write(
        tmp_path / "a.jsonl", [pair, rb'{"id":"a\u0000","t":1}', rb'{"id":"a","t":2}', rb'{"id":"\ud83d","t":3}']
    )
    report = load(request(path), target=target)
    assert opensearch.documents == {"😀": {"text": "😀 \0"}, "a\0": {"text": 1}, "a": {"text": 2}}
    assert report.reasons == {"invalid_line": 1}


def test_without_an_id_a_second_load_writes_the_same_documents(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [{"t": "same"}, {"t": "same"}, {"t": "other"}])
    wanted = request(path, field_map={"text": "$.t"})
    load(wanted, target=target)
    first = dict(opensearch.documents)
    load(wanted, target=target)
    assert opensearch.documents == first
    assert len(first) == 3
    write(path, [{"t": "same"}, {"t": "changed"}])
    load(wanted, target=target)
    assert len(opensearch.documents) == 4


def test_a_later_line_wins_when_asked_for(opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": f"d{n % 3}", "t": "x" * 300 + str(n)} for n in range(30)])
    options = LoadOptions(duplicates="overwrite", bulk_bytes=1_000, max_in_flight=4)
    report = load(request(path), target=target, options=options)
    assert counts(report) == (30, 30, 0, 0)
    assert {key: document["text"][300:] for key, document in opensearch.documents.items()} == {
        "d0": "27",
        "d1": "28",
        "d2": "29",
    }


def test_existing_documents_keep_the_fields_that_are_not_mapped(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": "old", "t": "new"}, {"id": "new", "t": "new"}])
    opensearch.documents = {"old": {"kept": True, "text": "old"}}
    load(request(path), target=target)
    assert opensearch.documents == {"old": {"kept": True, "text": "new"}, "new": {"text": "new"}}
    load(request(path), target=target, options=LoadOptions(write="index"))
    assert opensearch.documents["old"] == {"text": "new"}


def test_a_line_without_a_value_can_be_written_without_it(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": "a", "u": 1}, {"id": "b", "t": None, "u": 2}, {"id": "c"}])
    wanted = request(path, field_map={"_id": "$.id", "text": "$.t", "u": "$.u"})
    report = load(wanted, target=target, options=LoadOptions(missing_path="omit"))
    assert opensearch.documents == {"a": {"u": 1}, "b": {"text": None, "u": 2}}
    assert report.reasons == {"missing_value": 1}


def test_a_missing_index_is_refused_unless_it_may_be_created(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": "a", "t": 1}])
    with pytest.raises(SpecError, match=r"no index 'other'.*guessed types.*Create it first"):
        load(request(path, index_name="other"), target=target)
    assert "other" not in opensearch.indices
    assert opensearch.bulks == []
    body = {"mappings": {"properties": VECTOR}}
    load(request(path, index_name="other"), target=target, options=LoadOptions(create_index=body))
    assert opensearch.indices["other"]["mappings"]["properties"] == VECTOR


def test_vectors_of_another_dimension_refuse_the_load_before_anything_is_sent(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    opensearch.create("docs", VECTOR)
    path = write(tmp_path / "a.jsonl", [{"id": str(n), "v": [1.0, 2, 3]} for n in range(3)])
    wanted = request(path, field_map={"_id": "$.id", "v": "$.v"})
    with pytest.raises(SpecError, match=r"'v' is a vector of 2 .* have 3"):
        load(wanted, target=target)
    assert opensearch.bulks == []
    write(path, [{"id": "a", "v": [1.0, 2, 3]}, {"id": "b", "v": [1.0, 2]}, {"id": "c", "v": None}])
    assert load(wanted, target=target).indexed == 3


def test_files_without_a_line_are_refused_unless_they_may_be_empty(target: OpenSearchTarget, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [])
    with pytest.raises(SpecError, match="nothing to load"):
        load(request(path), target=target)
    assert counts(load(request(path), target=target, options=LoadOptions(allow_empty=True))) == (0, 0, 0, 0)


def test_a_glob_a_prefix_and_a_list_are_one_source(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    folder = tmp_path / "parts"
    (folder / "deep").mkdir(parents=True)
    write(folder / "1.jsonl", [{"id": "a", "t": 1}])
    (folder / "deep" / "2.jsonl.gz").write_bytes(gzip.compress(b'{"id":"b","t":2}\n{"id":"a","t":3}'))
    write(folder / "3.jsonl", [])
    write(folder / "_SUCCESS", [b"not a part"])
    for source in (f"{folder}/", str(folder), [str(folder / "1.jsonl"), f"{folder}/*/*.gz"], f"{folder}/**/*.jsonl*"):
        opensearch.documents.clear()
        report = load(request(source), target=target)
        assert opensearch.documents == {"a": {"text": 1}, "b": {"text": 2}}
        assert report.reasons == {"duplicate_id": 1}


def test_what_is_not_there_is_refused(target: OpenSearchTarget, tmp_path: Path) -> None:
    for source in (tmp_path / "no.jsonl", f"{tmp_path}/*.jsonl", f"{tmp_path}/none/"):
        with pytest.raises(SpecError, match=r"source\[0\]"):
            load(request(source), target=target)
    with pytest.raises(SpecError, match="key of openai into the request's credential"):
        load(request("openai://file-1"), target=target)


def test_a_cut_gzip_file_fails_the_load_and_says_so(target: OpenSearchTarget, tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b'{"id":"b","t":2}\n' * 10)[:-4])
    with pytest.raises(SourceError, match=r"a\.gz.*cut"):
        load(request(path), target=target)


def test_an_opener_reads_what_is_no_file_system(opensearch: FakeOpenSearch, target: OpenSearchTarget) -> None:
    def read(uri: str, start: int) -> Iterator[bytes]:
        assert uri == "openai://file-1"
        yield b'{"custom_id":"a","response":{"status_code":200,"body":{"x":1}},"error":null}\n'[start:]

    wanted = request(
        "file-1",
        field_map={"_id": "$.custom_id", "x": "$.response.body.x"},
        data_source={"type": "openAI", "source": ["file-1"]},
    )
    load(wanted, target=target, openers={"openai": read})
    assert opensearch.documents == {"a": {"x": 1}}


ANSWERS = "$.response.body.choices[0].message.content.json()"
LABEL = {
    "type": "object",
    "properties": {"label": {"enum": ["x", "y"]}, "n": {"type": "integer"}},
    "required": ["label"],
}


def chats(path: Path, *answers: str) -> Path:
    """Write the result file of a chat batch, whose lines have the ids 0, 1 …"""
    bodies = [{"choices": [{"message": {"content": answer}, "finish_reason": "stop"}]} for answer in answers]
    lines = [{"custom_id": str(n), "response": {"status_code": 200, "body": body}} for n, body in enumerate(bodies)]
    return write(path, [json.dumps(line).encode() for line in lines])


def test_answers_are_checked_against_a_schema(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = chats(
        tmp_path / "a.jsonl", '{"label":"x","n":1.0}', '```json\n{"label":"y"}\n```', '{"label":"z"}', "Sorry."
    )
    options = LoadOptions(dead_letter_uri=str(tmp_path / "letters.jsonl"), format="openai", output_schema=LABEL)
    wanted = request(path, field_map={"_id": "$.custom_id", "label": f"{ANSWERS}.label", "all": ANSWERS})
    report = load(wanted, target=target, options=options)
    assert counts(report) == (4, 2, 2, 0)
    assert opensearch.documents == {
        "0": {"label": "x", "all": {"label": "x", "n": 1.0}},
        "1": {"label": "y", "all": {"label": "y"}},
    }
    poem, sorry = read_dead_letters(str(tmp_path / "letters.jsonl"))
    assert (poem.id, poem.code) == ("2", "invalid_output")
    assert "not what was asked for: $.label: 'z' is not one of ['x', 'y']" in poem.reason
    assert (sorry.id, sorry.code) == ("3", "invalid_output")
    assert "no JSON" in sorry.reason
    assert "Sorry." in str(sorry.text)


@pytest.mark.parametrize(
    ("schema", "path", "words"),
    [
        (LABEL, "$.response.body.x", r"none of its paths does; write such as .*\.json\(\)\.label"),
        ("nowhere.Model", ANSWERS, "cannot be imported"),
        ({"type": "array"}, ANSWERS, "none at its root"),
    ],
)
def test_a_schema_that_checks_nothing_is_refused_before_anything_is_sent(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path, schema: Any, path: str, words: str
) -> None:
    wanted = request(chats(tmp_path / "a.jsonl", "{}"), field_map={"_id": "$.custom_id", "x": path})
    with pytest.raises(SpecError, match=words):
        load(wanted, target=target, options=LoadOptions(output_schema=schema))
    assert opensearch.documents == {}


ERRORS = [
    (
        {"custom_id": "a", "response": {"status_code": 429, "body": {"error": {"code": "rate", "message": "slow"}}}},
        "rate",
    ),
    ({"custom_id": "a", "response": None, "error": {"code": "batch_expired", "message": "slow"}}, "batch_expired"),
    ({"custom_id": "a", "error": {"message": "slow"}}, "service_error"),
    ({"custom_id": "a", "error": "slow"}, "service_error"),
    ({"custom_id": "a", "response": {"status_code": 500, "body": '{"error":{"message":"slow"}}'}}, "status_500"),
    ({"custom_id": "a", "response": {"status_code": 500, "body": "slow"}}, "status_500"),
]


ODD_ERRORS = [
    b'"error":{"code":1e400}',
    b'"error":"\\u0000"',
    b'"response":{"status_code":500,"body":{"n":1e400}}',
    b'"response":{"status_code":500,"body":"{\\"n\\":\\"\\\\ud800\\"}"}',
    b'"response":{"status_code":1e400}',
    b'"response":{"status_code":500,"body":' + b"[" * 300 + b"]" * 300 + b"}",
]


@pytest.mark.parametrize("member", ODD_ERRORS)
def test_an_error_line_that_python_cannot_hold_is_a_rejected_document_too(
    member: bytes, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    good = b'{"custom_id":"b","response":{"status_code":200,"body":{"x":1}}}'
    path = write(tmp_path / "a.jsonl", [b'{"custom_id":"a",%b}' % member, good])
    options = LoadOptions(dead_letter_uri=str(tmp_path / "letters.jsonl"), format="openai")
    wanted = request(path, field_map={"_id": "$.custom_id", "x": "$.response.body.x"})
    assert counts(load(wanted, target=target, options=options)) == (2, 1, 1, 0)
    (letter,) = read_dead_letters(str(tmp_path / "letters.jsonl"))
    assert (letter.id, letter.line) == ("a", 1)


@pytest.mark.parametrize(("line", "code"), ERRORS)
def test_an_error_line_is_a_rejected_document_in_the_services_words(
    line: dict[str, Any], code: str, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    good = {"custom_id": "b", "response": {"status_code": 200, "body": {"x": 1}}, "error": None}
    path = write(tmp_path / "a.jsonl", [line, good])
    wanted = request(path, field_map={"_id": "$.custom_id", "x": "$.response.body.x"})
    report = load(wanted, target=target, options=LoadOptions(format="openai"))
    assert opensearch.documents == {"b": {"x": 1}}
    (sample,) = report.rejected_sample
    assert (sample.code, sample.reason, sample.id, sample.line) == (code, "slow", "a", 1)


LOG = {"id": "r1", "error": "upstream", "response": {"status_code": 503, "body": {"error": {"code": "x"}}}}


@pytest.mark.parametrize(
    ("field_map", "document"),
    [
        ({"_id": "$.id", "status": "$.response.status_code", "error": "$.error"}, {"status": 503, "error": "upstream"}),
        ({"_id": "$.id", "answer": "$.response.body"}, {"answer": {"error": {"code": "x"}}}),
    ],
)
def test_members_of_documents_are_the_users_own_whatever_they_are_called(
    field_map: dict[str, str],
    document: dict[str, Any],
    opensearch: FakeOpenSearch,
    target: OpenSearchTarget,
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "http.jsonl", [LOG])
    load(request(path, field_map=field_map), target=target)
    assert opensearch.documents == {"r1": document}


def test_plain_reads_the_lines_of_an_openai_file_as_documents(
    opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    def read(uri: str, start: int) -> Iterator[bytes]:
        yield json.dumps(LOG).encode()[start:]

    wanted = request("openai://file-1", field_map={"_id": "$.id", "error": "$.error"})
    for options, documents in ((LoadOptions(), {}), (LoadOptions(format="plain"), {"r1": {"error": "upstream"}})):
        load(wanted, target=target, openers={"openai": read}, options=options)
        assert opensearch.documents == documents


def test_blank_lines_are_counted_on_their_own_and_are_no_documents(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": "a", "t": 1}, b"  ", {"id": "b", "t": 2}, b"", b"\t\r", b""])
    report = load(request(path), target=target)
    assert opensearch.documents == {"a": {"text": 1}, "b": {"text": 2}}
    assert counts(report) == (2, 2, 0, 0)
    assert (report.sources[0].lines, report.sources[0].blank) == (6, 4)


def test_nothing_but_blank_lines_is_nothing_to_load(target: OpenSearchTarget, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [b"", b"  "])
    with pytest.raises(SpecError, match="nothing to load"):
        load(request(path), target=target)
    assert load(request(path), target=target, options=LoadOptions(allow_empty=True)).sources[0].blank == 2


def test_an_unknown_format_is_refused(target: OpenSearchTarget, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": "a", "t": 1}])
    with pytest.raises(SpecError, match="no result format 'nobody'.*openai"):
        load(request(path), target=target, options=LoadOptions(format="nobody"))
    with pytest.raises(SpecError, match="one for each"):
        load(request(path), target=target, options=LoadOptions(format=("openai", None)))


def test_a_line_that_lacks_a_value_and_holds_an_error_is_rejected_in_its_words(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    bedrock = {"recordId": "a", "modelInput": {"inputText": "x"}, "error": {"errorCode": 400, "errorMessage": "slow"}}
    path = write(tmp_path / "a.jsonl", [bedrock])
    report = load(request(path, field_map={"_id": "$.recordId", "v": "$.modelOutput.embedding"}), target=target)
    (sample,) = report.rejected_sample
    assert (sample.code, sample.id) == ("400", "a")
    assert sample.reason == "the line has no value at $.modelOutput.embedding; its error: slow"


def test_settings_are_changed_for_the_load_and_restored_when_it_fails(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": "a", "t": 1}])
    opensearch.faults = [Answer(401, {"error": "no"})]
    options = LoadOptions(load_settings={"refresh_interval": "-1", "index.translog.durability": "async"})
    with pytest.raises(CredentialsError):
        load(request(path), target=target, options=options)
    assert opensearch.settings == [
        {"index.refresh_interval": "-1", "index.translog.durability": "async"},
        {"index.refresh_interval": "7s", "index.translog.durability": None},
    ]


def test_settings_that_a_killed_load_left_changed_become_what_they_were(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": "a", "t": 1}])
    checkpoint = tmp_path / "checkpoint.json"
    options = LoadOptions(load_settings={"refresh_interval": "-1"}, checkpoint_uri=str(checkpoint))
    opensearch.faults = [Answer(401, {"error": "no"})]
    with pytest.raises(CredentialsError):
        load(request(path), target=target, options=options)
    state = json.loads(checkpoint.read_bytes())
    state["settings"] = {"refresh_interval": "3s"}
    checkpoint.write_text(json.dumps(state))
    load(request(path), target=target, options=options)
    assert opensearch.settings[-1] == {"index.refresh_interval": "3s"}


def mixed_rows(count: int) -> Iterator[Any]:
    for n in range(count):
        yield b"broken" if n % 10 == 3 else {"id": f"d{n % 95}" if n % 10 == 9 else f"e{n}", "t": "x" * 50}


@pytest.mark.parametrize("has_id", [True, False])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_load_that_was_killed_anywhere_goes_on_and_counts_the_whole(
    has_id: bool, compressed: bool, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    folder, states = tmp_path / "parts", tmp_path / "states"
    folder.mkdir()
    for part in range(3):
        path = write(folder / f"{part}.jsonl", mixed_rows(100))
        if compressed:
            (folder / f"{part}.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    letters, checkpoint = tmp_path / "letters.jsonl", tmp_path / "checkpoint.json"
    options = LoadOptions(
        bulk_bytes=1_500,
        dead_letter_uri=str(letters),
        checkpoint_uri=str(checkpoint),
        checkpoint_seconds=0,
        progress_seconds=0,
    )
    wanted = request(f"{folder}/")
    if not has_id:
        wanted["field_map"] = {"text": "$.t"}
    seen = 0

    def keep(_: Progress) -> None:
        nonlocal seen
        seen += 1
        states.mkdir(exist_ok=True)
        shutil.copy(checkpoint, states / f"{seen:04}.json")

    whole = load(wanted, target=target, options=options, on_progress=keep)
    documents, named = dict(opensearch.documents), letters.read_bytes()
    assert counts(whole)[0] == 300
    assert whole.rejected >= 30
    assert not checkpoint.exists()
    for state in sorted(states.iterdir())[::9]:
        done = json.loads(state.read_bytes())["tally"]["indexed"]
        # As a kill leaves it: everything after the checkpoint may have been written, or not.
        letters.write_bytes(named + b'{"half a li')
        shutil.copy(state, checkpoint)
        opensearch.bulks.clear()
        again = load(wanted, target=target, options=options)
        assert again.model_dump(exclude={"seconds", "resumed"}) == whole.model_dump(exclude={"seconds", "resumed"})
        assert sum(map(len, opensearch.bulks)) == whole.indexed - done
        assert letters.read_bytes() == named
        assert opensearch.documents == documents


def test_a_load_that_failed_goes_on_and_sends_only_the_rest(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": f"d{n}", "t": "x" * 100} for n in range(100)])
    options = LoadOptions(bulk_bytes=1_000, checkpoint_uri=str(tmp_path / "c.json"), max_in_flight=1)
    opensearch.gate = lambda ids: opensearch.faults.append(Answer(403, {"error": "no"})) if "d50" in ids else None
    with pytest.raises(CredentialsError):
        load(request(path), target=target, options=options)
    before = len(opensearch.documents)
    assert 0 < before < 100
    opensearch.gate, opensearch.faults, opensearch.bulks = lambda _: None, [], []
    report = load(request(path), target=target, options=options)
    assert report.resumed
    assert counts(report) == (100, 100, 0, 0)
    assert sum(map(len, opensearch.bulks)) == 100 - before
    assert len(opensearch.documents) == 100


@pytest.mark.parametrize("change", ["file", "request", "index"])
def test_a_checkpoint_of_another_load_is_not_used(
    change: str, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": f"d{n}", "t": "x" * 100} for n in range(100)])
    options = LoadOptions(bulk_bytes=1_000, checkpoint_uri=str(tmp_path / "c.json"), max_in_flight=1)
    opensearch.gate = lambda ids: opensearch.faults.append(Answer(403, {"error": "no"})) if "d50" in ids else None
    wanted = request(path)
    with pytest.raises(CredentialsError):
        load(wanted, target=target, options=options)
    opensearch.gate, opensearch.faults, opensearch.bulks = lambda _: None, [], []
    if change == "file":
        write(path, [{"id": f"d{n}", "t": "y" * 100} for n in range(101)])
    elif change == "request":
        wanted["field_map"]["more"] = "$.t"
    else:
        opensearch.create("docs")
        opensearch.indices["docs"]["settings"]["index"]["uuid"] = "another"
        opensearch.documents.clear()
    report = load(wanted, target=target, options=options)
    assert not report.resumed
    assert sum(map(len, opensearch.bulks)) == report.submitted == len(opensearch.documents) >= 100


def test_progress_ends_with_everything(target: OpenSearchTarget, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": f"d{n}", "t": n} for n in range(100)])
    seen: list[Progress] = []
    load(request(path), target=target, options=LoadOptions(bulk_bytes=1_000), on_progress=seen.append)
    assert (seen[-1].indexed, seen[-1].bytes, seen[-1].total_bytes) == (100, path.stat().st_size, path.stat().st_size)
    assert str(seen[-1]) == "100 indexed, 0 rejected, 0 missing, 100% read"


def test_a_report_names_the_file_of_each_line_and_says_one_number_a_line(
    target: OpenSearchTarget, tmp_path: Path
) -> None:
    good = write(tmp_path / "a.jsonl", [{"id": "a", "t": 1}])
    bad = write(tmp_path / "b.jsonl", [{"id": "b", "t": 1}, b"{", {"id": "a", "t": 1}])
    wanted = request(good, field_map={"_id": "$.id", "text": "$.t"})
    wanted["data_source"]["source"] = [[str(good), str(bad)]]
    report = load(wanted, target=target)
    places = [(sample.uri, sample.line, sample.code) for sample in report.rejected_sample]
    assert places == [(str(bad), 2, "invalid_line"), (str(bad), 3, "duplicate_id")]
    lines = list(report.describe())
    counts = ["submitted: 4", "indexed: 2", "unchanged: 0", "dropped: 0", "rejected: 2", "missing: 0"]
    assert lines[:7] == ["index: docs", *counts]
    assert "  invalid_line: 1" in lines
    assert f"  {bad}, line 3: duplicate_id: an earlier line of this source has the same id" in lines


# --- results and the service's own count of them ---------------------------------------------------------------------


def result(key: str) -> bytes:
    return b'{"custom_id":"%b","response":{"status_code":200,"body":{"data":[1]}}}' % key.encode()


ERROR = b'{"custom_id":"c","response":null,"error":{"code":"bad","message":"no"}}'
CUT_RESULTS = {
    "cut between two lines": [result("a")],
    "cut in a line": [result("a"), result("b")[:40]],
    "words": [b"upstream", b"is", b"busy", b"now"],
    "an error with a status of success": [b'{"error":{"message":"busy"}}'],
    "nothing": [],
}


def open_batch(output: list[bytes], errors: list[bytes]) -> Any:
    files = {"openai://out": output, "openai://err": errors}
    return {"openai": lambda uri, start: iter([b"\n".join(files[uri])[start:]])}


RESULT_URIS = ["openai://out", "openai://err"]


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("name", CUT_RESULTS)
def test_fewer_results_than_the_service_counts_are_the_services_fault(
    name: str, joined: bool, opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.json"
    if joined:
        texts = write(tmp_path / "texts.jsonl", [{"id": key, "t": key} for key in "abc"])
        fields = {"_id": ["source[0].$.id", "source[1].$.custom_id"], "t": "source[0].$.t", "v": "source[1].$.response"}
        wanted, expected = request(texts, RESULT_URIS, field_map=fields), (None, 3)
    else:
        wanted = request(RESULT_URIS, field_map={"_id": "$.custom_id", "v": "$.response"})
        expected = (3,)  # type: ignore[assignment]
    options = LoadOptions(result_counts=expected, checkpoint_uri=str(checkpoint))
    for _ in range(2):  # a retry does not go on behind what was cut
        with pytest.raises(UnavailableError, match=r"has results of 3 requests by the service's count, and its files"):
            load(wanted, target=target, openers=open_batch(CUT_RESULTS[name], [ERROR]), options=options)
        assert not checkpoint.exists()
    report = load(wanted, target=target, openers=open_batch([result("a"), result("b")], [ERROR]), options=options)
    assert counts(report) == (3, 2, 1, 0)


def test_a_service_that_answers_with_numbers_as_ids_loses_no_line(
    opensearch: FakeOpenSearch, target: OpenSearchTarget, tmp_path: Path
) -> None:
    texts = write(tmp_path / "texts.jsonl", [{"id": "7", "t": "a"}, {"id": 8, "t": "b"}, {"id": "9", "t": "c"}])
    fields = {"_id": ["source[0].$.id", "source[1].$.custom_id"], "t": "source[0].$.t", "v": "source[1].$.response"}
    output = [result("x").replace(b'"x"', number) for number in (b"7", b"8")]
    wanted = request(texts, RESULT_URIS, field_map=fields)
    openers = open_batch(output, [ERROR.replace(b'"c"', b"9")])
    report = load(wanted, target=target, openers=openers, options=LoadOptions(result_counts=(None, 3)))
    assert (set(opensearch.documents), report.reasons) == ({"7", "8"}, {"bad": 1})


def test_a_line_of_the_services_own_that_cannot_be_read_is_no_cut_file(
    opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    wanted = request(RESULT_URIS, field_map={"_id": "$.custom_id", "v": "$.response"})
    openers = open_batch([result("a"), b"{broken", result("b")], [ERROR])
    options = LoadOptions(result_counts=(4,))
    assert counts(load(wanted, target=target, openers=openers, options=options)) == (4, 2, 2, 0)


@pytest.mark.parametrize(("every", "fewest", "most"), [(1.0, 1, 4), (0.0, 8, 200)])
def test_checkpoints_that_take_long_to_write_are_few_unless_each_is_asked_for(
    every: float,
    fewest: int,
    most: int,
    opensearch: FakeOpenSearch,
    target: OpenSearchTarget,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, saved = 0.0, 0

    def tick() -> float:
        nonlocal now
        now += 0.1
        return now

    def save(_file: CheckpointFile, _checkpoint: Checkpoint) -> None:
        nonlocal now, saved
        saved += 1
        now += 1.0

    monkeypatch.setattr("overnight.ingest.write.delivery.time", SimpleNamespace(monotonic=tick))
    monkeypatch.setattr(CheckpointFile, "save", save)
    path = write(tmp_path / "a.jsonl", [{"id": n, "t": "x" * 900} for n in range(60)])
    options = LoadOptions(bulk_bytes=1_000, checkpoint_uri=str(tmp_path / "c"), checkpoint_seconds=every)
    assert load(request(path), target=target, options=options).indexed == 60
    assert fewest <= saved <= most
