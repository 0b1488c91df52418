"""What is in a model's queue, and how the service says that it is full."""

from __future__ import annotations

import time
from typing import Any

import pytest

from overnight.errors import QueueFullError, RateLimitedError, RequestRefusedError
from overnight.jobs.queue import NOTHING, Amount, Budget, ListedJob
from overnight.services.openai.queue import build_size_tag, find_refusal, get_queue, list_queue
from overnight.services.openai.scan import estimate_tokens
from overnight.services.openai.spec import OpenAIBatchSpec
from overnight.services.openai.status import read_status

FULL = (
    "Enqueued token limit reached for text-embedding-3-small in organization org-1. Limit: 3,000,000 enqueued tokens. "
    "Please try again once some in_progress batches have been completed."
)
SPEC = OpenAIBatchSpec(
    input_uri="/in.jsonl",
    endpoint="/v1/embeddings",
    input_sha256="0" * 64,
    input_bytes=1,
    input_requests=10,
    input_tokens=2_000,
    model="m",
)


def batch(number: int, status: str = "in_progress", size: str | None = None, **fields: Any) -> dict[str, Any]:
    metadata = {"overnight_name": f"n{number}"} | ({"overnight_size": size} if size else {}) if size else None
    return {
        "id": f"b{number}",
        "status": status,
        "created_at": int(time.time()) - number,
        "model": "m",
        "metadata": metadata,
        **fields,
    }


def listed(*batches: dict[str, Any], queue: str = "m") -> list[ListedJob]:
    flow = list_queue(queue)
    call = next(flow)
    assert (call.method, call.path) == ("GET", "batches")
    with pytest.raises(StopIteration) as ended:
        flow.send({"data": list(batches), "has_more": False})
    found: list[ListedJob] = ended.value.value
    return found


def test_our_batches_say_how_large_they_are() -> None:
    size = build_size_tag(SPEC)
    (job,) = listed(batch(1, size=size))
    assert job == ListedJob("b1", Amount(tokens=2_000, records=10, estimated=True), "n1")
    assert get_queue(SPEC) == ("m", job.amount)


def test_a_spec_whose_size_is_not_known_says_nothing() -> None:
    assert build_size_tag(SPEC.model_copy(update={"model": None})) is None
    assert get_queue(OpenAIBatchSpec(input_file_id="file-1", endpoint="/v1/embeddings"))[0] == ""


def test_other_peoples_batches_are_counted_as_ours_are_on_average() -> None:
    stranger = batch(2, request_counts={"total": 5, "completed": 0, "failed": 0})
    assert listed(batch(1, size=build_size_tag(SPEC)), stranger)[1].amount.tokens == 1_000


def test_only_what_is_not_over_takes_room() -> None:
    words = ("validating", "finalizing", "cancelling", "completed", "failed", "expired", "cancelled")
    jobs = listed(*(batch(n, word, build_size_tag(SPEC)) for n, word in enumerate(words)))
    assert [job.amount != NOTHING for job in jobs] == [True, True, True, False, False, False, False]
    assert all(job.name for job in jobs)


def test_each_model_has_its_own_queue() -> None:
    others = [batch(1, model="other"), batch(2, model="m-2024-07-18"), batch(3, model=None), batch(4, model="m-mini")]
    assert [job.id for job in listed(*others)] == ["b2", "b3"]
    assert len(listed(*others, queue="")) == 4


def test_a_refusal_at_creation_and_in_validation_names_the_limit() -> None:
    refused = find_refusal(QueueFullError(FULL, status=429, code="token_limit_exceeded", retry_after=7))
    assert refused is not None
    assert (refused.limit, refused.retry_after) == (Budget(tokens=3_000_000), 7)
    errors = {"object": "list", "data": [{"code": "token_limit_exceeded", "message": FULL}]}
    failed = find_refusal(read_status(batch(1, "failed", errors=errors)))
    assert failed is not None
    assert failed.limit == Budget(tokens=3_000_000)


@pytest.mark.parametrize("text", ["Limit: many enqueued tokens", "Limit: , enqueued tokens", "full"])
def test_a_refusal_without_a_number_is_one_all_the_same(text: str) -> None:
    refused = find_refusal(RateLimitedError(text))
    assert refused is not None
    assert not refused.limit.is_set


def test_other_failures_are_no_refusals() -> None:
    assert find_refusal(RequestRefusedError("bad", code="insufficient_quota")) is None
    errors = {"data": [{"code": "invalid_json_line", "message": "bad"}]}
    assert find_refusal(read_status(batch(1, "failed", errors=errors))) is None
    assert find_refusal(read_status(batch(1, "completed"))) is None


def test_an_estimate_does_not_decide_whose_batch_it_is() -> None:
    other = SPEC.model_copy(update={"input_tokens": 1, "model": None})
    assert other.fingerprint("c") == SPEC.fingerprint("c")


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"input": "a" * 40}, 10),
        ({"input": ["a" * 40, "b" * 4]}, 11),
        ({"input": [1, 2, 3]}, 3),
        ({"input": [[1, 2], [3]]}, 3),
        ({"input": "\u4f60" * 10}, 12),
        ({"messages": [{"role": "user", "content": "a" * 40}]}, 11),
        ({"input": "\ud800"}, 2),
        ({}, 0),
    ],
)
def test_tokens_are_estimated(body: dict[str, Any], tokens: int) -> None:
    assert estimate_tokens(body) == tokens
