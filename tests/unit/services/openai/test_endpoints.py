from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import orjson
import pytest
from openai.types.batch_create_params import BatchCreateParams

from overnight.jsonpath import JsonPath
from overnight.sandbox.openai.models import answer
from overnight.sandbox.openai.settings import Settings
from overnight.services.openai.endpoints import ENDPOINTS, check_body, find_endpoint
from overnight.services.openai.input import InputError, RequestTemplate, build
from overnight.services.openai.limits import Limits
from overnight.services.openai.result_format import RESULT_FORMAT
from overnight.services.openai.status import read_usage
from overnight.services.openai.tokens import limit_output

REFERENCE = {"image_url": "https://example.org/a.png"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "gpt-4o", "input": "There were 3 dogs.", "reasoning": {"effort": "low"}},
    "/v1/chat/completions": {"model": "gpt-4o", "messages": [{"role": "user", "content": "There were 3 dogs."}]},
    "/v1/embeddings": {"model": "text-embedding-3-small", "input": "x"},
    "/v1/completions": {"model": "gpt-3.5-turbo-instruct", "prompt": "There were 3 dogs."},
    "/v1/moderations": {"input": "I will kill you."},
    "/v1/images/generations": {"model": "gpt-image-1", "prompt": "a dog"},
    "/v1/images/edits": {"model": "gpt-image-1", "prompt": "a dog", "images": [REFERENCE]},
    "/v1/videos": {"model": "sora-2", "prompt": "a dog"},
}


def test_the_endpoints_are_those_of_the_sdk() -> None:
    named = get_args(get_type_hints(BatchCreateParams)["endpoint"])
    assert {known.path for known in ENDPOINTS} == set(named) == set(BODIES)


@pytest.mark.parametrize("path", BODIES)
def test_an_endpoint_is_known_by_the_end_of_its_path(path: str) -> None:
    for prefix in ("/v1", "", "/api/openai/v1"):
        known = find_endpoint(prefix + path.removeprefix("/v1"))
        assert known is not None
        assert known.path == path
    assert find_endpoint(f"{path}/more") is None


@pytest.mark.parametrize("path", BODIES)
def test_a_good_body_is_refused_for_nothing_and_for_what_it_lacks(path: str) -> None:
    assert list(check_body(path, BODIES[path], Limits())) == []
    known = find_endpoint(path)
    assert known is not None
    for names in known.needs:
        for empty in ({}, {names[0]: None}, {names[0]: ""}, {names[0]: []}):
            body = {name: value for name, value in BODIES[path].items() if name not in names}
            (rejection,) = check_body(path, body | empty, Limits())
            assert rejection.code == names[0]
            assert f"body.{names[0]}" in rejection.reason


@pytest.mark.parametrize("path", [*BODIES, "/v1/rerank"])
def test_no_request_of_a_batch_streams(path: str) -> None:
    (rejection,) = check_body(path, {**BODIES.get(path, {}), "stream": True}, Limits())
    assert rejection.code == "stream"


@pytest.mark.parametrize(
    ("path", "change", "code"),
    [
        ("/v1/images/generations", {"prompt": "x" * 32_001}, "prompt_long"),
        ("/v1/images/generations", {"n": 11}, "n"),
        ("/v1/images/generations", {"n": 0}, "n"),
        ("/v1/images/generations", {"response_format": "url"}, "response_format"),
        ("/v1/images/edits", {"n": 11}, "n"),
        ("/v1/images/edits", {"images": ["https://example.org/a.png"]}, "images"),
        ("/v1/images/edits", {"images": [REFERENCE, {}]}, "images"),
        ("/v1/videos", {"input_reference": "a.png"}, "input_reference"),
        ("/v1/videos", {"input_reference": {"file": "a.png"}}, "input_reference"),
    ],
)
def test_what_a_batch_cannot_carry_is_refused(path: str, change: dict[str, Any], code: str) -> None:
    (rejection,) = check_body(path, {**BODIES[path], **change}, Limits())
    assert rejection.code == code


def test_the_limits_of_images_are_settings() -> None:
    body = {**BODIES["/v1/images/generations"], "prompt": "x" * 40_000, "n": 12}
    limits = Limits(images_per_request=12, image_prompt_chars=40_000)
    assert list(check_body("/v1/images/generations", body, limits)) == []


def test_another_servers_own_endpoint_is_not_judged() -> None:
    assert list(check_body("/v1/rerank", {"query": ""}, Limits())) == []


def test_a_document_without_what_its_endpoint_needs_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    template = RequestTemplate(endpoint="/v1/images/edits", body={"model": "m", "prompt": "${a}", "images": "${b}"})
    documents = [{"id": "1", "a": "x", "b": [REFERENCE]}, {"id": "2", "a": "x", "b": ["a.png"]}]
    with pytest.raises(InputError, match=r"line 2: .*body\.images"):
        build(documents, template, str(tmp_path))


def make_line(path: str, **body: Any) -> bytes:
    done = answer(path, {**BODIES[path], **body}, Settings(data_dir=Path("unused")), now=1)
    return orjson.dumps({"custom_id": "a", "response": {"status_code": 200, "body": done.body}, "error": None})


@pytest.mark.parametrize("path", BODIES)
def test_an_answer_stands_where_the_endpoint_says(path: str) -> None:
    line = RESULT_FORMAT.read(make_line(path))
    assert line is not None
    assert line.rejection is None
    assert RESULT_FORMAT.explain(line.data) is None
    known = find_endpoint(path)
    assert known is not None
    found = JsonPath.parse(known.answer_path).find_first(line.data)
    assert found is not None
    assert bytes(found) not in (b"null", b'""')


@pytest.mark.parametrize("path", [path for path in BODIES if path not in ("/v1/moderations", "/v1/videos")])
def test_the_usage_of_each_endpoint_is_read(path: str) -> None:
    usage = read_usage(orjson.loads(make_line(path))["response"]["body"]["usage"])
    assert usage["input"] > 0
    assert usage["total"] == usage["input"] + usage.get("output", 0)


def test_a_cut_response_is_truncated_and_another_incomplete_one_is_named() -> None:
    line = make_line("/v1/responses", max_output_tokens=16, input="A long sentence about dogs " * 40)
    found = RESULT_FORMAT.explain(line)
    assert found is not None
    assert found.code == "truncated"
    changed = orjson.loads(line)
    for details in ({"reason": "steered"}, None):
        changed["response"]["body"]["incomplete_details"] = details
        found = RESULT_FORMAT.explain(orjson.dumps(changed))
        assert found is not None
        assert found.code == "incomplete"


def test_a_failed_response_or_video_is_a_failed_line() -> None:
    for path in ("/v1/responses", "/v1/videos"):
        line = orjson.loads(make_line(path))
        line["response"]["body"] |= {"status": "failed", "error": {"code": "server_error", "message": "It broke."}}
        found = RESULT_FORMAT.read(orjson.dumps(line))
        assert found is not None
        assert found.rejection is not None
        assert (found.rejection.code, found.rejection.reason) == ("server_error", "It broke.")


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({"prompt": "x", "max_tokens": 5}, 5),
        ({"prompt": ["x", "y"], "max_tokens": 5}, 10),
        ({"prompt": [1, 2, 3], "max_tokens": 5}, 5),
        ({"prompt": ["x", "y"], "max_tokens": 5, "n": 2, "best_of": 3}, 30),
    ],
)
def test_a_completion_is_billed_for_each_prompt_and_each_that_is_made(body: dict[str, Any], limit: int) -> None:
    assert limit_output(body, "/v1/completions") == limit


def test_the_page_has_the_table_of_the_code() -> None:
    rows = [
        f"| `{known.path}` | {'; '.join(' or '.join(f'`{name}`' for name in names) for names in known.needs)} "
        f"| `{known.answer_path}` |\n"
        for known in ENDPOINTS
    ]
    assert "".join(rows) in (Path(__file__).parents[4] / "docs" / "openai.md").read_text()
