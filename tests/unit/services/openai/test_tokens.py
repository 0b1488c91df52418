"""What is billed: counted with the model's vocabulary, or estimated where that is not at hand."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from overnight.services.openai import tokens
from overnight.services.openai.scan import estimate_tokens
from overnight.services.openai.tokens import ESTIMATED, find_counter, limit_output


def fake_tiktoken(monkeypatch: pytest.MonkeyPatch, load: Callable[[str], Any]) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(encoding_for_model=load))


def words(model: str) -> Any:
    """A vocabulary of whole words."""
    return SimpleNamespace(encode_ordinary=str.split)


def offline(model: str) -> Any:
    raise OSError("no route to host")


def unknown(model: str) -> Any:
    raise KeyError(model)


def test_a_known_model_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tiktoken(monkeypatch, words)
    counter = find_counter("m")
    assert counter.how == "counted by tiktoken"
    assert counter.count({"input": "three words here"}) == 3
    assert counter.count({"input": ["a b", "c"]}) == 3
    assert counter.count({"input": [7, 8, 9]}) == 3
    # Two messages, the answer's beginning, and the words with the roles.
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert counter.count({"messages": messages}) == 2 * 3 + 3 + 5


@pytest.mark.parametrize("load", [offline, unknown])
def test_without_a_vocabulary_tokens_are_estimated_and_that_is_said(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_tiktoken(monkeypatch, load)
    with caplog.at_level(logging.WARNING):
        counter = find_counter("m")
    assert counter.count is estimate_tokens
    assert counter.how == ESTIMATED
    assert ("no route to host" in caplog.text) is (load is offline)


def test_a_download_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    never = threading.Event()
    fake_tiktoken(monkeypatch, lambda model: never.wait())
    monkeypatch.setattr(tokens, "VOCABULARY_SECONDS", 0.0)
    assert find_counter("m").how == ESTIMATED
    assert "TIKTOKEN_CACHE_DIR" in caplog.text
    never.set()


def test_without_the_package_or_a_model_tokens_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    assert find_counter("m").how == ESTIMATED
    assert find_counter(None).how == ESTIMATED


@pytest.mark.parametrize(
    ("body", "endpoint", "limit"),
    [
        ({}, "/v1/embeddings", 0),
        ({}, "/v1/moderations", 0),
        ({}, "/v1/chat/completions", None),
        ({"max_tokens": 7}, "/v1/chat/completions", 7),
        ({"max_completion_tokens": 7, "n": 3}, "/v1/chat/completions", 21),
        ({"max_output_tokens": 7}, "/v1/responses", 7),
        ({"max_tokens": "many"}, "/v1/chat/completions", None),
    ],
)
def test_the_bound_of_an_answer_is_in_its_request(body: dict[str, Any], endpoint: str, limit: int | None) -> None:
    assert limit_output(body, endpoint) == limit
