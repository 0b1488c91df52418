"""From the prompts of a common-ai operator to the lines of a batch input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import orjson
from airflow.providers.common.ai.batch.base import BatchRequest
from airflow.providers.common.ai.batch.output_schema import OutputSpec

from overnight.errors import SpecError
from overnight.output_schema import OutputSchema
from overnight.services.openai.structured import CHAT, RESPONSES, build_directive


class Dialect(Protocol):
    """How an endpoint words a request."""

    endpoint: ClassVar[str]
    managed: ClassVar[frozenset[str]]
    """Members of a body that follow from the operator's parameters, so that ``request_params`` cannot have them."""

    def build_body(self, prompt: str, system_prompt: str, output_limit: int) -> dict[str, Any]:
        """Return a body without model and directive."""

    def name_directive(self, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the directive of a schema that ``strict`` does not take."""


class ChatDialect:
    """``/v1/chat/completions``."""

    endpoint: ClassVar[str] = CHAT
    managed: ClassVar[frozenset[str]] = frozenset({"max_tokens", "stream"})

    def build_body(self, prompt: str, system_prompt: str, output_limit: int) -> dict[str, Any]:
        """Return a body without model and directive."""
        messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
        return {"messages": [*messages, {"role": "user", "content": prompt}], "max_completion_tokens": output_limit}

    def name_directive(self, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the directive of a schema that ``strict`` does not take."""
        named = {"name": name, "schema": schema, "strict": False}
        return {"response_format": {"type": "json_schema", "json_schema": named}}


class ResponsesDialect:
    """``/v1/responses``."""

    endpoint: ClassVar[str] = RESPONSES
    managed: ClassVar[frozenset[str]] = frozenset({"max_tokens", "max_completion_tokens", "stream"})

    def build_body(self, prompt: str, system_prompt: str, output_limit: int) -> dict[str, Any]:
        """Return a body without model and directive."""
        instructions = {"instructions": system_prompt} if system_prompt else {}
        return {"input": prompt, **instructions, "max_output_tokens": output_limit}

    def name_directive(self, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the directive of a schema that ``strict`` does not take."""
        return {"text": {"format": {"type": "json_schema", "name": name, "schema": schema, "strict": False}}}


@dataclass(frozen=True)
class RequestDefaults:
    """
    What all requests of a batch have that do not say otherwise.

    :param output_limit: Tokens that an answer has at most.
    """

    model: str
    system_prompt: str
    output_limit: int
    params: Mapping[str, Any]


def build_output_directive(dialect: Dialect, spec: OutputSpec) -> dict[str, Any]:
    """
    Return the members of a body that ask for answers of a schema; none for plain text.

    ``strict`` where the service's subset has words for the schema, so that the service itself keeps to it.
    """
    if not spec.is_structured:
        return {}
    named = {**spec.json_schema, "title": spec.schema_name}
    try:
        return build_directive(OutputSchema.parse(named), dialect.endpoint)
    except SpecError:
        return dialect.name_directive(spec.schema_name, spec.json_schema)


def build_lines(
    dialect: Dialect,
    requests: Sequence[BatchRequest],
    models: Sequence[str],
    defaults: RequestDefaults,
    *,
    directive: Mapping[str, Any],
    key: str,
) -> Iterator[bytes]:
    """
    Yield a line for each request, with its place in the ``custom_id``: ``<key>-<place>``.

    :param models: Of each request.
    """
    for index, (request, model) in enumerate(zip(requests, models, strict=True)):
        body = dialect.build_body(
            request["prompt"],
            request.get("system_prompt") or defaults.system_prompt,
            request.get("max_tokens") or defaults.output_limit,
        )
        params = {**defaults.params, **(request.get("params") or {})}
        free = {name: value for name, value in params.items() if name not in dialect.managed}
        line = {
            "custom_id": f"{key}-{index}",
            "method": "POST",
            "url": dialect.endpoint,
            "body": {**free, **body, "model": model, **directive},
        }
        yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
