"""Whole documents or partial updates: decided on what is really in the index, before the first body."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal, TypeAlias

from overnight.errors import SpecError
from overnight.ingest.write.sink import IndexInfo, WriteOperation
from overnight.ingest.write.unchanged import FIELD

log = logging.getLogger(__name__)

WriteMode: TypeAlias = Literal["auto", "index", "update"]

_OBJECTS = frozenset({"object", "nested", "flat_object"})


def choose_operation(
    mode: WriteMode,
    index: IndexInfo,
    fields: Sequence[str],
    *,
    has_ids: bool,
    has_routing: bool,
    is_complete: bool,
    is_empty: Callable[[], bool | None],
    made_fields: Callable[[], AbstractSet[str]],
) -> WriteOperation:
    """
    Decide what is done with each document, and say so in the log.

    A partial update keeps the fields of an existing document that the load does not have. Where it would destroy
    something instead (see :func:`find_update_hazards`), ``auto`` replaces whole documents if that loses nothing,
    because the load has every field that the index knows; otherwise the load is refused.

    :param mode: What the user asked for.
    :param fields: The fields that the load writes.
    :param has_ids: Whether the documents have ids of their own; made ones are never in the index before.
    :param has_routing: Whether the field map has ``_routing``.
    :param is_complete: Whether each document has a value for each of the fields.
    :param is_empty: Looks whether the index is empty; ``None`` when that cannot be found out.
    :param made_fields: Looks which fields the index's ingest pipelines make of a document of this load.
    :raises SpecError: a partial update is needed and would destroy something, or the index requires routing and there
        is none, or it is a data stream, which takes none.
    """
    if index.needs_routing and index.routing is None and not has_routing:
        raise SpecError(
            f"{index.name!r} requires a routing value for each document. Nothing was written. Map it: "
            "field_map['_routing'] = '$.<path of the routing value>' (of a child document, the id of its parent), or "
            "load through an alias with an index_routing."
        )
    if index.is_data_stream and has_routing:
        raise SpecError(
            f"{index.requested!r} is a data stream, which takes no routing values: take '_routing' out of the field "
            "map. Nothing was written."
        )
    if index.is_data_stream:
        if mode == "update":
            raise SpecError(
                f"{index.requested!r} is a data stream, which takes new documents only: leave write='update' out."
            )
        return _decide("create", index, "a data stream takes new documents only")
    if mode == "index":
        return _decide("index", index, "that was asked for")
    hazards = find_update_hazards(index, fields)
    if mode == "update":
        if hazards:
            raise SpecError(_refuse(index, hazards, "write='update'"))
        return _decide("update", index, "that was asked for", fields)
    if not has_ids:
        return _decide("index", index, "the documents have no ids of their own, so none of them is in the index yet")
    empty = is_empty()
    if empty:
        return _decide("index", index, "the index is empty")
    made = made_fields() if hazards and index.pipelines else frozenset()
    if is_complete and covers(index, [*fields, *made]):
        return _decide("index", index, "the load has every field that the index knows, so nothing else can be lost")
    if hazards:
        raise SpecError(_refuse(index, hazards, "write='auto' would update them, for"))
    return _decide(
        "update",
        index,
        "the index has documents" if empty is False else "whether the index has documents cannot be found out",
        fields,
    )


def find_update_hazards(index: IndexInfo, fields: Sequence[str]) -> list[str]:
    """Return what a partial update of documents of this index would destroy, in words."""
    hazards = []
    if index.pipelines:
        hazards.append(
            f"the ingest pipeline {', '.join(map(repr, index.pipelines))} would run on the new fields alone, and "
            "overwrite what it made of the whole document"
        )
    if not index.source_enabled:
        hazards.append("the index keeps no _source, so OpenSearch rejects each update")
    if index.source_filters:
        hazards.append(
            f"_source leaves fields out ({', '.join(pattern[1:] for pattern in index.source_filters)}), and an update "
            "loses them"
        )
    dotted = [name for name in fields if "." in name and name.partition(".")[0] in index.fields]
    if dotted:
        hazards.append(
            f"{', '.join(map(repr, dotted))} would stand beside an object of that name in the same document, both "
            "searchable"
        )
    return hazards


def covers(index: IndexInfo, fields: Sequence[str]) -> bool:
    """Whether a document with these fields has everything that the mapping knows, but for the digest of its write."""
    if index.dynamic == "false" or not index.fields:
        return False  # its documents have fields that the mapping does not know
    return all(
        any(name == field or name.startswith(f"{field}.") for field in fields)
        for name, kind in index.fields.items()
        if name != FIELD and not (kind in _OBJECTS and any(other.startswith(f"{name}.") for other in index.fields))
    )


def _decide(operation: WriteOperation, index: IndexInfo, why: str, updated: Sequence[str] = ()) -> WriteOperation:
    what = {
        "index": "Each document replaces the one of its id in",
        "update": "Each document is merged into the one of its id in",
        "create": "New documents are added to",
    }
    log.info("%s %s: %s.", what[operation], index.name, why)
    merged = [name for name in updated if index.fields.get(name) in _OBJECTS]
    if merged:
        log.warning(
            "An update merges objects: keys that documents no longer have in %s stay in the index. "
            "write=index replaces whole documents.",
            ", ".join(merged[:5]),
        )
    return operation


def _refuse(index: IndexInfo, hazards: Sequence[str], how: str) -> str:
    return (
        f"{index.name!r} has documents, and {how} partial updates destroy data there: {'; '.join(hazards)}. Nothing "
        "was written. Load whole documents (write='index': fields that this load does not have are lost), or load into "
        "a new index."
    )
