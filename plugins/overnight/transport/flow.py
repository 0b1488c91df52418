"""
One definition of a call, for a worker that waits and for a triggerer that must not.

A flow is a generator that yields calls and is sent their answers, as httpx's own auth flows are. It holds
no client and does no I/O, so the same flow runs blocking in a worker and on the triggerer's event loop.
A failed call is thrown into the flow, which may catch it. A flow that has to wait yields a :class:`Pause`, one with
many calls that do not depend on each other a :class:`Gather`.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar

from overnight.errors import ServiceError

CallT = TypeVar("CallT")
AnswerT = TypeVar("AnswerT")
T = TypeVar("T")

Flow: TypeAlias = Generator[Any, Any, T]
"""A generator of one transport's calls, and of pauses between them, that returns ``T``."""


@dataclass(frozen=True)
class Pause:
    """Wait ``seconds`` before going on; every transport understands it."""

    seconds: float


@dataclass(frozen=True)
class Gather:
    """
    Carry out calls at the same time; every transport understands it.

    The flow is sent a list in the order of ``calls``: the answer of each, or the
    :class:`~overnight.errors.ServiceError` it failed with. Any other exception is thrown into the flow.

    :param at_once: How many calls are under way at most.
    """

    calls: Sequence[Any]
    at_once: int = 8


class Transport(ABC, Generic[CallT, AnswerT]):
    """
    Carries out the calls that a flow yields, in either colour.

    ``send`` and ``asend`` raise :class:`~overnight.errors.ServiceError`, and nothing else, for a call
    that failed. ``send`` may be called from several threads at once.
    """

    @abstractmethod
    def send(self, call: CallT) -> AnswerT:
        """Carry out one call, blocking."""

    @abstractmethod
    async def asend(self, call: CallT) -> AnswerT:
        """Carry out one call without blocking the event loop."""

    @abstractmethod
    def close(self) -> None:
        """Release the blocking side's connections."""

    async def aclose(self) -> None:
        """Release the async side's connections."""

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end, blocking, and return what it returns."""
        step: Callable[[], Any] = partial(next, flow)
        while True:
            try:
                call = step()
            except StopIteration as stop:
                value: T = stop.value
                return value
            try:
                answer = self._carry_out(call)
            except Exception as error:
                step = partial(flow.throw, error)
            else:
                step = partial(flow.send, answer)

    async def arun(self, flow: Flow[T]) -> T:
        """Drive a flow to its end on the event loop and return what it returns."""
        step: Callable[[], Any] = partial(next, flow)
        while True:
            try:
                call = step()
            except StopIteration as stop:
                value: T = stop.value
                return value
            try:
                answer = await self._acarry_out(call)
            except Exception as error:
                step = partial(flow.throw, error)
            else:
                step = partial(flow.send, answer)

    def _carry_out(self, call: Any) -> Any:
        if isinstance(call, Pause):
            time.sleep(call.seconds)
            return None
        if not isinstance(call, Gather):
            return self.send(call)
        with ThreadPoolExecutor(call.at_once) as pool:
            return list(pool.map(self._outcome, call.calls))

    def _outcome(self, call: CallT) -> AnswerT | ServiceError:
        try:
            return self.send(call)
        except ServiceError as error:
            return error

    async def _acarry_out(self, call: Any) -> Any:
        if isinstance(call, Pause):
            await asyncio.sleep(call.seconds)
            return None
        if not isinstance(call, Gather):
            return await self.asend(call)
        places = asyncio.Semaphore(call.at_once)

        async def outcome(one: CallT) -> AnswerT | ServiceError:
            async with places:
                try:
                    return await self.asend(one)
                except ServiceError as error:
                    return error

        return list(await asyncio.gather(*map(outcome, call.calls)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
