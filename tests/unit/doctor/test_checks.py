from __future__ import annotations

import threading

import pytest

from overnight.doctor.checks import Check, run_checks
from overnight.doctor.finding import MAX_TEXT, Finding, State, ok
from overnight.errors import SpecError

SECRET = "sk-in-an-exception"


def break_down() -> Finding:
    raise KeyError(SECRET)


def end_the_process() -> Finding:
    raise SystemExit(3)


def refuse() -> Finding:
    raise SpecError("There is no host. Put one in.")


def lack_a_package() -> Finding:
    raise ImportError("cannot import name 'Context' from 'airflow.sdk'")


def test_a_check_that_breaks_is_a_failure_that_quotes_nothing_and_hinders_no_other() -> None:
    checks = [Check(look.__name__, look, 5) for look in (break_down, end_the_process)]
    broken, ended, well = run_checks([*checks, Check("well", lambda: ok("All is well."), 5)])
    assert (broken.name, broken.state) == ("break_down", State.FAILURE)
    assert "KeyError" in broken.text
    assert SECRET not in broken.text
    assert "\n" not in broken.text
    assert ended.state == State.FAILURE
    assert (well.state, well.text) == (State.OK, "All is well.")


def test_the_place_of_a_broken_check_is_told() -> None:
    (result,) = run_checks([Check("c", lambda: ok(None), 5)])  # type: ignore[arg-type]
    assert "TypeError in overnight/errors.py:" in result.text


@pytest.mark.parametrize(
    ("look", "text"), [(refuse, "There is no host. Put one in."), (lack_a_package, "check 'versions'")]
)
def test_an_error_of_this_package_or_of_an_import_is_the_finding(look, text: str) -> None:
    (result,) = run_checks([Check("c", look, 5)])
    assert result.state == State.FAILURE
    assert text in result.text


def test_a_check_that_hangs_ends_at_its_bound() -> None:
    never = threading.Event()

    def hang() -> Finding:
        never.wait()
        return ok("")

    try:
        hanging, well = run_checks([Check("hang", hang, 0.05), Check("well", lambda: ok("."), 5)])
    finally:
        never.set()
    assert (hanging.state, well.state) == (State.FAILURE, State.OK)
    assert "No answer within 0.05 s" in hanging.text
    assert "--seconds" in hanging.text
    assert hanging.seconds < 5


def test_a_text_is_bounded() -> None:
    assert len(ok("x" * 10_000).text) == MAX_TEXT
