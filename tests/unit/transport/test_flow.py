from __future__ import annotations

import asyncio
from typing import Any

import pytest

from overnight.errors import ServiceError
from overnight.transport.flow import Flow, Pause, Transport


class Echo(Transport[str, str]):
    """Answers with the call; a call that begins with ``!`` fails."""

    def __init__(self) -> None:
        self.closed = 0

    def send(self, call: str) -> str:
        if call.startswith("!"):
            raise ServiceError(call)
        return call.upper()

    async def asend(self, call: str) -> str:
        await asyncio.sleep(0)
        return self.send(call)

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


def both(flow: Any) -> list[Any]:
    """Drive a flow, blocking or on an event loop."""
    results: list[Any] = []
    for drive in (lambda: Echo().run(flow()), lambda: asyncio.run(Echo().arun(flow()))):
        try:
            results.append(drive())
        except ServiceError as error:
            results.append(f"raised {error}")
    return results


def test_a_flow_runs_the_same_in_either_colour() -> None:
    def flow() -> Flow[list[str]]:
        first = yield "a"
        nothing = yield Pause(0.001)
        try:
            yield "!b"
        except ServiceError as error:
            second = str(error)
        third = yield "c"
        return [first, nothing, second, third]

    assert both(flow) == [["A", None, "!b", "C"]] * 2


def test_a_flow_without_calls_returns_at_once() -> None:
    def flow() -> Flow[int]:
        return 5
        yield

    assert both(flow) == [5, 5]


def test_an_error_the_flow_does_not_catch_reaches_the_caller() -> None:
    def flow() -> Flow[None]:
        yield "!x"

    assert both(flow) == ["raised !x"] * 2


def test_an_error_can_be_turned_into_the_return_value() -> None:
    def flow() -> Flow[str]:
        try:
            yield "!x"
        except ServiceError:
            return "caught"
        return "missed"

    assert both(flow) == ["caught"] * 2


def test_leaving_the_block_closes_the_transport() -> None:
    transport = Echo()
    with pytest.raises(KeyError), transport:
        raise KeyError
    assert transport.closed == 1
