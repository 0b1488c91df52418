"""The application: one state, and the routers over it."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from overnight.sandbox.emulator.application import application
from overnight.sandbox.emulator.sections import SectionError
from overnight.sandbox.llamacloud import admin, batches, configurations, directories, files, jobs
from overnight.sandbox.llamacloud.faults import FaultyFront
from overnight.sandbox.llamacloud.runner import Runner
from overnight.sandbox.llamacloud.settings import Settings
from overnight.sandbox.llamacloud.state import State


def create_app(settings: Settings) -> FastAPI:
    """
    Return the emulator as an ASGI application.

    Its runner works while the application's lifespan lasts. Dropped connections need
    :func:`overnight.sandbox.emulator.server.serve`.

    :param settings: Changed in place by the admin API.
    """
    state = State.open(settings)
    app = application("LlamaCloud batches, emulated", Runner(state), state.store.close)
    app.state.emulator = state
    for module in (directories, files, configurations, batches, jobs, admin):
        app.include_router(module.router)

    @app.exception_handler(SectionError)
    async def refuse_section(_: Request, error: SectionError) -> Response:
        return JSONResponse({"detail": str(error)}, status_code=error.status)

    app.add_middleware(FaultyFront, settings=settings, decisions=state.decisions, requests=state.requests)
    return app
