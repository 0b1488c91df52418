"""The load: a request, the files it names, an index, and a report that adds up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from overnight.errors import NotFoundError, SpecError
from overnight.ingest.map.documents import Cursor, ReadItem, SingleSource
from overnight.ingest.map.field_map import SourceMap, compile_field_map
from overnight.ingest.map.join import JoinedSources
from overnight.ingest.map.row_index import RowIndex
from overnight.ingest.map.rows import RowReader, Splicer
from overnight.ingest.read.openers import look_at_http, openai_opener, web_openers, with_s3
from overnight.ingest.read.sources import Opener, Source, SourceReader
from overnight.ingest.report.dead_letters import DeadLetterFile
from overnight.ingest.report.load_report import LoadReport, Progress
from overnight.ingest.request import IngestRequest, LoadOptions
from overnight.ingest.write.bulk import BulkSender, Throttle
from overnight.ingest.write.checkpoint import Checkpoint, CheckpointFile, SourceTally, Tally
from overnight.ingest.write.delivery import Delivery
from overnight.ingest.write.index import (
    IndexInfo,
    changed_settings,
    count_documents,
    create_index,
    inspect_index,
    read_settings,
    refresh,
)
from overnight.ingest.write.target import OpenSearchTarget
from overnight.jobs import compute_fingerprint
from overnight.storage import Storage, get_scheme

log = logging.getLogger(__name__)


def load(
    request: IngestRequest | Mapping[str, Any] | str,
    *,
    target: OpenSearchTarget,
    storage: Storage | None = None,
    openers: Mapping[str, Opener] | None = None,
    options: LoadOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> LoadReport:
    """
    Carry out a batch ingestion request here, on any OpenSearch, and report on every document.

    Starting the same load again is harmless: every document has an ``_id`` that is its own. With
    ``options.checkpoint_uri`` a load that was killed goes on where it stopped.

    :param request: What ``POST _plugins/_ml/_batch_ingestion`` takes, decoded or as text.
    :param target: The OpenSearch.
    :param storage: With the credentials for S3; by default the request's own, or the usual environment variables.
    :param openers: By URI scheme, for sources that are no file system. ``openai`` is there when the request has a key.
    :param options: How.
    :param on_progress: Called every ``options.progress_seconds``, in this thread.
    :return: The report. Whether its numbers are good enough is the caller's to say (:meth:`LoadReport.excess`).
    :raises SpecError: the request is refused, and nothing was written: no such index, no such file, a field map
        that does not fit, vectors of another dimension, nothing to load.
    :raises SourceError: a source is damaged.
    :raises ServiceError: OpenSearch or a source's server refuses, or stays away. A later load goes on from the
        checkpoint.
    """
    wanted = IngestRequest.of(request)
    return _Load(
        wanted,
        target,
        _reader(wanted, storage or Storage(), openers or {}, options or LoadOptions()),
        options or LoadOptions(),
        on_progress,
    ).run()


def _reader(
    request: IngestRequest, storage: Storage, openers: Mapping[str, Opener], options: LoadOptions
) -> SourceReader:
    if request.s3_credential and "s3" not in storage.connectors:
        storage = with_s3(storage, request.s3_credential)
    known = web_openers(storage)
    if request.openai_key:
        known["openai"] = openai_opener(request.openai_key)
    looks = {scheme: look_at_http for scheme in ("http", "https") if scheme not in openers}
    return SourceReader(storage, {**known, **openers}, looks, options.max_line_bytes)


class _Load:
    """One load, step by step."""

    def __init__(
        self,
        request: IngestRequest,
        target: OpenSearchTarget,
        reader: SourceReader,
        options: LoadOptions,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._request = request
        self._target = target
        self._reader = reader
        self._options = options
        self._on_progress = on_progress
        uris = request.data_source.uris
        self._maps = compile_field_map(request.field_map, request.ingest_fields, len(uris))
        self._has_ids = any(source_map.id is not None for source_map in self._maps)
        if len(uris) > 1 and options.duplicates != "reject":
            raise SpecError("A join writes each id once, so duplicates must be 'reject'.")
        if "openai" not in reader.openers and any(_is_openai(part) for part in uris):
            raise SpecError("No OpenAI key: put it into credential.openAI_key, or give an opener for 'openai' sources.")
        self._sources = [reader.resolve(number, part) for number, part in enumerate(uris)]

    def run(self) -> LoadReport:
        options, request = self._options, self._request
        index = self._find_index()
        checkpoints = CheckpointFile(options.checkpoint_uri, self._reader.storage)
        checkpoint = checkpoints.load(self._fingerprint(index))
        is_resumed = checkpoint is not None and checkpoint.cursor is not None
        if checkpoint is None:
            checkpoint = self._first_checkpoint(index)
            checkpoints.save(checkpoint)
        else:
            log.info("Going on at %s, with %d documents done.", checkpoint.cursor, checkpoint.tally.submitted)
        stop, throttle = threading.Event(), Throttle(options.max_in_flight)
        with ExitStack() as stack:
            letters = DeadLetterFile(options.dead_letter_uri, self._reader.storage, keep=checkpoint.dead_letter_bytes)
            stack.callback(letters.close)
            stack.enter_context(changed_settings(self._target, index.name, options.load_settings, checkpoint.settings))
            splicer = Splicer(self._maps)
            delivery = Delivery(
                BulkSender(
                    self._target,
                    request.index_name,
                    throttle=throttle,
                    patience=options.retry_seconds,
                    stop=stop,
                    require_alias=index.is_alias,
                ),
                throttle,
                stop,
                options,
                checkpoint=checkpoint,
                checkpoint_file=checkpoints,
                letters=letters,
                splicer=splicer,
                dimensions=index.dimensions,
                ordered=self._has_ids and options.duplicates == "overwrite",
                total_bytes=self._total_bytes(),
                on_progress=self._on_progress,
            )
            delivery.run(self._read_items(stack, splicer, checkpoint.cursor))
        if options.refresh:
            refresh(self._target, request.index_name)
        if not checkpoint.tally.submitted and not options.allow_empty:
            checkpoints.delete()
            raise SpecError(
                f"There is nothing to load: {', '.join(source.uri for source in self._sources)} has no line. "
                "If that can be, allow it (allow_empty)."
            )
        report = checkpoint.tally.report(request.index_name, options.dead_letter_uri, resumed=is_resumed)
        checkpoints.delete()
        return report

    def _find_index(self) -> IndexInfo:
        name, body = self._request.index_name, self._options.create_index
        try:
            return inspect_index(self._target, name)
        except SpecError as error:
            if body is None or not isinstance(error.__cause__, NotFoundError):
                raise
        create_index(self._target, name, body)
        log.info("Created the index %s.", name)
        return inspect_index(self._target, name)

    def _first_checkpoint(self, index: IndexInfo) -> Checkpoint:
        write = self._options.write
        if write == "auto":
            write = "update" if self._has_ids and count_documents(self._target, index.name) else "index"
        settings = self._options.load_settings
        return Checkpoint(
            self._fingerprint(index),
            Tally([SourceTally(source.uri) for source in self._sources]),
            write,
            settings=read_settings(self._target, index.name, list(settings)) if settings else None,
        )

    def _read_items(self, stack: ExitStack, splicer: Splicer, start: Cursor | None) -> Iterator[ReadItem]:
        rows = [self._rows(source, source_map) for source, source_map in zip(self._sources, self._maps, strict=True)]
        if len(self._sources) == 1:
            notes_ids = self._has_ids and self._options.duplicates == "reject"
            ids = stack.enter_context(RowIndex((), self._options.spool_dir)) if notes_ids else None
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
            is_openai=_is_openai(self._request.data_source.uris[source.index]),
            omit_missing=self._options.missing_path == "omit",
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
                "files": [[[file.name, file.identity] for file in source.files] for source in self._sources],
                "target": [self._target.url, index.uuid],
                "options": options.model_dump(
                    mode="json",
                    include={"unmatched", "missing_path", "duplicates", "write", "max_line_bytes", "dead_letter_uri"},
                ),
            }
        )


def _is_openai(uris: Sequence[str]) -> bool:
    return any(get_scheme(uri) == "openai" for uri in uris)
