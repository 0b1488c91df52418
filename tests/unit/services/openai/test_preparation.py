"""Documents become batch input whose price is known; tests/unit/operators/test_openai_input.py has the cache, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overnight.costs.prices import PriceTable
from overnight.errors import SpecError
from overnight.jobs.allowance import Allowance
from overnight.services.openai.preparation import PreparedInput, check_rejected, prepare_input, price_input
from overnight.services.openai.template import RequestTemplate
from overnight.storage import Storage

PRICES = PriceTable.of({"models": {"m": {"input": 1_000_000}}}, Storage())
TEMPLATE = RequestTemplate.embeddings("m")


def prepare(tmp_path: Path, *documents: object) -> PreparedInput:
    source = tmp_path / "docs.jsonl"
    source.write_text("".join(json.dumps(document) + "\n" for document in documents))
    target = str(tmp_path / "work")
    return prepare_input([str(source)], TEMPLATE, target, storage=Storage(), prices=PRICES, on_bad="reject")


def test_what_was_written_has_a_price_at_once_and_later(tmp_path: Path) -> None:
    built, estimate = prepare(tmp_path, {"id": "a", "text": "word " * 40})
    assert (built.requests, estimate.requests) == (1, 1)
    assert estimate.cost is not None
    assert estimate.cost > 0
    assert price_input(built, TEMPLATE, PRICES) == estimate


def test_rejected_documents_are_said_or_refused(tmp_path: Path) -> None:
    good, bad = {"id": "a", "text": "t"}, {"id": "b"}
    assert check_rejected(prepare(tmp_path, good).built, Allowance(count=0)) is None
    some = prepare(tmp_path, good, bad).built
    assert "1 of 2 documents were rejected" in str(check_rejected(some, None))
    assert check_rejected(some, Allowance(count=1)) is not None
    with pytest.raises(SpecError, match="more than allowed_failures=0"):
        check_rejected(some, Allowance(count=0))
    with pytest.raises(SpecError, match="None is left"):
        check_rejected(prepare(tmp_path, bad).built, None)
