"""Wait parameters as numbers, timedeltas and the text that a template makes of them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import SpecError
from overnight.jobs import JobKey, JobRecord
from overnight.jobs.allowance import Allowance
from overnight.jobs.wait_settings import WaitSettings

SECONDS = ("poll_interval", "deadline", "patience")
TRUTHS = ("cancel_on_deadline", "cancel_on_kill", "wait_for_completion", "deferrable", "durable")


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90.0),
        (1.5, 1.5),
        ("90", 90.0),
        (" 1.5 ", 1.5),
        ("1e2", 100.0),
        (timedelta(minutes=2), 120.0),
        ("PT1H30M", 5400.0),
        ("P1D", 86400.0),
        ("00:01:30", 90.0),
    ],
)
def test_a_duration_is_read_in_every_form(name: str, value: Any, seconds: float) -> None:
    assert getattr(WaitSettings.parse(**{name: value}), name) == seconds


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize(
    "value", ["soon", "inf", "-inf", "nan", float("inf"), float("nan"), -1, "-1", "-PT1H", True, "True", [], {}, "1,5"]
)
def test_what_is_no_duration_is_refused_and_named(name: str, value: Any) -> None:
    with pytest.raises(SpecError, match=f"{name}=.*Nothing was submitted"):
        WaitSettings.parse(**{name: value})


@pytest.mark.parametrize("name", ["poll_interval", "deadline"])
def test_an_interval_and_a_deadline_are_above_zero(name: str) -> None:
    with pytest.raises(SpecError, match="greater than 0"):
        WaitSettings.parse(**{name: 0})
    assert WaitSettings.parse(patience=0).patience == 0


@pytest.mark.parametrize("value", [None, "None", "", " none ", "null"])
def test_no_deadline_can_be_asked_for_in_a_template_too(value: Any) -> None:
    assert WaitSettings.parse(deadline=value).deadline is None


@pytest.mark.parametrize("value", [None, "None", ""])
@pytest.mark.parametrize("name", ["poll_interval", "patience"])
def test_only_a_deadline_can_be_left_out(name: str, value: Any) -> None:
    with pytest.raises(SpecError, match=name):
        WaitSettings.parse(**{name: value})


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize(("value", "truth"), [(True, True), ("True", True), ("False", False), ("0", False), (0, False)])
def test_a_truth_value_is_read_from_its_text(name: str, value: Any, truth: bool) -> None:
    assert getattr(WaitSettings.parse(**{name: value}), name) is truth


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize("value", ["", "maybe", "None", None, 2, []])
def test_what_is_no_truth_value_is_refused_and_named(name: str, value: Any) -> None:
    with pytest.raises(SpecError, match=f"{name}="):
        WaitSettings.parse(**{name: value})


def test_the_other_parameters_are_checked_too() -> None:
    assert WaitSettings.parse(allowed_failures="5%").allowed_failures == Allowance(ratio=0.05)
    with pytest.raises(SpecError, match="allowed_failures"):
        WaitSettings.parse(allowed_failures="many")
    with pytest.raises(SpecError, match="on_changed_spec='explode'.*'fail', 'restart' or 'restart_ended'"):
        WaitSettings.parse(on_changed_spec="explode")
    with pytest.raises(SpecError, match="pol_interval"):
        WaitSettings.parse(pol_interval=3)


def test_every_fault_is_named_at_once_and_none_at_length() -> None:
    with pytest.raises(SpecError, match=r"poll_interval=.*deadline=.*cancel_on_kill=") as caught:
        WaitSettings.parse(poll_interval="x" * 100_000, deadline="never", cancel_on_kill="y" * 100_000)
    assert len(str(caught.value)) < 2_000


@given(st.text())
def test_no_text_ends_in_another_exception(text: str) -> None:
    for name in WaitSettings.model_fields:
        with suppress(SpecError):
            assert getattr(WaitSettings.parse(**{name: text}), name) is not text


def test_the_deadline_counts_from_the_submit_and_else_from_the_intent() -> None:
    key = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
    record = JobRecord.intent(key)
    settings = WaitSettings.parse(deadline=60)
    assert settings.get_deadline(record) == record.intent_at.timestamp() + 60
    then = datetime(2026, 11, 1, tzinfo=UTC)
    assert settings.get_deadline(record.model_copy(update={"submitted_at": then})) == then.timestamp() + 60
    assert WaitSettings.parse(deadline=None).get_deadline(record) is None
