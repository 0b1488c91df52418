"""The cache of answers around a run's batches: what a run does with it, and what its batches add."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self, cast

from overnight.cache import open_cache
from overnight.errors import OvernightError, shorten
from overnight.jobs import ResultFile, ResultManifest
from overnight.jobs.client import JobClient
from overnight.services.openai.cached_answers import CachedService, keep_answers, parse_cache_mode
from overnight.services.openai.choices import CacheMode
from overnight.services.openai.results import chunks_from
from overnight.services.openai.rounds import Round

if TYPE_CHECKING:
    from overnight.jobs import JobRef
    from overnight.services.openai.result_line import Result
    from overnight.services.openai.service import OpenAIBatchService
    from overnight.storage import Storage
    from overnight.transport.http import HttpTransport

log = logging.getLogger(__name__)


class ResultCache(NamedTuple):
    """A cache, and what a run does with it."""

    mode: CacheMode = "off"
    uri: str = ""

    @classmethod
    def parse(cls, mode: str | None, cache_uri: str | None) -> Self:
        """
        Read an operator's ``cache`` and ``cache_uri``.

        :raises SpecError: there is no such mode, or it needs a ``cache_uri``.
        """
        uri = cache_uri if cache_uri not in (None, "None") else ""
        return cls(parse_cache_mode(mode, uri), uri or "")

    @property
    def is_on(self) -> bool:
        """Whether a run has to do with it at all."""
        return self.mode != "off"

    @property
    def adds(self) -> bool:
        """Whether answers are added."""
        return self.mode in ("write", "refresh")

    def open(self, client: JobClient[OpenAIBatchService], storage: Storage) -> CachedService:
        """
        Return the cache for the server of a client, which is not asked.

        :raises SpecError: pyarrow is not installed.
        """
        return CachedService(open_cache(self.uri, storage), cast("HttpTransport", client.transport).base_url)


def keep_rounds(
    client: JobClient[OpenAIBatchService],
    cache: ResultCache,
    ref: JobRef,
    results: ResultManifest | None,
    *,
    input_uri: str,
    former_rounds: int,
    endpoint: str,
    storage: Storage,
    examine: Callable[[Result], Result] | None = None,
) -> int:
    """
    Add the usable answers of a batch that is over to the cache.

    :param ref: The batch, of several rounds the first or the last.
    :param results: Of the last round, or of all; ``None`` where it has none.
    :param input_uri: The input of the first round.
    :param former_rounds: How many rounds were before the last.
    :param examine: Returns each result as it counts: as it is, or as a failed one.
    :return: How many were added.
    """
    files = list(results.uris("output")) if results is not None else []
    # The last round may have ended without saying anything of the others.
    files += [uri for number in range(former_rounds) if (uri := Round(input_uri, number).succeeded_uri) not in files]
    if not files:
        return 0
    service = cache.open(client, storage)
    added = keep_answers(
        ResultManifest(ref=ref, files=tuple(ResultFile(kind="output", uri=uri) for uri in files)),
        chunks_from(cast("HttpTransport", client.transport), storage),
        service,
        requests_uri=input_uri,
        endpoint=endpoint,
        storage=storage,
        replace=cache.mode == "refresh",
        examine=examine,
    )
    log.info("Answers of %s that were added to the cache: %d.", ref, added)
    with warn_instead("The small files of the cache were not merged, so that looking up takes longer."):
        merged = service.cache.merge()
        if merged:
            log.info("Small files of the cache that were merged: %d.", merged)
    return added


def describe_lost(ref: JobRef) -> str:
    """Say what it means when a batch's answers could not be added."""
    return f"The answers of {ref} were not added to the cache; those that are not there will be paid for again."


@contextmanager
def warn_instead(what: str, warn: Callable[[str], None] = log.warning) -> Iterator[None]:
    """
    Make a warning of whatever goes wrong: the batch is paid for, and its results are there.

    :param what: What it means, in a sentence.
    :param warn: Is given the warning.
    """
    try:
        yield
    except Exception as error:
        text = str(error) if isinstance(error, OvernightError) else f"{type(error).__name__}: {error}"
        warn(f"{what} {shorten(text)}")
