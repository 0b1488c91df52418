"""The application: one state, the routers over it, and Azure's error shape for whatever goes wrong."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from overnight.sandbox.azure.admin import admin_router
from overnight.sandbox.azure.api import api_router
from overnight.sandbox.azure.errors import ApiError, invalid
from overnight.sandbox.azure.faults import FaultyFront
from overnight.sandbox.azure.search import SearchError, search_router
from overnight.sandbox.azure.settings import Settings
from overnight.sandbox.azure.state import State
from overnight.sandbox.emulator.application import application
from overnight.sandbox.emulator.sections import SectionError


def create_app(settings: Settings) -> FastAPI:
    """
    Return the emulator as an ASGI application.

    Its runner works while the application's lifespan lasts. Dropped connections need
    :func:`overnight.sandbox.emulator.server.serve`.

    :param settings: Changed in place by the admin API.
    """
    state = State.open(settings)

    app = application("Azure OpenAI ingestion jobs, emulated", state.runner, state.database.close)
    app.include_router(api_router(state))
    app.include_router(search_router(state))
    app.include_router(admin_router(state))

    @app.exception_handler(ApiError)
    async def refuse(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.body, status_code=error.status, headers=error.headers)

    @app.exception_handler(SectionError)
    async def refuse_section(request: Request, error: SectionError) -> Response:
        message = str(error)
        return await refuse(
            request, ApiError("notFound", message) if error.status == 404 else invalid(error.section, message)
        )

    @app.exception_handler(SearchError)
    async def refuse_search(_: Request, error: SearchError) -> Response:
        return error.answer

    @app.exception_handler(HTTPException)
    async def unrouted(_: Request, error: HTTPException) -> Response:
        # Azure's gateway answers for whatever no service is behind: with the status in the code's place.
        body = {"error": {"code": str(error.status_code), "message": "Resource not found"}}
        return JSONResponse(body, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, __: Exception) -> Response:
        error = ApiError("internalFailure")
        return JSONResponse(error.body, status_code=error.status)

    app.add_middleware(FaultyFront, state=state)
    return app
