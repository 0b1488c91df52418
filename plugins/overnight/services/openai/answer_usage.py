"""What was used for answers that are not paid for again, by the ``usage`` in each, counted while they are read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from overnight.costs.usage_cost import AnswerUsage
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
            try:
                response = _decode(line).response
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            # What failed is in the error lines, and says nothing of its usage.
            if response is not None and response.body is not None and response.status_code == _OK:
                model = response.body.model
                models[model if isinstance(model, str) else None].update(read_usage(response.body.usage), answers=1)
        self._sources[source] = models

    def read(self) -> list[AnswerUsage]:
        """Return what was counted, by model."""
        models: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
        for counted in self._sources.values():
            for model, usage in counted.items():
                models[model].update(usage)
        return [
            AnswerUsage(model=model, answers=usage["answers"], input=usage["input"], output=usage["output"])
            for model, usage in models.items()
        ]
