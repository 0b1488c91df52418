"""The queue of enqueued tokens that each model of an account has: what a batch takes up in it, and what is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from overnight.errors import MAX_TEXT, RateLimitedError, ServiceError, shorten
from overnight.jobs import JobStatus
from overnight.jobs.queue import NOTHING, Amount, Budget, ListedJob, QueueFull
from overnight.services.create import CLOCK_SKEW
from overnight.services.openai.causes import QUEUE_CODES
from overnight.services.openai.files import PAGE, list_all
from overnight.services.openai.spec import OpenAIBatchSpec
from overnight.services.openai.status import read_status
from overnight.services.tags import TAG_PREFIX
from overnight.transport.flow import Flow

NAME_TAG: Final = TAG_PREFIX + "name"
SIZE_TAG: Final = TAG_PREFIX + "size"
"""Metadata of our own batches, so that the list says how much of the queue they take up."""
LONGEST_BATCH: Final = timedelta(hours=26)
"""A batch ends within its window of 24 hours; then it may be finalizing or cancelling for a while."""

_SIZE: Final = re.compile(r"(?P<tokens>\d+) tokens, (?P<records>\d+) requests, model (?P<model>.+)")
_LIMIT: Final = re.compile(r"limit:\s*(?P<tokens>[\d,]+)\s+enqueued tokens", re.IGNORECASE)


class _Size(NamedTuple):
    amount: Amount
    model: str | None


def get_queue(spec: OpenAIBatchSpec) -> tuple[str, Amount]:
    """
    Return the queue of a batch, which is its model's, and what the batch takes up there.

    The tokens are an estimate (:func:`~overnight.services.openai.scan.estimate_tokens`). Of a file that is at the
    service already nothing is known; its queue is all that the account has.
    """
    return spec.model or "", Amount(tokens=spec.input_tokens or 0, records=spec.input_requests or 0, estimated=True)


def build_size_tag(spec: OpenAIBatchSpec) -> str | None:
    """Return the metadata value that says what a batch takes up; ``None`` when that is not known."""
    if spec.model is None or spec.input_tokens is None or spec.input_requests is None:
        return None
    return f"{spec.input_tokens} tokens, {spec.input_requests} requests, model {spec.model}"


def list_queue(queue: str) -> Flow[list[ListedJob]]:
    """
    List the batches in the queue of a model, whoever submitted them, and what they take up.

    Ours say it in their metadata. Of others the requests are counted, each for as many tokens as one of ours has on
    average. A batch whose model is not known counts.

    :param queue: The model; an empty text for all that the account has.
    """
    since = datetime.now(UTC) - LONGEST_BATCH - CLOCK_SKEW
    batches = yield from list_all("batches", {"limit": PAGE}, since)
    sizes = [_read_size(batch) for batch in batches]
    ours = sum((size.amount for size in sizes if size is not None), NOTHING)
    each = ours.tokens / ours.records if ours.records else 0.0
    listed = []
    for batch, size in zip(batches, sizes, strict=True):
        status = read_status(batch)
        model = batch.get("model") or (size.model if size is not None else None)
        if queue and model and not _is_same_model(str(model), queue):
            continue
        if status.state.is_terminal:
            amount = NOTHING
        elif size is not None:
            amount = size.amount
        else:
            total = status.counts.total or 0
            amount = Amount(tokens=round(total * each), records=total, estimated=True)
        listed.append(ListedJob(batch["id"], amount, _get_tag(batch, NAME_TAG)))
    return listed


def find_refusal(answer: ServiceError | JobStatus) -> QueueFull | None:
    """
    Say whether a submit, or a batch, failed because the queue of its model is full, and what the limit is.

    The service refuses in two ways: with 429 when the batch is created, or the batch fails in validation with
    ``errors.data[].code`` ``token_limit_exceeded``.
    """
    if isinstance(answer, ServiceError):
        if not isinstance(answer, RateLimitedError):
            return None
        return QueueFull(str(answer), _parse_limit(str(answer)), answer.retry_after)
    for error in answer.errors:
        if error.code is not None and error.code.casefold() in QUEUE_CODES:
            return QueueFull(shorten(error.message, MAX_TEXT), _parse_limit(error.message))
    return None


def _parse_limit(text: str) -> Budget:
    """Read "Limit: 3,000,000 enqueued tokens"; no limit when the text names none."""
    found = _LIMIT.search(text)
    tokens = int(found["tokens"].replace(",", "") or 0) if found is not None else 0
    return Budget(tokens=tokens) if tokens else Budget()


def _read_size(batch: Mapping[str, Any]) -> _Size | None:
    found = _SIZE.fullmatch(_get_tag(batch, SIZE_TAG) or "")
    if found is None:
        return None
    return _Size(Amount(tokens=int(found["tokens"]), records=int(found["records"]), estimated=True), found["model"])


def _get_tag(batch: Mapping[str, Any], name: str) -> str | None:
    metadata = batch.get("metadata")
    value = metadata.get(name) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else None


def _is_same_model(listed: str, queue: str) -> bool:
    """Whether a batch's model is the queue's; a service may list "gpt-4o-mini-2024-07-18" for "gpt-4o-mini"."""
    return listed == queue or bool(re.fullmatch(re.escape(queue) + r"-\d{4}-\d{2}-\d{2}", listed))
