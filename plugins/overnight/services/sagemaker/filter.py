"""
The subset of JSONPath that SageMaker's ``InputFilter`` and ``OutputFilter`` take.

It has a reader of its own because its grammar is none of ``overnight.jsonpath``'s: it has slices, lists of names and
places, and wildcards, whose segments the sandbox carries out, and neither filters nor ``..``.

https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-data-processing.html#data-processing-operators
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from overnight.errors import SpecError

MAX_LENGTH: Final = 63

_NAME = re.compile(r"\.?(?P<name>[A-Za-z_][\w-]*)")
_QUOTED = re.compile(r"""'(?P<single>[^'\[\].]+)'|"(?P<double>[^"\[\].]+)\"""")
_INDEX = re.compile(r"-?\d+")
_SPAN = re.compile(r"(?P<start>-?\d+)?\s*:\s*(?P<end>-?\d+)?")


@dataclass(frozen=True)
class Names:
    """``.name``, or several children in brackets: ``['id','SageMakerOutput']``."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """``start:end`` of an array, the end left out."""

    start: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class Places:
    """Indices and slices of an array: ``[0]``, ``[1:]``, ``[0,5:]``. A negative index counts from the end."""

    places: tuple[int | Span, ...]


@dataclass(frozen=True)
class Wildcard:
    """``*``: every child."""


FilterSegment: TypeAlias = Names | Places | Wildcard


def parse_filter(text: str) -> tuple[FilterSegment, ...]:
    """
    Read a filter.

    :return: Its segments; none for ``$``, the whole record.
    :raises SpecError: SageMaker has no such filter.
    """
    if len(text) > MAX_LENGTH:
        raise _refusal(text, f"it has {len(text)} characters, and SageMaker takes {MAX_LENGTH}")
    if not text.startswith("$"):
        raise _refusal(text, "it has to begin with $, the root")
    segments: list[FilterSegment] = []
    rest = text[1:]
    while rest:
        segment, rest = _parse_segment(text, rest)
        segments.append(segment)
    return tuple(segments)


def _parse_segment(text: str, rest: str) -> tuple[FilterSegment, str]:
    if rest.startswith(".."):
        raise _refusal(text, "SageMaker does not search with '..'")
    bare = rest.removeprefix(".")
    if bare.startswith("*"):
        return Wildcard(), bare[1:]
    if bare.startswith("["):
        inside, closed, after = bare[1:].partition("]")
        if not closed:
            raise _refusal(text, "a bracket is not closed")
        return _brackets(text, inside.strip()), after
    found = _NAME.match(rest) if rest.startswith(".") else None
    if found is None:
        raise _refusal(text, f"{rest!r} is none of .name, ['name'], [0], [1:], [*]")
    return Names((found["name"],)), rest[found.end() :]


def _brackets(text: str, inside: str) -> FilterSegment:
    if inside == "*":
        return Wildcard()
    if inside.startswith(("?", "(", "@")):
        raise _refusal(text, "SageMaker has neither expressions nor functions")
    parts = [part.strip() for part in inside.split(",")]
    quoted = [_QUOTED.fullmatch(part) for part in parts]
    if all(quoted):
        return Names(tuple(match["single"] or match["double"] for match in quoted if match))
    return Places(tuple(_place(text, part) for part in parts))


def _place(text: str, part: str) -> int | Span:
    if _INDEX.fullmatch(part):
        return int(part)
    found = _SPAN.fullmatch(part)
    if found is None:
        raise _refusal(text, f"[{part}] is none of ['name'], [0], [1:], [*]")
    return Span(*(int(number) if number else None for number in found.groups()))


def _refusal(text: str, why: str) -> SpecError:
    return SpecError(
        f"{text!r} is not a filter that SageMaker takes: {why}. See "
        "https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-data-processing.html"
    )
