"""The load: a request, the files it names, an index, and a report that adds up."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any

from overnight.errors import SpecError, UnavailableError, shorten
from overnight.ingest.formats import choose_formats
from overnight.ingest.map.documents import Cursor, Documents, ReadItem, SingleSource
from overnight.ingest.map.field_map import SourceMap, compile_field_map
from overnight.ingest.map.join import JoinedSources
from overnight.ingest.map.row_index import RowIndex
from overnight.ingest.map.rows import RowReader, Splicer
from overnight.ingest.mirror import MirrorOptions, mirror, read_sync_baseline
from overnight.ingest.read.byte_range import split_range
from overnight.ingest.read.openers import look_at_http, openai_opener, web_openers, with_s3
from overnight.ingest.read.sources import Look, Opener, Source, SourceReader
from overnight.ingest.report.dead_letters import DeadLetterFile
from overnight.ingest.report.load_report import LoadReport, Progress
from overnight.ingest.report.mirror_report import DeletesRefusedError
from overnight.ingest.request import IngestRequest, LoadOptions
from overnight.ingest.write.checkpoint import Checkpoint, CheckpointFile, SourceTally, Tally
from overnight.ingest.write.delivery import Delivery
from overnight.ingest.write.opensearch_sink import OpenSearchSink, to_sink
from overnight.ingest.write.preflight import Preflight
from overnight.ingest.write.sink import (
    Expectation,
    IndexInfo,
    IndexMissingError,
    Sink,
    Throttle,
    VerificationError,
    WriteOperation,
    WriteOptions,
)
from overnight.ingest.write.stored import Baseline
from overnight.ingest.write.target import OpenSearchTarget
from overnight.ingest.write.unchanged import check_fields
from overnight.ingest.write.write_mode import choose_operation
from overnight.jobs import compute_fingerprint
from overnight.jobs.allowance import Allowance
from overnight.json_text import JsonBytes
from overnight.services.result_formats import find_result_format
from overnight.storage import Storage, get_scheme

if TYPE_CHECKING:
    from overnight.output_schema import OutputSchema

log = logging.getLogger(__name__)

_MAX_PEEKED = 1_000
_MAX_URIS = 200


def load(
    request: IngestRequest | Mapping[str, Any] | str,
    *,
    target: OpenSearchTarget | Sink,
    storage: Storage | None = None,
    openers: Mapping[str, Opener] | None = None,
    looks: Mapping[str, Look] | None = None,
    options: LoadOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> LoadReport:
    """
    Carry out a batch ingestion request here, on any OpenSearch, and report on every document.

    Starting the same load again is harmless: every document has an ``_id`` that is its own. With
    ``options.checkpoint_uri`` a load that was killed goes on where it stopped.

    :param request: What ``POST _plugins/_ml/_batch_ingestion`` takes, decoded or as text.
    :param target: The OpenSearch, or another :class:`~overnight.ingest.write.sink.Sink`.
    :param storage: With the credentials for S3; by default the request's own, or the usual environment variables.
    :param openers: By URI scheme, for sources that are no file system. ``openai`` is there when the request has a key.
    :param looks: By scheme, for those of the openers whose content can change: what a checkpoint is held against.
    :param options: How.
    :param on_progress: Called every ``options.progress_seconds``, in this thread.
    :return: The report. Whether its numbers are good enough is the caller's to say (:meth:`LoadReport.excess`).
    :raises SpecError: the request is refused, and nothing was written: no such index, no such file, a field map
        that does not fit, vectors of another dimension, partial updates that would destroy something, nothing to load.
    :raises VerificationError: the index does not hold what it has acknowledged; the report is in ``report``.
    :raises DeletesRefusedError: ``options.sync`` would delete more than ``max_deletes``, and deleted nothing.
        Everything was loaded; the report is in ``report``.
    :raises IndexRefusedError: the index takes no documents (blocked, closed, without its pipeline). A later load goes
        on from the checkpoint.
    :raises SourceError: a source is damaged.
    :raises UnavailableError: a batch's results are fewer than ``options.result_counts`` has for them.
    :raises ServiceError: OpenSearch or a source's server refuses, or stays away. A later load goes on from the
        checkpoint.
    """
    wanted = IngestRequest.of(request)
    return _Load(
        wanted,
        to_sink(target),
        make_reader(wanted, storage or Storage(), openers or {}, looks or {}, options or LoadOptions()),
        options or LoadOptions(),
        on_progress,
    ).run()


def make_reader(
    request: IngestRequest,
    storage: Storage,
    openers: Mapping[str, Opener],
    looks: Mapping[str, Look],
    options: LoadOptions,
) -> SourceReader:
    """Return what finds and reads a request's sources; the parameters are those of :func:`load`."""
    if request.s3_credential and "s3" not in storage.connectors:
        storage = with_s3(storage, request.s3_credential)
    known = web_openers(storage)
    if request.openai_key:
        known["openai"] = openai_opener(request.openai_key)
    known_looks = {scheme: look_at_http for scheme in ("http", "https") if scheme not in openers}
    return SourceReader(storage, {**known, **openers}, {**known_looks, **looks}, options.max_line_bytes)


class _Load:
    """One load."""

    def __init__(
        self,
        request: IngestRequest,
        sink: Sink,
        reader: SourceReader,
        options: LoadOptions,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._request = request
        self._sink = sink
        self._reader = reader
        self._options = options
        self._on_progress = on_progress
        uris = request.data_source.uris
        self._maps = compile_field_map(request.field_map, request.ingest_fields, len(uris))
        self._has_ids = any(source_map.id is not None for source_map in self._maps)
        # A load that goes on reads what is before its checkpoint, too, where ids are noted.
        self._notes_ids = self._has_ids and options.duplicates == "reject"
        if len(uris) > 1 and options.duplicates != "reject":
            raise SpecError("A join writes each id once, so duplicates must be 'reject'.")
        self._schema = _find_schema(options, self._maps)
        self._formats = choose_formats(options.format, uris)
        self._check_sync()
        self._check_skip()
        for scheme in {get_scheme(uri) for part in uris for uri in part} - reader.openers.keys():
            if (needed := find_result_format(scheme)) is not None:
                raise SpecError(
                    f"Nothing reads {scheme}:// here: put the key of {needed.service} into the request's credential, "
                    f"or give an opener for {scheme!r}."
                )
        self._sources = [reader.resolve(number, part) for number, part in enumerate(uris)]

    def _check_sync(self) -> None:
        """Refuse what could delete documents that the source has."""
        if self._options.sync == "upsert":
            return
        if not self._has_ids:
            raise SpecError(
                f"sync={self._options.sync!r} compares the index with the ids of the source, and field_map has no "
                "'_id'. Map it."
            )
        if any(split_range(uri)[1] is not None for part in self._request.data_source.uris for uri in part):
            raise SpecError(
                f"sync={self._options.sync!r} is for a whole corpus, and this load has a shard of one: the documents "
                "of the others would be deleted. Load the shards without it, and delete behind them with an "
                "OpenSearchMirrorOperator."
            )

    def _check_skip(self) -> None:
        """Refuse to skip what is unchanged where that cannot be told."""
        if not self._options.skip_unchanged:
            return
        if not isinstance(self._sink, OpenSearchSink):
            raise SpecError("skip_unchanged looks documents up in an OpenSearch index, and in no other sink.")
        check_fields(self._fields)

    @property
    def _fields(self) -> list[str]:
        return list(dict.fromkeys(chain.from_iterable(source_map.fields for source_map in self._maps)))

    @property
    def _has_routing(self) -> bool:
        return any(source_map.routing is not None for source_map in self._maps)

    def run(self) -> LoadReport:
        options, request = self._options, self._request
        index = self._find_index()
        baseline = read_sync_baseline(self._sink, index) if options.sync != "upsert" else None
        checkpoints = CheckpointFile(options.checkpoint_uri, self._reader.storage)
        checkpoint = checkpoints.load(self._fingerprint(index))
        was_started = checkpoint is not None
        is_resumed = checkpoint is not None and checkpoint.cursor is not None
        stop, throttle = threading.Event(), Throttle(options.max_in_flight)
        with ExitStack() as stack:
            splicer = Splicer(self._maps)
            rows = [self._rows(*each) for each in zip(self._sources, self._maps, strict=True)]
            items = self._read_items(stack, rows, splicer, checkpoint.cursor if checkpoint is not None else None)
            if checkpoint is None:
                first, items = _peek(items)
                checkpoint = self._create_checkpoint(index, first)
                checkpoint.baseline = baseline
                checkpoints.save(checkpoint)
            else:
                log.info("Going on at %s, with %d documents done.", checkpoint.cursor, checkpoint.tally.submitted)
            dead_letters = DeadLetterFile(
                options.dead_letter_uri, self._reader.storage, keep=checkpoint.dead_letter_bytes
            )
            stack.callback(dead_letters.close)
            stack.enter_context(self._sink.changed_settings(index, options.load_settings, checkpoint.settings))
            delivery = Delivery(
                self._sink.writer(
                    index,
                    WriteOptions(
                        checkpoint.write,
                        options.retry_seconds,
                        stop=stop,
                        throttle=throttle,
                        was_sent=was_started,
                        skip_unchanged=options.skip_unchanged,
                        has_routing=self._has_routing,
                    ),
                ),
                throttle,
                stop,
                options,
                checkpoint=checkpoint,
                checkpoint_file=checkpoints,
                dead_letters=dead_letters,
                preflight=Preflight(index) if checkpoint.cursor is None else None,
                ordered=self._has_ids and options.duplicates == "overwrite",
                total_bytes=self._total_bytes(),
                stored_bytes=lambda: self._reader.stored.count,
                on_progress=self._on_progress,
            )
            delivery.run(items)
        if not is_resumed or len(self._sources) > 1 or self._notes_ids:
            self._check_results(rows, checkpoints)
        if not checkpoint.tally.submitted and not options.allow_empty:
            checkpoints.delete()
            raise SpecError(
                f"There is nothing to load: {', '.join(source.uri for source in self._sources)} has no line. "
                "If that can be, allow it (allow_empty)."
            )
        notes = self._refresh(index)
        report = checkpoint.tally.report(request.index_name, options.dead_letter_uri, resumed=is_resumed)
        if options.verify and report.in_index:
            try:
                notes += self._sink.verify(index, self._expect(index, checkpoint, delivery, is_resumed=is_resumed))
            except VerificationError as error:
                checkpoints.delete()  # the documents that are not there have to be written again
                error.report = report.model_dump(mode="json")
                raise
        for note in notes:
            log.warning("%s", note)
        report = report.model_copy(update={"notes": tuple(notes)})
        if options.sync != "upsert":
            report = self._mirror(index, checkpoint.baseline, report)
        checkpoints.delete()
        return report

    def _mirror(self, index: IndexInfo, baseline: Baseline | None, report: LoadReport) -> LoadReport:
        """Delete what the sources do not have; a retry after a refusal goes on here, for the checkpoint stays."""
        options = self._options
        sources = [
            (source, RowReader(SourceMap(source_map.id, {}), result_format=self._formats[source.index]))
            for source, source_map in zip(self._sources, self._maps, strict=True)
            if source_map.id is not None
        ]
        try:
            found = mirror(
                index,
                sources,
                sink=self._sink,
                reader=self._reader,
                options=MirrorOptions(
                    Allowance.parse(options.max_deletes, "max_deletes"),
                    scope=options.sync_filter,
                    deletes_uri=options.deletes_uri,
                    dry_run=options.sync == "preview",
                    baseline=baseline,
                    spool_dir=options.spool_dir,
                ),
            )
        except DeletesRefusedError as error:
            error.report = report.model_copy(update={"mirror": error.mirror}).model_dump(mode="json")
            raise
        return report.model_copy(update={"mirror": found})

    def _find_index(self) -> IndexInfo:
        name, body = self._request.index_name, self._options.create_index
        try:
            return self._sink.inspect(name)
        except IndexMissingError:
            if body is None:
                raise
        self._sink.create(name, body)
        log.info("Created the index %s.", name)
        return self._sink.inspect(name)

    def _create_checkpoint(self, index: IndexInfo, first: Sequence[JsonBytes] | None) -> Checkpoint:
        """
        Decide what has to be decided once.

        :param first: The first document, in pieces of JSON.
        """
        operation: WriteOperation = choose_operation(
            self._options.write,
            index,
            self._fields,
            has_ids=self._has_ids,
            has_routing=self._has_routing,
            is_complete=self._options.missing_path == "reject" and self._options.unmatched == "missing",
            is_empty=lambda: self._sink.is_empty(index),
            made_fields=lambda: self._sink.find_made_fields(index, b"".join(first)) if first is not None else set(),
        )
        settings = self._options.load_settings
        return Checkpoint(
            self._fingerprint(index),
            Tally([SourceTally(source.uri) for source in self._sources]),
            operation,
            settings=self._sink.read_settings(index, list(settings)) if settings else None,
        )

    def _refresh(self, index: IndexInfo) -> list[str]:
        note = self._sink.refresh(index) if self._options.refresh else None
        return [note] if note is not None else []

    def _expect(self, index: IndexInfo, checkpoint: Checkpoint, delivery: Delivery, *, is_resumed: bool) -> Expectation:
        # A count can be held against the index when each document has an id of its own, all of them went into it, and
        # searches see them.
        is_countable = (
            self._options.refresh
            and not (self._has_ids and self._options.duplicates == "overwrite")
            and (index.is_data_stream or not (delivery.elsewhere or (is_resumed and index.pipelines)))
        )
        return Expectation(
            {key: routing if routing is not None else index.routing for key, routing in delivery.sample},
            checkpoint.tally.indexed + checkpoint.tally.unchanged if is_countable else None,
        )

    def _check_results(self, rows: Sequence[RowReader], checkpoints: CheckpointFile) -> None:
        """Hold what was read against what the services count."""
        for source, row_reader, counted in zip(self._sources, rows, self._options.result_counts, strict=False):
            if counted is None or row_reader.results >= counted or not self._maps[source.index].is_used:
                continue
            checkpoints.delete()  # what was read of it is not to be gone on with
            raise UnavailableError(
                f"source[{source.index}] ({shorten(source.uri, _MAX_URIS)}) has results of {counted:,} requests by the "
                f"service's count, and its files hold {row_reader.results:,} that can be read. They were cut, or "
                "something else answered; a retry reads them again from the first line."
            )

    def _read_items(
        self, stack: ExitStack, rows: Sequence[RowReader], splicer: Splicer, start: Cursor | None
    ) -> Iterator[ReadItem | Documents]:
        if len(self._sources) == 1:
            ids = stack.enter_context(RowIndex((), self._options.spool_dir)) if self._notes_ids else None
            return SingleSource(self._sources[0], self._reader, rows[0], splicer, ids).items(start)
        numbers = tuple(source.index for source in self._sources)
        return JoinedSources(
            self._sources,
            self._maps,
            self._reader,
            rows,
            splicer=splicer,
            index=stack.enter_context(RowIndex(numbers, self._options.spool_dir)),
            keep_unmatched=self._options.unmatched == "index",
        ).items(start)

    def _rows(self, source: Source, source_map: SourceMap) -> RowReader:
        return RowReader(
            source_map,
            result_format=self._formats[source.index],
            omit_missing=self._options.missing_path == "omit",
            check=self._schema.check if self._schema is not None else None,
        )

    def _total_bytes(self) -> int | None:
        sizes = [source.size for source in self._sources]
        return sum(size for size in sizes if size is not None) if None not in sizes else None

    def _fingerprint(self, index: IndexInfo) -> str:
        """Tell this load from one whose checkpoint or dead letters would be of no use to it."""
        options = self._options
        return compute_fingerprint(
            {
                "field_map": self._request.model_dump(mode="json", include={"field_map", "ingest_fields"}),
                "files": [
                    # What may have changed unseen is never gone on with.
                    [[file.name, file.identity or uuid.uuid4().hex] for file in source.files]
                    for source in self._sources
                ],
                "target": [self._sink.address, index.uuid],
                "options": options.model_dump(
                    mode="json",
                    include={
                        "unmatched",
                        "missing_path",
                        "duplicates",
                        "write",
                        "max_line_bytes",
                        "dead_letter_uri",
                        "format",
                    },
                ),
                **({"output_schema": self._schema.schema_body} if self._schema is not None else {}),
                **({"skip_unchanged": True} if options.skip_unchanged else {}),
            }
        )


def _find_schema(options: LoadOptions, maps: Sequence[SourceMap]) -> OutputSchema | None:
    if options.output_schema is None:
        return None
    # Its library takes a tenth of a second to import.
    from overnight.output_schema import OutputSchema  # noqa: PLC0415

    if not any(path.to_text is not None for part in maps for path in part.fields.values()):
        raise SpecError(
            "output_schema is for answers that the field map reads with .json(), and none of its paths does; write "
            "such as '$.response.body.choices[0].message.content.json().label'."
        )
    return OutputSchema.parse(options.output_schema)


def _peek(items: Iterator[ReadItem | Documents]) -> tuple[Sequence[JsonBytes] | None, Iterator[ReadItem | Documents]]:
    """Return the first document, in pieces of JSON, if it comes soon, and all the items again."""
    before: list[ReadItem | Documents] = []
    for item in items:
        before.append(item)
        if isinstance(item, Documents):
            return item.parts(0), chain(before, items)
        if len(before) >= _MAX_PEEKED:
            break
    return None, chain(before, items)
