from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.sandbox.emulator.draws import unit
from overnight.sandbox.emulator.faults import BatchFault, HttpFault
from overnight.sandbox.openai.decisions import Decisions, line_fault
from overnight.sandbox.openai.settings import Faults, LineFault


def draws(decisions, faults, count, method="GET", path="/v1/models"):
    return [decisions.http(faults, method, path) for _ in range(count)]


def test_a_share_is_about_that_share_of_the_requests():
    hits = Counter(draws(Decisions(0), Faults(rate_limited=0.2, cut_body=0.1), 5_000))
    assert 850 < hits["rate_limited"] < 1_150
    assert 300 < hits["cut_body"] < 500


def test_the_seed_decides():
    faults = Faults(server_error=0.5)
    assert draws(Decisions(1), faults, 50) == draws(Decisions(1), faults, 50)
    assert draws(Decisions(1), faults, 50) != draws(Decisions(2), faults, 50)


def test_a_fault_leaves_the_draws_of_another_alone():
    alone = draws(Decisions(1), Faults(broken_json=0.3), 200)
    both = draws(Decisions(1), Faults(broken_json=0.3, lost_answer={"share": 0.5, "path": "^/v1/files"}), 200)
    assert alone == both


def test_a_fault_ends_after_its_times():
    decisions, faults = Decisions(0), Faults(rate_limited={"share": 1, "times": 2})
    assert draws(decisions, faults, 4) == ["rate_limited", "rate_limited", None, None]
    decisions.reset()
    assert draws(decisions, faults, 3) == ["rate_limited", "rate_limited", None]


def test_a_fault_can_be_for_some_requests_only():
    faults = Faults(timeout=HttpFault(share=1, path="/content$", methods={"GET"}), lost_create=1)
    decisions = Decisions(0)
    assert decisions.http(faults, "GET", "/v1/files/x/content") == "timeout"
    assert decisions.http(faults, "GET", "/v1/files/x") is None
    assert decisions.http(faults, "DELETE", "/v1/files/x/content") is None
    assert decisions.http(faults, "POST", "/v1/batches") == "lost_create"
    assert decisions.http(faults, "GET", "/v1/batches") is None
    assert decisions.http(faults, "POST", "/v1/batches/x/cancel") is None


def test_a_batch_has_one_fate():
    decisions = Decisions(0)
    faults = Faults(
        batch_failed=BatchFault(share=1, times=1), batch_expired=BatchFault(share=1, times=1), batch_stuck=1
    )
    assert [decisions.fate(faults) for _ in range(4)] == ["fail", "expire", "stick", "stick"]
    assert Decisions(0).fate(Faults()) == "normal"


@given(st.integers(), st.text(), st.text())
def test_a_line_is_decided_by_what_it_is(seed, kind, key):
    assert 0 <= unit(seed, kind, key) < 1
    assert unit(seed, kind, key) == unit(seed, kind, key)


def test_a_line_fault_hits_the_lines_it_names():
    fault = LineFault(share=1, custom_id="^a")
    assert line_fault(fault, 0, "lines_failed", "1:abc", "abc")
    assert not line_fault(fault, 0, "lines_failed", "1:bca", "bca")
    assert not line_fault(LineFault(custom_id="^a"), 0, "lines_failed", "1:abc", "abc")


@pytest.mark.parametrize("bad", [{"rate_limited": 1.1}, {"rate_limited": {"path": "("}}, {"lunch": 1}, {"latency": -1}])
def test_a_fault_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError):
        Faults.model_validate(bad)
