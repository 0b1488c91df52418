"""Each service's result lines: which they are, whose, and what became of the item."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import SpecError
from overnight.jobs.result_format import ResultFormat, ResultLine, to_rejection
from overnight.rejection import Rejection
from overnight.services import result_formats
from overnight.services.llamacloud.result_format import LlamaCloudResultFormat
from overnight.services.openai.result_format import OpenAIResultFormat
from overnight.services.result_formats import find_result_format, get_result_format, load_result_formats
from overnight.services.sagemaker.result_format import SageMakerResultFormat

FORMATS: list[ResultFormat] = [OpenAIResultFormat(), SageMakerResultFormat(), LlamaCloudResultFormat()]
VECTOR = {"object": "list", "data": [{"embedding": [1.0]}]}


def openai(body: Any = None, **changes: Any) -> bytes:
    line = {"custom_id": "a", "response": {"status_code": 200, "body": body if body is not None else VECTOR}}
    return json.dumps({**line, **changes}).encode()


def read(one: ResultFormat, line: Any) -> ResultLine:
    found = one.read(line if isinstance(line, bytes) else json.dumps(line).encode())
    assert found is not None
    return found


def test_each_service_with_result_files_has_a_format() -> None:
    assert set(load_result_formats()) == {"openai", "sagemaker", "llamacloud"}
    assert isinstance(get_result_format("openai"), OpenAIResultFormat)
    assert isinstance(find_result_format("openai"), OpenAIResultFormat)
    assert find_result_format("s3") is None
    assert get_result_format("plain") is None
    with pytest.raises(SpecError, match="no result format 'nobody'"):
        get_result_format("nobody")


class ToyFormat:
    service: ClassVar[str] = "toy"
    schemes: ClassVar[tuple[str, ...]] = ("toy",)

    def read(self, line: bytes) -> ResultLine | None:
        return ResultLine(line)


def test_another_packages_format_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda self: ToyFormat)
    monkeypatch.setattr(result_formats, "entry_points", lambda group: [EntryPoint("toy", "a_package:ToyFormat", group)])
    load_result_formats.cache_clear()
    try:
        assert isinstance(get_result_format("toy"), ToyFormat)
        assert isinstance(find_result_format("toy"), ToyFormat)
    finally:
        load_result_formats.cache_clear()


# --- OpenAI --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        openai(),
        openai(error=None),
        openai(response={"body": VECTOR}),
        openai(response={"status_code": None, "body": VECTOR}),
        openai({"choices": [{"message": {"content": ""}}]}),
        openai({"output": [{"type": "message"}]}),
        openai({"answer": "of a server of its own"}),
    ],
)
def test_a_result_is_a_success_also_where_the_status_is_left_out_or_null(line: bytes) -> None:
    assert read(OpenAIResultFormat(), line) == ResultLine(line, "a")


def test_a_body_that_came_as_text_is_an_object() -> None:
    found = read(OpenAIResultFormat(), openai(json.dumps(VECTOR, indent=1)))
    assert found.rejection is None
    assert json.loads(found.data)["response"]["body"] == VECTOR
    assert b"\n" not in found.data


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        (openai({}), "empty_result", "empty object"),
        (openai("{ }"), "empty_result", "empty object"),
        (openai({"object": "list", "data": []}), "empty_result", "data is empty"),
        (openai({"choices": [], "model": "m"}), "empty_result", "choices is empty"),
        (openai({"output": []}), "empty_result", "output is empty"),
        (openai({"data": None}), "empty_result", "data is empty"),
        (openai({"model": "m", "input": "the text"}), "empty_result", "the request again"),
        (openai({"model": "m", "messages": [{"role": "user"}]}), "empty_result", "the request again"),
        (openai(response={"status_code": None, "body": {}}), "empty_result", "empty object"),
        (openai(response={"status_code": None, "body": None}), "unreadable_response", ""),
        (openai(response={"status_code": 0, "body": VECTOR}), "unreadable_response", ""),
        (openai(response={"status_code": 0, "body": None}, error={"message": "gone"}), "status_0", "gone"),
        (openai(response={"status_code": 429, "body": {"error": {"code": "rate", "message": "m"}}}), "rate", "m"),
        (openai(response=None, error={"code": "batch_expired", "message": "late"}), "batch_expired", "late"),
        (openai(response=None, error="late"), "service_error", "late"),
        (b'{"response":{"status_code":200,"body":{"x":1}}}', "missing_id", "custom_id"),
    ],
)
def test_what_is_no_result_is_rejected_with_a_reason(line: bytes, code: str, reason: str) -> None:
    found = read(OpenAIResultFormat(), line)
    assert found.rejection is not None
    assert found.rejection.code == code
    assert reason in found.rejection.reason


@pytest.mark.parametrize(
    "line", [b"", b"  ", b"{", b"[1]", b'{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"input":"x"}}']
)
def test_a_line_without_response_and_error_is_no_result(line: bytes) -> None:
    assert OpenAIResultFormat().read(line) is None


# --- SageMaker -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", [{"id": 1, "SageMakerOutput": [0.5]}, {"vectors": [[1]]}, {"error": None, "x": 1}, {"SageMakerOutput": 0}]
)
def test_an_answer_of_a_model_is_a_success(line: Any) -> None:
    assert read(SageMakerResultFormat(), line).rejection is None


def test_the_inputs_own_error_is_no_error_of_the_model() -> None:
    assert read(SageMakerResultFormat(), {"error": "of the user", "SageMakerOutput": [1]}).rejection is None


@pytest.mark.parametrize(
    ("line", "rejection"),
    [
        (
            {"id": 1, "SageMakerOutput": {"error": "too long", "error_type": "Validation"}},
            Rejection("service_error", "too long"),
        ),
        ({"error": {"code": 400, "message": "bad"}}, Rejection("400", "bad")),
        ({"error": {"errorCode": 400, "errorMessage": "bad"}}, Rejection("400", "bad")),
        (
            {"id": 1, "SageMakerOutput": []},
            Rejection("empty_result", "SageMakerOutput is empty: the model gave no answer"),
        ),
    ],
)
def test_an_error_for_one_record_is_its_rejection(line: Any, rejection: Rejection) -> None:
    assert read(SageMakerResultFormat(), line).rejection == rejection


# --- LlamaCloud ----------------------------------------------------------------------------------------------------


def test_files_of_llamacloud() -> None:
    one = LlamaCloudResultFormat()
    assert read(one, {"file_id": "f", "name": "a.pdf", "markdown": "#"}).rejection is None
    failed = read(one, {"file_id": "f", "state": "failed", "error": "no pages"})
    assert (failed.id, failed.rejection) == ("f", Rejection("failed", "no pages"))
    missing = read(one, {"file_id": "f", "state": "missing", "error": None})
    assert missing.rejection == Rejection("missing", "the service gave no message")
    assert one.read(b'{"id":"f"}') is None


# --- All -----------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "custom_id",
                    "response",
                    "error",
                    "status_code",
                    "body",
                    "data",
                    "message",
                    "code",
                    "SageMakerOutput",
                    "file_id",
                    "state",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(json_values)
def test_any_json_is_a_result_or_none_and_never_an_exception(value: Any) -> None:
    line = json.dumps(value).encode()
    for one in FORMATS:
        found = one.read(line)
        if found is not None and found.rejection is not None:
            assert found.rejection.code
            assert found.rejection.reason
            assert found.data == line


@given(st.binary(max_size=40))
def test_any_bytes_are_a_result_or_none_and_never_an_exception(line: bytes) -> None:
    for one in FORMATS:
        one.read(line)


@given(json_values)
def test_any_error_is_a_rejection_with_bounded_texts(error: Any) -> None:
    rejection = to_rejection(error, "ours")
    assert 0 < len(rejection.code) <= 100
    assert 0 < len(rejection.reason) <= 500


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, Rejection("own", "the service gave no message")),
        ("", Rejection("own", "the service gave no message")),
        ("late", Rejection("own", "late")),
        (["late"], Rejection("own", "['late']")),
        ({"code": "c", "message": "m"}, Rejection("c", "m")),
        ({"code": None, "errorCode": "", "error_code": {}, "type": [], "status": 0}, Rejection("0", '{"code":null')),
        ({"message": None, "detail": "d"}, Rejection("own", "d")),
        ({"error": {"code": "inner", "message": "m"}}, Rejection("inner", "m")),
        ({"error": {"message": "m"}}, Rejection("own", "m")),
        ({"code": 7, "error": {"code": "inner", "message": "m"}}, Rejection("7", "m")),
        ({"x": 1}, Rejection("own", '{"x":1}')),
    ],
)
def test_an_error_is_read_by_whatever_names_its_code_and_message_have(error: Any, expected: Rejection) -> None:
    found = to_rejection(error, "own")
    assert found.code == expected.code
    assert found.reason.startswith(expected.reason)


def test_what_a_service_says_is_cut_to_a_bounded_length() -> None:
    long = "x" * 10_000
    for error in (long, {"code": long, "message": long}, {long: long}, {"code": long, "error": {"message": long}}):
        found = to_rejection(error, "own")
        assert len(found.code) <= 110
        assert 400 <= len(found.reason) <= 510
