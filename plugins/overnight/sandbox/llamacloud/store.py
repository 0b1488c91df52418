"""The state that survives a restart: records of several kinds in SQLite, contents in files beside it."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import IntegrityError
from typing import Any, Literal

import orjson

from overnight.sandbox.emulator.clock import Clock
from overnight.sandbox.emulator.database import Database
from overnight.sandbox.llamacloud.errors import ApiError

Kind = Literal["directory", "directory_file", "file", "configuration", "batch", "job"]
Record = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    parent TEXT NOT NULL,
    name TEXT,
    is_open INTEGER NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_parent ON records (kind, parent, seq);
CREATE INDEX IF NOT EXISTS by_state ON records (kind, is_open, seq);
CREATE UNIQUE INDEX IF NOT EXISTS by_name ON records (kind, parent, name);
"""
_SLICE = 500

OVER = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
"""The states of a batch or job that nothing changes any more."""


class Store:
    """
    Every record has a kind, an id and a parent: its project, or for a directory's file its directory.

    :param folder: Made when it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._contents = folder / "contents"
        self._contents.mkdir(exist_ok=True)
        self._database = Database(folder / "state.sqlite", _SCHEMA)
        self.clock = Clock(self._database)

    def now(self) -> datetime:
        """Return the emulator's time."""
        return datetime.now(UTC) + timedelta(seconds=self.clock.offset)

    def add(self, kind: Kind, record: Record, *, parent: str, name: str | None = None) -> Record:
        """
        Keep a new record, which is given an id and its times.

        :param name: Unique among the records of this kind and parent.
        :raises ApiError: 409, the name is taken.
        """
        moment = self.now().isoformat()
        record = {"id": f"{_PREFIXES[kind]}-{uuid.uuid4()}", **record, "created_at": moment, "updated_at": moment}
        try:
            with self._database.transaction() as connection:
                connection.execute(
                    "INSERT INTO records (kind, id, parent, name, is_open, record) VALUES (?, ?, ?, ?, ?, ?)",
                    (kind, record["id"], parent, name, _is_open(record), _dump(record)),
                )
        except IntegrityError:
            raise ApiError(409, f"A {kind.replace('_', ' ')} with the unique id '{name}' already exists.") from None
        return record

    def get(self, kind: Kind, record_id: str, *, parent: str | None = None, deleted: bool = False) -> Record:
        """
        Return one record.

        :raises ApiError: 404, there is none of this kind, id and parent.
        """
        rows = self._database.query(
            "SELECT record FROM records WHERE kind = ? AND id = ? AND (? IS NULL OR parent = ?)",
            (kind, record_id, parent, parent),
        )
        record = _load(rows[0]) if rows else None
        if record is None or (record.get("deleted_at") and not deleted):
            raise ApiError(404, f"{kind.replace('_', ' ').capitalize()} {record_id} not found")
        return record

    def some(self, kind: Kind, ids: Iterable[str], *, parent: str) -> list[Record]:
        """Return those records of a list of ids that there are, in the list's order."""
        wanted = list(dict.fromkeys(ids))
        found: dict[str, Record] = {}
        for start in range(0, len(wanted), _SLICE):
            part = wanted[start : start + _SLICE]
            marks = ",".join("?" * len(part))
            sql = f"SELECT record FROM records WHERE kind = ? AND parent = ? AND id IN ({marks})"  # noqa: S608
            for row in self._database.query(sql, (kind, parent, *part)):
                record = _load(row)
                found[record["id"]] = record
        return [found[one] for one in wanted if one in found]

    @contextmanager
    def change(self, kind: Kind, record_id: str) -> Iterator[Record]:
        """Change one record; nobody else changes any meanwhile."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT record FROM records WHERE kind = ? AND id = ?", (kind, record_id)
            ).fetchone()
            record = _load(row)
            yield record
            record["updated_at"] = self.now().isoformat()
            connection.execute(
                "UPDATE records SET record = ?, is_open = ?, name = CASE WHEN ? THEN NULL ELSE name END WHERE id = ?",
                (_dump(record), _is_open(record), bool(record.get("deleted_at")), record_id),
            )

    def rename(self, kind: Kind, record_id: str, *, parent: str, name: str | None) -> None:
        """
        Give a record another parent and unique name.

        :raises ApiError: 409, the name is taken there.
        """
        try:
            with self._database.transaction() as connection:
                connection.execute(
                    "UPDATE records SET parent = ?, name = ? WHERE kind = ? AND id = ?", (parent, name, kind, record_id)
                )
        except IntegrityError:
            raise ApiError(409, f"A {kind.replace('_', ' ')} with the unique id '{name}' already exists.") from None

    def unfinished(self, kind: Kind, limit: int) -> list[Record]:
        """Return the oldest records that something is still to happen to."""
        rows = self._database.query(
            "SELECT record FROM records WHERE kind = ? AND is_open = 1 ORDER BY seq LIMIT ?", (kind, limit)
        )
        return [_load(row) for row in rows]

    def all(self, kind: Kind, parent: str | None = None) -> list[Record]:
        """Return every record that is not deleted, oldest first."""
        rows = self._database.query(
            "SELECT record FROM records WHERE kind = ? AND (? IS NULL OR parent = ?) ORDER BY seq",
            (kind, parent, parent),
        )
        return [record for row in rows if not (record := _load(row)).get("deleted_at")]

    def page(
        self,
        kind: Kind,
        *,
        parent: str,
        token: str | None,
        size: int,
        wanted: Callable[[Record], bool],
        newest_first: bool = True,
    ) -> tuple[list[Record], str | None]:
        """
        Return one page and the token of the next.

        :raises ApiError: 400, the token is none of ours.
        """
        after = _read_token(token)
        order, compare = ("DESC", "<") if newest_first else ("ASC", ">")
        found: list[tuple[int, Record]] = []
        while len(found) <= size:
            rows = self._database.query(
                f"SELECT seq, record FROM records WHERE kind = ? AND parent = ? AND (? IS NULL OR seq {compare} ?)"  # noqa: S608
                f" ORDER BY seq {order} LIMIT {_SLICE}",
                (kind, parent, after, after),
            )
            found += [(int(str(seq)), record) for seq, text in rows if wanted(record := orjson.loads(str(text)))]
            if len(rows) < _SLICE:
                break
            after = int(str(rows[-1][0]))
        page = found[:size]
        following = _token(page[-1][0]) if len(found) > size else None
        return [record for _, record in page], following

    def content(self, name: str) -> Path:
        """Return where the content of a file or of a result is, or is to be."""
        return self._contents / name

    def close(self) -> None:
        """Close the database, once nobody uses it."""
        self._database.close()


_PREFIXES: dict[Kind, str] = {
    "directory": "dir",
    "directory_file": "dfl",
    "file": "fil",
    "configuration": "cfg",
    "batch": "bat",
    "job": "pjb",
}


def _is_open(record: Record) -> bool:
    return record.get("status", "COMPLETED") not in OVER


def _dump(record: Record) -> str:
    return orjson.dumps(record).decode()


def _load(row: Any) -> Record:
    record: Record = orjson.loads(row[0])
    return record


def _token(seq: int) -> str:
    return base64.urlsafe_b64encode(orjson.dumps({"after": seq})).decode()


def _read_token(token: str | None) -> int | None:
    if token is None:
        return None
    try:
        after = orjson.loads(base64.urlsafe_b64decode(token.encode()))["after"]
    except (binascii.Error, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        after = None
    if not isinstance(after, int):
        raise ApiError(400, "Invalid page token")
    return after
