"""
The model behind every job: an embedding container that reads JSON, JSON Lines and CSV.

A record is a text, a list of texts, or an object with such a value under ``inputs``, ``text``, ``input`` or
``content`` (the first that is there). One text is answered by its vector, a list by a list of vectors. A row of CSV is
one text, its cells joined by blanks, and is answered by a row of numbers. Anything else is refused with 400.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from overnight.sandbox.vectors import embed
from overnight.services.sagemaker.spec import media

DIMENSIONS = "EMBEDDING_DIMENSIONS"
"""The variable of a model's or a job's environment that says how long vectors are."""
DEFAULT_DIMENSIONS = 384
FIELDS = ("inputs", "text", "input", "content")

JSON, JSON_LINES, CSV = "application/json", "application/jsonlines", "text/csv"


class ContainerError(Exception):
    """
    What the container answers other than 200.

    :param status: The HTTP status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def get_dimensions(environment: Mapping[str, str]) -> int:
    """
    Return how long vectors are.

    :raises ContainerError: the environment does not say it in digits; such a container does not start.
    """
    text = environment.get(DIMENSIONS, str(DEFAULT_DIMENSIONS))
    if not text.isdecimal() or int(text) < 1:
        raise ContainerError(500, f"{DIMENSIONS}={text!r} is no length of a vector.")
    return int(text)


def invoke(payload: bytes, content_type: str | None, accept: str | None, dimensions: int) -> bytes:
    """
    Answer one ``POST /invocations``.

    :raises ContainerError: the container would not answer 200.
    """
    given = media(content_type) or JSON
    wanted = media(accept) or given
    if given not in (JSON, JSON_LINES, CSV):
        raise ContainerError(415, f"Content type {content_type} is not supported.")
    if (wanted == CSV) != (given == CSV) or wanted not in (JSON, JSON_LINES, CSV):
        raise ContainerError(406, f"Accept {accept} is not supported for {content_type}.")
    if given == CSV:
        rows = read_csv(payload)
        return write_csv([embed(_text(" ".join(row)), dimensions) for row in rows])
    records = payload.splitlines() if given == JSON_LINES else [payload]
    answers = [orjson.dumps(_answer(_parse(record), dimensions)) for record in records if record.strip()]
    if not answers:
        raise ContainerError(400, "The payload is empty.")
    return b"\n".join(answers)


def read_csv(payload: bytes) -> list[list[str]]:
    """Read rows; the blank ones count for nothing."""
    try:
        return [row for row in csv.reader(io.StringIO(payload.decode(), newline="")) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ContainerError(400, f"The payload is not CSV: {error}") from error


def write_csv(rows: Sequence[Sequence[Any]]) -> bytes:
    """Write rows, without a newline behind the last one."""
    target = io.StringIO(newline="")
    csv.writer(target, lineterminator="\n").writerows(rows)
    return target.getvalue().rstrip("\n").encode()


def _parse(record: bytes) -> Any:
    try:
        return orjson.loads(record)
    except orjson.JSONDecodeError as error:
        raise ContainerError(400, f"The payload is not JSON: {error}") from error


def _answer(record: Any, dimensions: int) -> Any:
    if isinstance(record, dict):
        field = next((name for name in FIELDS if name in record), None)
        if field is None:
            raise ContainerError(400, f"The record has none of the fields {', '.join(FIELDS)}.")
        record = record[field]
    if isinstance(record, list) and record:
        return [embed(_text(item), dimensions) for item in record]
    return embed(_text(record), dimensions)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ContainerError(400, f"A text was expected, not {orjson.dumps(value).decode()[:80]}.")
    return value
