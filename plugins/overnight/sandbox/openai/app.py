"""The application: one state, the routers over it, and OpenAI's error shape for whatever goes wrong."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from overnight.sandbox.emulator.application import application
from overnight.sandbox.emulator.sections import SectionError
from overnight.sandbox.openai.admin import admin_router
from overnight.sandbox.openai.api import api_router
from overnight.sandbox.openai.errors import ApiError, server_error
from overnight.sandbox.openai.faults import FaultyFront
from overnight.sandbox.openai.settings import Settings
from overnight.sandbox.openai.state import State


class Json(JSONResponse):
    """JSON by orjson; an answer of embeddings is mostly numbers."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return orjson.dumps(content)


def create_app(settings: Settings) -> FastAPI:
    """
    Return the emulator as an ASGI application.

    Its runner works while the application's lifespan lasts. Dropped connections need
    :func:`overnight.sandbox.emulator.server.serve`.

    :param settings: Changed in place by the admin API.
    """
    state = State.open(settings)

    app = application(
        "OpenAI files and batches, emulated", state.runner, state.database.close, default_response_class=Json
    )
    app.include_router(api_router(state))
    app.include_router(admin_router(state))

    @app.exception_handler(ApiError)
    async def refuse(_: Request, error: ApiError) -> Response:
        return Json(error.body, status_code=error.status, headers=error.headers)

    @app.exception_handler(SectionError)
    async def refuse_section(request: Request, error: SectionError) -> Response:
        return await refuse(request, ApiError(error.status, str(error)))

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            message = f"Not allowed to {request.method} on {request.url.path}."
            return await refuse(request, ApiError(405, message, code="method_not_supported"))
        message = f"Invalid URL ({request.method} {request.url.path})" if error.status_code == 404 else error.detail
        return await refuse(request, ApiError(error.status_code, message))

    @app.exception_handler(Exception)
    async def broken(request: Request, _: Exception) -> Response:
        return await refuse(request, server_error())

    app.add_middleware(FaultyFront, settings=settings, decisions=state.decisions, requests=state.requests)
    return app
