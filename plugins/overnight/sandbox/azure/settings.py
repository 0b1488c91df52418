"""Everything about the emulator that can be chosen: at its start, and through ``/_sandbox/…`` while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from overnight.sandbox.azure.errors import Code
from overnight.sandbox.emulator.faults import Batch, BatchFault, ConnectionFaults, Http, HttpFault, Options, Seconds


class Faults(ConnectionFaults):
    """What goes wrong. A number is short for ``{"share": number}``."""

    refused: Http = HttpFault()
    """``refused_code``, with the status that belongs to it; the request is not carried out."""
    refused_code: Code = "serviceUnavailable"
    retry_after: Seconds = 1.0
    """Sent with a 429 or 503."""
    refused_after: Http = HttpFault()
    """``refused_code``; the request *is* carried out."""

    job_failed: Batch = BatchFault()
    """The job fails with ``job_failed_code`` between its two stages."""
    job_failed_code: Code = "internalFailure"
    job_stuck: Batch = BatchFault()
    """The job runs for ever."""
    repeat_credentials: bool = False
    """Every error, and a warning of every job, repeats the headers of the job's creation."""


class Quirks(Options):
    """What later versions do differently."""

    capitalised: bool = False
    """``NotRunning``, ``Running``, ``Succeeded``, ``Failed``."""
    no_progress_at_end: bool = False
    """A job that is over has no ``progress``."""
    retry_after: Seconds | None = None
    """Sent with every job that is not over."""


class Pace(Options):
    """How long things take, in real seconds (``/_sandbox/clock`` does not speed them up)."""

    queued: Seconds = 0.2
    """How long a job is ``notRunning``."""
    documents_per_second: Annotated[float, Field(gt=0)] | None = None
    chunks_per_second: Annotated[float, Field(gt=0)] | None = None
    """As fast as the machine can when ``None``."""


class Settings(BaseModel):
    """
    The settings that the emulator starts with.

    :param data_dir: Where jobs, index and clock are kept; what is there already is taken up again. Its ``blobs`` folder
        holds the containers of ``UseDevelopmentStorage=true``.
    :param api_key: The key of Azure OpenAI.
    :param search_key: The admin key of the search service.
    :param seed: What every decision about faults is drawn from.
    :param status_kept: Seconds that a job is known after its end.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    data_dir: Path
    api_key: SecretStr = SecretStr("sandbox")
    search_key: SecretStr = SecretStr("sandbox")
    seed: int = 0
    status_kept: Annotated[int, Field(ge=0)] = 48 * 3_600
    pace: Pace = Pace()
    faults: Faults = Faults()
    quirks: Quirks = Quirks()
