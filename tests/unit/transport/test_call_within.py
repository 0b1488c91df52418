from __future__ import annotations

import subprocess
import sys
import threading
from contextvars import ContextVar

import pytest

from overnight.transport import flow
from overnight.transport.flow import TimeIsUpError, call_within

FORKS = """
import os
from overnight.transport.flow import call_within

assert call_within(60, lambda: 1) == 1
child = os.fork()
if not child:
    os._exit(call_within(60, lambda: 7))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


@pytest.fixture(autouse=True)
def no_idle_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "_idle", [])


def until_idle(count: int) -> None:
    """Wait until so many threads wait for a call; each says so behind the call's end."""
    while len(flow._idle) < count:
        pass


def test_calls_one_after_the_other_share_a_thread_which_is_not_the_callers() -> None:
    first = call_within(60, threading.get_ident)
    until_idle(1)
    assert call_within(60, threading.get_ident) == first
    assert first != threading.get_ident()


def test_a_call_that_was_given_up_keeps_its_thread_until_it_ends() -> None:
    release, ended = threading.Event(), threading.Event()
    threads: list[int] = []

    def slow() -> None:
        threads.append(threading.get_ident())
        release.wait()
        ended.set()

    with pytest.raises(TimeIsUpError):
        call_within(0.01, slow)
    other = call_within(60, threading.get_ident)
    until_idle(1)
    assert other not in threads
    release.set()
    ended.wait()
    until_idle(2)
    assert {call_within(60, threading.get_ident) for _ in range(4)} <= {other, *threads}


def test_what_a_call_raises_is_raised_and_its_thread_goes_on() -> None:
    with pytest.raises(ZeroDivisionError):
        call_within(60, lambda: 1 / 0)
    until_idle(1)
    with pytest.raises(KeyboardInterrupt):
        call_within(60, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    until_idle(1)
    assert call_within(60, lambda: 1) == 1


def test_a_call_sees_the_context_of_its_own_caller() -> None:
    variable = ContextVar("variable", default="")
    for value in ("first", "second"):
        variable.set(value)
        assert call_within(60, variable.get) == value
        until_idle(1)


def test_few_threads_wait_for_a_call() -> None:
    together = threading.Barrier(20)

    def work() -> None:
        call_within(60, together.wait)

    callers = [threading.Thread(target=work) for _ in range(20)]
    before = threading.active_count()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    until_idle(flow._MAX_IDLE)
    assert len(flow._idle) == flow._MAX_IDLE
    while threading.active_count() > before + flow._MAX_IDLE:
        pass


def test_a_forked_process_makes_threads_of_its_own() -> None:
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=120)
