"""Sources of a load whose lines are in no file: answers in a cache, and those of requests that were sent once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict

from overnight.cache import open_cache, parse_cache_age
from overnight.costs.usage_cost import AnswerUsage
from overnight.ingest.read.lines import skip
from overnight.ingest.read.openers import OpenTransport
from overnight.ingest.read.sources import Look, Opener
from overnight.services.openai.answer_usage import UsageMeter
from overnight.services.openai.cached_answers import read_repeated, read_reused, renew_reused
from overnight.services.openai.input import ReusedPart
from overnight.services.openai.result_cache import warn_instead
from overnight.services.openai.results import chunks_from, read_result_lines
from overnight.services.openai.template import RequestTemplate
from overnight.storage import Storage

log = logging.getLogger(__name__)

_REUSED: Final = "reused"
_REPEATED: Final = "repeated"
_CHUNK_BYTES: Final = 1 << 20


class ReusedSource(BaseModel):
    """
    The answers of a part that was not sent, from the cache.

    :param template: The one that the part was made with.
    :param cache_older_than: The age at which a clean lets answers of the cache expire (``"365d"``): those that are
        older than half of it are written again once they were read. ``None`` leaves the cache as it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reused: ReusedPart
    template: RequestTemplate
    cache_uri: str
    cache_older_than: Annotated[timedelta | None, BeforeValidator(parse_cache_age)] = None

    @property
    def uri(self) -> str:
        """What stands for them among the sources of a request."""
        return f"{_REUSED}://{self.reused.uri}"


def build_repeated_uri(repeated_uri: str) -> str:
    """Return what stands for the answers of documents with a repeated request among the sources of a request."""
    return f"{_REPEATED}://{repeated_uri}"


class StoredAnswers:
    """
    Reads such sources, and counts what was used for the answers while they are read.

    :param reused: Parts whose answers are in a cache.
    :param repeated: By the file that says which documents have a repeated request, the files of the batch's results.
    :param connect: Opens a transport to the server that has these.
    :raises SpecError: pyarrow is not installed.
    """

    def __init__(
        self,
        reused: Iterable[ReusedSource],
        repeated: Mapping[str, Sequence[str]],
        *,
        storage: Storage,
        connect: OpenTransport,
    ) -> None:
        self._storage = storage
        self._connect = connect
        self._meter = UsageMeter()
        self._reused = {one.reused.uri: one for one in reused}
        self._repeated = repeated
        self._caches = {one.cache_uri: open_cache(one.cache_uri, storage) for one in self._reused.values()}

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
        source = self._reused[_get_path(uri)]
        cache = self._caches[source.cache_uri]
        lines = read_reused(source.reused, source.template, cache, self._storage)
        yield from skip(_join(self._meter.measure(uri, lines)), start)
        if source.cache_older_than is not None:
            with warn_instead("Answers of the cache that will expire were not written again, though they are used."):
                renewed = renew_reused(source.reused, cache, self._storage, source.cache_older_than)
                log.info("Answers of the cache that would expire and were written again: %d.", renewed)

    def _open_repeated(self, uri: str, start: int) -> Iterator[bytes]:
        path = _get_path(uri)
        with self._connect() as transport:
            results = read_result_lines(chunks_from(transport, self._storage), self._repeated[path])
            lines = read_repeated(path, results, self._storage)
            yield from skip(_join(self._meter.measure(uri, lines)), start)

    def _look(self, uri: str) -> tuple[None, str]:
        """Return what changes when the file does that says which answers these are."""
        files = self._storage.list_files(_get_path(uri)).files
        return None, ",".join(f"{file.size}:{file.version}" for file in files if file.version)


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
