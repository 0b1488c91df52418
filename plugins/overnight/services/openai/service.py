"""
OpenAI batches: upload a file of requests, create a batch of it, poll, cancel, and point at the result files.

API: https://developers.openai.com/api/reference/resources/batches and …/files. Azure OpenAI and compatible servers
are reached by the connection alone (:mod:`overnight.services.openai.connection`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, cast
from urllib.parse import quote

import orjson

from overnight.errors import (
    MAX_TEXT,
    NotFoundError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    TransientError,
    UnavailableError,
    UnsupportedError,
    shorten,
)
from overnight.jobs import (
    FoundJob,
    JobKey,
    JobRecord,
    JobRef,
    JobStatus,
    ResultFile,
    ResultManifest,
    choose_found,
)
from overnight.jobs.model import ListedOwnJob
from overnight.jobs.queue import Amount, ListedJob, QueueFull
from overnight.jobs.service import Service, get_max_other_pages
from overnight.services.create import CLOCK_SKEW, create_once
from overnight.services.openai import queue
from overnight.services.openai.causes import get_cause
from overnight.services.openai.connection import read_openai_error
from overnight.services.openai.files import (
    NOT_LISTED,
    PAGE,
    InputFile,
    check_size,
    content,
    get_file_path,
    is_gone,
    is_id,
    list_all,
    list_input_files,
    parse_object,
    provide,
    quote_answer,
    read_page,
    to_uri,
)
from overnight.services.openai.limits import Limits
from overnight.services.openai.result_line import Result, read_result
from overnight.services.openai.spec import OpenAIBatchSpec
from overnight.services.openai.status import parse_moment, read_state, read_status, read_usage, with_error_lines
from overnight.services.tags import TAG_PREFIX
from overnight.storage import Storage
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall, Retry

__all__ = ["CONSOLE_URL", "OpenAIBatchService", "OpenAIBatchSpec", "content", "to_uri"]

log = logging.getLogger(__name__)

CONSOLE_URL: Final = "https://platform.openai.com/batches/"
_ENDS: Final = ("completed_at", "failed_at", "expired_at", "cancelled_at")
_TASK_TAGS: Final = tuple(f"{TAG_PREFIX}{name}" for name in ("dag", "task", "run"))
ERROR_FILE_BYTES: Final = 1 << 20
"""How much of an error file is read to find out whether, and why, lines of a completed batch failed."""


class OpenAIBatchService(Service[OpenAIBatchSpec]):
    """
    The five verbs for OpenAI batches.

    :param conn_id: The connection that every reference names.
    :param storage: Where input files are; the local disk and fsspec's defaults when left out.
    :param limits: What the server takes in one batch.
    :param console_url_prefix: The address of a batch's page in the console, without its id; ``None``
        for a server without such pages.
    """

    name: ClassVar[str] = "openai"
    queue_units: ClassVar[frozenset[str]] = frozenset({"tokens", "records", "jobs"})

    def __init__(
        self,
        conn_id: str,
        storage: Storage | None = None,
        limits: Limits | None = None,
        console_url_prefix: str | None = CONSOLE_URL,
    ) -> None:
        super().__init__(conn_id)
        self.storage = storage or Storage()
        self.limits = limits or Limits()
        self._console_url_prefix = console_url_prefix

    def find(self, key: JobKey, since: datetime, record: JobRecord | None = None) -> Flow[FoundJob | None]:
        """
        Look through the batches since a time for this task instance's, by metadata.

        Servers that drop metadata are searched by the input file instead: by the one that ``record`` has, whatever they
        have made of its name, or by that name. On a server that lists no batches
        a lost job cannot be found, which is logged: a job is then submitted anew.
        """
        try:
            file_id = record.input_id if record is not None and record.ref is None else None
            name = record.key.name if record is not None and record.key is not None else key.name
            return (yield from self._find(key, since, file_id, name))
        except (UnsupportedError, NotFoundError) as error:
            log.warning("This server does not list its batches, so a lost job cannot be found again. %s", error)
            return None

    def submit(self, spec: OpenAIBatchSpec, key: JobKey) -> Flow[JobRef]:
        """
        Upload the input, unless it is there already, and create the batch.

        :raises InputError: the input would be rejected; nothing was uploaded.
        :raises SpecError: the metadata is over the service's limits, or the input changed since it was measured.
        """
        if spec.input_uri is None:
            metadata = self._metadata(spec, key)
            return (yield from self._create(spec, key, metadata, cast("str", spec.input_file_id), is_ours=False))
        self._metadata(spec, key)  # refuses before the input is read
        check_size(self.storage, spec)
        measured = spec.measured(self.storage, self.limits)
        if spec.input_sha256 not in (None, measured.input_sha256):
            raise SpecError(
                f"{spec.input_uri} is not the file any more that it was when it was measured ({spec.input_requests:,} "
                f"requests then, {measured.input_requests:,} now). Something still writes to it; submit once it is "
                "complete. Nothing was submitted."
            )
        spec = measured
        metadata = self._metadata(spec, key)
        if spec.input_blank_bytes:
            log.info("%s has blank lines, which are not sent.", spec.input_uri)
        wanted = InputFile(
            uri=cast("str", spec.input_uri),
            name=f"{key.name}.{cast('str', spec.input_sha256)[:16]}.jsonl",
            size=cast("int", spec.input_bytes) - spec.input_blank_bytes,
            expires_after=spec.input_expires_after,
            has_blank_lines=spec.input_blank_bytes > 0,
        )
        file_id = yield from provide(self.storage, wanted)
        self._note_upload(file_id)
        try:
            return (yield from self._create(spec, key, metadata, file_id, is_ours=True))
        except (RequestRefusedError, NotFoundError) as error:
            if not (yield from is_gone(file_id, error)):
                raise
            log.warning("The service no longer has the uploaded file %s; uploading it again.", file_id)
        file_id = yield from provide(self.storage, wanted, avoid={file_id})
        self._note_upload(file_id)
        return (yield from self._create(spec, key, metadata, file_id, is_ours=True))

    def status(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Look at the batch once, and, when it is over, at its files: when they expire, and whether lines failed.

        ``completed`` can come with counts of no failure and an error file that has lines, or without any output.
        """
        batch = yield from self._get(ref)
        status = read_status(batch)
        if not status.state.is_terminal:
            return status
        if str(batch.get("status")).lower() in ("completed", "succeeded"):
            lines = yield from self._read_error_lines(batch.get("error_file_id"))
            status = with_error_lines(status, lines, has_output=bool(batch.get("output_file_id")))
        output = batch.get("output_file_id")
        if not output or status.results_expire_at is not None:
            return status
        try:
            file = yield HttpCall("GET", get_file_path(output), retry=Retry.NEVER)
        except ServiceError:
            # Worth knowing, not worth failing for.
            return status
        expires_at = parse_moment(file.get("expires_at")) if isinstance(file, dict) else None
        return status.model_copy(update={"results_expire_at": expires_at})

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        """
        Read the list of batches, newest first, until all that are wanted were seen or nothing but others comes.

        Only batches that are not over are in what it returns: of the others, :meth:`status` reads the files, too.
        """
        listed: set[str] = set()
        statuses: dict[str, JobStatus] = {}
        missing = set(wanted)
        query: dict[str, Any] = {"limit": PAGE}
        others = 0
        while missing and others < get_max_other_pages(len(missing)):
            batches = read_page((yield HttpCall("GET", "batches", params=query)), "batches")
            fresh = [batch for batch in batches if batch["id"] not in listed]
            if not fresh:
                break
            listed.update(batch["id"] for batch in fresh)
            live = ((batch["id"], read_status(batch)) for batch in fresh if "status" in batch)
            statuses.update((batch_id, status) for batch_id, status in live if not status.state.is_terminal)
            found = missing & listed
            missing -= found
            others = 0 if found else others + 1
            query = {**query, "after": fresh[-1]["id"]}
        return statuses

    def list_own(self, since: datetime) -> Flow[Sequence[ListedOwnJob]]:
        """List the batches with a name of ours in their metadata; servers that drop metadata have none."""
        own = []
        for batch in (yield from list_all("batches", {"limit": PAGE}, since)):
            found = batch.get("metadata")
            metadata: dict[str, Any] = found if isinstance(found, dict) else {}
            name = metadata.get(queue.NAME_TAG)
            created_at = parse_moment(batch.get("created_at"))
            if isinstance(name, str) and JobKey.parse_name(name) is not None and (created_at or since) >= since:
                task = " / ".join(str(metadata[tag]) for tag in _TASK_TAGS if metadata.get(tag))
                status = read_status(batch)
                own.append(
                    ListedOwnJob(ref=self.ref(batch["id"]), name=name, created_at=created_at, task=task, status=status)
                )
        return own

    def has_results(self, ref: JobRef, succeeded: int | None) -> Flow[bool]:
        """Say whether the output file, or of a batch without one the error file, is still at the service."""
        batch = yield from self._get(ref)
        file_id = next((batch[name] for name in ("output_file_id", "error_file_id") if is_id(batch.get(name))), None)
        if file_id is None:
            return False
        yield HttpCall("GET", f"files/{quote(file_id, safe='')}")
        return True

    def get_queue(self, spec: OpenAIBatchSpec) -> tuple[str, Amount]:
        """Return the queue of enqueued tokens of the batch's model, and what the batch takes up there."""
        return queue.get_queue(spec)

    def list_queue(self, queue_name: str, /) -> Flow[Collection[ListedJob]]:
        """List the batches in a model's queue, whoever submitted them."""
        return (yield from queue.list_queue(queue_name))

    def find_refusal(self, answer: ServiceError | JobStatus) -> QueueFull | None:
        """Say whether the model's queue was full."""
        return queue.find_refusal(answer)

    def cancel(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Ask for the batch's end.

        OpenAI stays ``cancelling`` for up to 10 minutes and keeps, and bills, what was finished until then.
        """
        try:
            answer = yield HttpCall("POST", f"{_get_batch_path(ref.id)}/cancel", json={})
        except UnsupportedError as error:
            raise UnsupportedError(
                f"This server cannot cancel batches; {ref.id} runs on until it ends by itself. {error}",
                status=error.status,
                code=error.code,
            ) from error
        except (RequestRefusedError, NotFoundError):
            # A batch that is over, or on its way, refuses with 400, 409 or (some servers) 404.
            status = yield from self.status(ref)
            if not status.state.is_terminal and not status.state.is_stopped:
                raise
            return status
        if isinstance(answer, dict) and answer.get("status"):
            return read_status(answer)
        return (yield from self.status(ref))

    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        """
        Say where output, errors and input are, as ``openai://file-…`` URIs.

        An expired or cancelled batch has what was finished. The error file may be empty.
        """
        batch = yield from self._get(ref)
        usage = read_usage(batch.get("usage"))
        if usage:
            numbers = ", ".join(f"{name} {count:,}" for name, count in usage.items())
            log.info("Tokens that %s used: %s.", ref, numbers)
        fields = {"output": "output_file_id", "error": "error_file_id", "input": "input_file_id"}
        return ResultManifest(
            ref=ref,
            files=tuple(
                ResultFile(kind=kind, uri=to_uri(batch[field]))
                for kind, field in fields.items()
                if is_id(batch.get(field))
            ),
            counts=read_status(batch).counts,
            detail={
                name: batch[name]
                for name in ("status", "endpoint", "model")
                if batch.get(name) is not None and len(quote_answer(batch[name], MAX_TEXT)) < MAX_TEXT
            }
            | ({"usage": usage} if usage else {})
            | _measure(batch),
        )

    def console_url(self, ref: JobRef) -> str | None:
        """Return the address of the batch's page, where the server has one."""
        return f"{self._console_url_prefix}{quote(ref.id, safe='')}" if self._console_url_prefix else None

    def _note_upload(self, file_id: str) -> None:
        if self.on_upload is not None:
            self.on_upload(file_id)

    def _find(self, key: JobKey, since: datetime, file_id: str | None, file_job: str) -> Flow[FoundJob | None]:
        """
        Look for the newest job.

        :param file_id: An input that was uploaded for this very job: a batch over it is the job, whatever a server
            has made of metadata and file names.
        :param file_job: The name of the job that it was uploaded for.
        :raises ServiceError: the batches are not listed.
        """
        ours: list[FoundJob] = []
        bare: list[dict[str, Any]] = []
        for batch in (yield from list_all("batches", {"limit": PAGE}, since - CLOCK_SKEW)):
            metadata = batch.get("metadata")
            name = metadata.get(queue.NAME_TAG) if isinstance(metadata, dict) else None
            if file_id is not None and batch.get("input_file_id") == file_id:
                name = file_job
            if (found := self._found(batch, name, key, since)) is not None:
                ours.append(found)
            elif not metadata:
                bare.append(batch)
        if not ours and bare:
            names = yield from _get_input_names(since)
            named = ((batch, names.get(str(batch.get("input_file_id")))) for batch in bare)
            ours = [job for batch, name in named if (job := self._found(batch, name, key, since)) is not None]
        return choose_found(ours, key)

    def _found(self, batch: Mapping[str, Any], name: object, key: JobKey, since: datetime) -> FoundJob | None:
        return FoundJob.from_name(
            name,
            key,
            ref=self.ref(str(batch["id"])),
            created_at=parse_moment(batch.get("created_at")) or since,
            state=read_state(batch),
        )

    def _read_error_lines(self, file_id: object) -> Flow[list[Result]]:
        """Read the beginning of a batch's error file; none when there is no such file, or it cannot be read."""
        if not is_id(file_id):
            return []
        call = HttpCall(
            "GET",
            f"{get_file_path(file_id)}/content",
            headers={"Range": f"bytes=0-{ERROR_FILE_BYTES - 1}"},
            decode=_split_lines,
        )
        try:
            lines: list[bytes] | None = yield call
        except TransientError:
            raise
        except ServiceError as error:
            # An empty file cannot be read from its first byte on (416), and some servers name a file that is not there.
            log.info("The error file %s cannot be read: %s", file_id, error)
            return []
        return [read_result(line, "error", number) for number, line in enumerate(lines or (), 1)]

    def _metadata(self, spec: OpenAIBatchSpec, key: JobKey) -> dict[str, str]:
        limits = self.limits
        task = key.task_id if key.map_index < 0 else f"{key.task_id}[{key.map_index}]"
        ours = {queue.NAME_TAG: key.name}
        for name, value in {"dag": key.dag_id, "run": key.run_id, "task": task}.items():
            ours[TAG_PREFIX + name] = value[: limits.metadata_value_chars]
        room = limits.metadata_pairs - len(ours)
        if len(spec.metadata) > room:
            raise SpecError(
                f"metadata has {len(spec.metadata)} pairs; the service takes {limits.metadata_pairs}, of which "
                f"Overnight needs {len(ours)}. Leave at most {room}."
            )
        for name, value in spec.metadata.items():
            if len(name) > limits.metadata_key_chars or len(value) > limits.metadata_value_chars:
                raise SpecError(
                    f"metadata {name[:80]!r} is too long: the service takes keys of {limits.metadata_key_chars} and "
                    f"values of {limits.metadata_value_chars} characters."
                )
        size = queue.build_size_tag(spec)
        if size is not None and len(spec.metadata) < room and len(size) <= limits.metadata_value_chars:
            # Where the user's own pairs leave no room, the list says less of the queue.
            ours[queue.SIZE_TAG] = size
        return {**spec.metadata, **ours}

    def _get(self, ref: JobRef) -> Flow[dict[str, Any]]:
        batch = yield HttpCall("GET", _get_batch_path(ref.id))
        if isinstance(batch, dict) and "status" in batch:
            return batch
        if isinstance(batch, dict) and batch.get("error"):
            # Gateways answer 200 with {"error": …}, for what they have forgotten and for what they cannot do just now.
            code, message = read_openai_error(batch) or (None, str(batch["error"]))
            text = f"The service answered about {ref}: {shorten(message)}"
            row = get_cause(code)
            if row is not None and row.retryable:
                raise UnavailableError(text, status=200, code=code)
            raise NotFoundError(text, status=404, code=code)
        raise UnavailableError(f"The service's answer about {ref} is not a batch. {quote_answer(batch)}", status=200)

    def _create(
        self, spec: OpenAIBatchSpec, key: JobKey, metadata: Mapping[str, str], file_id: str, *, is_ours: bool
    ) -> Flow[JobRef]:
        """
        Create the batch, once.

        :param is_ours: Whether the file was uploaded for this job alone, so that any batch over it is the job.
        """
        body: dict[str, Any] = {
            "input_file_id": file_id,
            "endpoint": spec.endpoint,
            "completion_window": spec.completion_window,
            "metadata": metadata,
        }
        if spec.output_expires_after is not None:
            body["output_expires_after"] = {"anchor": "created_at", "seconds": spec.output_expires_after}

        def create() -> Flow[JobRef]:
            answer = yield HttpCall("POST", "batches", json=body, retry=Retry.REJECTED)
            batch = parse_object(answer, "the created batch")
            kept = batch.get("metadata")
            if not isinstance(kept, dict) or kept.get(queue.NAME_TAG) != key.name:
                log.warning("This server drops a batch's metadata; a lost job is found by its input file only.")
            return self.ref(batch["id"])

        def find(since: datetime) -> Flow[FoundJob | None]:
            return self._find(key, since, file_id if is_ours else None, key.name)

        return (yield from create_once(create, find, key))


def _get_input_names(since: datetime) -> Flow[dict[str, str]]:
    """Return the names of uploaded files without what follows the first dot; none on a server that lists no files."""
    try:
        files = yield from list_input_files(since - CLOCK_SKEW)
    except NOT_LISTED as error:
        log.warning(
            "This server lists batches without metadata and does not list its files, so a lost job cannot be found "
            "again. %s",
            error,
        )
        return {}
    return {file["id"]: str(file.get("filename", "")).partition(".")[0] for file in files}


def _measure(batch: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds from a batch's creation to its end, where it says so."""
    began = parse_moment(batch.get("created_at"))
    ended = next((found for name in _ENDS if (found := parse_moment(batch.get(name))) is not None), None)
    return {"seconds": (ended - began).total_seconds()} if began is not None and ended is not None else {}


def _get_batch_path(batch_id: str) -> str:
    return f"batches/{quote(batch_id, safe='')}"


def _split_lines(body: bytes) -> list[bytes]:
    """Return the whole lines of a JSONL body that may have been cut."""
    if body.lstrip()[:1] == b"<":
        raise orjson.JSONDecodeError("HTML", "", 0)
    lines = body.split(b"\n")
    if len(body) >= ERROR_FILE_BYTES:
        lines.pop()
    return [line for line in lines if line.strip()]
