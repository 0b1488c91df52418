"""Answers between a batch and the cache: their keys, how they are kept, and the result lines that they become again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

import msgspec
import orjson

from overnight.cache.digests import compute_digests
from overnight.errors import SpecError, shorten
from overnight.jobs import ResultManifest
from overnight.services.openai.choices import CacheMode
from overnight.services.openai.incomplete import explain_answer
from overnight.services.openai.input import ReusedPart
from overnight.services.openai.result_line import Outcome, Result, read_result
from overnight.services.openai.results import Chunks, read_result_lines
from overnight.services.openai.scan import id_digest
from overnight.services.openai.template import RequestTemplate
from overnight.storage import Storage

if TYPE_CHECKING:
    from overnight.cache.answers import AnswerCache
    from overnight.cache.places import Place


def parse_cache_mode(mode: str | None, cache_uri: str | None) -> CacheMode:
    """
    Return what a run does with its cache.

    :param mode: ``None`` for ``write`` where there is a cache, and ``off`` where there is none.
    :raises SpecError: there is no such word, or it needs a cache and there is none.
    """
    # What a template made of a value that is not set.
    if mode in (None, "", "None"):
        return "write" if cache_uri else "off"
    words = get_args(CacheMode)
    if mode not in words:
        raise SpecError(f"cache={shorten(repr(mode), 200)} is none of {', '.join(words)}.")
    if mode != "off" and not cache_uri:
        raise SpecError(f"cache={mode} needs a cache: name its folder with cache_uri.")
    return cast("CacheMode", mode)


class CachedService(NamedTuple):
    """
    A cache, and whose answers are looked up in it.

    :param base_url: Of the server: a model of the same name on another server is another model.
    """

    cache: AnswerCache
    base_url: str

    def compute_key(self, endpoint: str, body: dict[str, Any]) -> bytes:
        """Return the key of a request's answer: a digest of all that decides it, the id not."""
        return self.compute_keys(endpoint, (body,))

    def compute_keys(self, endpoint: str, bodies: Iterable[dict[str, Any]]) -> bytes:
        """Return the same of several requests, one behind the other."""
        common = b"\0".join((b"openai", self.base_url.encode(), endpoint.encode(), b""))
        # Of the same values with the names in another order the answers are the same.
        return compute_digests(common + orjson.dumps(body, option=orjson.OPT_SORT_KEYS) for body in bodies)


class _Answered(msgspec.Struct):
    response: msgspec.Raw


class _Repetition(msgspec.Struct):
    """A line about a document whose request was not sent again: its id, and the digest of the id that was sent."""

    custom_id: str
    first: str


_decode_repetition = msgspec.json.Decoder(_Repetition).decode
_decode_answered = msgspec.json.Decoder(_Answered).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def encode_repetition(custom_id: str, first: bytes) -> bytes:
    """
    Return a line about a document whose request was not sent again.

    :param first: Digest of the id of the document whose request was.
    """
    return msgspec.json.encode(_Repetition(custom_id, first.hex())) + b"\n"


def keep_answers(
    manifest: ResultManifest,
    chunks: Chunks,
    service: CachedService,
    *,
    requests_uri: str,
    endpoint: str,
    storage: Storage,
    replace: bool = False,
    examine: Callable[[Result], Result] | None = None,
) -> int:
    """
    Add the answers of a batch to the cache: those that succeeded and are complete.

    Memory grows by some 200 bytes for each request of the batch.

    :param requests_uri: The batch's input.
    :param replace: Add those that are there already, too.
    :param examine: Returns each result as it counts: as it is, or as a failed one.
    :return: How many were added.
    :raises ServiceError: a result file cannot be read.
    """
    keys: dict[bytes, bytes] = {}
    with storage.open(requests_uri) as file:
        for line in file:
            if line.strip():
                request = orjson.loads(line)
                keys[id_digest(str(request["custom_id"]))] = service.compute_key(endpoint, request["body"])
    there = set() if replace else set(service.cache.find(set(keys.values())))
    added = 0
    with service.cache.open_writer() as writer:
        for line in read_result_lines(chunks, manifest.uris("output")):
            result = read_result(line, "output", 0)
            outcome, usable = examine(result) if examine is not None else result
            if outcome.outcome != Outcome.SUCCEEDED or outcome.custom_id is None:
                continue
            key = keys.get(id_digest(outcome.custom_id))
            if key is None or key in there or explain_answer(usable) is not None:
                continue
            writer.add(key, bytes(_decode_answered(usable).response))
            there.add(key)
            added += 1
    return added


def read_reused(part: ReusedPart, template: RequestTemplate, cache: AnswerCache, storage: Storage) -> Iterator[bytes]:
    """
    Yield the results of a reused part as lines of a batch's output, in the order in which they lie in the cache.

    Memory grows by some 300 bytes for each document of the part. The same part gives the same lines.

    :raises DamagedCacheError: an answer is not there any more.
    """
    from overnight.cache.places import decode_place  # noqa: PLC0415 - an extra

    found: dict[bytes, Place] = {}
    ids: dict[bytes, list[bytes]] = {}
    with storage.open(part.uri) as places, storage.open(part.documents_uri) as documents:
        for line, document in zip(places, documents, strict=True):
            key, place = decode_place(line)
            found.setdefault(key, place)
            ids.setdefault(key, []).append(msgspec.json.encode(template.custom_id(orjson.loads(document))))
    for key, answer in cache.read((place, key) for key, place in found.items()):
        for custom_id in ids[key]:
            yield b'{"custom_id":%b,"response":%b}\n' % (custom_id, answer)


def renew_reused(part: ReusedPart, cache: AnswerCache, storage: Storage, older_than: timedelta) -> int:
    """
    Write the answers of a reused part again that would expire soon; see :func:`overnight.cache.renewal.renew`.

    :param older_than: The age at which answers expire.
    :return: How many were written again.
    :raises DamagedCacheError: an answer is not there any more.
    """
    from overnight.cache.places import decode_place  # noqa: PLC0415 - an extra
    from overnight.cache.renewal import renew  # noqa: PLC0415 - an extra

    with storage.open(part.uri) as places:
        return renew(cache, dict(map(decode_place, places)), older_than)


def read_repeated(repeated_uri: str, lines: Iterable[bytes], storage: Storage) -> Iterator[bytes]:
    """
    Yield the result lines of documents whose request was not sent again: those of the requests that were.

    :param repeated_uri: Which documents these are.
    :param lines: The batch's result lines.
    """
    repeated: dict[bytes, list[str]] = {}
    with storage.open(repeated_uri) as file:
        for line in file:
            one = _decode_repetition(line)
            repeated.setdefault(bytes.fromhex(one.first), []).append(one.custom_id)
    for line in lines:
        members = _read_members(line)
        custom_id = members.get("custom_id") if members is not None else None
        if members is None or custom_id is None:
            continue
        for other in repeated.get(id_digest(str(msgspec.json.decode(custom_id))), ()):
            members["custom_id"] = msgspec.Raw(msgspec.json.encode(other))
            yield msgspec.json.encode(members) + b"\n"


def _read_members(line: bytes) -> dict[str, msgspec.Raw] | None:
    try:
        return _decode_members(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
