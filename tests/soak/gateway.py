"""
``python -m soak.gateway``: passes requests on to a server that has no faults of its own, and lets some go wrong.

Like a load balancer it answers 503 when the server does not listen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Final

import httpx
import typer
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict
from starlette.types import ASGIApp, Receive, Scope, Send

from overnight.sandbox.emulator.draws import Draws
from overnight.sandbox.emulator.exchange import Exchange
from overnight.sandbox.emulator.faults import GatewayFaults
from overnight.sandbox.emulator.requests import ADMIN, SeenRequest
from overnight.sandbox.emulator.sections import Sections
from overnight.sandbox.emulator.server import serve

HTTP_FAULTS: Final = ("rate_limited", "server_error", "lost_answer", "cut_body")
_HOP_BY_HOP: Final = frozenset({"host", "connection", "expect", "transfer-encoding", "content-length", "keep-alive"})


def refuse_as_s3(status: int) -> Response:
    """Return S3's own answer: it says 503 to whom it wants to be slower."""
    code, status = ("SlowDown", 503) if status == 429 else ("InternalError", status)
    return Response(f"<Error><Code>{code}</Code><Message>Soak</Message></Error>", status, media_type="application/xml")


def refuse_as_opensearch(status: int) -> Response:
    """Return what a node says whose queue of writes is full, or a load balancer without a node."""
    if status != 429:
        return Response("<html>Service Unavailable</html>", status, media_type="text/html")
    error = {"type": "rejected_execution_exception", "reason": "rejected execution of coordinating operation"}
    return JSONResponse({"error": {"root_cause": [error], **error}, "status": 429}, 429)


REFUSALS: Final[dict[str, Callable[[int], Response]]] = {"s3": refuse_as_s3, "opensearch": refuse_as_opensearch}


class Settings(BaseModel):
    """What goes wrong."""

    model_config = ConfigDict(validate_assignment=True)

    faults: GatewayFaults = GatewayFaults()


class Gateway:
    """
    The application.

    :param upstream: The server's address.
    :param refuse: Makes the answer to a request that is not passed on, from its status.
    """

    def __init__(self, upstream: str, refuse: Callable[[int], Response], settings: Settings, draws: Draws) -> None:
        self._upstream = httpx.URL(upstream)
        self._refuse = refuse
        self._settings = settings
        self._draws = draws
        self._client = httpx.AsyncClient(timeout=120, trust_env=False, limits=httpx.Limits(max_connections=None))

    async def aclose(self) -> None:
        """Close the connections to the server."""
        await self._client.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or see to it that it goes wrong."""
        faults = self._settings.faults
        fault = self._draws.first(HTTP_FAULTS, faults, scope["method"], scope["path"])
        exchange = Exchange(scope, receive, send, SeenRequest(0))
        match fault:
            case "rate_limited":
                await exchange.refuse(self._refuse(429))
            case "server_error":
                await exchange.refuse(self._refuse(faults.server_error_status))
            case _:
                await self._pass(exchange, scope, fault)

    async def _pass(self, exchange: Exchange, scope: Scope, fault: str | None) -> None:
        body = await Request(scope, exchange.receive).body()
        try:
            answer = await self._ask(scope, body)
        except httpx.ConnectError:
            answer = self._refuse(503)
        except httpx.TransportError:
            # It may have been carried out.
            await exchange.drop()
            return
        if fault == "lost_answer":
            await exchange.drop()
            return
        await answer(scope, exchange.receive, exchange.halve if fault == "cut_body" else exchange.send)
        if exchange.is_cut:
            await exchange.drop()

    async def _ask(self, scope: Scope, body: bytes) -> Response:
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        url = self._upstream.copy_with(raw_path=scope["raw_path"] + query)
        headers = [(name, value) for name, value in scope["headers"] if name.decode() not in _HOP_BY_HOP]
        request = self._client.build_request(scope["method"], url, headers=headers, content=body)
        answered = await self._client.send(request, stream=True)
        try:
            content = b"".join([chunk async for chunk in answered.aiter_raw()])
        finally:
            await answered.aclose()
        answer = Response(content, answered.status_code)
        # Of a HEAD, the length is that of the object.
        dropped = _HOP_BY_HOP - ({"content-length"} if scope["method"] == "HEAD" else set())
        kept = [(name.lower(), value) for name, value in answered.headers.raw]
        own = [] if scope["method"] == "HEAD" else [item for item in answer.raw_headers if item[0] == b"content-length"]
        answer.raw_headers = [*own, *((name, value) for name, value in kept if name.decode() not in dropped)]
        return answer


def build_app(kind: str, upstream: str, seed: int) -> ASGIApp:
    """
    Return the gateway with ``/_sandbox/faults`` beside it, as the emulators have it.

    :param kind: ``s3`` or ``opensearch``: whose words a refusal has.
    """
    settings, draws = Settings(), Draws(seed)
    router = APIRouter(prefix=ADMIN)

    @router.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    Sections(settings, draws, ("faults",), ("health",)).add_routes(router, Request.json)
    gateway = Gateway(upstream, REFUSALS[kind], settings, draws)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await gateway.aclose()

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    app.include_router(router)
    app.mount("/", gateway)
    return app


def main(
    kind: Annotated[str, typer.Option(help="s3 or opensearch.")],
    upstream: Annotated[str, typer.Option(help="The server's address.")],
    port: Annotated[int, typer.Option()],
    seed: Annotated[int, typer.Option(help="Decides which requests go wrong.")],
) -> None:
    """Pass requests on until SIGTERM."""
    serve(build_app(kind, upstream, seed), host="127.0.0.1", port=port)


if __name__ == "__main__":
    typer.run(main)
