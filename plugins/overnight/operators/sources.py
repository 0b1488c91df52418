"""What the sources of a load stand for in DAG code: a job's files, and answers that are read from a cache."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import BaseModel, ConfigDict

from overnight.errors import SpecError, shorten
from overnight.services.openai.input import ReusedPart
from overnight.services.openai.template import RequestTemplate
from overnight.validation import parse_parameter

if TYPE_CHECKING:
    from overnight.costs.usage_cost import AnswerUsage
    from overnight.ingest.read.sources import Look, Opener
    from overnight.jobs import ResultManifest
    from overnight.storage import Storage
    from overnight.transport.http import HttpTransport

log = logging.getLogger(__name__)

_REUSED: Final = "reused"
_REPEATED: Final = "repeated"
_CHUNK_BYTES: Final = 1 << 20
_SOON: Final = 3_600.0
"""Seconds before the results expire from which on a load warns."""


class ReusedSource(BaseModel):
    """
    A source of a load: the answers of a part that was not sent, from the cache.

    :param reused: The part, from the XCom ``reused`` of
        :class:`~overnight.operators.openai.OpenAIBatchInputOperator`.
    :param template: The one that the part was made with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reused: ReusedPart
    template: RequestTemplate
    cache_uri: str


class RepeatedSource(BaseModel):
    """
    A source of a load: a job's results, and with them those of documents with the same request, which was sent once.

    :param job: The XCom of the job's task.
    :param repeated: How many documents these are, as the part of the job's input says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: dict[str, Any]
    repeated: int = 0
    repeated_uri: str | None = None


def find_conn_id(items: Iterable[object]) -> str | None:
    """Return the connection of the first OpenAI job among a request's sources."""
    from overnight.services.openai.service import OpenAIBatchService  # noqa: PLC0415 - not at parse

    refs = map(_get_ref, items)
    return next((ref.get("conn_id") for ref in refs if ref.get("service") == OpenAIBatchService.name), None)


def find_service(item: object) -> str | None:
    """Return the service whose results a source has, if their format is known."""
    from overnight.services.openai.service import OpenAIBatchService  # noqa: PLC0415 - not at parse
    from overnight.services.result_formats import load_result_formats  # noqa: PLC0415 - not at parse

    if _is_reused(item):
        return OpenAIBatchService.name
    service = _get_ref(item).get("service")
    return service if isinstance(service, str) and service in load_result_formats() else None


def count_items(item: object) -> int | None:
    """Return how many results a source must have; ``None`` where nothing says so."""
    if _is_reused(item):
        return _parse_reused(item).reused.documents
    if not _is_repeated(item):
        return _count_results(item)
    source = _parse_repeated(item)
    counted = _count_results(source.job)
    counts = _read_manifest(source.job["results"])[0].counts if counted is not None else None
    # Where a request has no result, nobody says how many documents have none for it.
    is_complete = counts is not None and counts.total == counted
    return counted + source.repeated if counted is not None and is_complete else counted


def to_uris(item: Any) -> Any:
    """
    Return the URIs of a source of a request in DAG code.

    :param item: A URI, or a list of them (a ``None`` among them is no URI); the XCom of a job's task; or the fields of
        a :class:`ReusedSource` or a :class:`RepeatedSource`.
    :raises SpecError: it is something else, or a job without results, or one whose results have expired.
    """
    if _is_reused(item):
        return [f"{_REUSED}://{_parse_reused(item).reused.uri}"]
    if _is_repeated(item):
        source = _parse_repeated(item)
        own = [f"{_REPEATED}://{source.repeated_uri}"] if source.repeated_uri else []
        return [*to_uris(source.job), *own]
    if isinstance(item, Mapping):
        results = item.get("results")
        if not isinstance(results, Mapping):
            raise SpecError(
                f"A source is neither a URI nor the XCom of a job that has ended: {shorten(repr(item), 200)}"
            )
        manifest, uris = _read_manifest(results)
        if not uris:
            raise SpecError(f"{manifest.ref} has no result files to load.")
        _require_kept(manifest, uris, item.get("status"))
        return uris
    if isinstance(item, Sequence) and not isinstance(item, str):
        return [uri for uri in item if uri is not None]
    return item


def openai_opener(conn_id: str | None) -> Opener:
    """Return the opener of ``openai://file-…`` through a connection."""
    from overnight.hooks.openai import OpenAIHook  # noqa: PLC0415 - not at parse
    from overnight.services.openai.service import content  # noqa: PLC0415 - not at parse

    def read(uri: str, start: int) -> Iterator[bytes]:
        with OpenAIHook(conn_id).client() as client:
            yield from content(cast("HttpTransport", client.transport), uri.removeprefix("openai://"), start)

    return read


class StoredAnswers:
    """
    Reads the sources of a load whose lines are in no file: answers in the cache, and those of repeated requests.

    What was used for them is counted while they are read.

    :param items: The sources of the request.
    :param conn_id: The OpenAI connection of a job's files.
    :raises SpecError: one does not fit, or pyarrow is not installed.
    """

    def __init__(self, items: Iterable[object], storage: Storage, conn_id: str | None) -> None:
        from overnight.cache import open_cache  # noqa: PLC0415 - not at parse
        from overnight.services.openai.answer_usage import UsageMeter  # noqa: PLC0415 - not at parse

        given = list(items)
        self._storage = storage
        self._conn_id = conn_id
        self._meter = UsageMeter()
        reused = [_parse_reused(item) for item in given if _is_reused(item)]
        repeated = [_parse_repeated(item) for item in given if _is_repeated(item)]
        self._reused = {one.reused.uri: one for one in reused}
        self._repeated = {one.repeated_uri: one for one in repeated if one.repeated_uri is not None}
        self._caches = {one.cache_uri: open_cache(one.cache_uri, storage) for one in reused}

    @property
    def openers(self) -> dict[str, Opener]:
        """What opens them, by scheme."""
        return {_REUSED: self._open_reused, _REPEATED: self._open_repeated}

    @property
    def looks(self) -> dict[str, Look]:
        """What tells whether they have changed, by scheme."""
        return dict.fromkeys(self.openers, self._look)

    @property
    def usage(self) -> list[AnswerUsage]:
        """What was used for the answers that were read to their end, by model."""
        return self._meter.read()

    def _open_reused(self, uri: str, start: int) -> Iterator[bytes]:
        from overnight.services.openai.cached_answers import read_reused  # noqa: PLC0415 - not at parse

        source = self._reused[_get_path(uri)]
        lines = read_reused(source.reused, source.template, self._caches[source.cache_uri], self._storage)
        from overnight.ingest.read.lines import skip  # noqa: PLC0415 - not at parse

        yield from skip(_join(self._meter.measure(uri, lines)), start)

    def _open_repeated(self, uri: str, start: int) -> Iterator[bytes]:
        from overnight.hooks.openai import OpenAIHook  # noqa: PLC0415 - not at parse
        from overnight.services.openai.cached_answers import read_repeated  # noqa: PLC0415 - not at parse
        from overnight.services.openai.results import chunks_from, read_result_lines  # noqa: PLC0415 - not at parse

        path = _get_path(uri)
        with OpenAIHook(self._conn_id).client() as client:
            chunks = chunks_from(cast("HttpTransport", client.transport), self._storage)
            results = read_result_lines(chunks, to_uris(self._repeated[path].job))
            lines = read_repeated(path, results, self._storage)
            from overnight.ingest.read.lines import skip  # noqa: PLC0415 - not at parse

            yield from skip(_join(self._meter.measure(uri, lines)), start)

    def _look(self, uri: str) -> tuple[None, str]:
        """Return what changes when the file does that says which answers these are."""
        files = self._storage.list_files(_get_path(uri)).files
        return None, ",".join(f"{file.size}:{file.version}" for file in files if file.version)


def _require_kept(manifest: ResultManifest, uris: Sequence[str], status: object) -> None:
    """
    Refuse results that the service has deleted by now, before anything is written.

    :param status: The job's, which may say until when it has them.
    :raises SpecError: that time is over.
    """
    from overnight.jobs import JobStatus  # noqa: PLC0415 - not at parse
    from overnight.storage import get_scheme  # noqa: PLC0415 - not at parse

    at_service = [uri for uri in uris if get_scheme(uri) == "openai"]
    if not at_service or not isinstance(status, Mapping):
        return
    expire_at = parse_parameter(JobStatus, status, "the status of a source").results_expire_at
    if expire_at is None:
        return
    seconds = (expire_at - datetime.now(UTC)).total_seconds()
    if seconds <= 0:
        raise SpecError(
            f"The service kept the results of {manifest.ref} until {expire_at:%Y-%m-%d %H:%M} UTC. Clear the job's "
            "task, too: it submits a new one, which is paid for again. file_hours (output_expires_after) may be longer."
        )
    if seconds < _SOON:
        log.warning(
            "The service deletes the results of %s in %d s; a load that is longer fails.", manifest.ref, seconds
        )


def _join(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines in chunks."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _CHUNK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def _get_path(uri: str) -> str:
    return uri.partition("://")[2]


def _is_reused(item: object) -> bool:
    return isinstance(item, Mapping) and "reused" in item


def _is_repeated(item: object) -> bool:
    return isinstance(item, Mapping) and "job" in item


def _parse_reused(item: object) -> ReusedSource:
    return parse_parameter(ReusedSource, item, "a source with reused answers")


def _parse_repeated(item: object) -> RepeatedSource:
    return parse_parameter(RepeatedSource, item, "a source with repeated answers")


def _get_ref(item: object) -> Mapping[str, Any]:
    """Return the reference in a job's XCom; nothing for a source that is none."""
    if _is_repeated(item):
        return _get_ref(cast("Mapping[str, Any]", item)["job"])
    ref = item.get("ref") if isinstance(item, Mapping) else None
    return ref if isinstance(ref, Mapping) else {}


def _count_results(source: object) -> int | None:
    """Return how many results a job counts in its files at OpenAI; ``None`` for all other sources."""
    from overnight.services.openai.results import count_loadable  # noqa: PLC0415 - not at parse

    results = source.get("results") if isinstance(source, Mapping) else None
    if not isinstance(results, Mapping):
        return None
    return count_loadable(_read_manifest(results)[0])


def _read_manifest(results: Mapping[str, Any]) -> tuple[ResultManifest, list[str]]:
    """Return what a job's XCom says of its files, and those with a line for each item."""
    from overnight.jobs import ResultManifest  # noqa: PLC0415 - not at parse
    from overnight.services.openai.results import list_item_files  # noqa: PLC0415 - not at parse

    manifest = parse_parameter(ResultManifest, results, "the results of a source")
    return manifest, list_item_files(manifest)
