"""What a LlamaCloud job is asked to do, what the service takes, and how its directories are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from overnight.jobs import JobKey, compute_fingerprint
from overnight.jobs.service import JobSpec
from overnight.services.llamacloud.choices import JobType, MetadataValue
from overnight.services.tags import refuse_own_tags

_PART_NAME = re.compile(r"(?P<name>overnight-.+)\.(?P<number>\d+)-of-(?P<total>\d+)")


class Limits(BaseModel):
    """
    What the service takes, and how fast we send.

    Sources: https://developers.llamaindex.ai/llamaparse/batches/getting_started/, …/general/limitations/ and
    …/general/rate_limits/.

    :param files_per_batch: More files become several batches.
    :param batches: Of one job. Their ids make up the job's id, and each is looked at in every poll.
    :param parse_bytes: The largest file for ``parse_v2``.
    :param extract_bytes: The largest file for ``extract_v2``.
    :param uploads_at_once: Files under way to the service at the same time.
    :param uploads_per_second: Not exceeded on average; a 429 slows down further by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files_per_batch: int = Field(default=1_000, ge=1)
    batches: int = Field(default=50, ge=1)
    parse_bytes: int = Field(default=512 * 1024 * 1024, ge=1)
    extract_bytes: int = Field(default=100 * 1024 * 1024, ge=1)
    uploads_at_once: int = Field(default=8, ge=1, le=64)
    uploads_per_second: float = Field(default=50.0, gt=0)

    def file_bytes(self, job_type: JobType) -> int:
        """Return the size of the largest file a job type takes."""
        return self.parse_bytes if job_type == "parse_v2" else self.extract_bytes


class LlamaCloudBatchSpec(JobSpec):
    """
    One job over many files, however many of the service's batches that takes.

    :param job_type: ``parse_v2`` or ``extract_v2``.
    :param configuration_id: A saved configuration or a built-in preset (``cfg-PARSE_AGENTIC``); or
    :param configuration_name: the name of a configuration, which is looked up, and
    :param parameters: what it is created with when there is none of that name. One with other parameters is refused,
        never overwritten: others may use it.
    :param sources: Files on a disk or in an object store: URIs, globs, prefixes ending in ``/``. They are uploaded into
        directories of ours; or
    :param directory_id: a directory at the service. Its files are not sent again: directories of ours refer to them,
        so that a job of ours can be told from anybody else's over the same directory.
    :param metadata: Put on every file of the job, and so on every line of its results.
    :param directory_type: ``ephemeral`` directories are cleaned up by the service, ``user`` ones stay.
    :param files_sha256: With ``files_count`` and ``files_per_batch``, what
        :meth:`~overnight.services.llamacloud.service.LlamaCloudService.measure` fills in.
    """

    job_type: JobType
    configuration_id: str | None = Field(default=None, min_length=1)
    configuration_name: str | None = Field(default=None, min_length=1)
    parameters: Mapping[str, Any] | None = None
    sources: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    directory_id: str | None = Field(default=None, min_length=1)
    metadata: Annotated[Mapping[str, MetadataValue], AfterValidator(refuse_own_tags)] = Field(default_factory=dict)
    directory_type: Literal["ephemeral", "user"] = "ephemeral"
    files_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    files_count: int | None = Field(default=None, ge=1)
    files_per_batch: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.configuration_id is None) == (self.configuration_name is None):
            raise ValueError("give either configuration_id or configuration_name")
        if self.parameters is not None and self.configuration_name is None:
            raise ValueError("parameters belong to a configuration_name; a configuration_id has its own")
        product = (self.parameters or {}).get("product_type", self.job_type)
        if product != self.job_type:
            raise ValueError(f"parameters are for {product!r}, the job is of the type {self.job_type!r}")
        if (self.directory_id is None) == (not self.sources):
            raise ValueError("give either sources or directory_id")
        return self

    def fingerprint(self, conn_id: str) -> str:
        """Return the digest of the spec; of measured files, the files count and not the patterns that named them."""
        excluded = {"sources"} if self.files_sha256 is not None else set[str]()
        return compute_fingerprint({"spec": self.model_dump(mode="json", exclude=excluded), "conn_id": conn_id})


class PartName(NamedTuple):
    """What a directory's name says: the job's name, and which part of how many it holds."""

    name: str
    number: int
    total: int


def part_name(key: JobKey, number: int, total: int) -> str:
    """Return the name of the directory for one part of a job, counted from 1. It is how a lost job is found."""
    return f"{key.name}.{number}-of-{total}"


def parse_part_name(name: object) -> PartName | None:
    """Read a directory's name back, or return ``None`` when it is somebody else's."""
    match = _PART_NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None or JobKey.parse_name(match["name"]) is None:
        return None
    return PartName(match["name"], int(match["number"]), int(match["total"]))
