from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import SpecError
from overnight.services.openai.input import InputError, Limits, scan
from overnight.services.openai.scan import InputScan

EMBED = "/v1/embeddings"


def request(custom_id: Any = "a", **changes: Any) -> dict[str, Any]:
    line = {"custom_id": custom_id, "method": "POST", "url": EMBED, "body": {"model": "m", "input": "text"}}
    return {name: value for name, value in {**line, **changes}.items() if value is not ...}


def lines(*requests: Any) -> bytes:
    return b"".join(line + b"\n" if isinstance(line, bytes) else orjson.dumps(line) + b"\n" for line in requests)


def scanned(folder: Path, content: bytes, endpoint: str = EMBED, **options: Any) -> InputScan:
    file = folder / "in.jsonl"
    file.write_bytes(content)
    return scan(str(file), endpoint, **options)


def problems(folder: Path, content: bytes, endpoint: str = EMBED, **options: Any) -> list[tuple[int | None, str]]:
    with pytest.raises(InputError) as caught:
        scanned(folder, content, endpoint, **options)
    return [(one.line, one.code) for one in caught.value.rejections]


def test_a_good_file_is_measured(tmp_path: Path) -> None:
    content = lines(request("a"), request("b", body={"model": "m", "input": ["x", "y", "z"]}))
    assert scanned(tmp_path, content) == InputScan(
        requests=2,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        embedding_inputs=4,
        model="m",
        tokens=1 + 3,
    )


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    content = lines(request("a"), request("b")).rstrip(b"\n")
    found = scanned(tmp_path, content)
    assert (found.requests, found.bytes, found.sha256) == (2, len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "not_json"),
        (b'{"custom_id": "\xff"}', "not_json"),
        (b"[]", "not_an_object"),
        (request(...), "custom_id"),
        (request(None), "custom_id"),
        (request(""), "custom_id"),
        (request(7), "custom_id"),
        (request("x" * 513), "custom_id_long"),
        (request("first"), "duplicate"),
        (request(method=...), "method"),
        (request(method="GET"), "method"),
        (request(url="/v1/chat/completions"), "url"),
        (request(url=...), "url"),
        (request(body=...), "body"),
        (request(body={}), "body"),
        (request(body="text"), "body"),
        (request(body={"input": "x"}), "model"),
        (request(body={"model": "other", "input": "x"}), "mixed_models"),
        (request(body={"model": "m", "input": "x", "stream": True}), "stream"),
        (request(body={"model": "m"}), "input"),
        (request(body={"model": "m", "input": ""}), "input"),
        (request(body={"model": "m", "input": []}), "input"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: Any, reason: str) -> None:
    assert problems(tmp_path, lines(request("first"), bad, request("last"))) == [(2, reason)]


def test_a_byte_order_mark_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="byte order mark"):
        scanned(tmp_path, b"\xef\xbb\xbf" + lines(request()))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, b"") == [(None, "empty")]
    assert problems(tmp_path, b"\n \r\n") == [(None, "empty")]


def test_blank_lines_are_counted_and_are_no_requests(tmp_path: Path) -> None:
    content = b"\r\n" + lines(request("a")) + b" \t\n\n" + lines(request("b")) + b"\n\n"
    found = scanned(tmp_path, content, limits=Limits(requests=2, bytes=len(content) - 8))
    assert (found.requests, found.bytes, found.blank_lines, found.blank_bytes) == (2, len(content), 5, 8)
    assert problems(tmp_path, b"\n" + lines([])) == [(2, "not_an_object")]


def test_limits_are_settings(tmp_path: Path) -> None:
    content = lines(request("a"), request("b"), request("c"))
    assert problems(tmp_path, content, limits=Limits(requests=2)) == [(None, "requests")]
    assert problems(tmp_path, content, limits=Limits(bytes=len(content) - 1)) == [(None, "bytes")]
    assert problems(tmp_path, content, limits=Limits(embedding_inputs=2)) == [(None, "embedding_inputs")]
    assert scanned(tmp_path, content, limits=Limits(requests=3, bytes=len(content), embedding_inputs=3)).requests == 3


@pytest.mark.parametrize(("value", "inputs"), [("x", 1), (["x", "y"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
def test_texts_and_token_lists_are_counted_as_the_service_does(tmp_path: Path, value: Any, inputs: int) -> None:
    assert scanned(tmp_path, lines(request(body={"model": "m", "input": value}))).embedding_inputs == inputs


def test_other_endpoints_have_no_inputs_to_count(tmp_path: Path) -> None:
    chat = request(url="/v1/chat/completions", body={"model": "m", "messages": [{"role": "user"}]})
    assert scanned(tmp_path, lines(chat), "/v1/chat/completions").embedding_inputs == 0


def test_problems_are_listed_up_to_a_number_and_counted_beyond(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        scanned(tmp_path, b"[]\n" * 100, max_rejections=3)
    error = caught.value
    assert isinstance(error, InputError)
    assert (len(error.rejections), error.total) == (3, 100)
    assert "line 3:" in str(error)
    assert "and 97 more" in str(error)


def test_a_file_without_line_ends_is_not_read_into_memory(tmp_path: Path) -> None:
    limits = Limits(bytes=1 << 20)
    file = tmp_path / "in.jsonl"
    with file.open("wb") as target:
        target.truncate(64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            scan(str(file), EMBED, limits=limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=30))
def test_every_repeated_id_is_found_and_no_other(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    folder = tmp_path_factory.mktemp("scan")
    content = lines(*(request(custom_id) for custom_id in ids))
    repeated = [(n, "duplicate") for n, custom_id in enumerate(ids, 1) if custom_id in ids[: n - 1]]
    if repeated:
        assert problems(folder, content, max_rejections=100) == repeated
    else:
        assert scanned(folder, content).requests == len(ids)


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), min_size=1, max_size=8))
def test_no_content_breaks_the_scan(tmp_path_factory: pytest.TempPathFactory, content: list[bytes]) -> None:
    named = {line for line, _ in problems(tmp_path_factory.mktemp("scan"), lines(*content))}
    assert named - {None} == {number for number, line in enumerate(content, 1) if line.strip()}


def test_a_moderation_needs_no_model(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    line = {"custom_id": "a", "method": "POST", "url": "/v1/moderations", "body": {"input": "x"}}
    file.write_bytes(orjson.dumps(line) + b"\n")
    assert scan(str(file), "/v1/moderations").model is None
    file.write_bytes(orjson.dumps({**line, "url": "/v1/embeddings"}) + b"\n")
    with pytest.raises(InputError, match="must name a model"):
        scan(str(file), "/v1/embeddings")
