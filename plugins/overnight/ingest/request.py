"""What to load and how: ML Commons' own request JSON, and the options that are ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import chain
from typing import Any, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from overnight.errors import SpecError
from overnight.ingest.choices import Sync
from overnight.ingest.write.names import check_index_name
from overnight.jobs.allowance import Allowance
from overnight.storage import get_scheme, redact

SourceType = Literal["s3", "openAI", "file", "http"]
Allowed: TypeAlias = int | float | str
"""A count (10), a ratio from 0.0 to 1.0, or a percentage ("5%"), as :meth:`Allowance.parse` reads it."""

_SCHEMES: dict[str, tuple[str, ...]] = {
    "s3": ("s3",),
    "openAI": ("openai",),
    "file": ("file",),
    "http": ("http", "https"),
}
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")


class _Strict(BaseModel):
    # Error texts quote the input by default, and the input can hold credentials.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class DataSource(_Strict):
    """
    Where the lines are.

    :param type: ``s3`` and ``openAI`` as in ML Commons; ``file`` and ``http``; or left out, and then each source is
        a URI of its own kind (``s3://``, a path, ``file://``, ``https://``, ``openai://file-…``).
    :param source: One or more; their order gives ``source[0]``, ``source[1]`` … An S3 or file source can be one
        object, a glob, or a prefix ending in ``/``, whose files together are that one source; so are those of a list of
        URIs (a batch's output and its error file, say). A single uncompressed file can be a part of one, from the start
        of a line to the end of a line: ``s3://bucket/key.jsonl#bytes=0-104857600`` is its first 100 MiB (the second
        number is the first byte that does not belong to it, and can be left out for the file's end).
        :func:`overnight.ingest.cut` makes such parts. Offsets in dead letters and checkpoints are those in the whole
        file; line numbers count from the start of the part.
    """

    type: SourceType | None = None
    source: tuple[str | tuple[str, ...], ...] = Field(min_length=1)

    @field_validator("source")
    @classmethod
    def _not_blank(cls, source: tuple[str | tuple[str, ...], ...]) -> tuple[str | tuple[str, ...], ...]:
        for uris in source:
            if not uris or any(not uri.strip() for uri in ([uris] if isinstance(uris, str) else uris)):
                raise ValueError("a source is empty")
        return source

    @model_validator(mode="after")
    def _of_its_type(self) -> Self:
        if self.type is not None:
            for uri in chain.from_iterable(self.uris):
                if get_scheme(uri) not in _SCHEMES[self.type]:
                    raise ValueError(
                        f"source {redact(uri)!r} is not of type {self.type!r}; leave data_source.type out to mix kinds"
                    )
        return self

    @property
    def uris(self) -> tuple[tuple[str, ...], ...]:
        """The URIs of each source (bare OpenAI file ids get their scheme)."""
        sources = tuple((uris,) if isinstance(uris, str) else uris for uris in self.source)
        if self.type != "openAI":
            return sources
        return tuple(tuple(uri if "://" in uri else f"openai://{uri}" for uri in uris) for uris in sources)


class IngestRequest(_Strict):
    """
    The body of ``POST _plugins/_ml/_batch_ingestion``, as it is documented for OpenSearch 2.17 to 2.19.

    https://docs.opensearch.org/latest/ml-commons-plugin/api/async-batch-ingest/

    :param index_name: The index or alias that is written to.
    :param field_map: Field of the document to JSONPath. ``_id`` is the document's id. With several sources a path is
        written ``source[N].$.path``, and ``_id`` takes a list with one path for each source.
    :param ingest_fields: More JSONPaths; the last segment of each is the field's name.
    :param credential: ``region``, ``access_key``, ``secret_key``, ``session_token`` for S3, ``openAI_key`` for OpenAI.
        It is never printed. In Airflow it comes from the connections instead.
    :param connector_id: Accepted, and not used: what it stands for is kept inside of the cluster.
    """

    index_name: str = Field(min_length=1)
    field_map: Mapping[str, Any] = Field(default_factory=dict)
    ingest_fields: tuple[str, ...] = ()
    credential: Mapping[str, SecretStr] = Field(default_factory=dict, repr=False)
    connector_id: str | None = None
    data_source: DataSource

    @field_validator("index_name")
    @classmethod
    def _one_index(cls, name: str) -> str:
        return check_index_name(name)

    @classmethod
    def of(cls, request: IngestRequest | Mapping[str, Any] | str | bytes) -> IngestRequest:
        """
        Return a request from what a user has: a request, the decoded JSON, or its text.

        :raises SpecError: it does not fit; the text says where, and quotes no value of ``credential``.
        """
        if isinstance(request, IngestRequest):
            return request
        try:
            if isinstance(request, str | bytes):
                return cls.model_validate_json(request)
            return cls.model_validate(request)
        except ValidationError as error:
            # Its cause would quote the text of the request.
            raise SpecError(f"This is no batch ingestion request: {_problems(error, 'request', cls)}") from None

    @property
    def s3_credential(self) -> dict[str, str]:
        """
        The S3 part of ``credential`` by our own names: ``key``, ``secret``, ``token``, ``region``.

        OpenSearch 2.19 passes region and session token on in swapped order, so requests that work there have the region
        in ``session_token``; that is seen by its form and put right.
        """
        given = {name: secret.get_secret_value() for name, secret in self.credential.items()}
        region, token = given.get("region"), given.get("session_token")
        if token and _REGION.fullmatch(token) and not (region and _REGION.fullmatch(region)):
            region, token = token, region
        found = {
            "key": given.get("access_key"),
            "secret": given.get("secret_key"),
            "token": token,
            "region": region,
        }
        return {name: value for name, value in found.items() if value}

    @property
    def openai_key(self) -> str | None:
        """The OpenAI part of ``credential``."""
        key = self.credential.get("openAI_key")
        return key.get_secret_value() if key is not None else None


class LoadOptions(_Strict):
    """
    How a request is carried out. The defaults load everything, safely, and change no setting of the index.

    :param bulk_bytes: Size of a ``_bulk`` body; 5 MB was the best of what was measured (``benchmarks/load.py``).
    :param max_in_flight: Bodies on their way at once, at most. It shrinks by itself when OpenSearch pushes back.
    :param retry_seconds: How long one body is sent again and again while OpenSearch is busy or away.
    :param allowed_failures: How many documents may be rejected or missing, both together: a count (``10``), a ratio of
        those submitted (``0.05``) or a percentage (``"5%"``). It decides nothing during the load; the report is held
        against it at the end (:meth:`LoadReport.excess`).
    :param dead_letter_uri: JSON Lines file with every rejected and every missing document and the reason.
    :param checkpoint_uri: Where the progress is kept. A load that was killed goes on there when it is started again
        with the same request; the file goes when the load is complete.
    :param checkpoint_seconds: Time between two checkpoints, at least; longer where one takes long to write. 0 writes
        one after each body.
    :param unmatched: What becomes of a row that another source has no partner for: reported as ``missing`` and not
        written, or written with the fields that are there (``index``), as ML Commons does.
    :param missing_path: What becomes of a line without one of the mapped values: rejected, or written without it
        (``omit``).
    :param duplicates: What becomes of the second line with the same id in one source: rejected, or the later line wins
        (``overwrite``).
    :param write: ``index`` replaces whole documents. ``update`` keeps the fields of existing documents that the
        request does not map, as ML Commons does, at the price of a read per document. ``auto`` is ``index`` for an
        empty index, and where the request has every field that the index knows; else ``update``. An update that would
        destroy something (pipelines, ``_source`` that leaves fields out, dotted names beside objects) is refused. A
        data stream gets its documents created.
    :param progress_seconds: Time between two calls of ``on_progress``.
    :param max_line_bytes: Longer lines are rejected without being held in memory.
    :param create_index: Body (``settings``, ``mappings``) that a missing index is created with; with ``data_stream``
        in it (``{}``), a data stream and its index template. Without it a missing index is refused.
    :param load_settings: Index settings for the time of the load; what they were is restored, also when it fails.
    :param refresh: Whether the documents are made searchable at the end.
    :param verify: Whether the index is held against the report at the end: some of the documents by id, and their
        number.
    :param allow_empty: Whether sources without a single line are fine.
    :param format: The service whose batch results the sources are (``openai``, ``sagemaker``, ``llamacloud`` …), so
        that its error lines are rejected with the service's own words; a list has one for each source. Left out, a
        source is read as results where its URI says so (``openai://``); ``plain`` reads those as documents, too.
    :param result_counts: For each source that is a batch's results how many the service counts (``request_counts`` of
        OpenAI), ``None`` where it does not say. A source in which fewer can be read was cut, or something else answered
        in its place: the load fails, and a retry reads it again from its first line.
    :param output_schema: What the JSON in each string must be that a path of the field map goes into (``.json()``): the
        import path of a type (``package.module.Model``) or a JSON Schema. Other answers are rejected as
        ``invalid_output``.
    :param skip_unchanged: Whether documents that the index has already, as they are, are not written: each one that is
        written gets a digest of its write in the field ``overnight_digest``, by which a later load knows it.
    :param sync: ``mirror`` deletes at the end what the sources, a whole corpus, do not have; ``preview`` says what that
        would delete; ``upsert`` never deletes.
    :param max_deletes: How many documents a mirror may delete, of those in the index: a count, a ratio or a percentage.
        With more it deletes none, and fails.
    :param sync_filter: A query for the documents of this corpus (``{"term": {"source": "wiki"}}``), where the index has
        those of others, too. Only these are deleted.
    :param deletes_uri: A JSON Lines file with each document that the sources do not have.
    :param spool_dir: Folder for temporary files (ids seen, the side of a join that is read at random); the system's
        when ``None``.
    """

    bulk_bytes: int = Field(default=5_000_000, ge=1_000, le=100_000_000)
    max_in_flight: int = Field(default=2, ge=1, le=64)
    retry_seconds: float = Field(default=600.0, ge=0)
    allowed_failures: Allowed = 0
    dead_letter_uri: str | None = None
    checkpoint_uri: str | None = None
    checkpoint_seconds: float = Field(default=1.0, ge=0)
    unmatched: Literal["missing", "index"] = "missing"
    missing_path: Literal["reject", "omit"] = "reject"
    duplicates: Literal["reject", "overwrite"] = "reject"
    write: Literal["auto", "index", "update"] = "auto"
    progress_seconds: float = Field(default=10.0, ge=0)
    max_line_bytes: int = Field(default=32 << 20, ge=1)
    create_index: Mapping[str, Any] | None = None
    load_settings: Mapping[str, Any] = Field(default_factory=dict)
    refresh: bool = True
    verify: bool = True
    allow_empty: bool = False
    spool_dir: str | None = None
    format: str | tuple[str | None, ...] | None = None
    result_counts: tuple[int | None, ...] = ()
    output_schema: str | Mapping[str, Any] | None = None
    skip_unchanged: bool = False
    sync: Sync = "upsert"
    max_deletes: Allowed = "10%"
    sync_filter: Mapping[str, Any] | None = None
    deletes_uri: str | None = None

    @field_validator("allowed_failures", "max_deletes", mode="before")
    @classmethod
    def _is_an_allowance(cls, allowed: Any, info: ValidationInfo) -> Any:
        Allowance.parse(allowed, str(info.field_name))
        return allowed

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """
        Return options from what a user wrote.

        :raises SpecError: they do not fit; the text says which.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise SpecError(f"These options do not fit: {_problems(error, 'options', cls)}") from None


def _problems(error: ValidationError, whole: str, model: type[BaseModel]) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or whole}: {_explain(problem, model)}"
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    )


def _explain(problem: ErrorDetails, model: type[BaseModel]) -> str:
    if problem["type"] != "extra_forbidden":
        return problem["msg"]
    *folders, name = map(str, problem["loc"])
    known = list((DataSource if folders == ["data_source"] else model).model_fields)
    near = get_close_matches(name, known, n=1)
    return f"there is no such name{f', did you mean {near[0]!r}?' if near else '.'} Known are {', '.join(known)}"
