"""Who carries a batch ingestion out: the cluster, where it gives the right documents, else our own load."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from overnight.errors import ServiceError, SpecError, UnsupportedError
from overnight.services.ml_commons.answers import ask
from overnight.services.ml_commons.causes import NO_HANDLER
from overnight.services.ml_commons.connection import ML
from overnight.services.ml_commons.ingest.choices import Engine
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall
from overnight.transport.opensearch import ServerVersion

log = logging.getLogger(__name__)

ENDPOINT: Final = f"{ML}/_batch_ingestion"
SINCE: Final = (2, 17)
CONNECTORS_SINCE: Final = (2, 19)
SWAPPED_SINCE: Final = (2, 19)
UNTIL: Final = (3, 0)

ASSUMED_LIMIT: Final = 100_000_000
"""Bytes of indexing pressure that a node takes where it may not be asked: a tenth of the smallest heap in use, 1 GB."""
_SHARE: Final = 0.5
"""Of that limit that an ingestion may fill. 78 MB went through a node with 107 MB in bodies of 500 lines, and failed in
bodies of 5,000 (2.19.6)."""

_S3_OBJECT: Final = re.compile(r"s3://[a-zA-Z0-9.-]+/[^*?\[\]]*[^*?\[\]/]")
_UNCUT: Final = re.compile(r"source\[\d+\][^$]*\$(?!\.)")


@dataclass(frozen=True)
class Choice:
    """The engine that carries out a request, and why."""

    engine: Literal["server", "client"]
    why: str


@dataclass(frozen=True)
class SourceFile:
    """
    What can be seen of a file before the server reads it.

    :param uri: As it may be shown.
    :param encoding: ``gzip``, ``Parquet`` …; ``None`` where its bytes are its lines.
    :param has_mark: Whether it starts with a byte order mark.
    :param size: Bytes; ``None`` where the store does not say.
    """

    uri: str
    encoding: str | None = None
    has_mark: bool = False
    size: int | None = None


def choose_engine(
    wanted: Engine,
    version: ServerVersion,
    source_type: str | None,
    sources: Sequence[str | Sequence[str]],
    *,
    paths: Iterable[str] = (),
    endpoint: bool = True,
    has_connector: bool = False,
    has_routing: bool = False,
    look: Callable[[], Sequence[SourceFile]] = tuple,
    limit: Callable[[], int] = lambda: ASSUMED_LIMIT,
) -> Choice:
    """
    Decide where a request is carried out.

    :param wanted: ``auto`` takes the server wherever it gives the right documents.
    :param source_type: The request's ``data_source.type``.
    :param paths: Every path of the field map.
    :param endpoint: Whether the server was seen to have the endpoint.
    :param has_connector: Whether the request has a ``connector_id``.
    :param has_routing: Whether the field map has ``_routing``.
    :param look: Looks at the files; called when nothing else speaks against the server.
    :param limit: Asks how many bytes of documents a node takes at a time; called then, too.
    :raises SpecError: ``server`` was wanted, and cannot do it; the text names the remedy.
    """
    if wanted == "client":
        return Choice("client", "engine='client' was asked for")
    hindrance = (
        _hindrance(version, endpoint)
        or _unfit(version, source_type, sources)
        or _unread(paths)
        or _unknown(version, has_connector=has_connector, has_routing=has_routing)
        or _misread(look(), limit)
    )
    if hindrance is None:
        return Choice("server", f"{version} has batch ingestion, and this request is one it carries out rightly")
    if wanted == "server":
        raise SpecError(
            f"engine='server' cannot carry out this request: {hindrance}. Use engine='client' or 'auto': the same "
            "request then runs on the Airflow worker."
        )
    return Choice("client", hindrance)


def _hindrance(version: ServerVersion, endpoint: bool) -> str | None:
    if version.distribution == "serverless":
        return "OpenSearch Serverless has no ML Commons batch ingestion"
    if version.distribution != "opensearch" or version.release < SINCE:
        return f"{version} has no batch ingestion; it came with OpenSearch 2.17"
    if version.release >= UNTIL:
        return f"{version} has no batch ingestion any more; OpenSearch 3.0 removed it"
    if not endpoint:
        return f"this {version} does not have the endpoint {ENDPOINT}, so ML Commons is not installed"
    return None


def _unfit(version: ServerVersion, source_type: str | None, sources: Sequence[str | Sequence[str]]) -> str | None:
    if source_type not in ("s3", "openAI"):
        return f"batch ingestion reads S3 and OpenAI files, not {source_type or 'sources of mixed kinds'}"
    if not all(isinstance(uri, str) for uri in sources):
        return "batch ingestion reads one file for each source, not lists of files"
    if source_type == "s3":
        if not all(_S3_OBJECT.fullmatch(str(uri)) for uri in sources):
            return "batch ingestion reads single S3 objects; it knows neither globs nor prefixes"
        if len(sources) > 1:
            # Read in the code of 2.17 and 2.18, seen on 2.19.6.
            return (
                f"batch ingestion of several S3 sources is broken in {version}: it fails with 'Connection pool shut "
                "down' after the first of them was indexed"
            )
    return None


def _unread(paths: Iterable[str]) -> str | None:
    unread = [path for path in paths if _UNCUT.search(path)]
    if unread:
        return f"batch ingestion reads 'source[N].' only where '$.' follows, and fails for {unread[0]!r}"
    return None


def _unknown(version: ServerVersion, *, has_connector: bool, has_routing: bool) -> str | None:
    if has_connector and version.release < CONNECTORS_SINCE:
        return f"batch ingestion of {version} knows no connector_id"
    if has_routing:
        return "batch ingestion sends '_routing' as a field of the document, which OpenSearch rejects"
    return None


def _misread(files: Sequence[SourceFile], limit: Callable[[], int]) -> str | None:
    for file in files:
        if file.encoding is not None:
            return f"batch ingestion reads plain JSON Lines, and {file.uri} is {file.encoding}"
        if file.has_mark:
            return f"batch ingestion fails at the first line of {file.uri}, which starts with a byte order mark"
    size = sum(file.size or 0 for file in files)
    if not size:
        return None
    most = int(limit() * _SHARE)
    if size <= most:
        return None
    return (
        f"batch ingestion sends everything at once and nothing again: {size:,} bytes may be more than a node takes "
        f"at a time (indexing pressure; up to {most:,} are left to it), and the ingestion would end half done"
    )


def find_limit() -> Flow[int]:
    """Ask how many bytes of documents the smallest node takes at a time; assume it where that may not be asked."""
    try:
        answer = yield HttpCall(
            "GET",
            "_nodes/stats/indexing_pressure",
            params={"filter_path": "nodes.*.indexing_pressure.memory.limit_in_bytes"},
        )
    except ServiceError as error:
        log.info("What the nodes take at a time cannot be seen: %s", error)
        return ASSUMED_LIMIT
    found: list[int] = []
    nodes = answer.get("nodes") if isinstance(answer, dict) else None
    for node in nodes.values() if isinstance(nodes, dict) else ():
        try:
            found.append(int(node["indexing_pressure"]["memory"]["limit_in_bytes"]))
        except (KeyError, TypeError, ValueError):
            continue
    return min(found, default=ASSUMED_LIMIT)


def has_endpoint() -> Flow[bool]:
    """
    Ask whether the server has batch ingestion, starting nothing.

    A path that is there for POST alone refuses a GET with 405; one that is not there at all has no handler.
    """
    try:
        yield from ask(HttpCall("GET", ENDPOINT))
    except UnsupportedError as error:
        return error.code != NO_HANDLER
    return True
