"""A chat model without a model: it answers with what the prompt itself says, and fills a JSON schema from it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import orjson

from overnight.sandbox.openai.errors import ApiError, invalid_value, missing_parameter
from overnight.sandbox.vectors import embed, similarity

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]?")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORD = re.compile(r"\w{4,}")
_MARKUP = re.compile(r"</?\w+>")
_DIMENSIONS = 256
_MAX_SENTENCES = 200
_MAX_DEPTH = 16
_DEEP = 3
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "ada@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "1b4e28ba-2fa1-4d2b-883f-0016d3cca427",
}


def completion_text(messages: list[dict[str, Any]], response_format: Any, *, max_tokens: int) -> tuple[str, bool]:
    """
    Answer a conversation: the sentence of the last user message that is nearest to all of it, or JSON.

    A schema is filled from all that the user said.

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
        schema = response_format["json_schema"]["schema"]
        # Of an answer that was sent back, the document is in a former message.
        answer = _dump(_Filler(schema, _all_text(messages)).fill(schema, "", 0))
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


def _all_text(messages: list[dict[str, Any]]) -> str:
    asked = [message for message in messages if message.get("role") == "user"]
    # Prompts mark with tags where a document begins and ends.
    return _MARKUP.sub(" ", "\n".join(map(_read_content, asked or messages[-1:]))).strip()


def _last_text(messages: list[dict[str, Any]]) -> str:
    return _read_content(next((item for item in reversed(messages) if item.get("role") == "user"), messages[-1]))


def _read_content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "\n".join(part for part in parts if isinstance(part, str))
    raise ApiError(
        400, "Invalid value for 'content': expected a string or an array of content parts.", param="messages"
    )


def _gist(text: str) -> str:
    sentences = _split(text)
    if not sentences:
        return text.strip()
    target = embed(text, _DIMENSIONS)
    return max(sentences, key=lambda sentence: similarity(embed(sentence, _DIMENSIONS), target))


def _split(text: str) -> list[str]:
    return [found.strip() for found in _SENTENCE.findall(text)[:_MAX_SENTENCES] if found.strip()]


@lru_cache(maxsize=1_000)
def _embed_name(name: str) -> list[float]:
    """Embed what is the same in all requests of a batch: names and choices of a schema."""
    return embed(name, _DIMENSIONS)


def _keywords(text: str) -> list[str]:
    return list(dict.fromkeys(word.lower() for word in _WORD.findall(text)))[:5]


class _Filler:
    """Finds a value that a schema allows; strings, numbers and choices come from the text where they can."""

    def __init__(self, schema: dict[str, Any], text: str) -> None:
        self._definitions = schema.get("$defs") or schema.get("definitions") or {}
        self._text = text
        self._target = embed(text, _DIMENSIONS)
        self._sentences = [
            (sentence, vector, similarity(vector, self._target))
            for sentence, vector in ((one, embed(one, _DIMENSIONS)) for one in _split(text))
        ]

    def fill(self, schema: Any, name: str, depth: int) -> Any:
        """
        Return a value.

        :param name: The names on the way to it.
        """
        if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
            schema = self._definitions.get(schema["$ref"].rpartition("/")[2])
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return None
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return max(schema["enum"], key=lambda choice: similarity(_embed_name(str(choice)), self._target))
        if schema.get("anyOf"):
            return self.fill(_choose(schema["anyOf"], depth), name, depth + 1)
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        if kind == "object" or "properties" in schema:
            properties = schema.get("properties") or {}
            return {key: self.fill(part, f"{name} {key}".strip(), depth + 1) for key, part in properties.items()}
        if kind == "array":
            return self._fill_array(schema.get("items") or {}, name, depth)
        if kind in ("integer", "number"):
            return self._find_number(schema, kind)
        if kind == "boolean":
            return similarity(_embed_name(name), self._target) > 0
        if kind == "null":
            return None
        return _FORMATS.get(str(schema.get("format"))) or self._find_sentence(name)

    def _fill_array(self, items: dict[str, Any], name: str, depth: int) -> list[Any]:
        if depth >= _DEEP:
            return []
        if items.get("type") == "string" and not items.keys() & {"enum", "format"}:
            return _keywords(self._text)
        return [self.fill(items, name, depth + 1)]

    def _find_sentence(self, name: str) -> str:
        """Return the sentence that is nearest to the whole text and to the name of what is looked for."""
        if not self._sentences:
            return self._text.strip()
        topic = _embed_name(name)
        return max(self._sentences, key=lambda one: one[2] + similarity(one[1], topic))[0]

    def _find_number(self, schema: dict[str, Any], kind: str) -> float:
        found = _NUMBER.search(self._text)
        number = float(found[0]) if found else 0.0
        number = min(max(number, schema.get("minimum", number)), schema.get("maximum", number))
        return int(number) if kind == "integer" else number


def _choose(alternatives: list[Any], depth: int) -> Any:
    """Return the first alternative; deep inside, one that ends a type that may hold itself."""
    if depth < _DEEP:
        return alternatives[0]
    flat = [one for one in alternatives if one.get("type") not in ("object", "array") and "$ref" not in one]
    return flat[0] if flat else alternatives[-1]


def _dump(value: Any) -> str:
    return orjson.dumps(value).decode()
