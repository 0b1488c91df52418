"""One input, transformed: split, filtered, batched, answered, joined, filtered again, and assembled."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from jsonpath_ng import Fields, Index, Slice

from overnight.sandbox.sagemaker.container import CSV, JSON, ContainerError, read_csv, write_csv
from overnight.services.sagemaker.filter import FilterSegment, Names, Places, Span, Wildcard, parse_filter
from overnight.services.sagemaker.spec import DEFAULT_MAX_PAYLOAD_MB, media

Invoke = Callable[[bytes], bytes]


class RecordError(Exception):
    """
    An input that cannot be transformed as a whole, so that none of its output is written.

    :param fault: ``ClientError`` when it is the user's, ``AlgorithmError`` when it is the container's.
    """

    def __init__(self, message: str, fault: Literal["ClientError", "AlgorithmError"] = "ClientError") -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True)
class Recipe:
    """What of a CreateTransformJob request says how an input becomes its output."""

    content_type: str | None
    accept: str | None
    by_line: bool
    gzipped: bool
    lines_out: bool
    single: bool
    payload_bytes: int | None
    input_filter: tuple[FilterSegment, ...]
    output_filter: tuple[FilterSegment, ...]
    joined: bool

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Recipe:
        """
        Read a request.

        :raises SpecError: a filter is none.
        """
        source, target = request["TransformInput"], request["TransformOutput"]
        processing = request.get("DataProcessing", {})
        megabytes = request.get("MaxPayloadInMB", DEFAULT_MAX_PAYLOAD_MB)
        return cls(
            content_type=source.get("ContentType"),
            accept=target.get("Accept"),
            by_line=source.get("SplitType") == "Line",
            gzipped=source.get("CompressionType") == "Gzip",
            lines_out=target.get("AssembleWith") == "Line",
            single=request.get("BatchStrategy") == "SingleRecord",
            payload_bytes=megabytes * 1024 * 1024 or None,
            input_filter=parse_filter(processing.get("InputFilter", "$")),
            output_filter=parse_filter(processing.get("OutputFilter", "$")),
            joined=processing.get("JoinSource") == "Input",
        )

    @property
    def processes(self) -> bool:
        """Whether records are looked into at all."""
        return self.joined or bool(self.input_filter) or bool(self.output_filter)

    @property
    def family(self) -> str:
        """How records are read and written: as CSV or as JSON."""
        return CSV if media(self.content_type) == CSV else JSON


def transform(data: bytes, recipe: Recipe, invoke: Invoke) -> bytes:
    """
    Return an input's output.

    :param invoke: Answers one payload.
    :raises RecordError: there is none.
    """
    if recipe.gzipped:
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise RecordError(f"The object is not a gzip file: {error}") from error
    records = _split(data, recipe)
    if recipe.processes:
        pieces = _processed(records, recipe, invoke)
    else:
        pieces = [_answered(payload, invoke) for payload in (b"\n".join(batch) for batch in _batches(records, recipe))]
    if recipe.lines_out:
        return b"".join(piece.removesuffix(b"\n") + b"\n" for piece in pieces)
    return b"".join(pieces)


def select(steps: Sequence[FilterSegment], value: Any) -> Any:
    """
    Return the part of a value that a filter selects.

    :raises RecordError: the value has no such part.
    """
    for step in steps:
        value = _select(step, value)
    return value


def _split(data: bytes, recipe: Recipe) -> list[bytes]:
    several = recipe.by_line or (recipe.processes and media(recipe.content_type) != JSON)
    if not several:
        return [data]
    return [line for raw in data.split(b"\n") if (line := raw.removesuffix(b"\r")).strip()]


def _batches(records: Sequence[bytes], recipe: Recipe) -> Iterator[list[bytes]]:
    limit = recipe.payload_bytes or float("inf")
    batch: list[bytes] = []
    size = 0
    for number, record in enumerate(records, 1):
        if len(record) > limit:
            raise RecordError(
                f"Record {number} has {len(record)} bytes, more than the maximum payload of {int(limit) >> 20} MB."
            )
        # Without a split type, an object is one payload, however many rows it has.
        full = (recipe.by_line and recipe.single) or size + len(record) + 1 > limit
        if batch and full:
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record) + 1
    if batch:
        yield batch


def _processed(records: Sequence[bytes], recipe: Recipe, invoke: Invoke) -> list[bytes]:
    values = [_read(record, recipe) for record in records]
    asked = [_write(_row(select(recipe.input_filter, value), recipe), recipe) for value in values]
    answers: list[Any] = []
    for batch in _batches(asked, recipe):
        answer = _answered(b"\n".join(batch), invoke)
        lines = answer.splitlines() if media(recipe.accept or recipe.content_type) != JSON else [answer]
        if len(lines) != len(batch):
            raise RecordError(f"The model answered {len(lines)} records to {len(batch)}.", "AlgorithmError")
        answers += [_read(line, recipe) for line in lines]
    whole = [
        _join(value, answer, recipe) if recipe.joined else answer for value, answer in zip(values, answers, strict=True)
    ]
    written = [_write(_row(select(recipe.output_filter, value), recipe), recipe) for value in whole]
    one_document = recipe.by_line or media(recipe.accept or recipe.content_type) == JSON
    # What is read as one object is written as one, too.
    return written if one_document else [b"\n".join(written)]


def _answered(payload: bytes, invoke: Invoke) -> bytes:
    try:
        return invoke(payload)
    except ContainerError as error:
        fault: Literal["ClientError", "AlgorithmError"] = "ClientError" if error.status < 500 else "AlgorithmError"
        raise RecordError(f"Bad HTTP status received from algorithm: {error.status}: {error}", fault) from error


def _read(record: bytes, recipe: Recipe) -> Any:
    if recipe.family == CSV:
        try:
            (row,) = read_csv(record)
        except (ContainerError, ValueError) as error:
            raise RecordError(f"Unable to parse the record as CSV: {error}") from error
        return row
    try:
        return orjson.loads(record)
    except orjson.JSONDecodeError as error:
        raise RecordError(f"Unable to parse the record as JSON: {error}") from error


def _write(value: Any, recipe: Recipe) -> bytes:
    return write_csv([value]) if recipe.family == CSV else orjson.dumps(value)


def _row(value: Any, recipe: Recipe) -> Any:
    # One column of a row is still a row.
    return [value] if recipe.family == CSV and not isinstance(value, list) else value


def _join(value: Any, answer: Any, recipe: Recipe) -> Any:
    if recipe.family == CSV:
        return [*value, *answer]
    if isinstance(value, dict):
        return {**value, "SageMakerOutput": answer}
    return {"SageMakerInput": value, "SageMakerOutput": answer}


def _select(step: FilterSegment, value: Any) -> Any:
    match step:
        case Names(names):
            found = {name: _only(Fields(name), value, name) for name in names}
            return found if len(names) > 1 else found[names[0]]
        case Wildcard():
            if not isinstance(value, dict | list):
                raise RecordError("There is nothing to select with * in a plain value.")
            return list(value.values()) if isinstance(value, dict) else value
        case Places((int() as index,)):
            return _only(Index(index), value, f"[{index}]")
        case Places(places):
            if not isinstance(value, list):
                raise RecordError("There is nothing to select by place in what is no array.")
            chosen: list[Any] = []
            for place in places:
                if isinstance(place, Span):
                    chosen += [match.value for match in Slice(place.start, place.end).find(value)]
                else:
                    chosen.append(_only(Index(place), value, f"[{place}]"))
            return chosen


def _only(path: Any, value: Any, shown: str) -> Any:
    found = path.find(value) if isinstance(value, dict | list) else []
    if len(found) != 1:
        raise RecordError(f"The record has no {shown}.")
    return found[0].value
