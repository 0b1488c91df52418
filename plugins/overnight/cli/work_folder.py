"""The folder of an ``overnight run``: what it remembers, so that started again it goes on and pays nothing twice."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict, ValidationError

from overnight.errors import SpecError
from overnight.jobs.record import Ending
from overnight.jobs.record_store import StorageRecordStore
from overnight.retention.layout import IDENTITY, INPUT, JOBS, REPORT
from overnight.retention.own_run import RunIdentity, lock_run, read_identity
from overnight.services.openai.input import BuiltInput
from overnight.services.openai.spec import OpenAIBatchSpec
from overnight.storage import Storage, redact


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
        with lock_run(self.uri, self._storage, create=True) as is_free:
            if not is_free:
                raise SpecError(
                    f"Another overnight run works in {redact(self.uri)}, or a clean. Wait for its end, or give another "
                    "--work."
                )
            yield self._identify()

    def open_records(self, number: int) -> StorageRecordStore:
        """Return where the job of a part is remembered; parts count from 0."""
        return StorageRecordStore(f"{self.uri}/{JOBS}part-{number:05d}.json", self._storage)

    def read_input(self, fingerprint: str) -> BuiltInput | None:
        """
        Return the batch input that an earlier start has written; ``None`` when it was made of something else.

        :param fingerprint: Of what it is to be made of.
        """
        if not self._storage.exists(f"{self.uri}/{INPUT}"):
            return None
        with self._storage.open(f"{self.uri}/{INPUT}") as file:
            try:
                found = _Input.model_validate_json(file.read())
            except ValidationError:
                return None
        if found.fingerprint != fingerprint:
            return None
        return found.built if all(map(self._storage.exists, _list_files(found.built))) else None

    def forget_input(self) -> None:
        """Write down that the batch input is about to be written anew."""
        self._storage.delete(f"{self.uri}/{INPUT}")

    def write_input(self, fingerprint: str, built: BuiltInput) -> None:
        """Write down what the batch input is, now that it is there as a whole."""
        content = _Input(fingerprint=fingerprint, built=built).model_dump_json()
        self._storage.put(f"{self.uri}/{INPUT}", content.encode())

    def refuse_other_jobs(self, specs: Sequence[OpenAIBatchSpec], conn_id: str) -> None:
        """
        Refuse a folder with jobs of other documents, which are paid for and would be abandoned.

        :param specs: Of the parts, in their order.
        :raises SpecError: there is one; the text names it.
        """
        count = len(self._storage.list_files(f"{self.uri}/{JOBS}").files)
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
        uri = f"{self.uri}/{REPORT}"
        self._storage.put(uri, content.encode())
        return uri

    def _identify(self) -> str:
        mine = RunIdentity(run_id=uuid.uuid4().hex[:16])
        if self._storage.create(f"{self.uri}/{IDENTITY}", mine.model_dump_json().encode()):
            return mine.run_id
        found = read_identity(self.uri, self._storage)
        if found is None:
            raise SpecError(
                f"{redact(self.uri)}/{IDENTITY} is not of an overnight run. Give another --work, a folder of its own."
            )
        return found.run_id
