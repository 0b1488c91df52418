"""What the sources of a load stand for in DAG code: a job's files, and answers that are read from a cache."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import BaseModel, ConfigDict

from overnight.errors import SpecError, shorten
from overnight.validation import parse_parameter

if TYPE_CHECKING:
    from overnight.ingest.read.sources import Opener
    from overnight.ingest.read.stored_answers import ReusedSource, StoredAnswers
    from overnight.jobs import ResultManifest
    from overnight.storage import Storage
    from overnight.transport.http import HttpTransport

log = logging.getLogger(__name__)

_SOON: Final = 3_600.0
"""Seconds before the results expire from which on a load warns."""


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
    return _count_results(source.job, source.repeated)


def to_uris(item: Any) -> Any:
    """
    Return the URIs of a source of a request in DAG code.

    :param item: A URI, or a list of them (a ``None`` among them is no URI); the XCom of a job's task; or the fields of
        a :class:`ReusedSource` or a :class:`RepeatedSource`.
    :raises SpecError: it is something else, or a job without results, or one whose results have expired.
    """
    from overnight.ingest.read.stored_answers import build_repeated_uri  # noqa: PLC0415 - not at parse

    if _is_reused(item):
        return [_parse_reused(item).uri]
    if _is_repeated(item):
        source = _parse_repeated(item)
        own = [build_repeated_uri(source.repeated_uri)] if source.repeated_uri else []
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
    from overnight.ingest.read.openers import transport_opener  # noqa: PLC0415 - not at parse

    return transport_opener(partial(_open_transport, conn_id))


def open_stored_answers(items: Iterable[object], storage: Storage, conn_id: str | None) -> StoredAnswers:
    """
    Return what reads the sources of a load whose lines are in no file.

    :param items: The sources of the request.
    :param conn_id: The OpenAI connection of a job's files.
    :raises SpecError: one does not fit, or pyarrow is not installed.
    """
    from overnight.ingest.read.stored_answers import StoredAnswers  # noqa: PLC0415 - not at parse

    given = list(items)
    repeated = [_parse_repeated(item) for item in given if _is_repeated(item)]
    return StoredAnswers(
        [_parse_reused(item) for item in given if _is_reused(item)],
        {one.repeated_uri: to_uris(one.job) for one in repeated if one.repeated_uri is not None},
        storage=storage,
        connect=partial(_open_transport, conn_id),
    )


@contextmanager
def _open_transport(conn_id: str | None) -> Iterator[HttpTransport]:
    from overnight.hooks.openai import OpenAIHook  # noqa: PLC0415 - not at parse

    with OpenAIHook(conn_id).client() as client:
        yield cast("HttpTransport", client.transport)


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


def _is_reused(item: object) -> bool:
    return isinstance(item, Mapping) and "reused" in item


def _is_repeated(item: object) -> bool:
    return isinstance(item, Mapping) and "job" in item


def _parse_reused(item: object) -> ReusedSource:
    from overnight.ingest.read.stored_answers import ReusedSource  # noqa: PLC0415 - not at parse

    return parse_parameter(ReusedSource, item, "a source with reused answers")


def _parse_repeated(item: object) -> RepeatedSource:
    return parse_parameter(RepeatedSource, item, "a source with repeated answers")


def _get_ref(item: object) -> Mapping[str, Any]:
    """Return the reference in a job's XCom; nothing for a source that is none."""
    if _is_repeated(item):
        return _get_ref(cast("Mapping[str, Any]", item)["job"])
    ref = item.get("ref") if isinstance(item, Mapping) else None
    return ref if isinstance(ref, Mapping) else {}


def _count_results(source: object, repeated: int = 0) -> int | None:
    """Return how many results a job counts in its files at OpenAI; ``None`` for all other sources."""
    from overnight.services.openai.results import count_loadable  # noqa: PLC0415 - not at parse

    results = source.get("results") if isinstance(source, Mapping) else None
    if not isinstance(results, Mapping):
        return None
    return count_loadable(_read_manifest(results)[0], repeated)


def _read_manifest(results: Mapping[str, Any]) -> tuple[ResultManifest, list[str]]:
    """Return what a job's XCom says of its files, and those with a line for each item."""
    from overnight.jobs import ResultManifest  # noqa: PLC0415 - not at parse
    from overnight.services.openai.results import list_item_files  # noqa: PLC0415 - not at parse

    manifest = parse_parameter(ResultManifest, results, "the results of a source")
    return manifest, list_item_files(manifest)
