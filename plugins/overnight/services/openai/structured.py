"""
Structured outputs: a schema as the directive of a request, and where the answer stands in its result.

Source: https://platform.openai.com/docs/guides/structured-outputs ("Supported schemas"); the transformations are those
of the ``openai`` package's ``to_strict_json_schema``, which its own server is tested with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import JsonValue

from overnight.errors import SpecError
from overnight.output_schema import OutputSchema
from overnight.services.openai.endpoints import find_endpoint
from overnight.services.openai.template import RequestTemplate, escape

CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
MAX_PROPERTIES: Final = 5_000
MAX_ENUM_VALUES: Final = 1_000
MAX_DEPTH: Final = 10

# A keyword that is not here is not sent; the answer is checked for it all the same.
_KEPT: Final = frozenset(
    {
        *("type", "description", "enum", "const", "pattern", "multipleOf", "minItems", "maxItems"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    }
)
_FORMATS: Final = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_REFUSED: Final[Mapping[str, str]] = {
    "patternProperties": "name the members",
    "prefixItems": "use an object with a name for each item instead of a tuple",
    "not": "say what it may be",
    "if": "use anyOf",
    "dependentRequired": "use anyOf",
    "dependentSchemas": "use anyOf",
}
_NAME: Final = re.compile(r"[^a-zA-Z0-9_-]+")


def get_answer_path(endpoint: str) -> str:
    """
    Return the JSONPath of the answer's text in a result line.

    :raises SpecError: the endpoint's answers have none.
    """
    known = find_endpoint(endpoint)
    if known is None or not known.takes_schema:
        raise SpecError(f"Answers of {endpoint} take no schema; use {CHAT} or {RESPONSES}.")
    return known.answer_path


def build_directive(schema: OutputSchema, endpoint: str) -> dict[str, Any]:
    """
    Return the members of a request's body that ask for answers of a schema.

    :raises SpecError: the endpoint takes no schema, or the schema has what the service does not take.
    """
    name = _NAME.sub("_", schema.name)[:64]
    named = {"name": name, "strict": True, "schema": build_strict_schema(schema)}
    get_answer_path(endpoint)
    if endpoint.endswith("/responses"):
        return {"text": {"format": {"type": "json_schema", **named}}}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def build_request_template(
    schema: OutputSchema,
    *,
    model: str,
    instruction: str,
    text_path: str = "$.text",
    id_path: str = "$.id",
    endpoint: str = CHAT,
    output_limit: int | None = None,
    options: Mapping[str, JsonValue] | None = None,
) -> RequestTemplate:
    """
    Return a template that asks a model for an answer of a schema about the text of every document.

    :param instruction: What the model shall do with a document: its system message, with ``${path}`` placeholders for
        what else the document has.
    :param output_limit: Tokens that an answer has at most; longer ones are cut off, and paid for.
    :param options: What else goes into the body (``temperature``, ``reasoning_effort`` …).
    :raises SpecError: the endpoint takes no schema, the service does not take this one, or ``options`` has what is made
        here.
    """
    # In a longer text a document's value is always text: a list would be read as parts of the message.
    document = f"<document>\n${{{text_path}}}\n</document>"
    messages: list[JsonValue] = [
        {"role": "system", "content": instruction},
        {"role": "user", "content": document},
    ]
    body: dict[str, JsonValue] = {"model": model, **escape(build_directive(schema, endpoint))}
    is_response = endpoint.endswith("/responses")
    body["input" if is_response else "messages"] = messages
    if output_limit is not None:
        body["max_output_tokens" if is_response else "max_completion_tokens"] = output_limit
    if twice := sorted(body.keys() & (options or {}).keys()):
        raise SpecError(
            f"{', '.join(twice)} in the options of a request is made of the other parameters; leave it out."
        )
    return RequestTemplate(endpoint=endpoint, body={**body, **(options or {})}, id_path=id_path)


def build_strict_schema(schema: OutputSchema) -> dict[str, Any]:
    """
    Return a schema in the subset that ``strict`` takes.

    Every member is required and no other is allowed, as the service demands; write what may be absent as something
    that may be ``null``. Keywords that the service does not know are left out.

    :raises SpecError: it describes what the subset has no words for.
    """
    return _Subset(schema).build()


class _Subset:
    def __init__(self, schema: OutputSchema) -> None:
        self._schema = schema
        self._properties = self._enum_values = 0
        self._open: list[str] = []

    def build(self) -> dict[str, Any]:
        body = self._schema.schema_body
        root = self._convert(self._schema.resolve(body), "$", 1)
        definitions = body.get("$defs") or body.get("definitions") or {}
        used = {name: self._convert(part, f"$defs.{name}", 1) for name, part in definitions.items()}
        for count, limit, what in (
            (self._properties, MAX_PROPERTIES, "members"),
            (self._enum_values, MAX_ENUM_VALUES, "values of enums"),
        ):
            if count > limit:
                raise self._error("$", f"{count:,} {what} are more than the {limit:,} that the service takes")
        return {**root, **({"$defs": used} if used else {})}

    def _convert(self, part: Any, where: str, depth: int) -> dict[str, Any]:
        if not isinstance(part, Mapping) or not part:
            raise self._error(where, "it may be anything; say what it is")
        if depth > MAX_DEPTH:
            raise self._error(where, f"it is more than {MAX_DEPTH} objects deep")
        if "$ref" in part:
            return self._refer(part, where, depth)
        self._check_keywords(part, where)
        if merged := part.get("allOf"):
            return self._convert({**part, "allOf": (), **merged[0]}, where, depth)
        found = {name: value for name, value in part.items() if name in _KEPT}
        if part.get("format") in _FORMATS:
            found["format"] = part["format"]
        self._enum_values += len(part.get("enum", ()))
        alternatives = [*part.get("anyOf", ()), *part.get("oneOf", ())]
        if alternatives:
            found["anyOf"] = [self._convert(one, f"{where}|{n}", depth) for n, one in enumerate(alternatives)]
        types = part.get("type")
        if types == "object" or "properties" in part:
            found |= self._convert_object(part, where, depth)
        if types == "array" or "items" in part:
            if not part.get("items"):
                raise self._error(where, "its items may be anything; say what they are")
            found["items"] = self._convert(part["items"], f"{where}[]", depth)
        if not found.keys() & {"type", "anyOf", "enum", "const"}:
            raise self._error(where, "it may be anything; say what it is")
        return found

    def _check_keywords(self, part: Mapping[str, Any], where: str) -> None:
        for keyword, remedy in _REFUSED.items():
            if keyword in part:
                raise self._error(where, f"strict outputs have no {keyword}; {remedy}")
        if len(part.get("allOf", ())) > 1:
            raise self._error(where, "strict outputs have no allOf; write it as one object")

    def _convert_object(self, part: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
        properties = part.get("properties", {})
        if part.get("additionalProperties") not in (None, False) or not properties:
            raise self._error(
                where, "strict outputs have no members whose names are not known; use a list of {name, value}"
            )
        self._properties += len(properties)
        return {
            "type": part.get("type", "object"),
            "properties": {
                name: self._convert(value, f"{where}.{name}", depth + 1) for name, value in properties.items()
            },
            "required": list(properties),
            "additionalProperties": False,
        }

    def _refer(self, part: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
        reference = str(part["$ref"])
        self._schema.resolve(part)
        own = {name: value for name, value in part.items() if name in _KEPT}
        if not own or reference in self._open:
            return {"$ref": reference}
        # The service takes nothing beside a $ref.
        self._open.append(reference)
        try:
            return self._convert({**self._schema.resolve(part), **own}, where, depth)
        finally:
            self._open.pop()

    def _error(self, where: str, text: str) -> SpecError:
        return SpecError(f"{self._schema.name}: {where}: {text}.")
