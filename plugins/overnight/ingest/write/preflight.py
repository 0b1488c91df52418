"""The first documents held against the index, before any of them is sent."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

import msgspec

from overnight.errors import SpecError
from overnight.ingest.write.sink import IndexInfo, VectorField
from overnight.json_text import JsonBytes

_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_MAX_LENGTHS = 5
_OBJECTS: Final = frozenset({"object", "nested"})
_NOT_WHOLE = -1
_decode = msgspec.json.Decoder().decode


class Preflight:
    """
    Looks for what would make the whole load useless although OpenSearch takes it, or rejects it line by line.

    * Vectors of another length: when no document has a fitting one, the load is refused; otherwise OpenSearch rejects
      those that do not fit one by one.
    * An array of numbers for a field that the mapping does not know, in an index with vectors: OpenSearch would make it
      a plain float field, and no vector search would find anything.
    * A missing timestamp in a data stream.
    * Routing values that are not the alias' own.

    :param index: What the documents are held against.
    """

    def __init__(self, index: IndexInfo) -> None:
        self._index = index
        self._fitting: dict[str, bool] = {}
        self._lengths: dict[str, set[int]] = {}
        self._unknown: dict[str, int] = {}
        self._documents = self._timestamps = 0
        self._foreign: str | None = None
        self._is_routed = False

    def add(self, parts: Sequence[JsonBytes], routing: str | None = None) -> None:
        """
        Look at one document.

        :param parts: In pieces of JSON.
        :param routing: Its own routing value.
        """
        if self._index.routing is not None and routing not in (None, self._index.routing):
            self._foreign = self._foreign or routing
        else:
            self._is_routed = True
        if not self._index.vectors and not self._index.is_data_stream:
            return
        try:
            document = _decode(b"".join(parts))
        except (msgspec.DecodeError, RecursionError):
            return  # OpenSearch rejects it in its own words, or can hold what Python cannot
        if not isinstance(document, dict):
            return
        self._documents += 1
        for name, value in _walk(document):
            self._timestamps += name == self._index.timestamp
            vector = self._index.vectors.get(name)
            if vector is not None:
                self._add_vector(name, vector, value)
            elif self._is_unknown(name) and _is_vector_like(value):
                self._unknown.setdefault(name, len(value))

    def finish(self) -> None:
        """
        Decide, when the first body is complete.

        :raises SpecError: the load is refused.
        """
        if self._foreign is not None and not self._is_routed:
            raise SpecError(
                f"The alias {self._index.requested!r} gives each document the routing {self._index.routing!r}, and "
                f"OpenSearch refuses documents with another, such as {self._foreign[:100]!r}. Nothing was written. "
                f"Load into {self._index.name!r} itself, or take '_routing' out of the field map."
            )
        if self._index.is_data_stream and self._documents and not self._timestamps:
            raise SpecError(
                f"{self._index.requested!r} is a data stream, and the first {self._documents} documents have no "
                f"{self._index.timestamp!r}, which each of its documents needs. Nothing was written. Map it: "
                f"field_map[{self._index.timestamp!r}] = '$.<path of a date>'."
            )
        for name, fits in self._fitting.items():
            if not fits:
                self._refuse_lengths(name)
        if self._unknown:
            self._refuse_unknown(*next(iter(self._unknown.items())))

    def _add_vector(self, name: str, vector: VectorField, value: Any) -> None:
        length = measure_vector(value, vector)
        if length is None:
            return
        self._fitting[name] = self._fitting.get(name, False) or length == vector.length
        self._lengths.setdefault(name, set()).add(length)

    def _is_unknown(self, name: str) -> bool:
        """Whether OpenSearch would guess the type of a field, by what the mapping says of the nearest object."""
        index = self._index
        if not index.vectors or index.has_dynamic_vectors or name in index.fields:
            return False
        parent = name.rpartition(".")[0]
        while parent and parent not in index.fields:
            parent = parent.rpartition(".")[0]
        return not parent or index.fields[parent] in _OBJECTS

    def _refuse_lengths(self, name: str) -> None:
        vector = self._index.vectors[name]
        found = ", ".join(
            "base64 of no whole number of values" if length == _NOT_WHOLE else str(length)
            for length in sorted(self._lengths[name])[:_MAX_LENGTHS]
        )
        bits = f" ({vector.length} numbers of eight bits)" if vector.data_type == "binary" else ""
        raise SpecError(
            f"The field {name!r} is a vector of {vector}{bits} in the index, but the first documents have {found}. "
            "Nothing was written. Use the model that the index was made for, or an index for this model."
        )

    def _refuse_unknown(self, name: str, length: int) -> None:
        vectors = self._index.vectors
        near = get_close_matches(name, vectors, n=1, cutoff=0.5)
        same = [other for other, vector in vectors.items() if vector.length == length]
        guess = next(iter(near or same), None)
        raise SpecError(
            f"The documents have an array of {length} numbers in {name!r}, a field that the index does not know. "
            "OpenSearch would make it a plain number field, and no vector search would find them. Nothing was written. "
            + (f"Did you mean {guess!r}? " if guess else "")
            + f"The vector fields are {', '.join(f'{other!r} of {vector}' for other, vector in vectors.items())}. If "
            f"it is no vector, add {name!r} to the mapping."
        )


def measure_vector(value: Any, vector: VectorField) -> int | None:
    """
    Return how many numbers a value holds for a vector field; ``None`` when it is no vector at all.

    :param value: An array of numbers, or base64 as k-NN takes it from 3.9 on: little-endian float32, or one byte for
        each number where ``data_type`` is ``byte`` or ``binary``.
    """
    if isinstance(value, list):
        return len(value) if all(_is_number(item) for item in value) else None
    if not isinstance(value, str) or not _BASE64.fullmatch(value):
        return None
    try:
        size = len(base64.b64decode(value, validate=True))
    except binascii.Error:
        return None
    each = vector.encoded_bytes // vector.length if vector.length else 1
    return size // each if size % each == 0 else _NOT_WHOLE


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_vector_like(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(_is_number(item) for item in value)


def _walk(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value that is no object by its dotted name."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
