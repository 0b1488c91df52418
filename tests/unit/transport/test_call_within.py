from __future__ import annotations

import threading

import pytest

from overnight.transport.flow import TimeIsUpError, call_within


def test_a_call_that_takes_too_long_is_given_up_and_goes_on_in_its_thread() -> None:
    release, ended = threading.Event(), threading.Event()

    def slow() -> None:
        release.wait()
        ended.set()

    with pytest.raises(TimeIsUpError):
        call_within(0.01, slow)
    assert not ended.is_set()
    assert call_within(60, threading.get_ident) != threading.get_ident()
    release.set()
    assert ended.wait(60)


def test_what_a_call_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        call_within(60, lambda: 1 / 0)


def test_a_time_out_of_the_call_itself_is_not_ours() -> None:
    def time_out() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        call_within(60, time_out)
