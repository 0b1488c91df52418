"""Checks side by side, each on its own: none can break another, and none takes longer than its bound."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overnight.doctor.finding import CheckResult, Finding, fail
from overnight.errors import OvernightError
from overnight.transport.flow import TimeIsUpError, call_within

AT_ONCE: Final = 8
"""Checks that run at the same time; most of them wait for a server."""
_PACKAGE: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Check:
    """
    One thing to look at.

    :param look: Looks at it, blocking. What it raises is a failure.
    :param seconds: That it may take; one that takes longer has failed, and its end is not waited for.
    """

    name: str
    look: Callable[[], Finding]
    seconds: float


def run_checks(checks: Sequence[Check]) -> list[CheckResult]:
    """Carry out checks side by side, and return their results in the same order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_run, checks))


def _run(check: Check) -> CheckResult:
    began = time.monotonic()
    try:
        found = call_within(check.seconds, check.look)
    except TimeIsUpError:
        found = fail(
            f"No answer within {check.seconds:g} s. Check that the address can be reached from this machine; --seconds "
            "gives every check more time."
        )
    except OvernightError as error:
        found = fail(str(error))
    except ImportError as error:
        found = fail(f"A package is missing or too old ({error.msg}). Install what the check 'versions' asks for.")
    except (Exception, SystemExit) as error:
        # Its text is not shown: what another library quotes may be a secret.
        found = fail(
            f"The check itself failed: {type(error).__name__} in {_find_place(error)}. Correct what it looks at as its "
            "page in the docs has it, or report this line."
        )
    return CheckResult(name=check.name, state=found.state, text=found.text, seconds=round(time.monotonic() - began, 3))


def _find_place(error: BaseException) -> str:
    """Return the last line of this package in an error's traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    last = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)][-1]
    return f"{Path(last.filename).relative_to(_PACKAGE.parent)}:{last.lineno}"
