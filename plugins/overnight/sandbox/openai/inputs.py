"""What the service makes of a batch's input file before it starts: nothing wrong, or what is, line by line."""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from overnight.sandbox.openai.batches import BatchError, normal_endpoint
from overnight.sandbox.openai.models import count_inputs, count_request_tokens
from overnight.sandbox.openai.moderations import MODERATION_MODEL
from overnight.sandbox.openai.settings import Settings

MAX_ERRORS = 100
"""Errors listed at most; the batch fails for the first already."""


@dataclass
class Checked:
    """
    An input file that was read through.

    :param model: The model of every line.
    :param tokens: What the batch puts into the queue, guessed.
    """

    total: int = 0
    model: str | None = None
    tokens: int = 0
    errors: list[BatchError] = field(default_factory=list)


def offsets(path: Path) -> array[int]:
    """Return where each line starts that is not blank, in bytes."""
    return array("Q", (at for at, _, _ in _lines(path)))


def check(path: Path, endpoint: str, settings: Settings, *, by_deployment: bool) -> Checked:
    """
    Read an input file through, in memory that does not grow with it but for the set of ``custom_id``.

    :param endpoint: The batch's, which every line's ``url`` must be.
    """
    limits = settings.limits
    if path.stat().st_size > limits.batch_file_bytes:
        message = (
            f"The batch input file is larger than the {limits.batch_file_bytes:,} bytes maximum for the Batch API."
        )
        return Checked(errors=[BatchError(code="file_too_large", message=message)])
    checker = _Checker(endpoint, settings, by_deployment=by_deployment)
    for _, number, raw in _lines(path):
        checker.line(number, raw)
    return checker.result()


class _Checker:
    def __init__(self, endpoint: str, settings: Settings, *, by_deployment: bool) -> None:
        self._endpoint = normal_endpoint(endpoint, by_deployment=by_deployment)
        self._settings = settings
        self._by_deployment = by_deployment
        self._seen: set[str] = set()
        self._inputs = 0
        self._checked = Checked()

    def line(self, number: int, raw: bytes) -> None:
        self._checked.total += 1
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            self._error("invalid_json_line", "This line is not parseable as valid JSON.", number)
            return
        if not isinstance(line, dict):
            self._error("invalid_request", "This line is not a JSON object.", number)
            return
        self._envelope(number, line)
        body = line.get("body")
        if isinstance(body, dict):
            self._body(number, body)

    def result(self) -> Checked:
        checked, limits = self._checked, self._settings.limits
        if checked.total == 0:
            self._error("empty_file", "The batch input file is empty.")
        if checked.total > limits.requests_per_batch:
            most = limits.requests_per_batch
            message = f"The batch input file has {checked.total:,} requests, more than the {most:,} maximum."
            self._error("too_many_tasks", message)
        if self._inputs > limits.embedding_inputs_per_batch:
            message = (
                f"The batch has {self._inputs:,} embedding inputs, more than the "
                f"{limits.embedding_inputs_per_batch:,} maximum across all requests of a batch."
            )
            self._error("too_many_embedding_inputs", message)
        return checked

    def _envelope(self, number: int, line: dict[str, Any]) -> None:
        for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
            value = line.get(name)
            if value is None:
                self._error("missing_required_parameter", f"Missing required parameter: '{name}'.", number, name)
            elif not isinstance(value, kind):
                expected = "an object" if kind is dict else "a string"
                self._error("invalid_type", f"Invalid type for '{name}': expected {expected}.", number, name)
        custom_id, method, url = line.get("custom_id"), line.get("method"), line.get("url")
        if isinstance(custom_id, str):
            if custom_id in self._seen:
                message = (
                    f"The custom_id '{custom_id}' for this request is a duplicate of another request. The custom_id "
                    "parameter must be unique for each request in a batch."
                )
                self._error("duplicate_custom_id", message, number, "custom_id")
            self._seen.add(custom_id)
        if isinstance(method, str) and method != "POST":
            message = f"Invalid method: '{method}'. Supported values are: 'POST'."
            self._error("invalid_method", message, number, "method")
        if isinstance(url, str) and normal_endpoint(url, by_deployment=self._by_deployment) != self._endpoint:
            message = "The URL provided for this request does not match the batch endpoint."
            self._error("invalid_url", message, number, "url")

    def _body(self, number: int, body: dict[str, Any]) -> None:
        model = body.get("model")
        if model is None and self._endpoint == "/v1/moderations":
            model = MODERATION_MODEL
        if not isinstance(model, str):
            self._error("missing_required_parameter", "Missing required parameter: 'model'.", number, "body.model")
        elif self._checked.model is None:
            self._checked.model = model
            if self._settings.model(model, any_name=self._by_deployment) is None:
                message = f"The provided model '{model}' is not supported by the Batch API."
                self._error("model_not_found", message, number, "body.model")
        elif model != self._checked.model:
            message = (
                f"The model '{model}' for this request does not match the rest of the batch. Each batch must contain "
                "requests for a single model."
            )
            self._error("mismatched_model", message, number, "body.model")
        self._checked.tokens += count_request_tokens(body)
        if self._endpoint == "/v1/embeddings":
            self._inputs += count_inputs(body)

    def _error(self, code: str, message: str, line: int | None = None, param: str | None = None) -> None:
        if len(self._checked.errors) < MAX_ERRORS:
            self._checked.errors.append(BatchError(code=code, message=message, param=param, line=line))


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield the byte offset, the number (from 1) and the bytes of each line that is not blank."""
    at = 0
    with path.open("rb", buffering=io.DEFAULT_BUFFER_SIZE * 16) as file:
        for number, raw in enumerate(file, 1):
            if raw.strip():
                yield at, number, raw
            at += len(raw)
