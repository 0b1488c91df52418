"""The application: AWS JSON 1.1 at the root, what only a sandbox has under ``/_sandbox``."""

from __future__ import annotations

import logging
import re
import uuid
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool

from overnight.sandbox.emulator.application import application
from overnight.sandbox.emulator.requests import ADMIN
from overnight.sandbox.emulator.sections import SectionError, Sections
from overnight.sandbox.sagemaker import objects
from overnight.sandbox.sagemaker.api import Api
from overnight.sandbox.sagemaker.errors import AwsError, internal
from overnight.sandbox.sagemaker.faults import CONTENT_TYPE, Calls, Draws, FaultyFront, parse_operation
from overnight.sandbox.sagemaker.runner import Runner
from overnight.sandbox.sagemaker.settings import Settings
from overnight.sandbox.sagemaker.store import Store

log = logging.getLogger(__name__)

_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/\d{8}/(?P<region>[a-z0-9-]+)/sagemaker/")


def create_app(settings: Settings) -> FastAPI:
    """
    Return the emulator as an ASGI application.

    Its runner works while the application's lifespan lasts. Dropped connections need
    :func:`overnight.sandbox.emulator.server.serve`.

    :param settings: Changed in place under ``/_sandbox``.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    store = Store(settings.data_dir / "sagemaker.sqlite")
    draws, calls, s3 = Draws(settings), Calls(), objects.connect(settings)
    runner = Runner(settings, store, draws, s3)
    sections = Sections(settings, draws, ("faults", "limits", "pace"), beside=("calls", "logs"))
    api = Api(settings, store, draws, s3)

    app = application("SageMaker batch transform, emulated", runner, store.close)

    async def call(request: Request) -> Response:
        try:
            region = _authenticate(request, settings)
            operation = parse_operation(request.url.path, request.headers)
            answer = await run_in_threadpool(api.call, operation, region, _decode(await request.body()))
            return _answer(answer)
        except AwsError as error:
            return _answer(error.body, error.status, error.code)
        except Exception:
            log.exception("A call broke.")
            return _answer(internal().body, 500)

    @app.get("/healthz")
    def health() -> dict[str, Any]:
        return {"status": "ok", "unfinished_jobs": len(store.jobs(unfinished=True))}

    @app.get(ADMIN + "/calls")
    async def show_calls(operation: str | None = None) -> list[dict[str, Any]]:
        return calls.public(operation=operation)

    @app.delete(ADMIN + "/calls")
    async def forget_calls() -> list[dict[str, Any]]:
        calls.clear()
        return calls.public()

    @app.get(ADMIN + "/logs/{name}")
    def show_log(name: str) -> dict[str, list[str]]:
        return {job.arn: job.log for job in store.jobs() if job.name == name}

    @app.get(ADMIN + "/{section}")
    def show(section: str) -> dict[str, Any]:
        return sections.show(section)

    @app.put(ADMIN + "/{section}")
    async def replace(section: str, request: Request) -> dict[str, Any]:
        sections.show(section)
        try:
            values = orjson.loads(await request.body())
        except orjson.JSONDecodeError as error:
            raise SectionError(400, section, f"The body is not JSON: {error}") from error
        return sections.replace(section, values)

    @app.exception_handler(SectionError)
    async def refuse_section(_: Request, error: SectionError) -> Response:
        return PlainTextResponse(str(error), status_code=error.status)

    @app.post("/endpoints/{name}/invocations")
    async def invocations(name: str, request: Request) -> Response:
        content_type, accept = request.headers.get("content-type"), request.headers.get("accept")
        wanted = None if accept in (None, "*/*") else accept
        try:
            region, body = _authenticate(request, settings), await request.body()
            answer = await run_in_threadpool(api.invoke, region, name, body, content_type, wanted)
        except AwsError as error:
            return _answer(error.body, error.status, error.code)
        return Response(answer, media_type=wanted or content_type or "application/json")

    app.add_api_route("/", call, methods=["POST"])
    # As the blueprints of OpenSearch's connectors call it: a GET with a body for a status.
    app.add_api_route("/{operation}", call, methods=["GET", "POST"])
    app.add_middleware(FaultyFront, draws=draws, calls=calls)
    return app


def _authenticate(request: Request, settings: Settings) -> str:
    """Return the region that a call was signed for. The signature itself is not verified."""
    header = request.headers.get("authorization")
    if header is None:
        raise AwsError("MissingAuthenticationTokenException", "Missing Authentication Token", status=403)
    found = _CREDENTIAL.match(header)
    if found is None:
        message = "Authorization header requires 'Credential' parameter with a scope of this service."
        raise AwsError("IncompleteSignatureException", message, status=403)
    if settings.access_key not in (None, found["key"]):
        message = "The security token included in the request is invalid."
        raise AwsError("UnrecognizedClientException", message)
    return found["region"]


def _decode(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise AwsError("SerializationException", "The request's body is not JSON.") from None


def _answer(body: Any, status: int = 200, code: str | None = None) -> Response:
    headers = {"x-amzn-RequestId": str(uuid.uuid4()), **({"x-amzn-ErrorType": code} if code else {})}
    # An operation without an output has an empty body, not an empty object.
    content = orjson.dumps(body) if body else b""
    return Response(content, status_code=status, headers=headers, media_type=CONTENT_TYPE)
