"""What a batch ingestion is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, JsonValue

from overnight.jobs.service import JobSpec


class MLCommonsIngestSpec(JobSpec):
    """
    One batch ingestion, without its credential.

    :param index_name: An index that is there; the server would make a missing one, with embeddings as plain numbers.
    :param field_map: Field of the document to JSONPath.
    :param ingest_fields: More JSONPaths; the last segment of each is the field's name.
    :param source_type: ``s3`` or ``openAI``.
    :param sources: ``s3://bucket/key`` of one object, or OpenAI file ids.
    :param connector_id: A connector whose credential the cluster uses instead of ours.
    """

    index_name: str = Field(min_length=1)
    field_map: Mapping[str, JsonValue]
    ingest_fields: tuple[str, ...] = ()
    source_type: Literal["s3", "openAI"]
    sources: tuple[str, ...] = Field(min_length=1)
    connector_id: str | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether a second run writes the same documents again and not others beside them."""
        return "_id" in self.field_map
