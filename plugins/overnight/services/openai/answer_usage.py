"""What was used for answers that are not paid for again, by the ``usage`` in each, counted while they are read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from overnight.costs.usage_cost import AnswerUsage
from overnight.services.openai.result_line import Outcome, read_result
from overnight.services.openai.status import read_usage


class _Body(msgspec.Struct):
    model: Any = None
    usage: Any = None


class _Response(msgspec.Struct):
    status_code: Any = None
    body: _Body | None = None


class _Line(msgspec.Struct):
    response: _Response | None = None


_OK: Final = 200
_decode = msgspec.json.Decoder(_Line).decode


class UsageMeter:
    """
    Counts the usage of result lines that pass, by source.

    A source that is read again counts once, and one that is not read to its end does not count.
    """

    def __init__(self) -> None:
        self._sources: dict[str, dict[str | None, Counter[str]]] = {}

    def measure(self, source: str, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the lines of a source."""
        models: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
        for line in lines:
            yield line
            body = _read_body(line)
            if body is not None:
                usage = read_usage(body.usage)
                is_stated = bool(usage.get("input") or usage.get("output"))
                model = body.model if isinstance(body.model, str) else None
                models[model].update(usage, answers=1, unstated=not is_stated)
        self._sources[source] = models

    def read(self) -> list[AnswerUsage]:
        """Return what was counted, by model."""
        models: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
        for counted in self._sources.values():
            for model, usage in counted.items():
                models[model].update(usage)
        return [
            AnswerUsage(model=model, **{name: usage[name] for name in ("answers", "input", "output", "unstated")})
            for model, usage in models.items()
        ]


def _read_body(line: bytes) -> _Body | None:
    """Return the body of a result; ``None`` of what failed, which says nothing of its usage."""
    try:
        response = _decode(line).response
    except (msgspec.DecodeError, UnicodeDecodeError):
        response = None
    if response is not None and response.body is not None and response.status_code == _OK:
        return response.body
    # Other servers have the body as a text, or no status.
    result = read_result(line, "output", 0)
    if result.outcome.outcome != Outcome.SUCCEEDED:
        return None
    response = _decode(result.usable).response
    return response.body if response is not None else None
