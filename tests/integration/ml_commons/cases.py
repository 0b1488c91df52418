"""Requests and lines for the parity test, drawn from a seed: what a field map can say, over what JSON can hold."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

EDGES: list[Any] = [
    *(0, -1, 1.5, -0.0, 1e-7, 1e21, 2**31, 2**53 + 1, -(2**63), 2**63 - 1, 2**64, 0.1, 123456789.123456789),
    *(True, False, None, "", " ", "plain", "ünï — ☃ 😀", 'a"b\\c/d', "line\nbreak\ttab", "\u2028", "source[0]", "$.x"),
    *([], {}, [1, 2.5], [[0.25, -1.0], []], {"k": [{"n": 1}]}, {"": 1}, ["x", None, {"deep": "é"}]),
]
KINDS = [
    *("plain", "plain", "plain", "plain", "plain", "many", "many", "no id", "list id"),
    *("missing", "not json", "blank", "bracket", "duplicate"),
]
JOIN_KINDS = ["join", "join", "partnerless"]
WORDS = ["a", "b", "text", "Embedding", "ключ", "naïve"]
NAMES = ["a", "b", "text", "Embedding", "with space", "ключ", "naïve", "x-y", "under_score", "0", "dotted.name", "it's"]


@dataclass
class Case:
    """
    One request over one or more files.

    :param kind: What it is about.
    :param fails: Whether the server must fail the whole task for it.
    """

    number: int
    kind: str
    field_map: dict[str, Any]
    files: list[list[str]]
    ingest_fields: list[str] = field(default_factory=list)
    fails: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    """What our load is told, to do as the server does."""

    @property
    def name(self) -> str:
        return f"c{self.number:03d}"

    def request(self, index: str, sources: list[str], source_type: str) -> dict[str, Any]:
        request = {
            "index_name": index,
            "field_map": self.field_map,
            "data_source": {"type": source_type, "source": sources},
        }
        return {**request, **({"ingest_fields": self.ingest_fields} if self.ingest_fields else {})}


def cases(seed: int, singles: int, joins: int) -> Iterator[Case]:
    """Yield cases of one source, then cases of several that are joined."""
    draw = random.Random(seed)
    for number in range(singles):
        yield _single(draw, number)
    for number in range(singles, singles + joins):
        yield _join(draw, number)


def _single(draw: random.Random, number: int) -> Case:
    name = f"c{number:03d}"
    shape = _shape(draw, 0)
    documents = [_document(draw, shape) for _ in range(draw.randint(1, 6))]
    for position, document in enumerate(documents):
        document |= {"case": name, "id": f"{name}-{position}"}
    prefix = draw.choice(["", "", "source[0]."])
    field_map: dict[str, Any] = {"case": f"{prefix}$.case"}
    kind = draw.choice(KINDS)
    if kind != "no id":
        path = f"{prefix}$.id"
        field_map["_id"] = [path] if kind == "list id" else path
    for index, path in enumerate(_paths(draw, documents[0], prefixed=bool(prefix))):
        field_map[draw.choice([f"f{index}", f"поле {index}", f"nested.f{index}"])] = f"{prefix}{path}"
    if kind == "many":
        field_map["many"] = prefix + draw.choice(
            ["$..n", "$.list[*]", "$.list[*].n", "$.list[0:2]", "$.list[?(@.n > 1)]"]
        )
        for document in documents:
            document["list"] = [{"n": draw.randint(0, 3)} for _ in range(draw.randint(0, 4))]
    ingest_fields = [f"{prefix}$.{name}" for name in ("text", "Embedding") if name in documents[0]]
    lines = [json.dumps(document, ensure_ascii=draw.random() < 0.5) for document in documents]
    fails = False
    if kind == "missing":
        field_map["gone"] = f"{prefix}$.only.in.some"
        for position, document in enumerate(documents):
            if position:
                document["only"] = {"in": {"some": position}}
        lines = [json.dumps(document) for document in documents]
        fails = True
    elif kind in ("not json", "blank"):
        lines.insert(draw.randint(0, len(lines)), "{ this is not JSON" if kind == "not json" else "   ")
        fails = True
    elif kind == "bracket":
        field_map["bracket"] = "source[0].$['id']"
        fails = True
    options: dict[str, Any] = {}
    if kind == "duplicate":
        again = {**draw.choice(documents), **{name: draw.choice(EDGES) for name in shape if shape[name] is None}}
        lines.append(json.dumps(again))
        options = {"duplicates": "overwrite"}
    return Case(number, kind, field_map, [lines], ingest_fields, fails, options)


def _join(draw: random.Random, number: int) -> Case:
    name = f"c{number:03d}"
    sources = draw.randint(2, 3)
    kind = draw.choice(JOIN_KINDS)
    ids = [f"{name}-{position}" for position in range(draw.randint(1, 6))]
    field_map: dict[str, Any] = {
        "case": "source[0].$.case",
        "_id": [f"source[{source}].$.key{source}" for source in range(sources)],
    }
    files = []
    for source in range(sources):
        shape = _shape(draw, 0)
        documents = [{**_document(draw, shape), "case": name, f"key{source}": identity} for identity in ids]
        draw.shuffle(documents)
        if kind == "partnerless" and len(documents) > 1:
            documents.pop()
        for index, path in enumerate(_paths(draw, documents[0], prefixed=True)):
            field_map[f"s{source}f{index}"] = f"source[{source}].{path}"
        files.append([json.dumps(document, ensure_ascii=draw.random() < 0.5) for document in documents])
    options = {"unmatched": "index"} if kind == "partnerless" else {}
    return Case(number, kind, field_map, files, options=options)


def _shape(draw: random.Random, depth: int) -> dict[str, Any]:
    """Return which names there are, and which of them hold objects or arrays of objects."""
    names = draw.sample(NAMES if depth else WORDS, draw.randint(1, 4))
    shape: dict[str, Any] = {}
    for name in names:
        nested = depth < 3 and draw.random() < 0.4
        shape[name] = (draw.choice(["object", "array"]), _shape(draw, depth + 1)) if nested else None
    return shape


def _document(draw: random.Random, shape: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, inner in shape.items():
        if inner is None:
            document[name] = draw.choice(EDGES)
        elif inner[0] == "object":
            document[name] = _document(draw, inner[1])
        else:
            # All of one length, so that a path into one line is a path into all.
            document[name] = [_document(draw, inner[1]), draw.choice(EDGES), _document(draw, inner[1])]
    return document


def _paths(draw: random.Random, document: Mapping[str, Any], prefixed: bool) -> list[str]:
    found = list(_walk(draw, document, "$"))
    if prefixed:
        # The server cuts the prefix off before "$." only; that is the kind "bracket".
        found = [path for path in found if path.startswith("$.")]
    return draw.sample(found, min(len(found), draw.randint(1, 4)))


def _walk(draw: random.Random, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in NAMES:
                step = f"{path}{_step(draw, name)}"
                yield step
                yield from _walk(draw, inner, step)
    elif isinstance(value, list) and len(value) == 3 and isinstance(value[0], dict) and isinstance(value[2], dict):
        for index in (0, 2):
            yield from _walk(draw, value[index], f"{path}[{draw.choice([index, index - 3])}]")


def _step(draw: random.Random, name: str) -> str:
    if name.replace("_", "").isalpha() and draw.random() < 0.7:
        return f".{name}"
    quoted = name.replace("'", "\\'")
    return f"['{quoted}']"
