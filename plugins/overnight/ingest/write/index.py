"""The index around a load: is it there, does it fit, is it complete, and who is it swapped in for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from overnight.errors import NotFoundError, OvernightError, RequestRefusedError, SpecError
from overnight.ingest.write.target import OpenSearchTarget
from overnight.transport.http import Retry

log = logging.getLogger(__name__)


class VerificationError(OvernightError):
    """The index does not hold what was loaded."""


@dataclass(frozen=True)
class IndexInfo:
    """
    What a load has to know of its index.

    :param name: The concrete index that is written to.
    :param uuid: Another one after the index was deleted and made again.
    :param is_alias: Whether it was named by an alias.
    :param dimensions: Of its vector fields, by name.
    """

    name: str
    uuid: str
    is_alias: bool
    dimensions: Mapping[str, int] = field(default_factory=dict)


def inspect_index(target: OpenSearchTarget, name: str) -> IndexInfo:
    """
    Look at an index.

    :raises SpecError: there is none, or an alias has no index to write to.
    """
    try:
        found: dict[str, Any] = target.get(name)
    except NotFoundError as error:
        raise SpecError(
            f"There is no index {name!r}, and OpenSearch would create it with guessed types (vectors as plain floats, "
            "not as knn_vector). Create it first, or give its mapping (create_index, --mapping)."
        ) from error
    writable = [
        concrete
        for concrete, body in found.items()
        if len(found) == 1 or body.get("aliases", {}).get(name, {}).get("is_write_index")
    ]
    if len(writable) != 1:
        raise SpecError(f"The alias {name!r} stands for {len(found)} indices, none of them marked is_write_index.")
    concrete = writable[0]
    body = found[concrete]
    return IndexInfo(
        concrete,
        body["settings"]["index"]["uuid"],
        concrete != name,
        dict(_vectors(body.get("mappings", {}).get("properties", {}))),
    )


def create_index(target: OpenSearchTarget, name: str, body: Mapping[str, Any]) -> None:
    """
    Create an index, unless it is there.

    :param body: ``settings``, ``mappings`` and ``aliases`` as in OpenSearch's create-index API.
    :raises RequestRefusedError: OpenSearch does not take the body.
    """
    try:
        target.put(name, body)
    except RequestRefusedError as error:
        if error.code != "resource_already_exists_exception":
            raise


def count_documents(target: OpenSearchTarget, name: str) -> int:
    """Return how many documents a search would see."""
    return int(target.get(f"{name}/_count")["count"])


def refresh(target: OpenSearchTarget, name: str) -> None:
    """Make everything written so far searchable."""
    target.post(f"{name}/_refresh")


def verify(
    target: OpenSearchTarget,
    name: str,
    *,
    count: int | None = None,
    dimensions: Mapping[str, int] | None = None,
    query: Mapping[str, Any] | None = None,
) -> None:
    """
    Check an index before it is put to use.

    :param count: How many documents it must have.
    :param dimensions: What its vector fields must be.
    :param query: A search body (``{"query": …}``) that must find something.
    :raises VerificationError: it is otherwise; the text says what was found.
    """
    refresh(target, name)
    if count is not None and (found := count_documents(target, name)) != count:
        raise VerificationError(f"The index {name!r} has {found} documents, not {count}.")
    actual = inspect_index(target, name).dimensions if dimensions else {}
    for vector, dimension in (dimensions or {}).items():
        if actual.get(vector) != dimension:
            raise VerificationError(
                f"The field {vector!r} of {name!r} is "
                + (f"a vector of {actual[vector]}" if vector in actual else "no vector")
                + f", not one of {dimension}."
            )
    if query is not None:
        hits = target.post(f"{name}/_search", {**query, "size": 1})["hits"]["hits"]
        if not hits:
            raise VerificationError(f"The sample query finds nothing in {name!r}.")


def swap_alias(target: OpenSearchTarget, alias: str, index: str, *, drop_old: bool = False) -> list[str]:
    """
    Point an alias at an index, in one step for everybody who searches.

    :param drop_old: Delete the indices that the alias stood for, in the same step.
    :return: The names of those indices.
    :raises SpecError: the alias is the name of an index.
    """
    try:
        current: dict[str, Any] = target.get(f"_alias/{alias}")
    except NotFoundError:
        current = {}
    if not current and _is_index(target, alias):
        raise SpecError(f"{alias!r} is an index. Give it another name, so that its name can become an alias.")
    old = sorted(name for name in current if name != index)
    actions: list[dict[str, Any]] = [{"add": {"index": index, "alias": alias}}]
    actions += (
        {"remove_index": {"index": name}} if drop_old else {"remove": {"index": name, "alias": alias}} for name in old
    )
    target.post("_aliases", {"actions": actions}, retry=Retry.SAFE)
    return old


def read_settings(target: OpenSearchTarget, index: str, names: Iterator[str] | list[str]) -> dict[str, Any]:
    """Return index settings by name; ``None`` for one that has its default."""
    answer = target.get(f"{index}/_settings", flat_settings="true")
    actual = answer[index]["settings"]
    return {name: actual.get(_full(name)) for name in names}


def write_settings(target: OpenSearchTarget, index: str, settings: Mapping[str, Any]) -> None:
    """Change index settings; ``None`` gives one its default back."""
    target.put(f"{index}/_settings", {_full(name): value for name, value in settings.items()})


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
        return name in target.get(name)
    except NotFoundError:
        return False


def _vectors(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    for name, mapping in properties.items():
        if mapping.get("type") == "knn_vector" and "dimension" in mapping:
            yield prefix + name, int(mapping["dimension"])
        yield from _vectors(mapping.get("properties", {}), f"{prefix}{name}.")
