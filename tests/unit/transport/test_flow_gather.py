from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from overnight.errors import RequestRefusedError, ServiceError
from overnight.transport.flow import Flow, Gather, Transport


class Doubling(Transport[int, int]):
    """Doubles even numbers and refuses odd ones, noting how many calls were under way together."""

    def __init__(self) -> None:
        self.together = 0
        self._under_way = 0
        self._lock = threading.Lock()
        self.all_there: threading.Barrier | None = None

    def send(self, call: int) -> int:
        with self._lock:
            self._under_way += 1
            self.together = max(self.together, self._under_way)
        if self.all_there is not None:
            self.all_there.wait(timeout=30)
        try:
            return self._answer(call)
        finally:
            with self._lock:
                self._under_way -= 1

    async def asend(self, call: int) -> int:
        self._under_way += 1
        self.together = max(self.together, self._under_way)
        await asyncio.sleep(0)
        self._under_way -= 1
        return self._answer(call)

    @staticmethod
    def _answer(call: int) -> int:
        if call < 0:
            raise OSError("a file is gone")
        if call % 2:
            raise RequestRefusedError(f"{call} is odd")
        return 2 * call

    def close(self) -> None: ...


def gathered(calls: list[int], at_once: int) -> Flow[list[Any]]:
    return (yield Gather(calls, at_once))


def blocking(flow: Flow[Any], transport: Doubling) -> Any:
    return transport.run(flow)


def on_the_loop(flow: Flow[Any], transport: Doubling) -> Any:
    return asyncio.run(transport.arun(flow))


Driver = Callable[[Flow[Any], Doubling], Any]
both_colours = pytest.mark.parametrize("drive", [blocking, on_the_loop])


@both_colours
def test_answers_come_in_the_order_of_the_calls_and_failures_in_their_place(drive: Driver) -> None:
    answers = drive(gathered([4, 3, 2, 1, 0], 3), Doubling())
    assert [type(answer) for answer in answers] == [int, RequestRefusedError, int, RequestRefusedError, int]
    assert [answer for answer in answers if not isinstance(answer, ServiceError)] == [8, 4, 0]


@both_colours
def test_no_more_calls_are_under_way_than_asked_for(drive: Driver) -> None:
    transport = Doubling()
    drive(gathered(list(range(0, 100, 2)), 4), transport)
    assert transport.together <= 4


def test_blocking_calls_really_run_at_the_same_time() -> None:
    transport = Doubling()
    transport.all_there = threading.Barrier(4)
    assert transport.run(gathered([2, 4, 6, 8], 4)) == [4, 8, 12, 16]


def test_calls_on_the_event_loop_really_run_at_the_same_time() -> None:
    transport = Doubling()
    asyncio.run(transport.arun(gathered([2, 4, 6, 8], 4)))
    assert transport.together == 4


@both_colours
def test_what_is_not_the_services_error_is_thrown_into_the_flow(drive: Driver) -> None:
    with pytest.raises(OSError, match="a file is gone"):
        drive(gathered([2, -1, 4], 2), Doubling())


@both_colours
def test_nothing_to_carry_out_is_no_answers(drive: Driver) -> None:
    assert drive(gathered([], 2), Doubling()) == []
