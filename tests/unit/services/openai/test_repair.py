"""Answers that are not what was asked for go out again, and what no round mends is left to the load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from overnight.cache import open_cache
from overnight.errors import SpecError
from overnight.jobs import JobRef, JobState, ResultFile, ResultManifest
from overnight.output_schema import OutputSchema
from overnight.services.openai.cached_answers import CachedService, keep_answers
from overnight.services.openai.repair import MAX_ANSWER, InvalidAnswers
from overnight.services.openai.result_line import Outcome, read_result
from overnight.services.openai.rounds import Round, merge_rounds
from overnight.storage import Storage

CHAT = "/v1/chat/completions"
SCHEMA = OutputSchema.parse(
    {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}
)
GOOD, WRONG, NO_JSON = '{"n": 5}', '{"n": 50}', "It depends."
REFS = [JobRef(service="openai", id=f"batch_{number}", conn_id="c") for number in range(2)]


def chat(key: str, content: str | None, **choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **choice.pop("message", {})}
    body = {"choices": [{"message": message, "finish_reason": "stop", **choice}]}
    return {"custom_id": key, "response": {"status_code": 200, "body": body}}


def to_lines(values: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(value) + b"\n" for value in values)


class Batches:
    """A batch's input, and the output of each round."""

    def __init__(self, folder: Path, keys: str, outputs: list[list[dict[str, Any]]]) -> None:
        self.storage, self.uri = Storage(), str(folder / "part.requests.jsonl")
        self.outputs = {f"openai://{number}": to_lines(lines) for number, lines in enumerate(outputs)}
        requests = [
            # A number that no float can hold.
            b'{"custom_id":"%s","method":"POST","url":"%s","body":{"model":"m","seed":9007199254740993,'
            b'"messages":[{"role":"user","content":"%s"}]}}\n' % (key.encode(), CHAT.encode(), key.encode())
            for key in keys
        ]
        Path(self.uri).write_bytes(b"".join(requests))

    def collect(self, number: int, *, last: bool = False, repair: bool = True, max_bytes: int | None = None) -> int:
        files = (ResultFile(kind="output", uri=f"openai://{number}"),)
        manifest = ResultManifest(ref=REFS[number], files=files, detail={"usage": {"total": 5}})
        with InvalidAnswers(SCHEMA, CHAT, repair=repair) as answers:
            return Round(self.uri, number).collect(
                manifest,
                lambda uri: iter([self.outputs[uri] if uri in self.outputs else Path(uri).read_bytes()]),
                JobState.SUCCEEDED,
                self.storage,
                last=last,
                answers=answers,
                max_bytes=max_bytes,
            )

    def requests(self, number: int) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in Path(Round(self.uri, number).requests_uri).read_bytes().splitlines()]

    def succeeded(self, number: int) -> list[str]:
        lines = Path(Round(self.uri, number).succeeded_uri).read_bytes().splitlines()
        return sorted(orjson.loads(line)["custom_id"] for line in lines)


OUTPUT = [
    chat("a", GOOD),
    chat("b", NO_JSON),
    chat("c", WRONG),
    chat("d", GOOD[:4], finish_reason="length"),
    chat("e", None, message={"refusal": "no"}),
    chat("f", f"```json\n{GOOD}\n```"),
]


def test_invalid_answers_go_out_again_with_what_is_wrong_and_nothing_else_does(tmp_path: Path) -> None:
    batches = Batches(tmp_path, "abcdef", [OUTPUT, [chat("c", GOOD), chat("b", NO_JSON)]])
    assert batches.collect(0) == 2
    first, second = batches.requests(1)
    assert (first["custom_id"], second["custom_id"]) == ("b", "c")
    assert first["body"]["messages"][:2] == [
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": NO_JSON},
    ]
    assert "no JSON" in first["body"]["messages"][2]["content"]
    assert "$.n: 50 is greater than the maximum of 9" in second["body"]["messages"][2]["content"]
    assert second["body"]["messages"][2]["role"] == "user"
    assert b'"seed":9007199254740993' in Path(Round(batches.uri, 1).requests_uri).read_bytes()
    # What would only be cut off or refused again is for the load to name.
    assert batches.succeeded(0) == ["a", "d", "e", "f"]
    # The last round's invalid answers are its results, text and all.
    assert batches.collect(1, last=True) == 0
    assert batches.succeeded(1) == ["b", "c"]
    status, manifest = merge_rounds(REFS, batches.uri, batches.storage)
    assert (status.state, status.counts.total, status.counts.succeeded) == (JobState.SUCCEEDED, 6, 6)
    assert manifest.detail["rounds"] == [
        {"id": "batch_0", "submitted": 6, "succeeded": 4, "invalid": 2},
        {"id": "batch_1", "submitted": 2, "succeeded": 2},
    ]
    assert manifest.detail["usage"] == {"total": 10}


def test_a_second_repair_has_both_answers(tmp_path: Path) -> None:
    batches = Batches(tmp_path, "a", [[chat("a", NO_JSON)], [chat("a", WRONG)]])
    assert (batches.collect(0), batches.collect(1)) == (1, 1)
    (request,) = batches.requests(2)
    roles = [message["role"] for message in request["body"]["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert request["body"]["messages"][3]["content"] == WRONG


def test_without_repair_the_same_request_goes_out_again(tmp_path: Path) -> None:
    batches = Batches(tmp_path, "ab", [[chat("a", GOOD), chat("b", WRONG)]])
    assert batches.collect(0, repair=False) == 1
    assert batches.requests(1) == batches.requests(0)[1:]


def test_a_round_is_no_longer_than_a_batch_may_be(tmp_path: Path) -> None:
    batches = Batches(tmp_path, "ab", [[chat("a", WRONG), chat("b", WRONG)]])
    plain = Path(batches.uri).stat().st_size
    assert batches.collect(0, max_bytes=plain + 200) == 2
    # There is room for one of the two.
    assert [len(request["body"]["messages"]) for request in batches.requests(1)] == [3, 1]
    assert Path(Round(batches.uri, 1).requests_uri).stat().st_size <= plain + 200


def test_a_success_beside_an_invalid_answer_counts(tmp_path: Path) -> None:
    batches = Batches(tmp_path, "a", [[chat("a", WRONG), chat("a", GOOD)]])
    assert batches.collect(0) == 0
    assert batches.succeeded(0) == ["a"]


def test_the_responses_api_gets_the_answer_as_further_input() -> None:
    def respond(text: str) -> bytes:
        output = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
        return orjson.dumps({"custom_id": "a", "response": {"status_code": 200, "body": {"output": output}}})

    with InvalidAnswers(SCHEMA, "/v1/responses", repair=True) as answers:
        long = "x" * (2 * MAX_ANSWER)
        outcome = answers.examine(read_result(respond(long), "output", 1)).outcome
        assert (outcome.outcome, outcome.code, outcome.custom_id) == (Outcome.FAILED, "invalid_output", "a")
        request = {"custom_id": "a", "body": {"input": "text", "model": "m"}}
        given = orjson.loads(answers.rewrite("a", orjson.dumps(request)))["body"]["input"]
        assert [message["role"] for message in given] == ["user", "assistant", "user"]
        assert given[0]["content"] == "text"
        assert len(given[1]["content"]) <= MAX_ANSWER
        good = read_result(respond(GOOD), "output", 1)
        assert answers.examine(good) is good


def test_answers_of_other_endpoints_have_no_schema() -> None:
    with pytest.raises(SpecError, match="take no schema"):
        InvalidAnswers(SCHEMA, "/v1/embeddings", repair=False)


def test_an_invalid_answer_is_not_kept_for_the_next_run(tmp_path: Path) -> None:
    batches = Batches(tmp_path, "abcdef", [OUTPUT])
    service = CachedService(open_cache(f"{tmp_path}/cache", batches.storage), "https://one.example/v1")
    manifest = ResultManifest(ref=REFS[0], files=(ResultFile(kind="output", uri="openai://0"),))
    with InvalidAnswers(SCHEMA, CHAT, repair=False) as answers:
        added = keep_answers(
            manifest,
            lambda uri: iter([batches.outputs[uri]]),
            service,
            requests_uri=batches.uri,
            endpoint=CHAT,
            storage=batches.storage,
            examine=answers.examine,
        )
    assert added == len("af")
