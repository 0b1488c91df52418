from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowFailException
from pydantic import BaseModel

from overnight.errors import MAX_TEXT, SpecError
from overnight.hooks.outcome import failing_for_good
from overnight.validation import parse_age, parse_parameter

SECRET = "sk-in-the-wrong-place"


class Limits(BaseModel, extra="forbid"):
    """A parameter that is an object."""

    requests: int = 1


@pytest.mark.parametrize("given", [{"requests": SECRET}, {"requests": [SECRET] * 10_000}, SECRET, None, [SECRET]])
def test_a_parameter_that_does_not_fit_is_named_and_not_quoted(given: object) -> None:
    with pytest.raises(SpecError, match=r"^limits does not fit: .*It may hold requests") as refusal:
        parse_parameter(Limits, given, "limits")
    assert SECRET not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_the_keys_of_a_parameter_are_quoted_in_part() -> None:
    with pytest.raises(SpecError) as refusal:
        parse_parameter(Limits, {f"{number}" + "k" * 10_000: 1 for number in range(1_000)}, "limits")
    assert len(str(refusal.value)) < 2 * MAX_TEXT


def test_what_a_task_is_given_and_does_not_fit_fails_for_good_without_the_value() -> None:
    with (
        pytest.raises(AirflowFailException, match=r"requests: .*valid integer.*Correct .*\(Limits\)") as refusal,
        failing_for_good(),
    ):
        Limits.model_validate({"requests": SECRET})
    assert SECRET not in str(refusal.value)
    # Airflow logs causes, too.
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


@pytest.mark.parametrize(("text", "days"), [("30d", 30), (" 6w ", 42), ("1 d", 1)])
def test_an_age_is_days_or_weeks(text: str, days: int) -> None:
    assert parse_age(text) == timedelta(days=days)


@pytest.mark.parametrize("text", ["", "30", "1h", "-1d", "d", "1.5d"])
def test_another_age_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="write days or weeks"):
        parse_age(text)
