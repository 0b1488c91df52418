"""The record of what clients asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from starlette.datastructures import Headers
from starlette.types import Scope

ADMIN = "/_sandbox"
"""What a user of the emulator, not of the API, asks for lies below; it is not recorded and never goes wrong."""
_REMEMBERED = 20_000


@dataclass
class Seen:
    """
    A request, for the record; never its credentials or its body.

    :param status: Of the answer the API gave, which a fault may have kept from arriving; ``None`` when it gave none.
    """

    number: int
    status: int | None = None
    fault: str | None = None


@dataclass
class SeenRequest(Seen):
    """A request to an API that tells what is wanted by method and path."""

    method: str = ""
    path: str = ""
    organization: str | None = None
    project: str | None = None


Entry = TypeVar("Entry", bound=Seen)


class Log(Generic[Entry]):
    """
    The last requests, oldest first. Only the event loop's thread may use it.

    A thread that reads it would find it changing under its hands: a route that does is to be ``async def``.
    """

    def __init__(self) -> None:
        self._seen: deque[Entry] = deque(maxlen=_REMEMBERED)
        self._count = 0

    def record(self, make: Callable[[int], Entry]) -> Entry:
        """Record a request that has just come in."""
        self._count += 1
        seen = make(self._count)
        self._seen.append(seen)
        return seen

    def public(self, **wanted: str | None) -> list[dict[str, Any]]:
        """
        Return the recorded requests.

        :param wanted: Values that fields must have; ``None`` for any.
        """
        asked = {name: value for name, value in wanted.items() if value is not None}
        return [
            asdict(seen) for seen in self._seen if all(getattr(seen, name) == value for name, value in asked.items())
        ]

    def clear(self) -> None:
        """Forget them; the numbers go on."""
        self._seen.clear()


class Requests(Log[SeenRequest]):
    """The last requests, each with its method and path."""

    def add(self, scope: Scope) -> SeenRequest:
        """Record a request that has just come in."""
        headers = Headers(scope=scope)
        return self.record(
            lambda number: SeenRequest(
                number,
                method=scope["method"],
                path=scope["path"],
                organization=headers.get("openai-organization"),
                project=headers.get("openai-project"),
            )
        )
