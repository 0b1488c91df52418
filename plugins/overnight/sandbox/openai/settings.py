"""Everything about the emulator that can be chosen: at its start, and through ``/_sandbox/…`` while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from overnight.sandbox.emulator.faults import (
    Batch,
    BatchFault,
    GatewayFaults,
    Http,
    HttpFault,
    Options,
    Pattern,
    Seconds,
    Share,
    Short,
)


class LineFault(Options):
    """
    Which lines of a batch go wrong in one way.

    :param share: Part of the matching lines, 0 to 1.
    :param custom_id: A regular expression searched in the line's ``custom_id``.
    """

    share: Share = 0.0
    custom_id: Pattern = ""


_Line = Annotated[LineFault, Short]


class Faults(GatewayFaults):
    """What goes wrong. A number is short for ``{"share": number}``; a path is looked at without its Azure prefix."""

    server_error_after: Http = HttpFault()
    """``server_error_status``; the request *is* carried out."""
    lost_create: Http = HttpFault()
    """``lost_answer``, of ``POST /v1/batches`` only: the batch exists and its id is lost."""
    broken_json: Http = HttpFault()
    """A 200 of half a JSON document, in a complete HTTP answer."""

    lines_failed: _Line = LineFault()
    """In the error file: a 500, a 429 or a ``request_timeout``, whichever the line's hash says."""
    lines_missing: _Line = LineFault()
    """In neither file, and in neither count."""
    lines_non_200: _Line = LineFault()
    """In the *output* file, with a ``status_code`` of 500 and an error for a body."""

    answers_invalid: _Line = LineFault()
    """The answer of a chat or a response is a sentence, whatever was asked for."""
    answers_truncated: _Line = LineFault()
    """The answer ends in its middle, with the ``finish_reason`` ``length``, or as a response that is ``incomplete``."""
    answers_refused: _Line = LineFault()
    """The message of a chat or a response has a ``refusal`` and no text."""

    batch_failed: Batch = BatchFault()
    """The batch fails in validation with ``errors.data[]`` although its file is good."""
    batch_expired: Batch = BatchFault()
    """The batch expires when ``batch_expired_after`` of its lines are done."""
    batch_expired_after: Share = 0.5
    batch_stuck: Batch = BatchFault()
    """The batch stays ``in_progress`` with half its lines done, until its window ends or it is cancelled."""


class Quirks(Options):
    """What OpenAI-compatible servers do differently. All off: OpenAI itself."""

    body_as_string: bool = False
    """``response.body`` of a result line is a JSON *string*."""
    bare_error_lines: bool = False
    """Error lines have neither ``response`` nor ``error.code``."""
    empty_error_file: bool = False
    """``error_file_id`` is set on every batch that is over, if need be to an empty file."""
    no_final_newline: bool = False
    """Result files do not end in a newline."""
    late_cancel_status: Literal[409, 400] = 409
    """The status of cancelling a batch that is over."""
    cancel_without_output: bool = False
    """A cancelled batch has no files."""
    expire_without_output: bool = False
    """An expired batch has no files."""
    omit_fields: frozenset[str] = frozenset()
    """Fields left out of every batch, such as ``in_progress_at``, ``expires_at``, ``request_counts``, ``metadata``."""
    no_finalizing: bool = False
    """A batch goes from ``in_progress`` straight to ``completed``."""
    stuck_after_restart: bool = False
    """Batches that were not over when the server stopped stay as they are for ever."""
    drop_after_error: bool = False
    """After a 4xx or 5xx the kept-alive connection is dropped without ``Connection: close``."""
    ignore_range: bool = False
    """File content is always sent from its first byte."""
    ignore_expires_after: bool = False
    """``expires_after`` and ``output_expires_after`` are accepted and forgotten."""


class Limits(Options):
    """What the service accepts; the defaults are those OpenAI documents."""

    requests_per_batch: int = 50_000
    batch_file_bytes: int = 200 * 1024 * 1024
    embedding_inputs_per_batch: int = 50_000
    upload_bytes: int = 512 * 1024 * 1024
    metadata_pairs: int = 16
    metadata_key_chars: int = 64
    metadata_value_chars: int = 512
    inputs_per_request: int = 2_048
    input_tokens: int = 8_192
    request_bytes: int = 32 * 1024 * 1024
    """A synchronous request's body."""
    enqueued_tokens: int | None = None
    """Per model, over all batches that are not over; no quota when ``None``."""
    enqueued_check: Literal["validation", "create"] = "validation"
    """Over the quota, a batch is accepted and fails in validation, or ``POST /v1/batches`` answers 429. OpenAI has been
    seen to do both."""
    batch_file_lifetime: int | None = 30 * 86_400
    """Seconds that files of batches are kept when nobody asked for anything else."""
    completion_window: int = 86_400
    """Seconds from a batch's creation to its expiry."""


class Pace(Options):
    """How long things take, in real seconds (``/_sandbox/clock`` does not speed them up)."""

    validating: Seconds = 0.2
    finalizing: Seconds = 0.2
    cancelling: Seconds = 0.2
    lines_per_second: Annotated[float, Field(gt=0)] | None = None
    """Per batch; as fast as the machine can when ``None``."""


Kind = Literal["embedding", "chat", "moderation", "image", "video"]


class Model(Options):
    """
    A model the emulator has.

    :param dimensions: The length of an embedding when the request does not say.
    :param resizable: Whether a request may say.
    """

    kind: Kind
    dimensions: int = 1536
    resizable: bool = True


MODELS: dict[str, Model] = {
    "text-embedding-3-small": Model(kind="embedding"),
    "text-embedding-3-large": Model(kind="embedding", dimensions=3072),
    "text-embedding-ada-002": Model(kind="embedding", resizable=False),
    "gpt-4o": Model(kind="chat"),
    "gpt-4o-mini": Model(kind="chat"),
    "gpt-4.1": Model(kind="chat"),
    "gpt-4.1-mini": Model(kind="chat"),
    "gpt-4.1-nano": Model(kind="chat"),
    "gpt-3.5-turbo": Model(kind="chat"),
    "gpt-3.5-turbo-instruct": Model(kind="chat"),
    "omni-moderation-latest": Model(kind="moderation"),
    "gpt-image-1": Model(kind="image"),
    "gpt-image-1-mini": Model(kind="image"),
    "sora-2": Model(kind="video"),
}


_KINDS: dict[str, Kind] = {"embed": "embedding", "moderation": "moderation", "image": "image", "sora": "video"}
"""What a model is for, by a part of its name; a chat without any."""


class Settings(BaseModel):
    """
    The settings that the emulator starts with.

    :param data_dir: Where files, batches and the clock are kept; what is there already is taken up again.
    :param api_key: The key a request must carry.
    :param seed: What every decision about faults is drawn from.
    :param models: The models there are, by name.
    :param any_model: Accept other names too, guessing from the name what they are for. Requests to an
        Azure-style path always may: their models are deployments, with names of the user's choice.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    data_dir: Path
    api_key: SecretStr = SecretStr("sandbox")
    seed: int = 0
    models: dict[str, Model] = Field(default_factory=lambda: dict(MODELS))
    any_model: bool = False
    limits: Limits = Limits()
    pace: Pace = Pace()
    faults: Faults = Faults()
    quirks: Quirks = Quirks()

    def model(self, name: str, *, any_name: bool = False) -> Model | None:
        """Return the model called ``name``, or ``None`` when there is none."""
        known = self.models.get(name)
        if known is not None or not (any_name or self.any_model):
            return known
        return Model(kind=next((kind for part, kind in _KINDS.items() if part in name.lower()), "chat"))
