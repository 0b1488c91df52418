"""The field map of ML Commons, compiled once: which value of which source becomes which field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overnight.errors import SpecError, shorten
from overnight.jsonpath import JsonPath

ID = "_id"
ROUTING = "_routing"
_NO_FIELDS = frozenset(
    {
        "_data_stream_timestamp",
        "_field_names",
        "_ignored",
        "_index",
        "_nested_path",
        "_primary_term",
        "_seq_no",
        "_source",
        "_version",
    }
)
"""Metadata that OpenSearch (2.19.6 and 3.6.0) refuses in a document, each one."""

_MAX_SHOWN = 200
_SOURCE = re.compile(r"source\[(\d+)\]")


@dataclass(frozen=True)
class SourceMap:
    """
    What is taken from the lines of one source: the id, and the fields in the order they were mapped.

    :param routing: The value that says which shard a document goes to (``_routing``).
    """

    id: JsonPath | None
    fields: Mapping[str, JsonPath]
    routing: JsonPath | None = None

    @property
    def paths(self) -> dict[str, JsonPath]:
        """All that is read of a line, in the order in which it is read: the fields, the routing, the id."""
        others = {ROUTING: self.routing, ID: self.id}
        return {**self.fields, **{name: path for name, path in others.items() if path is not None}}

    @property
    def has_values(self) -> bool:
        """Whether a document takes anything but its id from this source."""
        return bool(self.fields) or self.routing is not None

    @property
    def is_used(self) -> bool:
        """Whether anything at all is taken from this source."""
        return self.id is not None or self.has_values


def compile_field_map(
    field_map: Mapping[str, Any], ingest_fields: Sequence[str], sources: int
) -> tuple[SourceMap, ...]:
    """
    Give each source its part of the map.

    The rules are those of ML Commons (``AbstractIngestion``): a value belongs to source N when it contains
    ``source[N]``, the JSONPath is what follows the first ``$``; with one source a path without a prefix counts too;
    of a list the last path for a source wins. What ML Commons ignores silently, or finds out at the first line, is
    refused here. ``_routing`` is no field of the document, but its routing value, as ``_id`` is its id.

    :param sources: How many sources there are.
    :raises SpecError: a value is no path, names no source or one that is not there, nothing is mapped, a field has the
        name of metadata, or several sources are to be joined without an ``_id`` for each.
    """
    ids: list[JsonPath | None] = [None] * sources
    routings: list[JsonPath | None] = [None] * sources
    fields: list[dict[str, JsonPath]] = [{} for _ in range(sources)]
    for name, value in _entries(field_map, ingest_fields):
        index, path = _source_and_path(name, value, sources)
        field = name if name is not None else path.last_segment
        if field == ID:
            ids[index] = path
        elif field == ROUTING:
            routings[index] = path
        elif field in _NO_FIELDS:
            raise SpecError(
                f"{field!r} is metadata of OpenSearch's own, which it refuses in a document. Give the field another "
                f"name, such as {field.lstrip('_')!r}."
            )
        else:
            fields[index][field] = path
    maps = tuple(SourceMap(*parts) for parts in zip(ids, fields, routings, strict=True))
    if not any(part.fields for part in maps):
        raise SpecError("field_map and ingest_fields map no field; name at least one, such as {'text': '$.text'}.")
    if sources > 1:
        for index, part in enumerate(maps):
            if part.is_used and part.id is None:
                raise SpecError(
                    f"source[{index}] has no id to be joined by: add 'source[{index}].$.<path of its id>' "
                    f"to the list of field_map['_id']."
                )
    return maps


def _entries(field_map: Mapping[str, Any], ingest_fields: Sequence[str]) -> Iterator[tuple[str | None, str]]:
    for name, value in field_map.items():
        values = value if isinstance(value, list | tuple) else [value]
        if not name or not values or not all(isinstance(item, str) for item in values):
            raise SpecError(f"field_map[{name!r}] must be a JSONPath or a list of JSONPaths, not {value!r}.")
        for item in values:
            yield name, item
    for value in ingest_fields:
        yield None, value


def _source_and_path(name: str | None, value: str, sources: int) -> tuple[int, JsonPath]:
    where = f"field_map[{name!r}]" if name is not None else "ingest_fields"
    prefix, dollar, rest = value.partition("$")
    shown = repr(shorten(value, _MAX_SHOWN))
    match = _SOURCE.search(prefix) or (_SOURCE.search(value) if sources > 1 else None)
    if match is None:
        if sources > 1:
            raise SpecError(
                f"{where}: {shown} names no source; with {sources} sources write 'source[N].$.path', N from 0. "
                "To read many files of one shape as one source, give a glob or a prefix ending in '/'."
            )
        # As Jayway's JSONPath does: a path without its '$' starts at the root.
        return 0, JsonPath.parse(f"${rest}" if dollar else f"$.{value}")
    index = int(match[1])
    if index >= sources:
        raise SpecError(f"{where}: {shown} names source[{index}], but there are {sources} sources, from source[0] on.")
    if not dollar:
        raise SpecError(f"{where}: {shown} has no JSONPath; write 'source[{index}].$.path'.")
    return index, JsonPath.parse(f"${rest}")
