"""A chat model without a model: it answers with what the prompt itself says, and fills a JSON schema from it."""

from __future__ import annotations

import re
from typing import Any

import orjson

from overnight.sandbox.openai.errors import ApiError, invalid_value, missing_parameter
from overnight.sandbox.vectors import embed, similarity

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]?")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORD = re.compile(r"\w{4,}")
_DIMENSIONS = 256
_MAX_SENTENCES = 200
_MAX_DEPTH = 16


def completion_text(messages: list[dict[str, Any]], response_format: Any, *, max_tokens: int) -> tuple[str, bool]:
    """
    Answer a conversation: the sentence of the last user message that is nearest to all of it, or JSON.

    :param response_format: ``None``, or the API's ``text``, ``json_object`` or ``json_schema`` object.
    :return: The text, and whether ``max_tokens`` was enough for it.
    :raises ApiError: 400, for a response format there is not.
    """
    text = _last_text(messages)
    kind = "text" if response_format is None else _kind(response_format)
    if kind == "text":
        answer = _gist(text)
    elif kind == "json_object":
        answer = _dump({"answer": _gist(text), "keywords": _keywords(text)})
    else:
        answer = _dump(_fill(response_format["json_schema"]["schema"], text, "", 0))
    kept = answer[: max_tokens * 4]
    return kept, kept == answer


def _kind(response_format: Any) -> str:
    kinds = ["text", "json_object", "json_schema"]
    kind = response_format.get("type") if isinstance(response_format, dict) else response_format
    if kind not in kinds:
        raise invalid_value("response_format.type", kind, kinds)
    if kind == "json_schema":
        schema = response_format.get("json_schema")
        if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
            raise missing_parameter("response_format.json_schema.schema")
    return str(kind)


def _last_text(messages: list[dict[str, Any]]) -> str:
    chosen = next((item for item in reversed(messages) if item.get("role") == "user"), messages[-1])
    content = chosen.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "\n".join(part for part in parts if isinstance(part, str))
    raise ApiError(
        400, "Invalid value for 'content': expected a string or an array of content parts.", param="messages"
    )


def _gist(text: str, topic: str = "") -> str:
    sentences: list[str] = [found.strip() for found in _SENTENCE.findall(text)[:_MAX_SENTENCES] if found.strip()]
    if not sentences:
        return text.strip()
    target = embed(f"{topic} {text}" if topic else text, _DIMENSIONS)
    return max(sentences, key=lambda sentence: similarity(embed(sentence, _DIMENSIONS), target))


def _keywords(text: str) -> list[str]:
    return list(dict.fromkeys(word.lower() for word in _WORD.findall(text)))[:5]


def _fill(schema: Any, text: str, name: str, depth: int) -> Any:
    """Return a value that the schema allows; strings, numbers and choices come from the text where they can."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        target = embed(text, _DIMENSIONS)
        return max(schema["enum"], key=lambda choice: similarity(embed(str(choice), _DIMENSIONS), target))
    if schema.get("anyOf"):
        return _fill(schema["anyOf"][0], text, name, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        return {key: _fill(part, text, f"{name} {key}".strip(), depth + 1) for key, part in properties.items()}
    if kind == "array":
        items = schema.get("items") or {}
        if items.get("type") == "string" and not items.get("enum"):
            return _keywords(text)
        return [_fill(items, text, name, depth + 1)]
    if kind in ("integer", "number"):
        found = _NUMBER.search(text)
        number = float(found[0]) if found else 0.0
        return int(number) if kind == "integer" else number
    if kind == "boolean":
        return similarity(embed(name, _DIMENSIONS), embed(text, _DIMENSIONS)) > 0
    return None if kind == "null" else _gist(text, name)


def _dump(value: Any) -> str:
    return orjson.dumps(value).decode()
