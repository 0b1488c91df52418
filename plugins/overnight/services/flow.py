"""
One definition of a call, for a worker that waits and for a triggerer that must not.

A flow is a generator that yields calls and is sent their answers, as httpx's own auth flows are. It holds
no client and does no I/O, so the same flow runs blocking in a worker and on the triggerer's event loop.
A failed call is thrown into the flow, which may catch it. A flow that has to wait yields a :class:`Pause`.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar

CallT = TypeVar("CallT")
AnswerT = TypeVar("AnswerT")
T = TypeVar("T")

Flow: TypeAlias = Generator[Any, Any, T]
"""A generator of one transport's calls, and of pauses between them, that returns ``T``."""


@dataclass(frozen=True)
class Pause:
    """Wait ``seconds`` before going on; every transport understands it."""

    seconds: float


class Transport(ABC, Generic[CallT, AnswerT]):
    """
    Carries out the calls that a flow yields, in either colour.

    ``send`` and ``asend`` raise :class:`~overnight.jobs.errors.ServiceError`, and nothing else, for a call
    that failed.
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
                answer = self._pause(call) if isinstance(call, Pause) else self.send(call)
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
                answer = await (asyncio.sleep(call.seconds) if isinstance(call, Pause) else self.asend(call))
            except Exception as error:
                step = partial(flow.throw, error)
            else:
                step = partial(flow.send, answer)

    @staticmethod
    def _pause(pause: Pause) -> None:
        time.sleep(pause.seconds)

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
