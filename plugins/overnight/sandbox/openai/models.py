"""The endpoints a batch can be for, which also answer on their own: a request's body in, the answer's body out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from overnight.sandbox.openai.call import Answer, Call
from overnight.sandbox.openai.chat import completion_text
from overnight.sandbox.openai.errors import (
    ApiError,
    invalid_type,
    invalid_value,
    missing_parameter,
    model_not_found,
)
from overnight.sandbox.openai.images import edit_image, generate_image
from overnight.sandbox.openai.moderations import MODERATION_MODEL, moderate
from overnight.sandbox.openai.responses import respond
from overnight.sandbox.openai.settings import Kind, Settings
from overnight.sandbox.openai.videos import render_video
from overnight.sandbox.vectors import count_tokens, embed, to_base64


def answer(endpoint: str, body: Any, settings: Settings, *, now: int, any_model: bool = False) -> Answer:
    """
    Carry out one request.

    :param endpoint: With its ``/v1``.
    :param any_model: Whether the model may be a deployment of any name.
    :raises ApiError: When the service would refuse it.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "The request's body must be a JSON object.")
    name = body.get("model")
    if name is None and endpoint == "/v1/moderations":
        name = MODERATION_MODEL
    if name is None:
        raise ApiError(400, "you must provide a model parameter")
    if not isinstance(name, str):
        raise invalid_type("model", "string", name)
    model = settings.model(name, any_name=any_model)
    if model is None:
        raise model_not_found(name)
    kind, handler = _HANDLERS[endpoint]
    if model.kind != kind:
        raise ApiError(403, f"You are not allowed to use {endpoint} with the model {name}.")
    return handler(Call(name, model, body, settings, now))


def count_inputs(body: dict[str, Any]) -> int:
    """Return how many embeddings a request asks for."""
    given = body.get("input")
    return len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1


def count_request_tokens(body: dict[str, Any]) -> int:
    """Guess how many tokens a request puts into the queue."""
    given = body.get("input") or body.get("messages") or body.get("prompt") or ""
    # Of a response, the instructions come beside its input.
    given = [body["instructions"], given] if body.get("instructions") else given
    return count_tokens(given if isinstance(given, str) else str(given))


def _embeddings(call: Call) -> Answer:
    texts = _inputs(call)
    encoding = call.body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise invalid_value("encoding_format", encoding, ["float", "base64"])
    if call.body.get("dimensions") is not None and not call.model.resizable:
        raise ApiError(400, "This model does not support specifying dimensions.")
    dimensions = call.whole("dimensions", 1, call.model.dimensions, call.model.dimensions)
    data, tokens = [], 0
    for index, text in enumerate(texts):
        length = count_tokens(text)
        if length > call.settings.limits.input_tokens:
            limit = call.settings.limits.input_tokens
            raise ApiError(
                400,
                f"This model's maximum context length is {limit} tokens, however you requested {length} tokens "
                f"({length} in your prompt; 0 for the completion). Please reduce your prompt; or completion length.",
            )
        tokens += length
        vector = embed(text, dimensions)
        shown = to_base64(vector) if encoding == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": shown})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer({"object": "list", "data": data, "model": call.name, "usage": usage}, tokens)


def _inputs(call: Call) -> list[str]:
    given = call.body.get("input")
    if given is None:
        raise missing_parameter("input")
    items = given if isinstance(given, list) else [given]
    if items and all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        items = [items]
    if not items or len(items) > call.settings.limits.inputs_per_request:
        limit = call.settings.limits.inputs_per_request
        message = f"Invalid 'input': expected an array of 1 to {limit} inputs, but got {len(items)}."
        raise ApiError(400, message, param="input")
    texts = []
    for item in items:
        if isinstance(item, str):
            text = item
        elif isinstance(item, list) and item and all(isinstance(token, int) for token in item):
            text = " ".join(f"token{token}" for token in item)
        else:
            raise ApiError(400, "'$.input' is invalid. Please check the API reference.", param="input")
        if not text:
            raise ApiError(400, "Invalid 'input': input cannot be an empty string.", param="input")
        texts.append(text)
    return texts


def _chat(call: Call) -> Answer:
    messages = call.body.get("messages")
    if messages is None:
        raise missing_parameter("messages")
    if not isinstance(messages, list):
        raise invalid_type("messages", "array", messages)
    if not messages:
        message = (
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
        raise ApiError(400, message, param="messages", code="empty_array")
    for index, item in enumerate(messages):
        if not isinstance(item, dict):
            raise invalid_type(f"messages[{index}]", "object", item)
        if "role" not in item:
            raise missing_parameter(f"messages[{index}].role")
    limit_name = "max_completion_tokens" if "max_completion_tokens" in call.body else "max_tokens"
    choices, tokens = _choices(call, messages, limit_name)
    shown: list[dict[str, Any]] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": reason,
        }
        for index, (text, reason) in enumerate(choices)
    ]
    return _completion(call, "chatcmpl", "chat.completion", shown, tokens)


def _completions(call: Call) -> Answer:
    prompt = call.body.get("prompt")
    if prompt is None:
        raise missing_parameter("prompt")
    if not isinstance(prompt, str):
        raise invalid_type("prompt", "string", prompt)
    choices, tokens = _choices(call, [{"role": "user", "content": prompt}], "max_tokens")
    shown: list[dict[str, Any]] = [
        {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
        for index, (text, reason) in enumerate(choices)
    ]
    return _completion(call, "cmpl", "text_completion", shown, tokens)


def _choices(
    call: Call, messages: list[dict[str, Any]], limit_name: str
) -> tuple[list[tuple[str, str]], tuple[int, int]]:
    if call.body.get("stream"):
        raise ApiError(400, "This emulator does not stream; leave 'stream' out.", param="stream")
    call.number("temperature", 0, 2, 1)
    call.number("top_p", 0, 1, 1)
    count = call.whole("n", 1, 128, 1)
    limit = call.whole(limit_name, 1, 1 << 31, 256)
    text, complete = completion_text(messages, call.body.get("response_format"), max_tokens=limit)
    read = count_tokens(str(messages))
    return [(text, "stop" if complete else "length")] * count, (read, count_tokens(text) * count)


def _completion(call: Call, prefix: str, kind: str, choices: list[dict[str, Any]], tokens: tuple[int, int]) -> Answer:
    read, written = tokens
    body = {
        "id": f"{prefix}-{call.digest}",
        "object": kind,
        "created": call.now,
        "model": call.name,
        "choices": choices,
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
        "system_fingerprint": None,
    }
    return Answer(body, read, written)


_HANDLERS: dict[str, tuple[Kind, Callable[[Call], Answer]]] = {
    "/v1/embeddings": ("embedding", _embeddings),
    "/v1/chat/completions": ("chat", _chat),
    "/v1/completions": ("chat", _completions),
    "/v1/responses": ("chat", respond),
    "/v1/moderations": ("moderation", moderate),
    "/v1/images/generations": ("image", generate_image),
    "/v1/images/edits": ("image", edit_image),
    "/v1/videos": ("video", render_video),
}
