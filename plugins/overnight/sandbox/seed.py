"""Documents for the shipped DAGs: a week of them, and some to see a run fail with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import httpx

from overnight.sandbox.corpus import documents, files
from overnight.sandbox.store import Store

DAYS: Final = 8
"""Tomorrow, in case it comes while Airflow runs, and the seven days before."""
DOCUMENTS_A_DAY: Final = 100
"""Beside those of :data:`CORE`."""
CORE: Final = frozenset(
    {"calendar", "csv", "glob", "pathlib", "random", "shutil", "statistics", "tempfile", "textwrap"}
)
"""Modules whose documents are there every day: most of a nightly corpus is what it was the night before."""
FILES_A_DAY: Final = 6
INVOICES_A_DAY: Final = 6
TOO_LONG: Final = 6
"""Documents that the embedding models refuse, each longer than their 8,192 tokens."""
CONTAINER: Final = "documents"
"""Of Azure's documents, as the sandbox's connection has it."""


def seed(environment: Mapping[str, str], today: date | None = None) -> None:
    """
    Put documents where the shipped DAGs look for them, as far as they are not there.

    ``documents/<ds>/``, ``transform/<ds>/``, ``files/<ds>/`` and ``invoices/<ds>/`` of the bucket ``overnight`` for a
    week of days, the container ``documents``, and two folders of documents with faults: ``documents/bad-lines/`` has
    lines that cannot be sent, ``documents/too-long/`` some that the model refuses.

    :param environment: The variables of a sandbox that runs; services that do not run are left out.
    :param today: The last day but one; today in UTC, as runs have it, when left out.
    """
    named = files()
    if "AWS_ENDPOINT_URL_S3" in environment:
        _seed_s3(Store(environment), today or datetime.now(UTC).date())
    if "AZURE_OPENAI_ENDPOINT" in environment:
        blobs = f"{environment['AZURE_OPENAI_ENDPOINT']}/_sandbox/blobs/{CONTAINER}"
        with httpx.Client() as client:
            for name, path in list(named.items())[:FILES_A_DAY]:
                client.put(f"{blobs}/{name}", content=path.read_bytes()).raise_for_status()


def _seed_s3(store: Store, today: date) -> None:
    there = set(store.list_keys(""))
    days = [today + timedelta(days=1 - back) for back in range(DAYS)]
    missing = [day for day in days if f"documents/{day}/corpus.jsonl" not in there]
    if not missing and "documents/too-long/corpus.jsonl" in there:
        return
    corpus = list(documents())
    named = list(files().items())
    for day in missing:
        store.put_lines(f"documents/{day}/corpus.jsonl", choose(corpus, day))
        store.put_lines(f"transform/{day}/corpus.jsonl", choose(corpus, day))
        first = day.toordinal() * FILES_A_DAY % len(named)
        store.put_files(f"files/{day}", dict([*named, *named][first : first + FILES_A_DAY]))
        for number in range(INVOICES_A_DAY):
            store.put_lines(f"invoices/{day}/{number}.txt", make_invoice(day, number))
    store.put_lines("documents/bad-lines/corpus.jsonl", _with_bad_lines(corpus[:50]))
    store.put_lines("documents/too-long/corpus.jsonl", _with_long_ones(corpus[:50]))


def choose(corpus: Sequence[dict[str, str]], day: date) -> list[dict[str, str]]:
    """Return a day's documents, the same whenever it is asked: those of :data:`CORE`, and others each day."""
    others = [document for document in corpus if document["module"] not in CORE]
    start = day.toordinal() * DOCUMENTS_A_DAY % max(1, len(others) - DOCUMENTS_A_DAY)
    core = [document for document in corpus if document["module"] in CORE]
    return core + others[start : start + DOCUMENTS_A_DAY]


def make_invoice(day: date, number: int) -> list[bytes]:
    """Return the lines of an invoice, the same whenever it is asked."""
    items = [(count, 12.5 * (count + number)) for count in range(1, 2 + number)]
    lines = [
        f"Invoice number: {day:%y%m%d}-{number}",
        f"Issued: {day}",
        *(f"{count} x embedding of {1_000 * count} documents, {price:.2f}" for count, price in items),
        f"Total: {sum(price for _, price in items):.2f}",
    ]
    return [line.encode() for line in lines]


def _with_bad_lines(some: Sequence[dict[str, str]]) -> Iterator[dict[str, Any] | bytes]:
    yield from some[:20]
    yield b'{"id": "cut-off", "text": "This line ends in the'
    yield {"id": "no-text", "kind": "function"}
    yield {**some[0], "text": "The id of this document is the first one's."}
    yield {"id": "empty", "text": ""}
    yield from some[20:]


def _with_long_ones(some: Sequence[dict[str, str]]) -> Iterator[dict[str, Any]]:
    for number, document in enumerate(some):
        yield {
            **document,
            "text": document["text"] * (1 + 12_000 * (number < TOO_LONG) // len(document["text"].split())),
        }
