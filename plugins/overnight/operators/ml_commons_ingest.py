"""Batch ingestion as a DAG step: in the cluster where it does that rightly, else by our own load."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from overnight.errors import OvernightError, SpecError
from overnight.hooks.ml_commons import MLCommonsIngestHook
from overnight.hooks.outcome import failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.operators.job import JobOperator
from overnight.operators.lineage import LoadLineage
from overnight.operators.load import (
    load_and_evaluate,
    parse_options,
    parse_request,
    with_formats,
)
from overnight.operators.parameters import check_parameters, require_mapping, require_truth
from overnight.services.ml_commons.ingest.choices import Engine

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.hooks.job import JobHook
    from overnight.ingest import IngestRequest
    from overnight.jobs.client import JobClient
    from overnight.services.ml_commons.ingest.engine import Choice, SourceFile
    from overnight.services.ml_commons.ingest.spec import MLCommonsIngestSpec


_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class MLCommonsBatchIngestOperator(LoadLineage, JobOperator["MLCommonsIngestSpec"]):
    """
    Ingest JSON Lines into an index, by ``_batch_ingestion`` or by our own load, whichever is right.

    The same request runs on every OpenSearch: in the cluster on 2.17 to 2.19, on the worker where the cluster cannot,
    or not rightly. The log says which, and why.

    :param request: The body of ``POST _plugins/_ml/_batch_ingestion``, without ``credential``, which comes from the
        connections.
    :param engine: ``auto``; ``server`` (refused with a remedy where the server cannot); ``client``.
    :param aws_conn_id: The connection whose keys read S3. The cluster is given them for this request.
    :param openai_conn_id: The connection whose key reads OpenAI's files; the same.
    :param skip_unchanged: Write only documents that the index does not have already, as they are. The server writes
        every one, so ``auto`` is the client, and ``server`` is refused.
    :param options: Fields of :class:`~overnight.ingest.LoadOptions`, for the client. With any of them ``auto`` is the
        client, since the server has no such thing.
    :param conn_id: The OpenSearch connection, ``opensearch_default`` when left out.

    All further parameters are those of :class:`~overnight.operators.job.JobOperator`. An ingestion in the cluster
    cannot be cancelled: after its deadline the task fails, and a retry attaches to it again. It counts nothing, and is
    all or nothing in its state, though not in the index: ``allowed_failures`` is for the client. The XCom is the job's
    and ``engine``; the client's is ``engine`` and ``report``.
    """

    template_fields: Sequence[str] = (
        "request",
        "engine",
        "aws_conn_id",
        "openai_conn_id",
        "skip_unchanged",
        "options",
        *JobOperator.template_fields,
    )
    hook_class: ClassVar[type[JobHook[Any]]] = MLCommonsIngestHook

    def __init__(
        self,
        *,
        request: Mapping[str, Any],
        engine: Engine = "auto",
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        openai_conn_id: str | None = "openai_default",
        skip_unchanged: bool | str = False,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.request = request
        self.engine = engine
        self.aws_conn_id = aws_conn_id
        self.openai_conn_id = openai_conn_id
        self.skip_unchanged = skip_unchanged
        self.options = options

    def execute(self, context: Context) -> dict[str, Any]:
        """Choose the engine, and ingest."""
        with failing_for_good():
            check_parameters(self)
            require_mapping(self.options or {}, "options")
            if self.engine == "server" and (self._skips_unchanged() or "skip_unchanged" in (self.options or {})):
                raise SpecError(
                    "skip_unchanged is for our own load, and the server writes every document. Leave it out, or use "
                    "engine='client'."
                )
            request = self._request()
            choice = self._choice(context, request)
            self.log.info("Ingesting with the %s: %s.", choice.engine, choice.why)
            if choice.engine == "client":
                return {"engine": "client", "report": self._load(context, request)}
        return {"engine": "server", **super().execute(context)}

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on after the trigger's event; only the server's ingestion is ever waited for."""
        return {"engine": "server", **super().execute_complete(context, event)}

    def build_spec(self, context: Context) -> MLCommonsIngestSpec:
        """Return the spec of the server's ingestion."""
        from overnight.services.ml_commons.ingest.spec import MLCommonsIngestSpec  # noqa: PLC0415 - not at parse

        request = self._request()
        if request.data_source.type not in ("s3", "openAI"):
            raise SpecError("The server ingests data sources of type 's3' and 'openAI' only; use engine='client'.")
        return MLCommonsIngestSpec(
            index_name=request.index_name,
            field_map=dict(request.field_map),
            ingest_fields=request.ingest_fields,
            source_type=request.data_source.type,
            sources=_single(request.data_source.source),
            connector_id=request.connector_id,
        )

    def make_client(self) -> JobClient[Any]:
        """Return a client that can get at the credentials the cluster is given."""
        return MLCommonsIngestHook(
            self.conn_id,
            aws_conn_id=self.aws_conn_id,
            openai_conn_id=self.openai_conn_id,
            give_credential=not self.request.get("connector_id"),
        ).client()

    def _request(self) -> IngestRequest:
        from overnight.ingest.map.field_map import compile_field_map  # noqa: PLC0415 - not at parse

        request = parse_request(self.request)
        # What the server would ignore without a word, or find out at the first line.
        compile_field_map(request.field_map, request.ingest_fields, len(request.data_source.source))
        return request

    def _skips_unchanged(self) -> bool:
        return require_truth(self.skip_unchanged, "skip_unchanged")

    def _choice(self, context: Context, request: IngestRequest) -> Choice:
        from overnight.hooks.opensearch import OpenSearchHook  # noqa: PLC0415 - not at parse
        from overnight.ingest.map.field_map import compile_field_map  # noqa: PLC0415 - not at parse
        from overnight.ingest.read.byte_range import split_range  # noqa: PLC0415 - not at parse
        from overnight.services.ml_commons.connection import transport  # noqa: PLC0415 - not at parse
        from overnight.services.ml_commons.ingest.engine import Choice, choose_engine, find_limit, has_endpoint  # noqa: PLC0415 - not at parse

        record = self.recall(context)
        if record is not None and record.ending is None and self.engine != "client":
            return Choice("server", "an earlier try of this task began it there")
        if self.engine == "auto" and self._skips_unchanged():
            return Choice("client", "the server writes every document, and skip_unchanged was asked for")
        if self.engine == "auto" and self.options:
            return Choice("client", f"the server knows no {', '.join(self.options)}")
        if self.engine == "client":
            return Choice("client", "engine='client' was asked for")
        if any(split_range(uri)[1] for uri in chain.from_iterable(request.data_source.uris)):
            if self.engine == "server":
                raise SpecError("The server reads whole files; use engine='client' for a part (#bytes=…) of one.")
            return Choice("client", "the server reads whole files, not parts of them")
        config = OpenSearchHook(self.conn_id).get_config()
        with transport(config) as plugin:
            version = plugin.run(config.version())
            there = version.distribution == "opensearch" and plugin.run(has_endpoint())
            source = request.data_source
            mapped = [
                path for value in request.field_map.values() for path in ([value] if isinstance(value, str) else value)
            ]
            maps = compile_field_map(request.field_map, request.ingest_fields, len(source.source))
            return choose_engine(
                self.engine,
                version,
                source.type,
                source.source,
                paths=[*mapped, *request.ingest_fields],
                endpoint=there,
                has_connector=bool(request.connector_id),
                has_routing=any(part.routing is not None for part in maps),
                look=lambda: self._look(request),
                limit=lambda: plugin.run(find_limit()),
            )

    def _look(self, request: IngestRequest) -> list[SourceFile]:
        """Look at the files, with the credentials that the cluster is given."""
        from overnight.ingest.read.sources import SourceReader  # noqa: PLC0415 - not at parse
        from overnight.operators.sources import openai_opener  # noqa: PLC0415 - not at parse
        from overnight.services.ml_commons.ingest.engine import SourceFile  # noqa: PLC0415 - not at parse

        reader = SourceReader(
            connected_storage(self.aws_conn_id),
            {"openai": openai_opener(self.openai_conn_id)},
            {"openai": self._look_at_openai},
        )
        try:
            files = [
                file
                for number, uris in enumerate(request.data_source.uris)
                for file in reader.resolve(number, uris).files
            ]
            return [
                SourceFile(file.name, reader.get_encoding(file), reader.read_head(file).startswith(_MARKS), file.size)
                for file in files
            ]
        except OvernightError as error:
            if not request.connector_id:
                raise
            # The connector's credential, which is in the cluster alone, may read what ours may not.
            self.log.info("The files cannot be looked at from here: %s", error)
            return []

    def _look_at_openai(self, uri: str) -> tuple[int | None, str]:
        from overnight.hooks.openai import OpenAIHook  # noqa: PLC0415 - not at parse
        from overnight.services.openai.files import get_size  # noqa: PLC0415 - not at parse

        with OpenAIHook(self.openai_conn_id).client() as client:
            return client.run(get_size(uri.removeprefix("openai://"))), uri

    def _load(self, context: Context, request: IngestRequest) -> dict[str, Any]:
        if request.connector_id:
            self.log.info("connector_id is not used here: what it stands for is kept inside of the cluster.")
        return load_and_evaluate(
            context,
            request,
            parse_options(
                with_formats(self.options, self.request),
                allowed_failures=self.allowed_failures,
                skip_unchanged=self._skips_unchanged(),
            ),
            conn_id=self.conn_id,
            aws_conn_id=self.aws_conn_id,
            openai_conn_id=self.openai_conn_id,
            on_report=self.note_load,
        )


def _single(sources: Sequence[str | Sequence[str]]) -> tuple[str, ...]:
    if not all(isinstance(source, str) for source in sources):
        raise SpecError("The server takes one file for each source; use engine='client' for lists of files.")
    return tuple(str(source) for source in sources)
