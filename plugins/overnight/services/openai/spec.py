"""What one OpenAI batch is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from overnight.jobs import compute_fingerprint
from overnight.jobs.service import JobSpec
from overnight.services.openai.limits import Limits
from overnight.services.openai.scan import scan
from overnight.services.tags import refuse_own_tags
from overnight.storage import Storage


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
    :param input_sha256: With ``input_bytes`` and ``input_requests``, what :meth:`measured` fills in, or what the step
        that wrote the input says of it. The input is measured again, and compared, when it is submitted.
    :param input_blank_bytes: Of the file, in blank lines, which are not sent; :meth:`measured` fills it in.
    :param input_tokens: With ``model``, what the batch takes up in which queue; :meth:`measured` fills both in.
    """

    input_uri: str | None = Field(default=None, min_length=1)
    input_file_id: str | None = Field(default=None, min_length=1)
    endpoint: str = Field(pattern=r"^/[A-Za-z0-9._/-]+$")
    completion_window: str = Field(default="24h", min_length=1)
    metadata: Annotated[Mapping[str, str], AfterValidator(refuse_own_tags)] = Field(default_factory=dict)
    input_expires_after: int | None = Field(default=None, ge=3_600, le=2_592_000)
    output_expires_after: int | None = Field(default=None, ge=3_600, le=2_592_000)
    input_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    input_bytes: int | None = Field(default=None, ge=1)
    input_requests: int | None = Field(default=None, ge=1)
    input_blank_bytes: int = Field(default=0, ge=0)
    input_tokens: int | None = Field(default=None, ge=0)
    model: str | None = None

    @model_validator(mode="after")
    def _check_input(self) -> Self:
        if (self.input_uri is None) == (self.input_file_id is None):
            raise ValueError("give either input_uri or input_file_id")
        measures = (self.input_sha256, self.input_bytes, self.input_requests)
        if any(measures) and not all(measures):
            raise ValueError("give input_sha256, input_bytes and input_requests together, or none of them")
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
                "input_blank_bytes": found.blank_bytes,
                "input_tokens": found.tokens,
                "model": found.model,
            }
        )

    def fingerprint(self, conn_id: str) -> str:
        """Return the digest of the spec; of a measured file, the content counts and not where it lies."""
        # What follows from the content, or is an estimate of it, does not decide.
        excluded = {"input_tokens", "input_blank_bytes", "model"} | (
            {"input_uri"} if self.input_sha256 is not None else set()
        )
        return compute_fingerprint({"spec": self.model_dump(mode="json", exclude=excluded), "conn_id": conn_id})
