"""Everything about the emulator that can be chosen: at its start, and through ``/_sandbox/…`` while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from overnight.sandbox.emulator.faults import Batch, BatchFault, GatewayFaults, Options, Pattern, Seconds, Share, Short

PROJECT = "prj-00000000-0000-4000-8000-000000000001"
ORGANIZATION = "org-00000000-0000-4000-8000-000000000001"


class FileFault(Options):
    """
    Which files of a batch go wrong in one way.

    :param share: Part of the matching files, 0 to 1; the file's name decides, so a second run hits the same ones.
    :param name: A regular expression searched in the file's display name.
    """

    share: Share = 0.0
    name: Pattern = ""


_File = Annotated[FileFault, Short]


class Faults(GatewayFaults):
    """What goes wrong. A number is short for ``{"share": number}``."""

    files_failed: _File = FileFault()
    """The file's job fails."""
    files_unmapped: _File = FileFault()
    """The file is given no job, and an ``error_message`` in the batch's results."""
    files_missing: _File = FileFault()
    """The batch's results do not name the file at all."""
    pages_failed: _File = FileFault()
    """The first page of the file's result is a failed page."""

    batch_failed: Batch = BatchFault()
    """The batch ends FAILED, without results."""
    batch_stuck: Batch = BatchFault()
    """The batch stays RUNNING until it is cancelled."""
    batch_throttled: Batch = BatchFault()
    """The batch is THROTTLED for ``throttled_seconds`` before it runs."""
    throttled_seconds: Seconds = 1.0


class Limits(Options):
    """What the service accepts; the defaults are those it documents, where it does."""

    files_per_batch: int = 1_000
    file_bytes: int = 512 * 1024 * 1024
    extract_file_bytes: int = 100 * 1024 * 1024
    uploads_per_window: Annotated[int, Field(ge=1)] = 250
    """More uploads within ``upload_window`` are answered 429: 50 a second, counted over 5."""
    upload_window: Seconds = 5.0
    page_size: int = 1_000
    running_batches: int = 100
    """More batches at once are THROTTLED until one of these is over."""
    ephemeral_seconds: int = 2 * 86_400
    """How long an ephemeral directory is kept."""
    presigned_seconds: int = 3_600
    """How long a presigned URL works."""


class Pace(Options):
    """How long things take, in real seconds (``/_sandbox/clock`` does not speed them up)."""

    pending: Seconds = 0.2
    cancelling: Seconds = 0.2
    results: Seconds = 0.0
    """How long a COMPLETED batch keeps its results back."""
    mapping_per_second: Annotated[float, Field(gt=0)] | None = None
    """Files of a batch that are given a job; as fast as the machine can when ``None``."""
    jobs_per_second: Annotated[float, Field(gt=0)] | None = None
    """Jobs carried out, over all batches."""


class Settings(BaseModel):
    """
    The settings that the emulator starts with.

    :param data_dir: Where everything is kept; what is there already is taken up again.
    :param api_key: The key a request must carry.
    :param project_id: The key's own project.
    :param projects: Further projects that the key may name.
    :param seed: What every decision about faults is drawn from.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    data_dir: Path
    api_key: SecretStr = SecretStr("sandbox")
    project_id: str = PROJECT
    organization_id: str = ORGANIZATION
    projects: frozenset[str] = frozenset()
    seed: int = 0
    limits: Limits = Limits()
    pace: Pace = Pace()
    faults: Faults = Faults()
