"""A service and the transport that reaches it: what a hook hands out."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from overnight.jobs.service import Service
from overnight.transport.flow import Flow, Transport

ServiceT = TypeVar("ServiceT", bound=Service[Any])
T = TypeVar("T")


@dataclass(frozen=True)
class JobClient(Generic[ServiceT]):
    """
    Run a service's verbs: ``client.run(client.service.status(ref))``, or ``await client.arun(…)``.

    Leaving the ``with`` (or ``async with``) block closes the transport.
    """

    service: ServiceT
    transport: Transport[Any, Any]

    def run(self, flow: Flow[T]) -> T:
        """Drive a verb of the service to its end, blocking."""
        return self.transport.run(flow)

    async def arun(self, flow: Flow[T]) -> T:
        """Drive a verb of the service to its end on the event loop."""
        return await self.transport.arun(flow)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.transport.aclose()
