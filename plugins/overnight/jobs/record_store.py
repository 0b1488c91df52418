"""Where a job's record is kept between tries: a protocol, and files for what runs outside of Airflow."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from overnight.errors import SpecError
from overnight.jobs.record import JobRecord
from overnight.storage import Storage, redact


class RecordStore(Protocol):
    """
    The record of one task instance's (or script's) job.

    ``set`` returns only when the record would survive the end of this process: what it holds decides whether a job is
    paid for a second time.
    """

    def get(self) -> JobRecord | None:
        """Return what was written last, or ``None``."""

    def set(self, record: JobRecord) -> None:
        """Write the record in place of the one before."""


def parse_record(stored: object, where: str) -> JobRecord:
    """
    Read a stored record.

    :param where: The place, for the error's text.
    :raises SpecError: it is none. It is not taken for absent, since a job would be paid for again.
    """
    try:
        if isinstance(stored, str | bytes):
            return JobRecord.model_validate_json(stored)
        return JobRecord.model_validate(stored)
    except ValidationError as error:
        raise SpecError(
            f"What {where} holds is no record of a job ({error.error_count()} faults, the first: "
            f"{error.errors()[0]['msg']}). Nothing was submitted. Delete it only when no job of this task is running: "
            "the next run then looks at the service's list alone."
        ) from None


class FileRecordStore:
    """
    Keep the record in a JSON file, which is replaced as a whole: a killed process leaves the old one or the new one.

    :param path: The file; its folder is created when it is missing. Two processes must not use one file at a time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def get(self) -> JobRecord | None:
        """
        Return what was written last, or ``None`` when there is no file.

        :raises SpecError: the file holds something else.
        """
        try:
            stored = self.path.read_bytes()
        except FileNotFoundError:
            return None
        return parse_record(stored, str(self.path))

    def set(self, record: JobRecord) -> None:
        """Write the record to a temporary file beside it, flush that to the disk, and rename it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(record.model_dump_json(indent=2).encode())
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        # The rename itself is durable only once the folder is.
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class StorageRecordStore:
    """
    Keep the record in a JSON file of a work folder, on a disk or in an object store. It is replaced as a whole.

    :param uri: The file. Two processes must not use one file at a time.
    """

    def __init__(self, uri: str, storage: Storage) -> None:
        self.uri = uri
        self._storage = storage

    def get(self) -> JobRecord | None:
        """
        Return what was written last, or ``None`` when there is no file.

        :raises SpecError: the file holds something else.
        :raises ServiceError: the store cannot be read.
        """
        if not self._storage.exists(self.uri):
            return None
        with self._storage.open(self.uri) as file:
            stored: bytes = file.read()
        return parse_record(stored, redact(self.uri))

    def set(self, record: JobRecord) -> None:
        """
        Write the record in place of the one before.

        :raises ServiceError: the store cannot be written to.
        """
        self._storage.put(self.uri, record.model_dump_json(indent=2).encode())
