"""What a batch input file may hold, and one streaming pass that finds out whether a file keeps to it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import IO, Any

import orjson

from overnight.errors import SpecError
from overnight.rejection import Rejection
from overnight.services.openai.endpoints import check_body, find_endpoint
from overnight.services.openai.limits import Limits
from overnight.storage import Storage

MAX_REJECTIONS = 20
"""How many rejections an error lists before it only counts them."""


class InputError(SpecError):
    """
    An input was refused before anything was uploaded.

    :param what: The file or stream that is wrong.
    :param rejections: The first of those of its lines that are wrong, in the file's order; one without a line is about
        the whole file.
    :param total: How many there are in all.
    """

    def __init__(self, what: str, rejections: list[Rejection], total: int | None = None) -> None:
        self.rejections = tuple(rejections)
        self.total = total if total is not None else len(rejections)
        lines = [f"{what} cannot be submitted. {self.total} problem{'s' if self.total > 1 else ''}:"]
        lines += [f"  {rejection}" for rejection in self.rejections]
        if self.total > len(self.rejections):
            lines.append(f"  … and {self.total - len(self.rejections)} more.")
        super().__init__("\n".join(lines))


@dataclass
class Rejections:
    """Collect rejections; keep the first few and count the rest."""

    keep: int = MAX_REJECTIONS
    kept: list[Rejection] = field(default_factory=list)
    total: int = 0

    def add(self, line: int | None, code: str, reason: str, uri: str | None = None) -> None:
        """Note one."""
        self.total += 1
        if len(self.kept) < self.keep:
            self.kept.append(Rejection(code, reason, line, uri))

    def raise_for(self, what: str) -> None:
        """Raise :class:`InputError` when there is any."""
        if self.total:
            raise InputError(what, self.kept, self.total)


@dataclass(frozen=True)
class InputScan:
    """
    What one pass over an input file measured.

    :param sha256: Of the whole file, 64 hex digits.
    :param model: The one model that all requests name, if any does.
    :param tokens: What all requests put into the model's queue, by :func:`estimate_tokens`.
    :param blank_lines: Lines without anything in them, which are no requests and are not sent.
    :param blank_bytes: What they take up.
    """

    requests: int
    bytes: int
    sha256: str
    embedding_inputs: int
    model: str | None
    tokens: int = 0
    blank_lines: int = 0
    blank_bytes: int = 0


def scan(
    uri: str,
    endpoint: str,
    *,
    storage: Storage | None = None,
    limits: Limits | None = None,
    max_rejections: int = MAX_REJECTIONS,
) -> InputScan:
    """
    Validate a batch input file in one pass, in memory that grows by some 100 bytes per line.

    Blank lines are skipped and counted.

    :param uri: A JSONL file of batch requests.
    :param endpoint: What every line's ``url`` must be.
    :param storage: Where the file is; the local disk and fsspec's defaults when ``None``.
    :param limits: What the service takes.
    :param max_rejections: How many of its lines an error lists.
    :raises InputError: something is wrong; it names each line.
    :raises OSError: the file cannot be read.
    """
    limits = limits or Limits()
    rejections = Rejections(max_rejections)
    checker = _Checker(endpoint, limits, rejections)
    digest = hashlib.sha256()
    size = blank_lines = blank_bytes = 0
    with (storage or Storage()).open(uri) as file:
        for number, line in enumerate(read_lines(file, limits.bytes), 1):
            digest.update(line)
            size += len(line)
            if not line.strip():
                blank_lines += 1
                blank_bytes += len(line)
                continue
            checker.check(number, line)
            if checker.requests > limits.requests or size - blank_bytes > limits.bytes:
                # A file this far over its limit is not worth reading to its end.
                break
    checker.finish(size - blank_bytes)
    rejections.raise_for(f"The batch input {uri}")
    return InputScan(
        requests=checker.requests,
        bytes=size,
        sha256=digest.hexdigest(),
        embedding_inputs=checker.embedding_inputs,
        model=checker.model,
        tokens=checker.tokens,
        blank_lines=blank_lines,
        blank_bytes=blank_bytes,
    )


def read_lines(file: IO[bytes], longest: int) -> Iterator[bytes]:
    """
    Yield lines with their ends, the last one perhaps without.

    :param longest: Bytes; a longer line is handed on cut there, and is the last one.
    """
    while line := file.readline(longest + 1):
        yield line
        if len(line) > longest:
            return


def id_digest(custom_id: str) -> bytes:
    """Return 16 bytes that stand for an id, so that a set of ids has a bounded size per id."""
    # Ids come from JSON, which can hold lone surrogates in other decoders than ours.
    return blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def id_digests(custom_ids: Iterable[str]) -> bytes:
    """Return the same of many ids, one behind the other."""
    return b"".join(
        [blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest() for custom_id in custom_ids]
    )


def count_embedding_inputs(body: Any) -> int:
    """Return how many texts an embeddings request holds: a string or a list of tokens is one, a list its length."""
    value = body.get("input") if isinstance(body, dict) else None
    if isinstance(value, list) and value and not isinstance(value[0], int):
        return len(value)
    return 0 if value is None else 1


def estimate_tokens(body: Mapping[str, Any]) -> int:
    """
    Estimate the tokens of a request's input: 4 characters of ASCII each, 2.5 bytes of anything else.

    Exact for an input of token numbers. OpenAI's rule of thumb is 4 characters of English a token; other alphabets
    take more tokens.
    """
    # A response has instructions beside its input.
    instructions = body.get("instructions")
    tokens = 0 if instructions is None else _estimate(instructions)
    for name in ("input", "messages", "prompt"):
        if body.get(name):
            return tokens + _estimate(body[name])
    return tokens


def estimate_texts(texts: Sequence[str]) -> list[int]:
    """Return the same estimate of many texts, none of which is empty."""
    if all(map(str.isascii, texts)):
        return [(size + 3) // 4 for size in map(len, texts)]
    return list(map(_estimate, texts))


def _estimate(value: Any) -> int:
    if isinstance(value, str):
        if value.isascii():
            return max(1, (len(value) + 3) // 4)
        plain = len(value.encode("ascii", "ignore"))
        size = len(value.encode("utf-8", "surrogatepass"))
        return max(1, math.ceil(plain / 4 + (size - plain) / 2.5))
    if isinstance(value, list):
        return sum(1 if isinstance(item, int) else _estimate(item) for item in value)
    if isinstance(value, dict):
        return sum(_estimate(item) for item in value.values())
    return 0


class _Checker:
    def __init__(self, endpoint: str, limits: Limits, rejections: Rejections) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self._rejections = rejections
        self._embeds = endpoint.endswith("/embeddings")
        known = find_endpoint(endpoint)
        self._has_default_model = known is not None and known.has_default_model
        self._seen: dict[bytes, int] = {}
        self._model_line = 0
        self.requests = 0
        self.embedding_inputs = 0
        self.model: str | None = None
        self.tokens = 0

    def check(self, number: int, line: bytes) -> None:
        self.requests += 1
        add = self._rejections.add
        try:
            request = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            hint = " (the file begins with a byte order mark)" if line.startswith(b"\xef\xbb\xbf") else ""
            add(number, "not_json", f"the line is not JSON{hint}: {error}.")
            return
        if not isinstance(request, dict):
            add(number, "not_an_object", "the line is JSON, but not an object.")
            return
        self._check_id(number, request.get("custom_id"))
        if request.get("method") != "POST":
            add(number, "method", f"method must be 'POST', not {_short(request.get('method'))}.")
        if request.get("url") != self._endpoint:
            add(
                number, "url", f"url must be the batch's endpoint {self._endpoint!r}, not {_short(request.get('url'))}."
            )
        body = request.get("body")
        if not isinstance(body, dict) or not body:
            add(number, "body", "body must be an object with the request in it.")
            return
        self._check_body(number, body)
        self.tokens += estimate_tokens(body)

    def finish(self, size: int) -> None:
        limits, add = self._limits, self._rejections.add
        if not self.requests:
            add(None, "empty", "the file has no request; it needs at least one.")
        if self.requests > limits.requests:
            add(None, "requests", f"it has more than the {limits.requests:,} requests that one batch takes; split it.")
        if size > limits.bytes:
            add(None, "bytes", f"it has more than the {limits.bytes:,} bytes that one batch takes; split it.")
        if self._embeds and self.embedding_inputs > limits.embedding_inputs:
            add(
                None,
                "embedding_inputs",
                f"it has more than the {limits.embedding_inputs:,} embedding inputs that one batch takes "
                f"({self.embedding_inputs:,}); split it.",
            )
        if limits.tokens is not None and self.requests > 1 and self.tokens > limits.tokens:
            add(
                None, "tokens", f"it has about {self.tokens:,} tokens, and one batch takes {limits.tokens:,}; split it."
            )

    def _check_id(self, number: int, custom_id: Any) -> None:
        add = self._rejections.add
        if not isinstance(custom_id, str) or not custom_id:
            add(number, "custom_id", f"custom_id must be a text that is not empty, not {_short(custom_id)}.")
            return
        if len(custom_id) > self._limits.custom_id_chars:
            add(number, "custom_id_long", f"custom_id is longer than {self._limits.custom_id_chars} characters.")
        first = self._seen.setdefault(id_digest(custom_id), number)
        if first != number:
            add(number, "duplicate", f"custom_id {_short(custom_id)} was used in line {first} already.")

    def _check_body(self, number: int, body: dict[str, Any]) -> None:
        add = self._rejections.add
        model = body.get("model")
        if model is None and self._has_default_model:
            pass
        elif not isinstance(model, str) or not model:
            add(number, "model", f"body.model must name a model, not {_short(model)}.")
        elif self.model is None:
            self.model, self._model_line = model, number
        elif model != self.model:
            add(
                number,
                "mixed_models",
                f"body.model is {_short(model)}, but {_short(self.model)} in line {self._model_line}; a batch has one.",
            )
        for rejection in check_body(self._endpoint, body, self._limits):
            add(number, rejection.code, f"{rejection.reason}.")
        if self._embeds:
            self.embedding_inputs += count_embedding_inputs(body)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
