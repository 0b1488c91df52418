"""The application that an emulator's routes are added to."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI

from overnight.sandbox.emulator.worker import Worker


def application(title: str, worker: Worker, close: Callable[[], None], **options: Any) -> FastAPI:
    """
    Return an application without routes, at whose start the worker is started.

    :param close: Called at its end, when the worker has stopped.
    :param options: Further ones of FastAPI.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        worker.stop()
        close()

    return FastAPI(
        title=title,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        **options,
    )
