"""The folder of an ``overnight run``: whose it is, who is at work in it, and whether its jobs are over."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from overnight.errors import SpecError
from overnight.jobs.record_store import StorageRecordStore
from overnight.retention.layout import IDENTITY, LOCK
from overnight.storage import Storage, get_scheme
from overnight.storage_errors import MissingFileError


class RunIdentity(BaseModel):
    """What ``run.json`` holds: the run's id, by which its jobs are known at the service."""

    model_config = ConfigDict(frozen=True)

    run_id: str


def read_identity(folder_uri: str, storage: Storage) -> RunIdentity | None:
    """Return whose a folder is; ``None`` for one of no ``overnight run``."""
    try:
        with storage.open(f"{folder_uri}/{IDENTITY}") as file:
            return RunIdentity.model_validate_json(file.read())
    except (MissingFileError, ValidationError):
        return None


def has_open_job(record_uris: Iterable[str], storage: Storage) -> bool:
    """Whether a job is, or may be, at the service whose end is not known."""
    for uri in record_uris:
        try:
            record = StorageRecordStore(uri, storage).get()
        except SpecError:
            # Nobody can tell.
            return True
        if record is not None and record.ending is None:
            return True
    return False


@contextmanager
def lock_run(folder_uri: str, storage: Storage, *, create: bool) -> Iterator[bool]:
    """
    Keep other processes of this machine out of a run's folder, and yield whether none of them is in it.

    In an object store there is no lock. The system releases one on a disk, however the process ends.

    :param create: Whether to begin a run: the folder is made. Otherwise one without a lock's file is nobody's.
    :raises SpecError: the folder cannot be used.
    """
    path = Path(storage.resolve(folder_uri)[1]) / LOCK
    if get_scheme(folder_uri) != "file" or not (create or path.exists()):
        yield True
        return
    with _open(path, create=create) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        # A clean may have deleted it since it was opened; that of a file that is gone keeps nobody out.
        yield path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat())


def _open(path: Path, *, create: bool) -> IO[str]:
    try:
        if not create:
            return path.open()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written anew, it says when the run was last begun.
        return path.open("w")
    except OSError as error:
        what = "written to" if create else "read"
        raise SpecError(f"The work folder {path.parent} cannot be {what}: {error.strerror}.") from error
