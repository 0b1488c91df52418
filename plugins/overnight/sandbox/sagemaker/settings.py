"""Everything about the emulator that can be chosen: at its start, and through ``/_sandbox/…`` while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from overnight.sandbox.emulator.faults import Batch, BatchFault, Fault, Options, Pattern, Seconds, Share, Short


class CallFault(Fault):
    """
    Which calls go wrong in one way.

    :param operations: Such as ``CreateTransformJob``; every operation when empty.
    """

    operations: frozenset[str] = frozenset()


class FileFault(Options):
    """
    Which inputs of a job the model refuses.

    :param share: Part of the matching inputs, 0 to 1; the same ones in every job.
    :param key: A regular expression searched in the object's key.
    """

    share: Share = 0.0
    key: Pattern = ""


_Call = Annotated[CallFault, Short]
_File = Annotated[FileFault, Short]


class Faults(Options):
    """What goes wrong. A number is short for ``{"share": number}``."""

    throttled: _Call = CallFault()
    """400 ``ThrottlingException``; the call is not carried out."""
    unavailable: _Call = CallFault()
    """503; the call is not carried out."""
    internal_error: _Call = CallFault()
    """500; the call is not carried out."""
    internal_error_after: _Call = CallFault()
    """500; the call *is* carried out."""
    lost_answer: _Call = CallFault()
    """The call is carried out, and the connection dropped before the first byte of the answer."""
    access_denied: _Call = CallFault()
    """400 ``AccessDeniedException``."""
    expired_token: _Call = CallFault()
    """400 ``ExpiredTokenException``."""

    files_refused: _File = FileFault()
    """The model answers 400 to something in the input."""
    job_lost: Batch = BatchFault()
    """The job is Failed with an InternalServerError when half of its inputs are done."""
    job_stuck: Batch = BatchFault()
    """The job stays InProgress when half of its inputs are done, until it is stopped."""


class Limits(Options):
    """What the account may do."""

    instances: Annotated[int, Field(ge=0)] = 20
    """Of each type, over all jobs that are not over."""


class Pace(Options):
    """How long things take, in seconds. The real service takes minutes to start."""

    starting: Seconds = 0.2
    stopping: Seconds = 0.2
    per_file: Seconds = 0.0


class Settings(BaseModel):
    """
    The settings that the emulator starts with.

    :param data_dir: Where jobs and models are kept; what is there already is taken up again.
    :param s3_endpoint: Where inputs are read and outputs written; ``AWS_ENDPOINT_URL_S3`` when it is left out.
    :param access_key: The access key id that calls must be signed with; signatures are not verified. ``None`` takes
        any key. It is also the key, and the secret, for S3.
    :param seed: What every decision about faults is drawn from.
    :param models: Embedding models that are there from the beginning, with their dimensions.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    data_dir: Path
    s3_endpoint: str | None = None
    access_key: str | None = "sandbox"
    account: str = Field(default="123456789012", pattern=r"^\d{12}$")
    seed: int = 0
    models: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=lambda: {"sandbox-embedding": 384})
    limits: Limits = Limits()
    pace: Pace = Pace()
    faults: Faults = Faults()
