"""One line of a batch's input, carried out: the line of the result it becomes, and the file that belongs in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Literal

import orjson

from overnight.sandbox.emulator.draws import unit
from overnight.sandbox.openai.batches import BatchRecord, normal_endpoint
from overnight.sandbox.openai.decisions import line_fault
from overnight.sandbox.openai.errors import ApiError, server_error
from overnight.sandbox.openai.models import answer
from overnight.sandbox.openai.settings import Quirks, Settings

_UNDONE = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
}


@dataclass
class _Message:
    text: str
    is_truncated: bool = False
    refusal: str | None = None


def _make_invalid(message: _Message) -> None:
    message.text = "Here is what I found: it depends."


def _truncate(message: _Message) -> None:
    message.text = message.text[: len(message.text) // 2]
    message.is_truncated = True


def _refuse(message: _Message) -> None:
    message.refusal = "I'm sorry, I can't help with that."


_SPOIL: Final[Mapping[str, Callable[[_Message], None]]] = {
    "answers_invalid": _make_invalid,
    "answers_truncated": _truncate,
    "answers_refused": _refuse,
}
"""What becomes of a message, by the fault."""
_TIMEOUT = ("request_timeout", "The underlying call to the model timed out.")


@dataclass(frozen=True)
class Line:
    """
    A line of a result file.

    :param file: The file it belongs in; ``None`` when it is lost.
    """

    file: Literal["output", "error"] | None
    text: bytes = b""
    input_tokens: int = 0
    output_tokens: int = 0


def carry_out(raw: bytes, batch: BatchRecord, settings: Settings, *, now: int) -> Line:
    """Answer one request of a batch."""
    request = orjson.loads(raw)
    custom_id: str = request["custom_id"]
    faults, key = settings.faults, f"{batch.number}:{custom_id}"
    if line_fault(faults.lines_missing, settings.seed, "lines_missing", key, custom_id):
        return Line(None)
    if line_fault(faults.lines_failed, settings.seed, "lines_failed", key, custom_id):
        return _fail(batch, custom_id, unit(settings.seed, "lines_failed_how", key), settings.quirks)
    if line_fault(faults.lines_non_200, settings.seed, "lines_non_200", key, custom_id):
        return Line("output", _answered(batch, custom_id, 500, server_error().body, settings.quirks))
    endpoint = normal_endpoint(batch.endpoint, by_deployment=batch.by_deployment)
    try:
        done = answer(endpoint, request["body"], settings, now=now, any_model=batch.by_deployment)
    except ApiError as error:
        return Line("error", _refused(batch, custom_id, error, settings.quirks))
    for kind, spoil in _SPOIL.items():
        if line_fault(getattr(faults, kind), settings.seed, kind, key, custom_id):
            for choice in done.body.get("choices", ()):
                if "message" in choice:
                    _spoil_choice(choice, spoil)
            if done.body.get("object") == "response":
                _spoil_response(done.body, spoil)
            break
    text = _answered(batch, custom_id, 200, done.body, settings.quirks)
    return Line("output", text, done.input_tokens, done.output_tokens)


def _spoil_choice(choice: dict[str, Any], spoil: Callable[[_Message], None]) -> None:
    message = _Message(choice["message"]["content"])
    spoil(message)
    if message.refusal is not None:
        choice["message"] |= {"content": None, "refusal": message.refusal}
        return
    choice["message"]["content"] = message.text
    if message.is_truncated:
        choice["finish_reason"] = "length"


def _spoil_response(body: dict[str, Any], spoil: Callable[[_Message], None]) -> None:
    item = body["output"][-1]
    message = _Message(item["content"][0]["text"])
    spoil(message)
    if message.refusal is not None:
        item["content"] = [{"type": "refusal", "refusal": message.refusal}]
        return
    item["content"][0]["text"] = message.text
    if message.is_truncated:
        item["status"] = body["status"] = "incomplete"
        body["incomplete_details"] = {"reason": "max_output_tokens"}


def undone(raw: bytes, batch: BatchRecord, outcome: Literal["expired", "cancelled"], quirks: Quirks) -> bytes:
    """Return the error line of a request that was not carried out any more."""
    return _unanswered(batch, orjson.loads(raw)["custom_id"], *_UNDONE[outcome], quirks)


def _fail(batch: BatchRecord, custom_id: str, how: float, quirks: Quirks) -> Line:
    if how < 1 / 3:
        return Line("error", _unanswered(batch, custom_id, *_TIMEOUT, quirks))
    if how < 2 / 3:
        message = "Rate limit reached for requests."
        limited = ApiError(429, message, type="requests", code="rate_limit_exceeded")
        return Line("error", _refused(batch, custom_id, limited, quirks))
    return Line("error", _refused(batch, custom_id, server_error(), quirks))


def _refused(batch: BatchRecord, custom_id: str, error: ApiError, quirks: Quirks) -> bytes:
    if quirks.bare_error_lines:
        return _unanswered(batch, custom_id, "", error.message, quirks)
    return _answered(batch, custom_id, error.status, error.body, quirks)


def _answered(batch: BatchRecord, custom_id: str, status: int, body: dict[str, Any], quirks: Quirks) -> bytes:
    identity = _identity(batch, custom_id)
    response = {
        "status_code": status,
        "request_id": f"req_{identity}",
        "body": orjson.dumps(body).decode() if quirks.body_as_string else body,
    }
    return _dump({"id": f"batch_req_{identity}", "custom_id": custom_id, "response": response, "error": None})


def _unanswered(batch: BatchRecord, custom_id: str, code: str, message: str, quirks: Quirks) -> bytes:
    line: dict[str, Any] = {"id": f"batch_req_{_identity(batch, custom_id)}", "custom_id": custom_id}
    if quirks.bare_error_lines:
        line["error"] = {"message": message}
    else:
        line |= {"response": None, "error": {"code": code, "message": message}}
    return _dump(line)


def _identity(batch: BatchRecord, custom_id: str) -> str:
    return blake2b(f"{batch.id}:{custom_id}".encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _dump(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
