"""The Files API's store: bytes on disk, one row of metadata each."""

from __future__ import annotations

import os
import secrets
import shutil
import string
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from overnight.sandbox.emulator.clock import Clock
from overnight.sandbox.emulator.database import Database
from overnight.sandbox.openai.errors import ApiError

PURPOSES = ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
_ALPHABET = string.ascii_letters + string.digits


class FileRecord(BaseModel):
    """A file's metadata."""

    id: str
    purpose: str
    filename: str
    bytes: int
    created_at: int
    expires_at: int | None = None

    def public(self) -> dict[str, Any]:
        """Return the file object of the API."""
        return {
            "object": "file",
            "id": self.id,
            "purpose": self.purpose,
            "filename": self.filename,
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "status": "processed",
            "status_details": None,
        }


@dataclass(frozen=True)
class Page:
    """One page of a list: its items, and whether there are more."""

    items: list[dict[str, Any]]
    has_more: bool

    def public(self) -> dict[str, Any]:
        """Return the list object of the API."""
        return {
            "object": "list",
            "data": self.items,
            "first_id": self.items[0]["id"] if self.items else None,
            "last_id": self.items[-1]["id"] if self.items else None,
            "has_more": self.has_more,
        }


class FileStore:
    """
    Files, until they are deleted or expire.

    :param folder: Where the bytes are; one file each, named by its id.
    """

    def __init__(self, folder: Path, database: Database, clock: Clock) -> None:
        self.folder = folder
        self._database = database
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, file_id: str) -> Path:
        """Return where a stored file's bytes are."""
        return self.folder / file_id

    def add(self, content: Path, *, purpose: str, filename: str, lifetime: int | None) -> FileRecord:
        """
        Take a file in.

        :param content: A file on the same file system; it is moved.
        :param lifetime: Seconds until it expires.
        """
        return self._insert(
            content,
            "file-" + "".join(secrets.choice(_ALPHABET) for _ in range(22)),
            purpose=purpose,
            filename=filename,
            lifetime=lifetime,
        )

    def adopt(
        self, content: Path, *, name: str, purpose: str, filename: str, lifetime: int | None, or_empty: bool
    ) -> str | None:
        """
        Take in a file that has its id from ``name``; doing so again changes nothing.

        :param or_empty: Take in an empty file when there is none.
        :return: The id, or ``None`` when there is nothing to take in and never was.
        """
        file_id = _build_id(name)
        if not content.exists() and not self.path(file_id).exists():
            if not or_empty:
                return None
            content.touch()
        if not self._rows("WHERE id = ?", (file_id,)):
            self._insert(content, file_id, purpose=purpose, filename=filename, lifetime=lifetime)
        return file_id

    def get(self, file_id: str) -> FileRecord:
        """
        Return a file's metadata.

        :raises ApiError: 404, when there is none, or it has expired.
        """
        self._purge()
        rows = self._rows("WHERE id = ?", (file_id,))
        if not rows:
            raise ApiError(404, f"No such File object: {file_id}", param="id")
        return rows[0]

    def page(self, *, after: str | None, limit: int, newest_first: bool, purpose: str | None) -> Page:
        """Return the page of files that follows the file ``after``."""
        self._purge()
        conditions: list[str] = ["1"]
        parameters: list[object] = []
        if purpose is not None:
            conditions.append("purpose = ?")
            parameters.append(purpose)
        if after is not None:
            self.get(after)
            where = "seq < (SELECT seq FROM files WHERE id = ?)", "seq > (SELECT seq FROM files WHERE id = ?)"
            conditions.append(where[0] if newest_first else where[1])
            parameters.append(after)
        order = "DESC" if newest_first else "ASC"
        rows = self._rows(f"WHERE {' AND '.join(conditions)} ORDER BY seq {order} LIMIT ?", (*parameters, limit + 1))
        return Page([row.public() for row in rows[:limit]], has_more=len(rows) > limit)

    def delete(self, file_id: str) -> None:
        """
        Delete a file.

        :raises ApiError: 404, when there is none.
        """
        self.get(file_id)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM files WHERE id = ?", (file_id,))
        self.path(file_id).unlink(missing_ok=True)

    def _insert(self, content: Path, file_id: str, *, purpose: str, filename: str, lifetime: int | None) -> FileRecord:
        target = self.path(file_id)
        if content.exists():  # not so when the process died between this move and the row below
            content.replace(target)
        now = self._clock.now()
        record = FileRecord(
            id=file_id,
            purpose=purpose,
            filename=filename,
            bytes=target.stat().st_size,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO files (id, purpose, expires_at, record) VALUES (?, ?, ?, ?)",
                (file_id, purpose, record.expires_at, record.model_dump_json()),
            )
        return record

    def _rows(self, clause: str, parameters: tuple[object, ...]) -> list[FileRecord]:
        rows = self._database.query(f"SELECT record FROM files {clause}", parameters)  # noqa: S608 - our own clauses
        return [FileRecord.model_validate_json(str(row[0])) for row in rows]

    def _purge(self) -> None:
        now = self._clock.now()
        expired = self._rows("WHERE expires_at <= ?", (now,))
        if not expired:
            return
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM files WHERE expires_at <= ?", (now,))
        for record in expired:
            self.path(record.id).unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Give a file a second name that outlives the first; copied where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _build_id(name: str) -> str:
    number = int.from_bytes(blake2b(name.encode(), digest_size=20).digest(), "big")
    characters = []
    for _ in range(22):
        number, at = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[at])
    return "file-" + "".join(characters)
