"""Answers of a chat that are spoilt on purpose."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from overnight.sandbox.openai.lines import carry_out
from overnight.sandbox.openai.settings import Settings
from overnight.services.openai.incomplete import explain_answer
from overnight.services.openai.result_format import RESULT_FORMAT

BATCH: Any = SimpleNamespace(id="batch_1", number=1, endpoint="/v1/chat/completions", by_deployment=False)
REQUEST = {
    "custom_id": "d1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "There were 3 dogs."}],
        "response_format": {"type": "json_object"},
    },
}


def run(**faults: Any) -> bytes:
    settings = Settings.model_validate({"data_dir": "unused", "faults": faults})
    line = carry_out(json.dumps(REQUEST).encode(), BATCH, settings, now=1)
    assert line.file == "output"
    return line.text


def content(line: bytes) -> str | None:
    message: dict[str, Any] = json.loads(line)["response"]["body"]["choices"][0]["message"]
    return message["content"]  # type: ignore[no-any-return]


def test_a_line_without_a_fault_is_an_answer() -> None:
    line = run(answers_invalid={"share": 1, "custom_id": "^other$"})
    assert explain_answer(line) is None
    assert "answer" in json.loads(content(line) or "")


@pytest.mark.parametrize(("fault", "code"), [("answers_truncated", "truncated"), ("answers_refused", "refused")])
def test_a_cut_and_a_refused_answer_are_successful_lines(fault: str, code: str) -> None:
    line = run(**{fault: 1})
    found = RESULT_FORMAT.read(line)
    assert found is not None
    assert found.rejection is None
    explained = explain_answer(line)
    assert explained is not None
    assert explained.code == code


def test_an_invalid_answer_is_a_sentence() -> None:
    line = run(answers_invalid=1)
    assert explain_answer(line) is None
    with pytest.raises(json.JSONDecodeError):
        json.loads(content(line) or "")
