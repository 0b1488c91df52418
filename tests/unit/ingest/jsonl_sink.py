"""The smallest sink: a folder with one JSON Lines file for each index, and a file for each alias."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from overnight.ingest.write.sink import (
    Body,
    BodyOutcome,
    Expectation,
    Frame,
    IndexInfo,
    IndexMissingError,
    VectorField,
    VerificationError,
    WriteOptions,
)
from overnight.rejection import Rejection


class JsonlSink:
    """A document with ``"drop": true`` is dropped, one with ``"bad": true`` rejected."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lost: set[str] = set()

    @property
    def address(self) -> str:
        return str(self.folder)

    def inspect(self, name: str) -> IndexInfo:
        alias = self.folder / f"{name}.alias"
        concrete = alias.read_text() if alias.exists() else name
        try:
            mapping = json.loads((self.folder / f"{concrete}.mapping").read_text())
        except FileNotFoundError as error:
            raise IndexMissingError(f"There is no {name}.jsonl.") from error
        vectors = {field: VectorField(dimension) for field, dimension in mapping.items()}
        return IndexInfo(concrete, concrete, alias.exists(), name, vectors, dict.fromkeys(vectors, "knn_vector"))

    def create(self, name: str, body: Mapping[str, Any]) -> None:
        (self.folder / f"{name}.mapping").write_text(json.dumps(body))

    def documents(self, name: str) -> dict[str, Any]:
        path = self.folder / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return {row["_id"]: row["_source"] for row in rows}

    def is_empty(self, index: IndexInfo) -> bool | None:
        return not self.documents(index.name)

    def find_made_fields(self, index: IndexInfo, document: bytes) -> set[str]:
        return set()

    @contextmanager
    def changed_settings(
        self, index: IndexInfo, settings: Mapping[str, Any], before: Mapping[str, Any] | None
    ) -> Iterator[None]:
        yield

    def read_settings(self, index: IndexInfo, names: Sequence[str]) -> dict[str, Any]:
        return dict.fromkeys(names)

    def writer(self, index: IndexInfo, options: WriteOptions) -> JsonlWriter:
        return JsonlWriter(self, self.folder / f"{index.name}.jsonl")

    def refresh(self, index: IndexInfo) -> str | None:
        return None

    def verify(self, index: IndexInfo, expected: Expectation) -> list[str]:
        missing = sorted(expected.ids.keys() - self.documents(index.name).keys())
        if missing:
            raise VerificationError("not there", ids=missing)
        return []

    def check(self, name: str, *, count: int, query: Mapping[str, Any] | None = None) -> None:
        if len(self.documents(name)) != count:
            raise VerificationError(f"not {count}")

    def swap(self, alias: str, index: str, *, drop_old: bool = False) -> list[str]:
        path = self.folder / f"{alias}.alias"
        old = [path.read_text()] if path.exists() else []
        path.write_text(index)
        return old


class JsonlWriter:
    frame = Frame(b'{"_id":', b',"_source":', b"}\n")

    def __init__(self, sink: JsonlSink, path: Path) -> None:
        self._sink = sink
        self._path = path
        self._lock = threading.Lock()

    def send(self, body: Body, ends: Sequence[int], ids: Sequence[str]) -> BodyOutcome:
        outcome = BodyOutcome()
        start = 0
        with self._lock, self._path.open("ab") as file:
            for number, (key, end) in enumerate(zip(ids, ends, strict=True)):
                line, start = bytes(body[start:end]), end
                source = json.loads(line)["_source"]
                if source.get("bad"):
                    outcome.rejected[number] = Rejection("bad", "it is bad")
                elif source.get("drop"):
                    outcome.dropped.append(number)
                elif key not in self._sink.lost:
                    file.write(line)
        return outcome
