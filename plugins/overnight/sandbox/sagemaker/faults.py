"""Middleware of the API: it records calls and injects faults."""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from overnight.sandbox.emulator.draws import Draws as BaseDraws
from overnight.sandbox.emulator.draws import unit
from overnight.sandbox.emulator.exchange import Exchange
from overnight.sandbox.emulator.requests import Log, Seen
from overnight.sandbox.sagemaker.errors import AwsError, internal
from overnight.sandbox.sagemaker.settings import Settings
from overnight.sandbox.sagemaker.store import Fate

TARGET = "SageMaker."
_CALL = re.compile(r"/([A-Z][A-Za-z]+)?")
CONTENT_TYPE = "application/x-amz-json-1.1"
CALL_FAULTS = (
    "throttled",
    "unavailable",
    "internal_error",
    "internal_error_after",
    "lost_answer",
    "access_denied",
    "expired_token",
)
_FATES: tuple[tuple[str, Fate], ...] = (("job_lost", "lost"), ("job_stuck", "stuck"))


@dataclass
class SeenCall(Seen):
    """A call, for the record."""

    operation: str = ""


class Calls(Log[SeenCall]):
    """The last calls, each with its operation."""

    def add(self, operation: str) -> SeenCall:
        """Record a call that has just come in."""
        return self.record(lambda number: SeenCall(number, operation=operation))


class Draws(BaseDraws):
    """
    The draws for calls, jobs and inputs.

    :param settings: Its faults are read anew for each draw.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.seed)
        self._settings = settings

    def call(self, operation: str) -> str | None:
        """Return the fault that hits a call, if any."""
        for kind in CALL_FAULTS:
            fault = getattr(self._settings.faults, kind)
            if (not fault.operations or operation in fault.operations) and self.hits(kind, fault):
                return kind
        return None

    def fate(self) -> Fate:
        """Return what becomes of a job that is created now."""
        faults = self._settings.faults
        return next((fate for kind, fate in _FATES if self.hits(kind, getattr(faults, kind))), "normal")

    def refuses(self, uri: str) -> bool:
        """Say whether the model refuses an input, however often that is asked."""
        fault = self._settings.faults.files_refused
        return unit(self._settings.seed, "files_refused", uri) < fault.share


class FaultyFront:
    """ASGI middleware; the outermost."""

    def __init__(self, app: ASGIApp, *, draws: Draws, calls: Calls) -> None:
        self._app = app
        self._draws = draws
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call, or see to it that it goes wrong."""
        if scope["type"] != "http" or not _CALL.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        operation = parse_operation(scope["path"], Headers(scope=scope))
        seen = self._calls.add(operation)
        seen.fault = self._draws.call(operation)
        exchange = Exchange(scope, receive, send, seen)
        refusal = _refusal(seen.fault, operation)
        if refusal is not None:
            seen.status = refusal.status
            await exchange.refuse(_answer(refusal))
        elif seen.fault == "internal_error_after":
            await self._app(scope, exchange.receive, exchange.swallow)
            await exchange.refuse(_answer(internal()))
        elif seen.fault == "lost_answer":
            await self._app(scope, exchange.receive, exchange.swallow)
            await exchange.drop()
        else:
            await self._app(scope, exchange.receive, exchange.send)


def parse_operation(path: str, headers: Headers) -> str:
    """
    Return the operation that a call asks for.

    SDKs name it in ``X-Amz-Target``. SageMaker also takes it as the path, which is how OpenSearch's connectors call:
    https://github.com/opensearch-project/ml-commons/blob/main/docs/remote_inference_blueprints/batch_inference_sagemaker_connector_blueprint.md
    """
    return headers.get("x-amz-target", "").removeprefix(TARGET) or path.removeprefix("/")


def _refusal(fault: str | None, operation: str) -> AwsError | None:
    match fault:
        case "throttled":
            return AwsError("ThrottlingException", "Rate exceeded")
        case "unavailable":
            return AwsError("ServiceUnavailable", "Service is unavailable. Please try again later.", status=503)
        case "internal_error":
            return internal()
        case "expired_token":
            return AwsError("ExpiredTokenException", "The security token included in the request is expired")
        case "access_denied":
            return AwsError(
                "AccessDeniedException",
                f"User: arn:aws:sts::123456789012:assumed-role/sandbox/worker is not authorized to perform: "
                f"sagemaker:{operation} because no identity-based policy allows the sagemaker:{operation} action",
            )
    return None


def _answer(error: AwsError) -> Response:
    return Response(orjson.dumps(error.body), status_code=error.status, media_type=CONTENT_TYPE)
