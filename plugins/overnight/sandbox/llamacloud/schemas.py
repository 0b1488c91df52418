"""The bodies of requests, as strict as the service's published schema. An unknown field is refused."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(min_length=1)]
JobType = Literal["parse_v2", "extract_v2"]
MetadataValue = str | int | float | bool | list[str] | None
BatchStatus = Literal["PENDING", "THROTTLED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
JobStatus = Literal["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
DirectoryType = Literal["user", "index", "ephemeral"]
ProductType = Literal["classify_v2", "extract_v2", "parse_v2", "split_v1", "spreadsheet_v1", "unknown"]
PURPOSES = ("user_data", "parse", "extract", "split", "classify", "sheet", "agent_app")

Ids = Annotated[list[str] | None, Query()]
Expand = Annotated[list[str] | None, Query()]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DirectoryCreate(_Body):
    """``POST /api/v1/beta/directories``."""

    name: Text
    description: str | None = None
    type: Literal["user", "ephemeral"] = "user"
    system_metadata: dict[str, Any] | None = None
    connector_subscription_id: None = None


class DirectoryUpdate(_Body):
    """``PATCH /api/v1/beta/directories/{id}``."""

    name: Text | None = None
    description: str | None = None


class FileAdd(_Body):
    """``POST /api/v1/beta/directories/{id}/files``."""

    file_id: Text
    display_name: Text | None = None
    unique_id: Text | None = None
    metadata: dict[str, MetadataValue] | None = None


class FileUpdate(_Body):
    """``PATCH /api/v1/beta/directories/{id}/files/{id}``."""

    display_name: Text | None = None
    unique_id: Text | None = None
    metadata: dict[str, MetadataValue] | None = None
    target_directory_id: Text | None = None


class ConfigurationCreate(_Body):
    """``POST /api/v1/beta/configurations``; the parameters are checked by :func:`check_parameters`."""

    name: Text
    parameters: dict[str, Any]


class ConfigurationUpdate(_Body):
    """``PUT /api/v1/beta/configurations/{id}``."""

    name: Text | None = None
    parameters: dict[str, Any] | None = None


class BatchJob(_Body):
    """The job to make for each file."""

    configuration_id: Text
    type: JobType


class BatchConfig(_Body):
    """A batch's configuration."""

    job: BatchJob


class BatchCreate(_Body):
    """``POST /api/v2/batches``."""

    config: BatchConfig
    source_directory_id: Text
    webhook_configuration_ids: list[str] | None = None
    webhook_configurations: list[dict[str, Any]] | None = None


class _Webhooks(_Body):
    webhook_configuration_ids: list[str] | None = None
    webhook_configurations: list[dict[str, Any]] | None = None


def _pages(value: str | None) -> str | None:
    if value is not None and re.fullmatch(r"\s*\d+(-\d+)?(\s*,\s*\d+(-\d+)?)*\s*", value) is None:
        raise ValueError("page numbers and ranges, divided by commas")
    return value


class PageRanges(_Body):
    """Which pages to parse."""

    max_pages: Annotated[int, Field(ge=1)] | None = None
    target_pages: Annotated[str | None, AfterValidator(_pages)] = None


class ParseOptions(_Webhooks):
    """What a parse job and a parse configuration have in common. Options without an effect here are accepted."""

    tier: Literal["fast", "cost_effective", "agentic", "agentic_plus"]
    version: Text
    agentic_options: dict[str, Any] | None = None
    client_name: str | None = None
    crop_box: dict[str, Any] | None = None
    disable_cache: bool | None = None
    fast_options: dict[str, Any] | None = None
    http_proxy: str | None = None
    input_options: dict[str, Any] | None = None
    output_options: dict[str, Any] | None = None
    page_ranges: PageRanges | None = None
    processing_control: dict[str, Any] | None = None
    processing_options: dict[str, Any] | None = None


class ParseParameters(ParseOptions):
    """The parameters of a ``parse_v2`` configuration."""

    product_type: Literal["parse_v2"]


class ParseCreate(ParseOptions):
    """``POST /api/v2/parse``. ``tier`` and ``version`` may be left to a saved configuration."""

    tier: Literal["fast", "cost_effective", "agentic", "agentic_plus", "configured"] | None = None  # type: ignore[assignment]
    version: Text | None = None  # type: ignore[assignment]
    configuration_id: Text | None = None
    file_id: Text | None = None
    source_url: None = None
    user_metadata: dict[str, str] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ParseCreate:
        if self.file_id is None:
            raise ValueError("file_id is required: this emulator fetches no source_url")
        if self.configuration_id is None and (self.tier in (None, "configured") or self.version is None):
            raise ValueError("tier and version are required without a configuration_id")
        return self


class ExtractOptions(_Body):
    """An extract configuration."""

    data_schema: dict[str, Any]
    advanced_citations: bool | None = None
    cite_sources: bool | None = None
    confidence_scores: bool | None = None
    disable_cache: bool | None = None
    extraction_target: Literal["per_doc", "per_page", "per_table_row"] | None = None
    max_pages: Annotated[int, Field(ge=1)] | None = None
    parse_config_id: str | None = None
    parse_tier: Literal["fast", "cost_effective", "agentic", "agentic_plus"] | None = None
    sheet_names: list[str] | None = None
    spreadsheet_mode: bool | None = None
    system_prompt: str | None = None
    target_pages: Annotated[str | None, AfterValidator(_pages)] = None
    tier: Literal["cost_effective", "agentic", "agentic_plus", "turbo"] | None = None
    version: str | None = None

    @model_validator(mode="after")
    def _is_object_schema(self) -> ExtractOptions:
        check_schema(self.data_schema)
        return self


class ExtractParameters(ExtractOptions):
    """The parameters of an ``extract_v2`` configuration."""

    product_type: Literal["extract_v2"]


class ExtractCreate(_Webhooks):
    """``POST /api/v2/extract``."""

    file_input: Text
    configuration: ExtractOptions | None = None
    configuration_id: Text | None = None

    @model_validator(mode="after")
    def _one_configuration(self) -> ExtractCreate:
        if (self.configuration is None) == (self.configuration_id is None):
            raise ValueError("provide exactly one of configuration and configuration_id")
        return self


class SchemaValidation(_Body):
    """``POST /api/v2/extract/schema/validation``."""

    data_schema: dict[str, Any]


PARAMETERS: dict[str, type[ParseParameters | ExtractParameters]] = {
    "parse_v2": ParseParameters,
    "extract_v2": ExtractParameters,
}


def check_schema(schema: dict[str, Any], depth: int = 1) -> None:
    """
    Check that a data schema is an object with properties, at most seven levels deep.

    :raises ValueError: It is not.
    """
    if depth > 7:
        raise ValueError("data_schema is nested more than 7 levels deep")
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict) or not schema["properties"]:
        raise ValueError("data_schema must be an object with properties")
    for part in schema["properties"].values():
        if isinstance(part, dict) and part.get("type") == "object":
            check_schema(part, depth + 1)
