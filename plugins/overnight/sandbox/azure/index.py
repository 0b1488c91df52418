"""The search service behind the jobs: indexes of chunks, with full-text search by SQLite."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from overnight.sandbox.emulator.database import Database

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS indexes (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS chunks (
    number INTEGER PRIMARY KEY,
    index_name TEXT NOT NULL,
    id TEXT NOT NULL,
    run INTEGER NOT NULL,
    record TEXT NOT NULL,
    UNIQUE (index_name, id)
);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(title, content);
"""
_WORD = re.compile(r"\w+")

FIELDS: Final = ("id", "content", "title", "filepath", "url", "chunk_id", "last_updated")


class IndexStore:
    """All indexes of the emulated search service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def names(self) -> list[str]:
        """Return the names of all indexes, sorted."""
        return [str(row[0]) for row in self._database.query("SELECT name FROM indexes ORDER BY name")]

    def exists(self, name: str) -> bool:
        """Whether there is such an index."""
        return bool(self._database.query("SELECT 1 FROM indexes WHERE name = ?", (name,)))

    def create(self, name: str) -> None:
        """Create an index, unless it is there."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO indexes VALUES (?)", (name,))

    def delete(self, name: str) -> None:
        """Delete an index with all its documents."""
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM words WHERE rowid IN (SELECT number FROM chunks WHERE index_name = ?)", (name,)
            )
            connection.execute("DELETE FROM chunks WHERE index_name = ?", (name,))
            connection.execute("DELETE FROM indexes WHERE name = ?", (name,))

    def put(self, name: str, run: int, documents: list[dict[str, Any]]) -> None:
        """
        Add documents, each in place of the one that had its id.

        :param run: The number of the job's run that they come from.
        """
        with self._database.transaction() as connection:
            for document in documents:
                key = (name, document["id"])
                old = connection.execute("SELECT number FROM chunks WHERE index_name = ? AND id = ?", key).fetchone()
                if old is not None:
                    connection.execute("DELETE FROM words WHERE rowid = ?", old)
                    connection.execute("DELETE FROM chunks WHERE number = ?", old)
                added = connection.execute(
                    "INSERT INTO chunks (index_name, id, run, record) VALUES (?, ?, ?, ?)",
                    (*key, run, orjson.dumps(document).decode()),
                )
                connection.execute(
                    "INSERT INTO words (rowid, title, content) VALUES (?, ?, ?)",
                    (added.lastrowid, document["title"], document["content"]),
                )

    def forget_before(self, name: str, run: int) -> None:
        """Delete what earlier runs left and this one did not find any more."""
        with self._database.transaction() as connection:
            gone = "SELECT number FROM chunks WHERE index_name = ? AND run < ?"
            connection.execute(f"DELETE FROM words WHERE rowid IN ({gone})", (name, run))  # noqa: S608 - a constant
            connection.execute("DELETE FROM chunks WHERE index_name = ? AND run < ?", (name, run))

    def count(self, name: str) -> int:
        """Return how many documents an index has."""
        ((count,),) = self._database.query("SELECT count(*) FROM chunks WHERE index_name = ?", (name,))
        return int(str(count))

    def get(self, name: str, key: str) -> dict[str, Any] | None:
        """Return one document."""
        rows = self._database.query("SELECT record FROM chunks WHERE index_name = ? AND id = ?", (name, key))
        return _record(rows[0][0]) if rows else None

    def search(self, name: str, text: str, *, all_words: bool, top: int, skip: int) -> tuple[int, list[dict[str, Any]]]:
        """
        Return how many documents match, and one page of them with their scores, the best first.

        :param text: Words; ``*`` or nothing for all documents.
        :param all_words: Whether a document must have all of them, or any.
        """
        words = _WORD.findall(text)
        if text.strip() in ("", "*"):
            found = self._database.query(
                "SELECT 1.0, record FROM chunks WHERE index_name = ? ORDER BY number LIMIT ? OFFSET ?",
                (name, top, skip),
            )
            return self.count(name), [_scored(score, record) for score, record in found]
        if not words:
            return 0, []
        # Quoted, so that no word reads as an operator of FTS5.
        query = (" AND " if all_words else " OR ").join(f'"{word}"' for word in words)
        matching = "FROM words JOIN chunks ON chunks.number = words.rowid WHERE words MATCH ? AND index_name = ?"
        ((total,),) = self._database.query(f"SELECT count(*) {matching}", (query, name))
        found = self._database.query(
            f"SELECT -bm25(words), record {matching} ORDER BY bm25(words), number LIMIT ? OFFSET ?",
            (query, name, top, skip),
        )
        return int(str(total)), [_scored(score, record) for score, record in found]


def _record(text: object) -> dict[str, Any]:
    record: dict[str, Any] = orjson.loads(str(text))
    return record


def _scored(score: object, record: object) -> dict[str, Any]:
    return {"@search.score": float(str(score)), **_record(record)}
