"""The application: one state, and the routers over it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from overnight.sandbox.llamacloud import admin, batches, configurations, directories, files, jobs
from overnight.sandbox.llamacloud.faults import FaultyFront
from overnight.sandbox.llamacloud.runner import Runner
from overnight.sandbox.llamacloud.settings import Settings
from overnight.sandbox.llamacloud.state import State


def create_app(settings: Settings) -> FastAPI:
    """
    Return the emulator as an ASGI application.

    Its runner works while the application's lifespan lasts. Dropped connections need
    :func:`overnight.sandbox.llamacloud.server.serve`.

    :param settings: Changed in place by the admin API.
    """
    state = State.open(settings)
    runner = Runner(state)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        runner.start()
        yield
        runner.stop()
        state.store.close()

    app = FastAPI(
        title="LlamaCloud batches, emulated",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.emulator = state
    for module in (directories, files, configurations, batches, jobs, admin):
        app.include_router(module.router)
    app.add_middleware(FaultyFront, settings=settings, decisions=state.decisions, requests=state.requests)
    return app
