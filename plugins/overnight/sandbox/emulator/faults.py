"""The settings that every emulator has, and above all those that say what goes wrong."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from error
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]


def _short(value: Any) -> Any:
    return {"share": value} if isinstance(value, int | float) else value


Short = BeforeValidator(_short)
"""Lets a number stand for a fault of that share."""


class Options(BaseModel):
    """A part of the settings, replaced as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Fault(Options):
    """
    How often something goes wrong.

    :param share: Part of what could, 0 to 1.
    :param times: How often at most, counted from when the fault was set; no end when ``None``.
    """

    share: Share = 0.0
    times: Annotated[int, Field(ge=0)] | None = None


class HttpFault(Fault):
    """
    Which requests go wrong in one way.

    :param path: A regular expression searched in the path, as the emulator records it.
    :param methods: HTTP methods, upper case; every method when empty.
    """

    path: Pattern = ""
    methods: frozenset[str] = frozenset()

    def concerns(self, method: str, path: str) -> bool:
        """Whether a request is one of those that go wrong."""
        return (not self.methods or method in self.methods) and re.search(self.path, path) is not None


class BatchFault(Fault):
    """Which batches or jobs go wrong in one way; decided when one is created."""


Http = Annotated[HttpFault, Short]
Batch = Annotated[BatchFault, Short]


class ConnectionFaults(Options):
    """What goes wrong between a client and any service."""

    timeout: Http = HttpFault()
    """Nothing happens for ``timeout_seconds``, then the connection is dropped; the request is not carried out."""
    timeout_seconds: Seconds = 60.0
    lost_answer: Http = HttpFault()
    """The request is carried out, the connection dropped before the first byte of the answer."""
    latency: Seconds = 0.0
    """Seconds that every request waits first."""


class GatewayFaults(ConnectionFaults):
    """What goes wrong before and behind a service whose errors differ by their status alone."""

    rate_limited: Http = HttpFault()
    """429 with ``Retry-After``; the request is not carried out."""
    retry_after: Seconds = 1.0
    server_error: Http = HttpFault()
    """``server_error_status``; the request is not carried out."""
    server_error_status: Annotated[int, Field(ge=500, le=599)] = 500
    cut_body: Http = HttpFault()
    """The connection is dropped half-way through the answer's body; ``Content-Length`` promised all of it."""
