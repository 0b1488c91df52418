"""The Batches API's store: what a batch is, how one is asked for, listed and cancelled."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from overnight.sandbox.emulator.clock import Clock
from overnight.sandbox.emulator.database import Database
from overnight.sandbox.openai.errors import ApiError, invalid_type, invalid_value, missing_parameter, out_of_range
from overnight.sandbox.openai.files import FileStore, Page, link
from overnight.sandbox.openai.settings import Limits, Quirks, Settings

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
Outcome = Literal["completed", "expired", "cancelled"]
Fate = Literal["normal", "fail", "expire", "stick"]

OVER: frozenset[Status] = frozenset({"failed", "completed", "expired", "cancelled"})
ENDPOINTS = [
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
]
_FIELDS = {"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"}
_MIN_LIFETIME, _MAX_LIFETIME = 3_600, 30 * 86_400


class BatchError(BaseModel):
    """One entry of a failed batch's ``errors.data``."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchRecord(BaseModel):
    """
    A batch: what the API shows of it, and what the runner has to remember.

    :param by_deployment: Whether it was created under an Azure-style path: models are deployments then, and the lines'
        URLs may lack ``/v1``.
    :param position: How many lines, in the order they are worked on, are done.
    :param output_bytes: How much of the unfinished output file belongs to these lines; the rest is written again.
    :param outcome: How the batch ends, once its files are complete and only have to be published.
    """

    number: int = 0
    id: str
    endpoint: str
    input_file_id: str
    status: Status = "validating"
    created_at: int
    expires_at: int
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    errors: list[BatchError] = []
    metadata: dict[str, str] | None = None
    model: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    by_deployment: bool = False
    output_lifetime: int | None = None
    fate: Fate = "normal"
    enqueued_tokens: int = 0
    position: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    outcome: Outcome | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status in OVER

    def public(self, quirks: Quirks) -> dict[str, Any]:
        """Return the batch object of the API."""
        errors = {"object": "list", "data": [error.model_dump() for error in self.errors]} if self.errors else None
        shown = {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "in_progress_at": self.in_progress_at,
            "expires_at": self.expires_at,
            "finalizing_at": self.finalizing_at,
            "completed_at": self.completed_at,
            "failed_at": self.failed_at,
            "expired_at": self.expired_at,
            "cancelling_at": self.cancelling_at,
            "cancelled_at": self.cancelled_at,
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": {
                "input_tokens": self.input_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": self.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.input_tokens + self.output_tokens,
            },
            "metadata": self.metadata,
        }
        return {name: value for name, value in shown.items() if name not in quirks.omit_fields}


class BatchStore:
    """
    Batches, which are never deleted.

    :param folder: Where the unfinished result files and the batches' own names for their input files are.
    """

    def __init__(self, folder: Path, database: Database, files: FileStore, clock: Clock) -> None:
        self.folder = folder
        self._database = database
        self._files = files
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True)

    def part(self, batch_id: str, kind: Literal["input", "output", "error"]) -> Path:
        """Return where one of an unfinished batch's files is."""
        return self.folder / f"{batch_id}.{kind}.jsonl"

    def create(
        self,
        request: Any,
        settings: Settings,
        *,
        by_deployment: bool,
        draw: Callable[[], Fate],
        admit: Callable[[BatchRecord, Path], None] = lambda *_: None,
    ) -> BatchRecord:
        """
        Create the batch that a request's body asks for.

        :param draw: Decides what becomes of it; asked only when there is going to be a batch.
        :param admit: Raises when there is no room for the batch with this input file. No other batch is created
            meanwhile.
        :raises ApiError: 400, when the body is not as it should be.
        """
        asked = _Request(request, settings.limits, by_deployment=by_deployment)
        self._input(asked.input_file_id)
        now = self._clock.now()
        lifetime = None if settings.quirks.ignore_expires_after else asked.output_lifetime
        record = BatchRecord(
            id="batch_" + secrets.token_hex(16),
            endpoint=asked.endpoint,
            input_file_id=asked.input_file_id,
            created_at=now,
            expires_at=now + settings.limits.completion_window,
            metadata=asked.metadata,
            by_deployment=by_deployment,
            output_lifetime=lifetime if lifetime is not None else settings.limits.batch_file_lifetime,
        )
        with self._database.transaction() as connection:
            admit(record, self._files.path(record.input_file_id))
            record.fate = draw()
            link(self._files.path(record.input_file_id), self.part(record.id, "input"))
            cursor = connection.execute(
                "INSERT INTO batches (id, is_over, record) VALUES (?, 0, ?)", (record.id, record.model_dump_json())
            )
            record.number = cursor.lastrowid or 0
        return record

    def get(self, batch_id: str) -> BatchRecord:
        """
        Return a batch.

        :raises ApiError: 404, when there is none.
        """
        records = self._rows("WHERE id = ?", (batch_id,))
        if not records:
            raise ApiError(404, f"No batch found with id '{batch_id}'.")
        return records[0]

    def page(self, *, after: str | None, limit: int, quirks: Quirks) -> Page:
        """Return the page of batches, newest first, that follows the batch ``after``."""
        before = self.get(after).number if after is not None else 1 << 62
        records = self._rows("WHERE seq < ? ORDER BY seq DESC LIMIT ?", (before, limit + 1))
        return Page([record.public(quirks) for record in records[:limit]], has_more=len(records) > limit)

    def unfinished(self) -> list[BatchRecord]:
        """Return the batches that are not over, oldest first."""
        return self._rows("WHERE is_over = 0 ORDER BY seq", ())

    @contextmanager
    def change(self, batch_id: str) -> Iterator[BatchRecord]:
        """Hold one batch alone, and keep what the block made of it."""
        with self._database.transaction() as connection:
            record = self.get(batch_id)
            yield record
            connection.execute(
                "UPDATE batches SET is_over = ?, record = ? WHERE id = ?",
                (record.is_over, record.model_dump_json(), batch_id),
            )

    def cancel(self, batch_id: str, quirks: Quirks) -> BatchRecord:
        """
        Ask for a batch to be cancelled; it is ``cancelling`` until the runner has put its files together.

        :raises ApiError: 409, when the batch is over; 404, when there is none.
        """
        with self.change(batch_id) as record:
            if record.is_over:
                raise ApiError(quirks.late_cancel_status, f"Cannot cancel a batch with status '{record.status}'.")
            if record.status != "cancelling":
                record.status = "cancelling"
                record.cancelling_at = self._clock.now()
        return record

    def _input(self, file_id: str) -> None:
        try:
            file = self._files.get(file_id)
        except ApiError:
            message = f"Cannot find file {file_id}, or this project does not have access to it."
            raise ApiError(400, message, param="file_id") from None
        if file.purpose != "batch":
            message = f"Invalid purpose of file {file_id}: expected 'batch', but got '{file.purpose}' instead."
            raise ApiError(400, message, param="input_file_id")

    def _rows(self, clause: str, parameters: tuple[object, ...]) -> list[BatchRecord]:
        sql = f"SELECT seq, record FROM batches {clause}"  # noqa: S608 - our own clauses
        records = []
        for number, text in self._database.query(sql, parameters):
            record = BatchRecord.model_validate_json(str(text))
            record.number = int(str(number))
            records.append(record)
        return records


class _Request:
    """The checked body of ``POST /batches``."""

    def __init__(self, body: Any, limits: Limits, *, by_deployment: bool) -> None:
        if not isinstance(body, dict):
            raise ApiError(400, "The request's body must be a JSON object.")
        unknown = sorted(set(body) - _FIELDS)
        if unknown:
            raise ApiError(400, f"Unknown parameter: '{unknown[0]}'.", param=unknown[0], code="unknown_parameter")
        for name in ("input_file_id", "endpoint", "completion_window"):
            if name not in body:
                raise missing_parameter(name)
            if not isinstance(body[name], str):
                raise invalid_type(name, "string", body[name])
        self.input_file_id: str = body["input_file_id"]
        self.endpoint: str = body["endpoint"]
        if normal_endpoint(self.endpoint, by_deployment=by_deployment) not in ENDPOINTS:
            raise invalid_value("endpoint", self.endpoint, ENDPOINTS)
        if body["completion_window"] != "24h":
            raise invalid_value("completion_window", body["completion_window"], ["24h"])
        self.metadata = _metadata(body.get("metadata"), limits)
        self.output_lifetime = parse_lifetime(body.get("output_expires_after"), "output_expires_after")


def normal_endpoint(endpoint: str, *, by_deployment: bool) -> str:
    """Return the endpoint with its ``/v1``, which Azure leaves out."""
    return "/v1" + endpoint if by_deployment and not endpoint.startswith("/v1/") else endpoint


def parse_lifetime(policy: Any, name: str) -> int | None:
    """
    Return the seconds that an expiry policy asks for.

    :raises ApiError: 400, unless it is ``{"anchor": "created_at", "seconds": 3600…2592000}``.
    """
    if policy is None:
        return None
    if not isinstance(policy, dict):
        raise invalid_type(name, "object", policy)
    for field in ("anchor", "seconds"):
        if policy.get(field) is None:
            raise missing_parameter(f"{name}.{field}")
    if policy["anchor"] != "created_at":
        raise invalid_value(f"{name}.anchor", policy["anchor"], ["created_at"])
    seconds = policy["seconds"]
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise invalid_type(f"{name}.seconds", "integer", seconds)
    if not _MIN_LIFETIME <= seconds <= _MAX_LIFETIME:
        raise out_of_range(f"{name}.seconds", seconds, _MIN_LIFETIME, _MAX_LIFETIME)
    return seconds


def _metadata(metadata: Any, limits: Limits) -> dict[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise invalid_type("metadata", "object", metadata)
    if len(metadata) > limits.metadata_pairs:
        raise ApiError(
            400,
            f"Invalid 'metadata': too many properties. Expected an object with at most {limits.metadata_pairs} "
            f"properties, but got an object with {len(metadata)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in metadata.items():
        if len(key) > limits.metadata_key_chars:
            raise _too_long("metadata", "property name", limits.metadata_key_chars, len(key))
        if not isinstance(value, str):
            raise invalid_type(f"metadata.{key}", "string", value)
        if len(value) > limits.metadata_value_chars:
            raise _too_long(f"metadata.{key}", "string", limits.metadata_value_chars, len(value))
    return metadata


def _too_long(param: str, what: str, limit: int, length: int) -> ApiError:
    return ApiError(
        400,
        f"Invalid '{param}': {what} too long. Expected a string with maximum length {limit}, but got a string with "
        f"length {length} instead.",
        param=param,
        code="string_above_max_length",
    )
