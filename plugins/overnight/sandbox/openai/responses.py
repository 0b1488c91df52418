"""The Responses API: the chat model's answer, in the items that this endpoint has."""

from __future__ import annotations

from typing import Any

from overnight.sandbox.openai.call import Answer, Call
from overnight.sandbox.openai.chat import completion_text
from overnight.sandbox.openai.errors import ApiError, invalid_type, missing_parameter
from overnight.sandbox.vectors import count_tokens

_MIN_OUTPUT = 16
_MAX_OUTPUT = 1 << 31


def respond(call: Call) -> Answer:
    """
    Answer one request; a request with ``reasoning.effort`` has an item of reasoning before the message.

    :raises ApiError: the service would refuse it.
    """
    body = call.body
    if body.get("stream"):
        raise ApiError(400, "This emulator does not stream; leave 'stream' out.", param="stream")
    call.number("temperature", 0, 2, 1)
    call.number("top_p", 0, 1, 1)
    limit = call.whole("max_output_tokens", _MIN_OUTPUT, _MAX_OUTPUT, 256)
    messages = _read_messages(body)
    text_settings = body.get("text") if isinstance(body.get("text"), dict) else {}
    shape = (text_settings or {}).get("format") or {"type": "text"}
    text, complete = completion_text(messages, _to_chat_format(shape), max_tokens=limit)
    read, written = count_tokens(str(messages)), count_tokens(text)
    status = "completed" if complete else "incomplete"
    effort = body["reasoning"].get("effort") if isinstance(body.get("reasoning"), dict) else None
    output: list[dict[str, Any]] = [
        {
            "id": f"msg_{call.digest}",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
        }
    ]
    if effort is not None:
        output.insert(0, {"id": f"rs_{call.digest}", "type": "reasoning", "summary": []})
    shown = {
        "id": f"resp_{call.digest}",
        "object": "response",
        "created_at": call.now,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None if complete else {"reason": "max_output_tokens"},
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": call.name,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": effort, "summary": None},
        "temperature": body.get("temperature", 1.0),
        "text": {"format": shape},
        "tool_choice": "auto",
        "tools": [],
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        },
        "user": None,
        "metadata": body.get("metadata") or {},
    }
    return Answer(shown, read, written)


def _read_messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the input as a chat's messages."""
    given = body.get("input")
    if given is None:
        raise missing_parameter("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise invalid_type("input", "array", given)
    if not given:
        message = (
            "Invalid 'input': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
        raise ApiError(400, message, param="input", code="empty_array")
    messages: list[dict[str, Any]] = []
    if isinstance(body.get("instructions"), str):
        messages.append({"role": "system", "content": body["instructions"]})
    for index, item in enumerate(given):
        if not isinstance(item, dict):
            raise invalid_type(f"input[{index}]", "object", item)
        if "role" not in item:
            raise missing_parameter(f"input[{index}].role")
        messages.append({"role": item["role"], "content": _to_chat_content(item.get("content"))})
    return messages


def _to_chat_content(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [
        {"type": "text", "text": part["text"]} if isinstance(part, dict) and part.get("type") == "input_text" else part
        for part in content
    ]


def _to_chat_format(shape: Any) -> Any:
    """Return ``text.format`` as what a chat calls ``response_format``, which has one more level."""
    if not isinstance(shape, dict) or shape.get("type") != "json_schema":
        return shape
    return {"type": "json_schema", "json_schema": {name: shape[name] for name in shape if name != "type"}}
