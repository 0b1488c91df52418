from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from queue import SimpleQueue

import pytest

from overnight import threads
from overnight.threads import start_call
from patience import PATIENCE

FORKS = """
import os
from overnight.threads import start_call

assert start_call(lambda: 1).result(60) == 1
child = os.fork()
if not child:
    os._exit(start_call(lambda: 7).result(60))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


class IdleThreads(list[SimpleQueue[Callable[[], None]]]):
    """The threads that wait for a call; each says so behind the end of its last one."""

    def __init__(self) -> None:
        super().__init__()
        self.removed = 0
        self._changed = threading.Condition()

    def append(self, calls: SimpleQueue[Callable[[], None]]) -> None:
        with self._changed:
            super().append(calls)
            self._changed.notify_all()

    def remove(self, calls: SimpleQueue[Callable[[], None]]) -> None:
        with self._changed:
            super().remove(calls)
            self.removed += 1
            self._changed.notify_all()

    def wait_for(self, count: int, removed: int = 0) -> None:
        """Wait until there are so many, and so many have left."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self) >= count and self.removed >= removed, timeout=60)


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> IdleThreads:
    idle = IdleThreads()
    monkeypatch.setattr(threads, "_idle", idle)
    return idle


def test_calls_one_after_the_other_share_a_thread_which_is_not_the_callers(idle: IdleThreads) -> None:
    first = start_call(threading.get_ident).result(60)
    idle.wait_for(1)
    assert start_call(threading.get_ident).result(60) == first
    assert first != threading.get_ident()


def test_a_call_has_its_thread_until_it_ends(idle: IdleThreads) -> None:
    release = threading.Event()

    def slow() -> int:
        release.wait()
        return threading.get_ident()

    first = start_call(slow)
    other = start_call(threading.get_ident).result(60)
    idle.wait_for(1)
    release.set()
    assert first.result(60) != other
    idle.wait_for(2)
    assert {start_call(threading.get_ident).result(60) for _ in range(4)} <= {other, first.result()}


def test_what_a_call_raises_is_raised_and_its_thread_goes_on(idle: IdleThreads) -> None:
    with pytest.raises(ZeroDivisionError):
        start_call(lambda: 1 / 0).result(60)
    idle.wait_for(1)
    with pytest.raises(KeyboardInterrupt):
        start_call(lambda: (_ for _ in ()).throw(KeyboardInterrupt)).result(60)
    idle.wait_for(1)
    assert start_call(lambda: 1).result(60) == 1


def test_a_call_sees_the_context_of_its_own_caller(idle: IdleThreads) -> None:
    variable = ContextVar("variable", default="")
    for value in ("first", "second"):
        variable.set(value)
        assert start_call(variable.get).result(60) == value
        idle.wait_for(1)


def test_few_threads_wait_for_a_call(idle: IdleThreads) -> None:
    together = threading.Barrier(20)

    def work() -> None:
        start_call(together.wait).result(60)

    callers = [threading.Thread(target=work) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    idle.wait_for(threads._MAX_IDLE, removed=len(callers) - threads._MAX_IDLE)
    assert len(idle) == threads._MAX_IDLE


def test_a_forked_process_makes_threads_of_its_own() -> None:
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=PATIENCE)
