from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import SpecError
from overnight.jobs.allowance import Allowance


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (10, Allowance(count=10)),
        ("10", Allowance(count=10)),
        (0.05, Allowance(ratio=0.05)),
        ("0.05", Allowance(ratio=0.05)),
        ("5%", Allowance(ratio=0.05)),
        (" 100 % ".replace(" %", "%"), Allowance(ratio=1.0)),
        (1.0, Allowance(ratio=1.0)),
    ],
)
def test_counts_ratios_and_percentages_are_read(written, read):
    assert Allowance.parse(written) == read


@pytest.mark.parametrize("written", [-1, 1.5, "-3", "120%", "some", "", True, "nan"])
def test_anything_else_is_refused(written):
    with pytest.raises(SpecError, match="allowed_failures"):
        Allowance.parse(written)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_nothing_failed_is_always_allowed(allowed, total):
    assert Allowance.parse(allowed).allows(0, total)
    assert Allowance.parse("0%").allows(0, total)


@given(st.integers(1, 1000), st.integers(1, 100))
def test_a_ratio_includes_its_own_limit(total, percent):
    allowed = Allowance.parse(f"{percent}%")
    limit = total * percent // 100
    assert allowed.allows(limit, total)
    assert not allowed.allows(limit + 1, total)
