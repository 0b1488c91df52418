"""What a model's answer must be: a pydantic model (or another type) by its import path, or a JSON Schema."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final, TypeAlias

import orjson
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, validator_for
from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError, PydanticSerializationError
from referencing import Registry

from overnight.errors import SpecError, shorten

Check: TypeAlias = Callable[[bytes], str | None]

MAX_FAULTS: Final = 3
"""Faults of one answer that its message names."""
MAX_TEXT: Final = 500


class OutputSchema(BaseModel):
    """
    What an answer must be.

    :param output_type: An import path, ``package.module.Model`` or ``package.module:Model``: a pydantic model, a
        dataclass, a ``TypedDict`` …; or
    :param json_schema: a JSON Schema of an object. Of the draft that its ``$schema`` names, 2020-12 when it names none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_type: str | None = None
    json_schema: dict[str, Any] | None = None

    @classmethod
    def parse(cls, given: OutputSchema | Mapping[str, Any] | str | type) -> OutputSchema:
        """
        Read what a user gives: a type, its import path, or a JSON Schema.

        :raises SpecError: the path leads nowhere, or it describes no object.
        """
        if isinstance(given, OutputSchema):
            schema = given
        elif isinstance(given, Mapping):
            schema = cls(json_schema=dict(given))
        elif isinstance(given, str):
            schema = cls(output_type=given)
        else:
            schema = cls(output_type=f"{given.__module__}:{given.__qualname__}")
        for part in _find_references(schema.schema_body):
            schema.resolve(part)
        if schema.resolve(schema.schema_body).get("type") != "object":
            raise SpecError(
                f"{schema.name}: answers are objects, and this schema is none at its root; put what it describes into "
                "a member of an object."
            )
        return schema

    @cached_property
    def name(self) -> str:
        """What messages, and the service, call it."""
        if self.output_type is not None:
            return self.output_type.replace(":", ".").rpartition(".")[2]
        title = (self.json_schema or {}).get("title")
        return title if isinstance(title, str) and title else "answer"

    @cached_property
    def schema_body(self) -> dict[str, Any]:
        """
        The JSON Schema.

        :raises SpecError: the type has none, or it is no JSON Schema.
        """
        if self._adapter is not None:
            try:
                return self._adapter.json_schema(mode="validation")
            except (PydanticUserError, PydanticSerializationError) as error:
                raise SpecError(f"{self.output_type} has no JSON Schema: {shorten(str(error), MAX_TEXT)}") from None
        schema = self.json_schema or {}
        try:
            _get_validator(schema).check_schema(schema)
        except SchemaError as error:
            raise SpecError(
                f"{self.name} is no JSON Schema: {_to_path(error.absolute_path)}: {shorten(error.message, MAX_TEXT)}"
            ) from None
        return schema

    @cached_property
    def check(self) -> Check:
        """
        The check of one answer: why it does not fit, ``None`` when it does.

        Types are checked strictly, as what is indexed is the text of the answer: ``"5"`` is no number.
        """
        if self._adapter is not None:
            adapter = self._adapter

            def check_type(answer: bytes) -> str | None:
                try:
                    adapter.validate_json(answer, strict=True)
                except ValidationError as error:
                    return _join(_describe(error))
                except (PydanticCustomError, ValueError, RecursionError) as error:
                    return shorten(str(error), MAX_TEXT)
                return None

            return check_type
        # An empty registry: no schema of an answer is fetched from anywhere.
        validator: Validator = _get_validator(self.schema_body)(self.schema_body, registry=Registry())

        def check_schema(answer: bytes) -> str | None:
            try:
                error = best_match(validator.iter_errors(orjson.loads(answer)))
            except (orjson.JSONDecodeError, RecursionError) as fault:
                return shorten(str(fault), MAX_TEXT)
            if error is None:
                return None
            message = error.message
            if len(message) > MAX_TEXT:
                # It quotes the answer, which the dead letter has.
                message = shorten(f"it is not valid under {error.validator}: {error.validator_value}", MAX_TEXT)
            return f"{_to_path(error.absolute_path)}: {message}"

        return check_schema

    @cached_property
    def _adapter(self) -> TypeAdapter[Any] | None:
        if self.output_type is None:
            return None
        try:
            found = pkgutil.resolve_name(self.output_type)
        except (ImportError, AttributeError, ValueError) as error:
            raise SpecError(
                f"output_type={self.output_type!r} cannot be imported: {shorten(str(error), MAX_TEXT)}. Give "
                "'package.module.Model', of a package that the workers have."
            ) from None
        if not isinstance(found, type):
            raise SpecError(f"output_type={self.output_type!r} is no class; give a pydantic model, say.")
        try:
            return TypeAdapter(found)
        except PydanticUserError as error:
            raise SpecError(
                f"output_type={self.output_type!r} is no type of data: {shorten(str(error), MAX_TEXT)}"
            ) from None

    def resolve(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """
        Return a part of the schema, or the definition that it refers to.

        :raises SpecError: it refers to something outside of the schema, or to nothing.
        """
        seen: set[str] = set()
        while isinstance(reference := schema.get("$ref"), str):
            value: Any = self.schema_body
            if not reference.startswith("#") or reference in seen:
                raise SpecError(f"{self.name}: {reference!r} leads out of the schema or nowhere; put it into $defs.")
            seen.add(reference)
            for part in filter(None, reference.removeprefix("#").split("/")):
                name = part.replace("~1", "/").replace("~0", "~")
                value = value.get(name) if isinstance(value, Mapping) else None
            if not isinstance(value, Mapping):
                raise SpecError(f"{self.name}: there is no {reference!r} in the schema.")
            schema = value
        return schema


def _find_references(part: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(part, Mapping):
        if isinstance(part.get("$ref"), str):
            yield part
        for value in part.values():
            yield from _find_references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _find_references(value)


def _get_validator(schema: Mapping[str, Any]) -> type[Validator]:
    found: type[Validator] = validator_for(schema, default=Draft202012Validator)
    return found


def _describe(error: ValidationError) -> Iterator[str]:
    # What the answer holds is in the dead letter; the message says what is wrong with it.
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        yield f"{_to_path(fault['loc'])}: {fault['msg']}"


def _join(faults: Iterator[str]) -> str:
    named = [fault for fault, _ in zip(faults, range(MAX_FAULTS), strict=False)]
    return shorten("; ".join(named), MAX_TEXT)


def _to_path(way: Any) -> str:
    return "$" + "".join(f"[{segment}]" if isinstance(segment, int) else f".{segment}" for segment in way)
