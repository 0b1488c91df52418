"""
OpenAI batches: upload a file of requests, create a batch of it, poll, cancel, and point at the result files.

API: https://developers.openai.com/api/reference/resources/batches and …/files. Azure OpenAI and compatible servers
are reached by the connection alone (:mod:`overnight.services.openai.connection`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Self, cast
from urllib.parse import quote

from pydantic import Field, field_validator, model_validator

from overnight.errors import (
    NotFoundError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    UnavailableError,
    UnsupportedError,
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
    compute_fingerprint,
)
from overnight.jobs.service import MAX_OTHER_PAGES, JobSpec, Service
from overnight.services.openai.files import (
    InputFile,
    content,
    file_path,
    file_uri,
    is_gone,
    list_all,
    list_input_files,
    parse_object,
    provide,
    read_page,
)
from overnight.services.openai.scan import Limits, scan
from overnight.services.openai.status import moment, read_state, read_status
from overnight.storage import Storage
from overnight.transport.flow import Flow, Pause
from overnight.transport.http import HttpCall, Retry

__all__ = ["CONSOLE_URL", "OpenAIBatchService", "OpenAIBatchSpec", "content", "file_uri"]

log = logging.getLogger(__name__)

CONSOLE_URL: Final = "https://platform.openai.com/batches/"
TAG_PREFIX: Final = "overnight_"
"""Metadata keys that begin with it are ours."""
NAME_TAG: Final = "overnight_name"
BATCHES_PAGE: Final = 100
CLOCK_SKEW: Final = timedelta(hours=1)
"""How far the service's clock may be behind ours; it only makes a listing longer."""
LOOKUP_WAITS: Final = (1.0, 3.0, 8.0)
"""Seconds before each look for a batch whose creation got no answer: lists can lag behind."""
CREATE_TRIES: Final = 3


class OpenAIBatchSpec(JobSpec):
    """
    One batch: an input file, the endpoint that its requests go to, and how long files are kept.

    :param input_uri: A JSONL file of batch requests on a disk or in an object store; or
    :param input_file_id: a file that is at the service already (``purpose=batch``).
    :param endpoint: ``/v1/embeddings``, ``/v1/chat/completions``, ``/v1/completions``, ``/v1/responses`` or what else
        the server has; every line's ``url`` must be the same.
    :param completion_window: ``24h`` is the only one that OpenAI has.
    :param metadata: Your own tags, at most 12 pairs: four of the service's 16 are Overnight's.
    :param input_expires_after: Seconds after which the service deletes the uploaded file, 1 hour to 30 days.
    :param output_expires_after: The same for the result files, counted from their creation.
    :param input_sha256: With ``input_bytes`` and ``input_requests``, what :meth:`measured` fills in.
    """

    input_uri: str | None = Field(default=None, min_length=1)
    input_file_id: str | None = Field(default=None, min_length=1)
    endpoint: str = Field(pattern=r"^/[A-Za-z0-9._/-]+$")
    completion_window: str = Field(default="24h", min_length=1)
    metadata: Mapping[str, str] = Field(default_factory=dict)
    input_expires_after: int | None = Field(default=None, ge=3_600, le=2_592_000)
    output_expires_after: int | None = Field(default=None, ge=3_600, le=2_592_000)
    input_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    input_bytes: int | None = Field(default=None, ge=1)
    input_requests: int | None = Field(default=None, ge=1)

    @field_validator("metadata")
    @classmethod
    def _not_our_tags(cls, metadata: Mapping[str, str]) -> Mapping[str, str]:
        ours = [key for key in metadata if key.startswith(TAG_PREFIX)]
        if ours:
            raise ValueError(f"metadata keys that begin with {TAG_PREFIX!r} are Overnight's own: {ours}")
        return metadata

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.input_uri is None) == (self.input_file_id is None):
            raise ValueError("give either input_uri or input_file_id")
        return self

    def measured(self, storage: Storage | None = None, limits: Limits | None = None) -> Self:
        """
        Validate the input file and return the spec with its digest and sizes: its fingerprint follows the content.

        A file that is at the service already cannot be measured; its id stands for it.

        :raises InputError: the file would be rejected; every bad line is named.
        """
        if self.input_uri is None:
            return self
        found = scan(self.input_uri, self.endpoint, storage=storage, limits=limits)
        return self.model_copy(
            update={
                "input_sha256": found.sha256,
                "input_bytes": found.bytes,
                "input_requests": found.requests,
            }
        )

    def fingerprint(self, conn_id: str) -> str:
        """Return the digest of the spec; of a measured file, the content counts and not where it lies."""
        left_out = {"input_uri"} if self.input_sha256 is not None else set[str]()
        return compute_fingerprint({"spec": self.model_dump(mode="json", exclude=left_out), "conn_id": conn_id})


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

        Servers that drop metadata are searched by the name of the input file instead.
        """
        ours: list[FoundJob] = []
        bare: list[dict[str, Any]] = []
        for batch in (yield from list_all("batches", {"limit": BATCHES_PAGE}, since - CLOCK_SKEW)):
            metadata = batch.get("metadata")
            if not isinstance(metadata, dict) or not metadata:
                bare.append(batch)
            elif (found := self._found(batch, metadata.get(NAME_TAG), key, since)) is not None:
                ours.append(found)
        if not ours and bare:
            files = yield from list_input_files(since - CLOCK_SKEW)
            names = {file["id"]: str(file.get("filename", "")).partition(".")[0] for file in files}
            named = ((batch, names.get(str(batch.get("input_file_id")))) for batch in bare)
            ours = [job for batch, name in named if (job := self._found(batch, name, key, since)) is not None]
        return choose_found(ours, key)

    def submit(self, spec: OpenAIBatchSpec, key: JobKey) -> Flow[JobRef]:
        """
        Upload the input, unless it is there already, and create the batch.

        :raises InputError: the input would be rejected; nothing was uploaded.
        :raises SpecError: the metadata is over the service's limits, or the input changed since it was measured.
        """
        metadata = self._metadata(spec, key)
        if spec.input_uri is None:
            return (yield from self._create(spec, key, metadata, cast("str", spec.input_file_id)))
        if spec.input_sha256 is None or spec.input_bytes is None:
            spec = spec.measured(self.storage, self.limits)
        wanted = InputFile(
            uri=cast("str", spec.input_uri),
            name=f"{key.name}.{cast('str', spec.input_sha256)[:16]}.jsonl",
            size=cast("int", spec.input_bytes),
            expires_after=spec.input_expires_after,
        )
        file_id = yield from provide(self.storage, wanted)
        try:
            return (yield from self._create(spec, key, metadata, file_id))
        except (RequestRefusedError, NotFoundError) as error:
            if not (yield from is_gone(file_id, error)):
                raise
            log.warning("The service no longer has the uploaded file %s; uploading it again.", file_id)
        file_id = yield from provide(self.storage, wanted, avoid={file_id})
        return (yield from self._create(spec, key, metadata, file_id))

    def status(self, ref: JobRef) -> Flow[JobStatus]:
        """Look at the batch once, and, when it is over, at when its output lapses."""
        batch = yield from self._get(ref)
        status = read_status(batch)
        output = batch.get("output_file_id")
        if not status.state.is_terminal or not output or status.results_expire_at is not None:
            return status
        try:
            file = yield HttpCall("GET", file_path(output), retry=Retry.NEVER)
        except ServiceError:
            # Worth knowing, not worth failing for.
            return status
        lapse = moment(file.get("expires_at")) if isinstance(file, dict) else None
        return status.model_copy(update={"results_expire_at": lapse})

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        """Read the list of batches, newest first, until all that are wanted were seen or nothing but others comes."""
        seen: dict[str, JobStatus] = {}
        missing = set(wanted)
        query: dict[str, Any] = {"limit": BATCHES_PAGE}
        others = 0
        while missing and others < MAX_OTHER_PAGES:
            batches = read_page((yield HttpCall("GET", "batches", params=query)), "batches")
            fresh = [batch for batch in batches if batch["id"] not in seen]
            seen.update((batch["id"], read_status(batch)) for batch in fresh if "status" in batch)
            found = missing & {batch["id"] for batch in fresh}
            missing -= found
            others = 0 if found else others + 1
            if not fresh:
                break
            query = {**query, "after": fresh[-1]["id"]}
        return seen

    def cancel(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Ask for the batch's end.

        OpenAI stays ``cancelling`` for up to 10 minutes and keeps, and bills, what was finished until then.
        """
        try:
            answer = yield HttpCall("POST", f"{_batch(ref.id)}/cancel", json={})
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
        fields = {"output": "output_file_id", "error": "error_file_id", "input": "input_file_id"}
        return ResultManifest(
            ref=ref,
            files=tuple(
                ResultFile(kind=kind, uri=file_uri(str(batch[field])))
                for kind, field in fields.items()
                if batch.get(field)
            ),
            counts=read_status(batch).counts,
            detail={
                name: batch[name] for name in ("status", "endpoint", "model", "usage") if batch.get(name) is not None
            },
        )

    def console_url(self, ref: JobRef) -> str | None:
        """Return the address of the batch's page, where the server has one."""
        return f"{self._console_url_prefix}{quote(ref.id, safe='')}" if self._console_url_prefix else None

    def _found(self, batch: Mapping[str, Any], name: object, key: JobKey, since: datetime) -> FoundJob | None:
        parts = JobKey.parse_name(name) if isinstance(name, str) else None
        if parts is None or parts.tag != key.tag:
            return None
        return FoundJob(
            ref=self.ref(str(batch["id"])),
            generation=parts.generation,
            fingerprint=parts.fingerprint,
            created_at=moment(batch.get("created_at")) or since,
            state=read_state(batch),
        )

    def _metadata(self, spec: OpenAIBatchSpec, key: JobKey) -> dict[str, str]:
        limits = self.limits
        task = key.task_id if key.map_index < 0 else f"{key.task_id}[{key.map_index}]"
        ours = {NAME_TAG: key.name}
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
        return {**spec.metadata, **ours}

    def _get(self, ref: JobRef) -> Flow[dict[str, Any]]:
        batch = yield HttpCall("GET", _batch(ref.id))
        if not isinstance(batch, dict) or "status" not in batch:
            # Some servers answer 200 with {"error": …} for a batch that they have forgotten.
            if isinstance(batch, dict) and "error" in batch:
                raise NotFoundError(f"The service does not know {ref} any more: {batch['error']}")
            raise UnavailableError(f"The service's answer about {ref} is not a batch.")
        return batch

    def _create(self, spec: OpenAIBatchSpec, key: JobKey, metadata: Mapping[str, str], file_id: str) -> Flow[JobRef]:
        """Create the batch; when the answer is lost, look for the batch before creating it again."""
        body: dict[str, Any] = {
            "input_file_id": file_id,
            "endpoint": spec.endpoint,
            "completion_window": spec.completion_window,
            "metadata": metadata,
        }
        if spec.output_expires_after is not None:
            body["output_expires_after"] = {"anchor": "created_at", "seconds": spec.output_expires_after}
        began = datetime.now(UTC)
        wanted = (key.generation, key.fingerprint)
        for attempt in range(1, CREATE_TRIES + 1):
            try:
                answer = yield HttpCall("POST", "batches", json=body, retry=Retry.REJECTED)
                batch = parse_object(answer, "the created batch")
            except UnavailableError as error:
                log.warning("The answer to the batch's creation is lost; looking for the batch. %s", error)
                for seconds in LOOKUP_WAITS:
                    yield Pause(seconds)
                    found = yield from self.find(key, began)
                    if found is not None and (found.generation, found.fingerprint) == wanted:
                        log.info("%s had been created.", found.ref)
                        return found.ref
                if attempt == CREATE_TRIES:
                    raise
            else:
                if (batch.get("metadata") or {}).get(NAME_TAG) != key.name:
                    log.warning("This server drops a batch's metadata; a lost job is found by its input file only.")
                return self.ref(str(batch["id"]))
        raise AssertionError("unreachable")


def _batch(batch_id: str) -> str:
    return f"batches/{quote(batch_id, safe='')}"
