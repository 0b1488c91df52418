"""What stands before the API: calls are recorded, and some of them go wrong."""

from __future__ import annotations

import random
import re
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overnight.sandbox.openai.connections import drop
from overnight.sandbox.openai.decisions import unit
from overnight.sandbox.sagemaker.errors import AwsError, internal
from overnight.sandbox.sagemaker.settings import Settings
from overnight.sandbox.sagemaker.store import Fate

ADMIN = "/_sandbox"
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
_REMEMBERED = 20_000


@dataclass
class Seen:
    """
    A call, for the record; never its credentials or its arguments.

    :param status: Of the answer that the API gave, which a fault may have kept from arriving.
    """

    number: int
    operation: str
    status: int | None = None
    fault: str | None = None


class Calls:
    """The last calls, oldest first."""

    def __init__(self) -> None:
        self._seen: deque[Seen] = deque(maxlen=_REMEMBERED)
        self._count = 0

    def add(self, operation: str) -> Seen:
        """Record a call that has just come in."""
        self._count += 1
        seen = Seen(self._count, operation)
        self._seen.append(seen)
        return seen

    def public(self, operation: str | None) -> list[dict[str, Any]]:
        """Return the recorded calls of an operation, or all of them."""
        return [asdict(seen) for seen in self._seen if operation in (None, seen.operation)]

    def clear(self) -> None:
        """Forget them; the numbers go on."""
        self._seen.clear()


class Draws:
    """
    Who is hit by a fault, drawn from the seed: the same calls in the same order go wrong in the same way.

    :param settings: Its faults are read anew for each draw.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Start every sequence and every count of ``times`` anew."""
        self._draws: dict[str, random.Random] = {}
        self._hits: Counter[str] = Counter()

    def call(self, operation: str) -> str | None:
        """Return the fault that hits a call, if any."""
        for kind in CALL_FAULTS:
            fault = getattr(self._settings.faults, kind)
            if (not fault.operations or operation in fault.operations) and self._hit(kind):
                return kind
        return None

    def fate(self) -> Fate:
        """Return what becomes of a job that is created now."""
        return next((fate for kind, fate in _FATES if self._hit(kind)), "normal")

    def refuses(self, uri: str) -> bool:
        """Say whether the model refuses an input, however often that is asked."""
        fault = self._settings.faults.files_refused
        return unit(self._settings.seed, "files_refused", uri) < fault.share

    def _hit(self, kind: str) -> bool:
        fault = getattr(self._settings.faults, kind)
        if not fault.share or (fault.times is not None and self._hits[kind] >= fault.times):
            return False
        # Not a secret: a sequence for each fault, so that switching one on leaves the others alone.
        draw = self._draws.setdefault(kind, random.Random(f"{self._settings.seed}:{kind}"))  # noqa: S311
        if draw.random() >= fault.share:
            return False
        self._hits[kind] += 1
        return True


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
        operation = operation_of(scope["path"], Headers(scope=scope))
        seen = self._calls.add(operation)
        seen.fault = self._draws.call(operation)
        refusal = _refusal(seen.fault, operation)
        if refusal is not None:
            await _drain(receive)
            await _refuse(refusal, seen, send)
            return

        async def pass_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
            if seen.fault is None:
                await send(message)

        await self._app(scope, receive, pass_on)
        if seen.fault == "internal_error_after":
            await _refuse(internal(), seen, send)
        elif seen.fault == "lost_answer":
            await drop(scope, receive)


def operation_of(path: str, headers: Headers) -> str:
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


async def _refuse(error: AwsError, seen: Seen, send: Send) -> None:
    seen.status = seen.status or error.status
    body = orjson.dumps(error.body)
    headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _drain(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
