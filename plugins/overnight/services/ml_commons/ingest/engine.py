"""Who carries a batch ingestion out: the cluster, where it gives the right documents, else our own load."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from overnight.errors import SpecError, UnsupportedError
from overnight.services.ml_commons.answers import ask
from overnight.services.ml_commons.causes import NO_HANDLER
from overnight.services.ml_commons.connection import ML
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall
from overnight.transport.opensearch import ServerVersion

Engine = Literal["auto", "server", "client"]
"""Where a batch ingestion is carried out: in the cluster, or by our own load on the Airflow worker."""

ENDPOINT: Final = f"{ML}/_batch_ingestion"
SINCE: Final = (2, 17)
SWAPPED_SINCE: Final = (2, 19)
UNTIL: Final = (3, 0)

_S3_OBJECT: Final = re.compile(r"s3://[a-zA-Z0-9.-]+/[^*?\[\]]*[^*?\[\]/]")
_UNCUT: Final = re.compile(r"source\[\d+\][^$]*\$(?!\.)")


@dataclass(frozen=True)
class Choice:
    """The engine that carries out a request, and why."""

    engine: Literal["server", "client"]
    why: str


def choose_engine(
    wanted: Engine,
    version: ServerVersion,
    source_type: str | None,
    sources: Sequence[str | Sequence[str]],
    *,
    paths: Iterable[str] = (),
    endpoint: bool = True,
) -> Choice:
    """
    Decide where a request is carried out.

    :param wanted: ``auto`` takes the server wherever it gives the right documents.
    :param source_type: The request's ``data_source.type``.
    :param paths: Every path of the field map.
    :param endpoint: Whether the server was seen to have the endpoint.
    :raises SpecError: ``server`` was wanted, and cannot do it; the text names the remedy.
    """
    hindrance = _hindrance(version, endpoint) or _unfit(version, source_type, sources) or _unread(paths)
    if wanted == "client":
        return Choice("client", "engine='client' was asked for")
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
        if len(sources) > 1 and version.release >= SWAPPED_SINCE:
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
