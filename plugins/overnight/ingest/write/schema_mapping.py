"""The mapping of an index for answers of a schema, so that the node refuses none that the schema allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from overnight.errors import SpecError
from overnight.output_schema import OutputSchema

FieldMapping: TypeAlias = dict[str, Any]

MAX_KEYWORD: Final = 256
"""Characters of a text up to which it is a term, too, and the ``maxLength`` up to which a text is a term alone."""
MAX_TERM: Final = 8_191
"""Characters of which Lucene takes the longest term in UTF-8 (32,766 bytes)."""

_DISABLED: Final[FieldMapping] = {"type": "object", "enabled": False}
_KEYWORD: Final[FieldMapping] = {"type": "keyword", "ignore_above": MAX_TERM}
_TEXT: Final[FieldMapping] = {
    "type": "text",
    "fields": {"keyword": {"type": "keyword", "ignore_above": MAX_KEYWORD}},
}
# A number out of a long's range, a date that only pydantic reads: the document is written without them in the index.
_LONG: Final[FieldMapping] = {"type": "long", "ignore_malformed": True}
_DOUBLE: Final[FieldMapping] = {"type": "double", "ignore_malformed": True}
_BOOLEAN: Final[FieldMapping] = {"type": "boolean"}
_DATE: Final[FieldMapping] = {"type": "date", "ignore_malformed": True}
_IP: Final[FieldMapping] = {"type": "ip", "ignore_malformed": True}
_FORMATS: Final[Mapping[str, FieldMapping]] = {
    "date": _DATE,
    "date-time": _DATE,
    "ipv4": _IP,
    "ipv6": _IP,
}
_OBJECTS: Final = frozenset({"object", "nested"})


def build_field_mappings(schema: OutputSchema, *, nested_lists: bool = False) -> dict[str, FieldMapping]:
    """
    Return the mapping of each member of a schema's object, as ``properties`` of an index has them.

    What cannot be one field (a text or an object, members whose names are not known, a type that holds itself) is kept
    in ``_source`` and not indexed (``enabled: false``).

    :param nested_lists: Whether objects in a list are ``nested`` documents of their own: searches then find members of
        the *same* object, by ``nested`` queries. Otherwise the values of all objects of the list are together.
    :raises SpecError: OpenSearch cannot have a field of a member's name.
    """
    mapper = _Mapper(schema, nested_lists=nested_lists)
    members = schema.resolve(schema.schema_body).get("properties") or {}
    for name in members:
        if not _is_field_name(name):
            raise SpecError(
                f"{schema.name}: OpenSearch has no field of the name {name!r}; names are not empty, and dots part "
                "objects in them. Give the member another name or alias."
            )
    return {name: mapper.build(part) for name, part in members.items()}


class _Mapper:
    def __init__(self, schema: OutputSchema, *, nested_lists: bool) -> None:
        self._schema = schema
        self._nested_lists = nested_lists
        self._open: list[str] = []

    def build(self, part: Any, *, in_list: bool = False) -> FieldMapping:
        if not isinstance(part, Mapping):
            return _DISABLED
        reference = part.get("$ref")
        if not isinstance(reference, str):
            return self._build(part, in_list=in_list)
        if reference in self._open:
            return _DISABLED
        self._open.append(reference)
        try:
            return self.build(self._schema.resolve(part), in_list=in_list)
        finally:
            self._open.pop()

    def _build(self, part: Mapping[str, Any], *, in_list: bool) -> FieldMapping:
        merged = list(part.get("allOf", ()))
        if len(merged) == 1:
            return self.build(merged[0], in_list=in_list)
        if merged:
            return _DISABLED
        alternatives = [*part.get("anyOf", ()), *part.get("oneOf", ())]
        if alternatives:
            found = [self.build(one, in_list=in_list) for one in alternatives if not _is_null(one)]
            return _merge(found)
        if "const" in part or "enum" in part:
            return _merge(_map_value(value) for value in [*part.get("enum", ()), *_get_const(part)])
        types = part.get("type")
        if types is None:
            types = [name for name, key in (("object", "properties"), ("array", "items")) if key in part]
        kinds = [types] if isinstance(types, str) else list(types)
        return _merge(self._build_type(kind, part, in_list=in_list) for kind in kinds if kind != "null")

    def _build_type(self, kind: str, part: Mapping[str, Any], *, in_list: bool) -> FieldMapping:
        match kind:
            case "object":
                return self._build_object(part, in_list=in_list)
            case "array":
                items = [*part.get("prefixItems", ()), *([part["items"]] if part.get("items") else ())]
                return _merge(self.build(one, in_list=True) for one in items)
            case "integer":
                return _LONG
            case "number":
                return _DOUBLE
            case "boolean":
                return _BOOLEAN
            case "string":
                return _build_text(part)
            case _:
                return _DISABLED

    def _build_object(self, part: Mapping[str, Any], *, in_list: bool) -> FieldMapping:
        members = part.get("properties") or {}
        is_open = part.get("additionalProperties") not in (None, False) or part.get("patternProperties")
        if not members or is_open or not all(map(_is_field_name, members)):
            return _DISABLED
        properties = {name: self.build(value) for name, value in members.items()}
        kind = "nested" if in_list and self._nested_lists else "object"
        return {"type": kind, "dynamic": "false", "properties": properties}


def _is_null(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "null"


def _is_field_name(name: str) -> bool:
    return bool(name.strip()) and "." not in name


def _get_const(part: Mapping[str, Any]) -> Sequence[Any]:
    return [part["const"]] if "const" in part else ()


def _map_value(value: Any) -> FieldMapping | None:
    match value:
        case None:
            return None
        case bool():
            return _BOOLEAN
        case int():
            return _LONG
        case float():
            return _DOUBLE
        case str():
            return _KEYWORD
        case _:
            return _DISABLED


def _build_text(part: Mapping[str, Any]) -> FieldMapping:
    form = part.get("format")
    if isinstance(form, str):
        return _FORMATS.get(form, _KEYWORD)
    is_term = "pattern" in part or part.get("maxLength", MAX_TERM + 1) <= MAX_KEYWORD
    return _KEYWORD if is_term else _TEXT


def _merge(mappings: Iterable[FieldMapping | None]) -> FieldMapping:
    """Return a mapping that takes the values of all; of nothing but ``null``, one that takes anything."""
    merged: FieldMapping | None = None
    for mapping in mappings:
        if mapping is not None:
            merged = mapping if merged is None else _merge_two(merged, mapping)
    return _DISABLED if merged is None else merged


def _merge_two(one: FieldMapping, other: FieldMapping) -> FieldMapping:
    if one == other:
        return one
    types = {one["type"], other["type"]}
    if types <= _OBJECTS:
        if not one.get("enabled", True) or not other.get("enabled", True):
            return _DISABLED
        names = dict.fromkeys([*one["properties"], *other["properties"]])
        properties = {name: _merge([part["properties"].get(name) for part in (one, other)]) for name in names}
        kind = "nested" if "nested" in types else "object"
        return {"type": kind, "dynamic": "false", "properties": properties}
    if types & _OBJECTS:
        return _DISABLED
    if types == {"long", "double"}:
        return _DOUBLE
    if "text" in types:
        return _TEXT
    # Terms take numbers, truth values and dates as they are written.
    return _KEYWORD
