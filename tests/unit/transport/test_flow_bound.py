"""A limit on all of a flow's calls together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from overnight.errors import NotFoundError, UnavailableError
from overnight.transport.flow import Flow, Gather, Pause, Transport, Within, bound


class Stuck(Transport[str, str]):
    """Answers every call with itself, except ``stuck``, which it answers when the test is over."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def send(self, call: str) -> str:
        if call == "stuck":
            self.released.wait()
        if call == "gone":
            raise NotFoundError("gone", status=404)
        return call

    async def asend(self, call: str) -> str:
        if call == "stuck":
            await asyncio.Event().wait()
        if call == "gone":
            raise NotFoundError("gone", status=404)
        return call

    def close(self) -> None:
        self.released.set()


@pytest.fixture
def transport() -> Iterator[Stuck]:
    transport = Stuck()
    yield transport
    transport.close()


def asking(*calls: Any) -> Flow[list[Any]]:
    answers: list[Any] = []
    for call in calls:
        answer = yield call
        answers += [answer]
    return answers


async def run_both(transport: Stuck, *calls: Any, seconds: float) -> list[Any]:
    """Run the flow blocking and on the event loop, which must agree; return the answers or raise."""
    outcomes: list[Any] = []
    for run in (
        lambda flow: asyncio.to_thread(transport.run, flow),
        transport.arun,
    ):
        try:
            outcomes.append(await run(bound(asking(*calls), seconds)))
        except Exception as error:
            outcomes.append(error)
    first, second = outcomes
    if isinstance(first, Exception):
        assert type(first) is type(second)
        raise first
    assert first == second
    return first  # type: ignore[no-any-return]


async def test_answers_come_through(transport: Stuck) -> None:
    assert await run_both(transport, "a", Pause(0), Gather(["b", "c"]), seconds=60) == ["a", None, ["b", "c"]]


async def test_a_call_without_an_end_is_given_up(transport: Stuck) -> None:
    with pytest.raises(UnavailableError, match="No complete answer came within"):
        await run_both(transport, "a", "stuck", seconds=0.05)


async def test_a_pause_does_not_outlast_the_limit(transport: Stuck) -> None:
    with pytest.raises(UnavailableError):
        await run_both(transport, Pause(3_600), seconds=0.05)


async def test_an_error_of_a_call_stays_what_it_is(transport: Stuck) -> None:
    with pytest.raises(NotFoundError):
        await run_both(transport, "gone", seconds=60)


async def test_the_flow_may_catch_it_and_go_on(transport: Stuck) -> None:
    def tolerant() -> Flow[str]:
        try:
            yield "gone"
        except NotFoundError:
            answer: str = yield "b"
            return answer
        return "none"

    assert await asyncio.to_thread(transport.run, bound(tolerant(), 60)) == "b"
    assert await transport.arun(bound(tolerant(), 60)) == "b"


def test_the_calls_share_one_limit() -> None:
    flow = bound(asking("a", "b"), 60)
    first = next(flow)
    second = flow.send("a")
    assert isinstance(first, Within)
    assert isinstance(second, Within)
    assert second.seconds <= first.seconds <= 60


def test_closing_it_closes_the_flow() -> None:
    closed: list[bool] = []

    def careful() -> Flow[None]:
        try:
            yield "a"
        finally:
            closed.append(True)

    flow = bound(careful(), 60)
    next(flow)
    flow.close()
    assert closed == [True]
