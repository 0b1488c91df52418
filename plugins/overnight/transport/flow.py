"""
One definition of a call, for a worker that waits and for a triggerer that must not.

A flow is a generator that yields calls and is sent their answers, as httpx's own auth flows are. It makes no request
of its own: a :class:`Transport` carries the calls out, either blocking in a worker or on the triggerer's event loop.
A failed call is thrown into the flow, which may catch it. A flow that has to wait yields a :class:`Pause`, one with
many calls that do not depend on each other a :class:`Gather`; :func:`bound` limits how long a flow's calls may take.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar

from overnight.errors import ServiceError, UnavailableError
from overnight.threads import start_call

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


@dataclass(frozen=True)
class Within:
    """
    Carry out one call, a :class:`Pause` or a :class:`Gather` in a limited time; every transport understands it.

    When the time is over, :class:`~overnight.errors.UnavailableError` is thrown into the flow. A blocking call goes on
    in its thread until its own time-outs end it, and its answer is dropped.

    :param seconds: From the moment the call is yielded, all its retries and every byte of its answer included.
    """

    call: Any
    seconds: float


def bound(flow: Flow[T], seconds: float) -> Flow[T]:
    """
    Return the flow with a limit on the time that all its calls take together.

    A time-out of an HTTP client counts from byte to byte, so that a server which sends one byte at a time is never too
    slow for it. This one counts from the first call.

    :param seconds: After which :class:`~overnight.errors.UnavailableError` is thrown into the flow.
    """
    until = time.monotonic() + seconds
    return (yield from map_calls(flow, lambda call: Within(call, max(0.0, until - time.monotonic()))))


def map_calls(flow: Flow[T], change: Callable[[Any], Any]) -> Flow[T]:
    """Return the flow with each call that it yields replaced by what ``change`` makes of it."""
    step: Callable[[], Any] = partial(next, flow)
    try:
        while True:
            try:
                call = step()
            except StopIteration as stop:
                value: T = stop.value
                return value
            try:
                answer = yield change(call)
            except Exception as error:
                step = partial(flow.throw, error)
            else:
                step = partial(flow.send, answer)
    finally:
        flow.close()


class TimeIsUpError(Exception):
    """A call did not end in its time. For transports, which say of which call."""


def call_within(seconds: float, function: Callable[[], T]) -> T:
    """
    Call a blocking function in another thread, and wait for its end for a limited time.

    A call that takes longer goes on in its thread until its own time-outs end it, and its result is dropped.

    :raises TimeIsUpError: it takes longer. Whatever the function raises is raised here.
    """
    done = start_call(function)
    try:
        return done.result(seconds)
    except FutureTimeoutError:
        if done.done():
            raise
        raise TimeIsUpError from None


class Transport(ABC, Generic[CallT, AnswerT]):
    """
    Carries out the calls that a flow yields, blocking or on an event loop.

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
        if isinstance(call, Within):
            return self._carry_out_within(call)
        if isinstance(call, Pause):
            time.sleep(call.seconds)
            return None
        if not isinstance(call, Gather):
            return self.send(call)
        with ThreadPoolExecutor(call.at_once) as pool:
            return list(pool.map(self._outcome, call.calls))

    def _carry_out_within(self, within: Within) -> Any:
        try:
            return call_within(within.seconds, partial(self._carry_out, within.call))
        except TimeIsUpError:
            raise _build_too_slow_error(within) from None

    def _outcome(self, call: CallT) -> AnswerT | ServiceError:
        try:
            return self.send(call)
        except ServiceError as error:
            return error

    async def _acarry_out(self, call: Any) -> Any:
        if isinstance(call, Within):
            try:
                async with asyncio.timeout(call.seconds) as limit:
                    return await self._acarry_out(call.call)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise _build_too_slow_error(call) from None
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


def _build_too_slow_error(within: Within) -> UnavailableError:
    return UnavailableError(f"No complete answer came within {within.seconds:.1f} s, all the time there was for it.")
