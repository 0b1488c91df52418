"""The folder of an ``overnight run``: what it remembers, so that started again it goes on and pays nothing twice."""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from overnight.errors import SpecError
from overnight.jobs.record import Ending
from overnight.jobs.record_store import StorageRecordStore
from overnight.services.openai.input import BuiltInput
from overnight.services.openai.spec import OpenAIBatchSpec
from overnight.storage import Storage, get_scheme, redact

_IDENTITY: Final = "run.json"
_INPUT: Final = "input.json"


class _Identity(BaseModel):
    model_config = ConfigDict(frozen=True)

    run_id: str


class _Input(BaseModel):
    """The batch input in the folder, and what it was made of."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    built: BuiltInput


def _list_files(built: BuiltInput) -> Iterator[str]:
    for part in built.parts:
        yield from filter(None, (part.uri, part.documents_uri, part.repeated_uri, part.repeated_documents_uri))
    for reused in built.reused:
        yield from (reused.uri, reused.documents_uri)


class WorkFolder:
    """
    One run's folder: ``run.json`` (its id), ``input.json`` and the parts, ``jobs/`` (a record for each), the report.

    :param uri: On a disk or in an object store.
    """

    def __init__(self, uri: str, storage: Storage) -> None:
        self.uri = uri.rstrip("/")
        self._storage = storage

    @contextmanager
    def claim(self) -> Iterator[str]:
        """
        Keep other processes of this machine out of the folder, and yield the run's id, made at the first start.

        The id names the run's jobs at the service: two folders of one name on two machines have different jobs.

        :raises SpecError: another run works in the folder, or it is somebody else's.
        """
        if get_scheme(self.uri) != "file":
            yield self._identify()
            return
        folder = Path(self._storage.resolve(self.uri)[1])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / ".lock").open("w")
        except OSError as error:
            raise SpecError(f"The work folder {folder} cannot be written to: {error.strerror}.") from error
        with lock:
            try:
                # The system releases it, however the process ends.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise SpecError(
                    f"Another overnight run works in {folder}. Wait for its end, or give another --work."
                ) from error
            yield self._identify()

    def open_records(self, number: int) -> StorageRecordStore:
        """Return where the job of a part is remembered; parts count from 0."""
        return StorageRecordStore(f"{self.uri}/jobs/part-{number:05d}.json", self._storage)

    def read_input(self, fingerprint: str) -> BuiltInput | None:
        """
        Return the batch input that an earlier start has written; ``None`` when it was made of something else.

        :param fingerprint: Of what it is to be made of.
        """
        if not self._storage.exists(f"{self.uri}/{_INPUT}"):
            return None
        with self._storage.open(f"{self.uri}/{_INPUT}") as file:
            try:
                found = _Input.model_validate_json(file.read())
            except ValidationError:
                return None
        if found.fingerprint != fingerprint:
            return None
        return found.built if all(map(self._storage.exists, _list_files(found.built))) else None

    def forget_input(self) -> None:
        """Write down that the batch input is about to be written anew."""
        self._storage.delete(f"{self.uri}/{_INPUT}")

    def write_input(self, fingerprint: str, built: BuiltInput) -> None:
        """Write down what the batch input is, now that it is there as a whole."""
        content = _Input(fingerprint=fingerprint, built=built).model_dump_json()
        self._storage.put(f"{self.uri}/{_INPUT}", content.encode())

    def refuse_other_jobs(self, specs: Sequence[OpenAIBatchSpec], conn_id: str) -> None:
        """
        Refuse a folder with jobs of other documents, which are paid for and would be abandoned.

        :param specs: Of the parts, in their order.
        :raises SpecError: there is one; the text names it.
        """
        count = len(self._storage.list_files(f"{self.uri}/jobs/").files)
        for number in range(max(count, len(specs))):
            record = self.open_records(number).get()
            # The next start of one that failed has another job in any case.
            if record is None or record.ending is Ending.FINISHED:
                continue
            if number < len(specs) and record.fingerprint == specs[number].fingerprint(conn_id):
                continue
            what = str(record.ref) if record.ref is not None else "a job that may have been submitted"
            raise SpecError(
                f"{redact(self.uri)} has {what} of other documents, or with another template, --cache or --conn-id. "
                "Nothing was submitted. Give the former ones to go on with it, or another --work for these."
            )

    def write_report(self, content: str) -> str:
        """Write the run's report, and return its URI."""
        uri = f"{self.uri}/report.json"
        self._storage.put(uri, content.encode())
        return uri

    def _identify(self) -> str:
        uri = f"{self.uri}/{_IDENTITY}"
        mine = _Identity(run_id=uuid.uuid4().hex[:16])
        if self._storage.create(uri, mine.model_dump_json().encode()):
            return mine.run_id
        with self._storage.open(uri) as file:
            try:
                return _Identity.model_validate_json(file.read()).run_id
            except ValidationError:
                raise SpecError(
                    f"{redact(uri)} is not of an overnight run. Give another --work, a folder of its own."
                ) from None
