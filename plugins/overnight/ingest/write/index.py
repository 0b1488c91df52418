"""An OpenSearch index before and after a load: existence, mapping, completeness, alias swap."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from overnight.errors import (
    CredentialsError,
    NotFoundError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    UnavailableError,
    UnsupportedError,
    shorten,
)
from overnight.ingest.write.data_stream import create_data_stream
from overnight.ingest.write.names import check_index_name, check_new_index_name, quote_index_name
from overnight.ingest.write.sink import Expectation, IndexInfo, IndexMissingError, VectorField, VerificationError
from overnight.ingest.write.target import OpenSearchTarget
from overnight.transport.http import Retry

log = logging.getLogger(__name__)

NOT_ALLOWED = (CredentialsError, NotFoundError, UnsupportedError)
"""How a cluster refuses a call that the user has no right for, or (Serverless) that it does not have."""

_NO_INDEX = "index_not_found_exception"
_NO_PIPELINE = "_none"
_NO_RIGHT = "security_exception"
_MAX_NAMED = 20


def inspect_index(target: OpenSearchTarget, name: str) -> IndexInfo:
    """
    Look at an index, an alias or a data stream.

    :raises IndexMissingError: there is none.
    :raises SpecError: no index can have this name, or an alias has no index to write to.
    """
    try:
        found = target.get(quote_index_name(name))
    except NotFoundError as error:
        if error.code != _NO_INDEX:
            raise SpecError(
                f"What answers at the connection's address is no OpenSearch: it has no words for a missing index. "
                f"{error}"
            ) from error
        raise IndexMissingError(
            f"There is no index {name!r}, and OpenSearch would create it with guessed types (vectors as plain floats, "
            "not as knn_vector). Create it first, or give its mapping (create_index, --mapping); with "
            "'data_stream': {} in it, that makes a data stream."
        ) from error
    with _reading(name, "an index"):
        concrete, body = _find_write_index(name, found)
        return _parse_index(name, concrete, body)


@contextmanager
def _reading(path: str, what: str) -> Iterator[None]:
    """Name what answers something else than OpenSearch would."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise UnavailableError(
            f"The answer to GET /{path} is not OpenSearch's description of {what} ({type(error).__name__}). Check the "
            "connection's address."
        ) from error


def _find_write_index(name: str, found: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the concrete index that a write to this name goes to."""
    streams = sorted(concrete for concrete, body in found.items() if body.get("data_stream") == name)
    if streams:
        return streams[-1], found[streams[-1]]  # the newest backing index has the highest number
    if name in found:
        return name, found[name]
    marks = {concrete: body.get("aliases", {}).get(name, {}).get("is_write_index") for concrete, body in found.items()}
    writable = [concrete for concrete, mark in marks.items() if mark or (mark is None and len(found) == 1)]
    if len(writable) != 1:
        raise SpecError(
            f"The alias {name!r} stands for {', '.join(sorted(found)) or 'no index'}, and OpenSearch has none of them "
            "to write to. Mark one with is_write_index: true, or name the index itself."
        )
    return writable[0], found[writable[0]]


def _parse_index(name: str, concrete: str, body: Mapping[str, Any]) -> IndexInfo:
    mappings = body.get("mappings") or {}
    settings = body["settings"]["index"]
    source = mappings.get("_source") or {}
    excluded = [f"-{pattern}" for pattern in source.get("excludes", ())]
    included = [f"+{pattern}" for pattern in source.get("includes", ())]
    alias = (body.get("aliases") or {}).get(name, {})
    is_data_stream = body.get("data_stream") == name
    properties = dict(_leaves(mappings.get("properties") or {}))
    pipelines = (settings.get("default_pipeline"), settings.get("final_pipeline"))
    return IndexInfo(
        concrete,
        settings["uuid"],
        is_alias=concrete != name and not is_data_stream,
        requested=name,
        vectors={
            field: VectorField(int(mapping["dimension"]), str(mapping.get("data_type", "float")))
            for field, mapping in properties.items()
            if mapping.get("type") == "knn_vector" and "dimension" in mapping
        },
        fields={field: _get_type(mapping) for field, mapping in properties.items()},
        dynamic=str(mappings.get("dynamic", "true")).lower(),
        has_dynamic_vectors=any(
            template.get("mapping", {}).get("type") == "knn_vector"
            for entry in mappings.get("dynamic_templates", ())
            for template in entry.values()
        ),
        pipelines=tuple(pipeline for pipeline in pipelines if pipeline and pipeline != _NO_PIPELINE),
        is_data_stream=is_data_stream,
        timestamp=_get_timestamp(mappings),
        source_enabled=str(source.get("enabled", True)).lower() != "false",
        source_filters=tuple(excluded + included),
        needs_routing=str((mappings.get("_routing") or {}).get("required", False)).lower() == "true",
        routing=alias.get("index_routing"),
        filter=alias.get("filter"),
    )


def _get_timestamp(mappings: Mapping[str, Any]) -> str:
    field = (mappings.get("_data_stream_timestamp") or {}).get("timestamp_field") or {}
    return str(field.get("name", "@timestamp"))


def _get_type(mapping: Mapping[str, Any]) -> str:
    if str(mapping.get("enabled", True)).lower() == "false":
        return "disabled"
    return str(mapping.get("type", "object"))


def create_index(target: OpenSearchTarget, name: str, body: Mapping[str, Any]) -> None:
    """
    Create an index or a data stream, unless it is there.

    :param body: ``settings``, ``mappings`` and ``aliases`` as in OpenSearch's create-index API. With ``data_stream``
        beside them, as in its index-template API, they make a data stream: see
        :func:`~overnight.ingest.write.data_stream.create_data_stream`.
    :raises SpecError: no index can have this name.
    :raises RequestRefusedError: OpenSearch does not take the body.
    """
    check_new_index_name(name)
    if "data_stream" in body:
        create_data_stream(target, name, body)
        return
    try:
        target.put(quote_index_name(name), body)
    except RequestRefusedError as error:
        if error.code != "resource_already_exists_exception":
            raise
    except UnavailableError as error:
        if "faiss" in str(error).lower() or _uses_native_engine(body):
            raise UnavailableError(
                f"{error} The mapping has a knn_vector without an engine, or with faiss or nmslib, whose native "
                'library a node may lack: give its method "engine": "lucene".'
            ) from error
        raise


def _uses_native_engine(body: Any) -> bool:
    """Whether a ``knn_vector`` of the body leaves its engine to the server, or names one that is not Lucene."""
    if not isinstance(body, Mapping):
        return False
    if body.get("type") == "knn_vector":
        method = body.get("method")
        return (method.get("engine") if isinstance(method, Mapping) else None) != "lucene"
    return any(_uses_native_engine(value) for value in body.values())


def count_documents(target: OpenSearchTarget, name: str) -> int:
    """Return how many documents a search would see."""
    answer = target.get(f"{quote_index_name(name)}/_count")
    count = answer.get("count") if isinstance(answer, dict) else None
    if not isinstance(count, int):
        raise UnavailableError(f"The answer to GET /{name}/_count has no count. Check the connection's address.")
    return count


def is_empty(target: OpenSearchTarget, name: str) -> bool | None:
    """
    Whether an index holds no document, those that no search sees yet included.

    A count sees only what was refreshed, and an index with ``refresh_interval: -1`` is not. So it is refreshed first;
    where that is not allowed, the operations in its transaction log count as documents.

    :return: ``None`` when the user has the right for neither, or the index is closed.
    """
    try:
        refresh(target, name)
        return count_documents(target, name) == 0
    except (*NOT_ALLOWED, RequestRefusedError) as error:
        log.info("Whether %s is empty cannot be counted: %s", name, error)
    try:
        stats = target.get(f"{quote_index_name(name)}/_stats/docs,translog")["_all"]["primaries"]
        return int(stats["docs"]["count"]) == 0 and int(stats["translog"]["operations"]) == 0
    except (*NOT_ALLOWED, RequestRefusedError) as error:
        log.info("Whether %s is empty cannot be seen from its statistics: %s", name, error)
    except (KeyError, TypeError):
        log.info("The statistics of %s do not say whether it is empty.", name)
    return None


def find_made_fields(target: OpenSearchTarget, index: IndexInfo, document: bytes) -> set[str]:
    """
    Simulate the ingest pipelines of an index on a document, and return the names of the fields that it then has.

    :param document: A JSON object.
    :return: Empty when the pipelines drop or fail the document, or the user may not simulate them.
    """
    source: Any = json.loads(document)
    try:
        for pipeline in index.pipelines:
            answer = target.post(
                f"_ingest/pipeline/{quote(pipeline, safe='')}/_simulate",
                {"docs": [{"_index": index.name, "_id": "1", "_source": source}]},
            )
            source = answer["docs"][0]["doc"]["_source"]
    except (ServiceError, KeyError, IndexError, TypeError) as error:
        log.info("What the ingest pipelines of %s make of a document cannot be seen: %s", index.name, error)
        return set()
    return set(_walk(source)) if isinstance(source, dict) else set()


def refresh(target: OpenSearchTarget, name: str) -> None:
    """Make everything written so far searchable."""
    target.post(f"{quote_index_name(name)}/_refresh")


def try_refresh(target: OpenSearchTarget, name: str) -> str | None:
    """Refresh, and return why that was not done when the user is not allowed to."""
    try:
        refresh(target, name)
    except NOT_ALLOWED as error:
        return f"The index was not refreshed ({_first_sentence(error)}): searches see the documents a little later."
    return None


def require_allowed(documents: Sequence[Any]) -> None:
    """
    Check that documents could be looked up: OpenSearch's security answers for each, and with 200 for all.

    :param documents: ``docs`` of an answer to ``_mget``.
    :raises CredentialsError: the user may not read one of them.
    """
    errors = [document.get("error") for document in documents if isinstance(document, dict)]
    refused = (error for error in errors if isinstance(error, dict) and error.get("type") == _NO_RIGHT)
    error = next(refused, None)
    if error is not None:
        raise CredentialsError(f"OpenSearch does not let documents be looked up: {shorten(str(error.get('reason')))}.")


def find_missing(target: OpenSearchTarget, name: str, routing_by_id: Mapping[str, str | None]) -> list[str]:
    """
    Return those of the ids that the index does not have, whether or not it was refreshed.

    :raises CredentialsError: the user may not look documents up.
    """
    documents = [
        {"_id": key, **({"routing": routing} if routing is not None else {})} for key, routing in routing_by_id.items()
    ]
    answer = target.post(f"{quote_index_name(name)}/_mget", {"docs": documents}, _source="false")
    found: Any = answer.get("docs") if isinstance(answer, dict) else None
    if not isinstance(found, list) or len(found) != len(documents):
        raise UnavailableError(f"The answer to POST /{name}/_mget is not whole. Check the connection's address.")
    require_allowed(found)
    return [
        key
        for key, document in zip(routing_by_id, found, strict=True)
        if isinstance(document, dict) and document.get("found") is False
    ]


def verify_load(target: OpenSearchTarget, index: IndexInfo, expected: Expectation) -> list[str]:
    """
    Hold what a load has written against the index: a sample of its documents by id, and how many there are.

    :return: What could not be checked, in words.
    :raises VerificationError: it is not all there.
    """
    notes: list[str] = []
    try:
        missing = find_missing(target, index.name, expected.ids) if expected.ids else []
    except NOT_ALLOWED as error:
        notes.append(f"No document was looked up by its id ({_first_sentence(error)}).")
        missing = []
    if missing:
        raise VerificationError(
            f"OpenSearch acknowledged these documents, or had them, and {index.name!r} does not have them: "
            f"{', '.join(map(repr, missing[:_MAX_NAMED]))} ({len(missing)} of {len(expected.ids)} looked up). "
            "Something deletes from the index, or changes OpenSearch's answers. Load again.",
            ids=missing,
        )
    if expected.at_least is None:
        return notes
    name = index.requested if index.is_data_stream else index.name
    try:
        found = count_documents(target, name)
    except NOT_ALLOWED as error:
        return [*notes, f"The documents were not counted ({_first_sentence(error)})."]
    if found < expected.at_least:
        raise VerificationError(
            f"{expected.at_least} documents were indexed or are unchanged, and {name!r} has {found}. Something deletes "
            "from it, or changes OpenSearch's answers. Load again."
        )
    return notes


def verify(
    target: OpenSearchTarget,
    name: str,
    *,
    count: int | None = None,
    at_least: int | None = None,
    dimensions: Mapping[str, int] | None = None,
    query: Mapping[str, Any] | None = None,
) -> int:
    """
    Check an index before it is put to use.

    :param count: How many documents it must have.
    :param at_least: How many documents it must have or exceed.
    :param dimensions: What its vector fields must be.
    :param query: A search body (``{"query": …}``) that must find something.
    :return: How many documents it has.
    :raises VerificationError: it is otherwise; the text says what was found.
    """
    note = try_refresh(target, name)
    if note is not None:
        log.warning("%s", note)
    found = count_documents(target, name)
    if count is not None and found != count:
        raise VerificationError(f"The index {name!r} has {found} documents, not {count}.{_after(note)}")
    if at_least is not None and found < at_least:
        raise VerificationError(
            f"{at_least} documents were indexed, and {name!r} has {found}. Something deletes from it, or documents of "
            f"different parts share an id.{_after(note)}"
        )
    actual = inspect_index(target, name).dimensions if dimensions else {}
    for vector, dimension in (dimensions or {}).items():
        if actual.get(vector) != dimension:
            raise VerificationError(
                f"The field {vector!r} of {name!r} is "
                + (f"a vector of {actual[vector]}" if vector in actual else "no vector")
                + f", not one of {dimension}."
            )
    if query is not None and not _has_hits(target.post(f"{quote_index_name(name)}/_search", {**query, "size": 1})):
        raise VerificationError(f"The sample query finds nothing in {name!r}.")
    return found


def _has_hits(answer: Any) -> bool:
    hits = answer.get("hits") if isinstance(answer, dict) else None
    return isinstance(hits, dict) and bool(hits.get("hits"))


def swap_alias(target: OpenSearchTarget, alias: str, index: str, *, drop_old: bool = False) -> list[str]:
    """
    Point an alias at an index, in one step for everybody who searches.

    What the alias carries (``filter``, ``index_routing``, ``search_routing``, ``is_write_index``) stays with it.

    :param drop_old: Delete the indices that the alias stood for, in the same step.
    :return: The names of those indices.
    :raises SpecError: the alias is the name of an index, or one of the names is none that OpenSearch allows.
    """
    check_index_name(index)
    quoted = quote_index_name(alias)
    try:
        current: dict[str, Any] = target.get(f"_alias/{quoted}")
    except NotFoundError:
        current = {}
    with _reading(f"_alias/{quoted}", "an alias"):
        old = sorted(name for name in current if name != index)
        kept = _get_alias_properties(alias, index, current)
    if not current and _is_index(target, alias):
        raise SpecError(f"{alias!r} is an index. Give it another name, so that its name can become an alias.")
    actions: list[dict[str, Any]] = [{"add": {"index": index, "alias": alias, **kept}}]
    actions += (
        {"remove_index": {"index": name}} if drop_old else {"remove": {"index": name, "alias": alias}} for name in old
    )
    target.post("_aliases", {"actions": actions}, retry=Retry.SAFE)
    return old


def _get_alias_properties(alias: str, index: str, current: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the alias has on the index that is swapped out: its write index's, when it stands for several."""
    by_index = {name: body.get("aliases", {}).get(alias, {}) for name, body in current.items()}
    found: Mapping[str, Any] = by_index.get(index) or next(
        (properties for _, properties in sorted(by_index.items()) if properties.get("is_write_index")),
        next((properties for _, properties in sorted(by_index.items())), {}),
    )
    kept = {name: found[name] for name in ("filter", "index_routing", "search_routing") if found.get(name) is not None}
    marks = [properties.get("is_write_index") for properties in by_index.values()]
    if True in marks:
        kept["is_write_index"] = True
    elif marks and all(mark is False for mark in marks):
        kept["is_write_index"] = False
    return kept


def read_settings(target: OpenSearchTarget, index: str, names: Sequence[str]) -> dict[str, Any]:
    """Return index settings by name; ``None`` for one that has its default."""
    answer = target.get(f"{quote_index_name(index)}/_settings", flat_settings="true")
    with _reading(f"{index}/_settings", "an index's settings"):
        actual = answer[index]["settings"]
        return {name: actual.get(_full(name)) for name in names}


def write_settings(target: OpenSearchTarget, index: str, settings: Mapping[str, Any]) -> None:
    """Change index settings; ``None`` gives one its default back."""
    target.put(f"{quote_index_name(index)}/_settings", {_full(name): value for name, value in settings.items()})


@contextmanager
def changed_settings(
    target: OpenSearchTarget, index: str, settings: Mapping[str, Any], before: Mapping[str, Any] | None
) -> Iterator[None]:
    """
    Change index settings for a while, and restore what they were whatever happens.

    :param before: What they were, when a killed attempt has left them changed.
    """
    if not settings:
        yield
        return
    original = dict(before) if before is not None else read_settings(target, index, list(settings))
    write_settings(target, index, settings)
    try:
        yield
    finally:
        write_settings(target, index, original)
        log.info("Restored the settings of %s: %s.", index, ", ".join(original))


def _full(name: str) -> str:
    return name if name.startswith("index.") else f"index.{name}"


def _is_index(target: OpenSearchTarget, name: str) -> bool:
    try:
        found = target.get(quote_index_name(name))
    except NotFoundError:
        return False
    with _reading(name, "an index"):
        return name in found


def _leaves(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each field of a mapping by its dotted name, the objects around them, too."""
    for name, mapping in properties.items():
        yield prefix + name, mapping
        yield from _leaves(mapping.get("properties", {}), f"{prefix}{name}.")


def _walk(document: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in document.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _walk(value, f"{prefix}{name}.")


def _first_sentence(error: ServiceError) -> str:
    return str(error).partition("\n")[0][:300].rstrip(". ")


def _after(note: str | None) -> str:
    return f" {note}" if note else ""
