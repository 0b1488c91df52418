"""The routes of Azure AI Search that one needs to see what was ingested: https://learn.microsoft.com/rest/api/searchservice."""

from __future__ import annotations

import secrets
from typing import Any, Final

import orjson
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool

from overnight.sandbox.azure.index import FIELDS, IndexStore
from overnight.sandbox.azure.state import State

_DEFAULT_TOP: Final = 50
_MAX_TOP: Final = 1_000
_MAX_SKIP: Final = 100_000
_PARAMETERS: Final = {"search", "searchMode", "queryType", "top", "skip", "count", "select"}


class SearchError(Exception):
    """A request that the search service refuses, in that service's shape."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answer = JSONResponse({"error": {"code": "", "message": message}}, status_code=status)


def search_router(state: State) -> APIRouter:
    """Return the routes; each wants the admin key and an API version."""
    router = APIRouter(prefix="/indexes", dependencies=[Depends(_check_caller(state))])
    indexes = state.indexes

    @router.get("")
    def show_all() -> dict[str, Any]:
        return {"value": [_definition(name) for name in indexes.names()]}

    @router.get("/{name}")
    def show(name: str) -> dict[str, Any]:
        _check_index(indexes, name)
        return _definition(name)

    @router.delete("/{name}", status_code=204)
    def delete(name: str) -> Response:
        _check_index(indexes, name)
        indexes.delete(name)
        return Response(status_code=204)

    @router.get("/{name}/docs/$count")
    def count(name: str) -> PlainTextResponse:
        _check_index(indexes, name)
        return PlainTextResponse(str(indexes.count(name)))

    @router.post("/{name}/docs/search")
    async def search(name: str, request: Request) -> dict[str, Any]:
        body = _query(await request.body())
        return await run_in_threadpool(_search, indexes, name, body)

    @router.get("/{name}/docs/{key}")
    def lookup(name: str, key: str) -> dict[str, Any]:
        _check_index(indexes, name)
        document = indexes.get(name, key)
        if document is None:
            raise SearchError(404, f"The index '{name}' has no document with the key '{key}'.")
        return document

    return router


def _search(indexes: IndexStore, name: str, body: dict[str, Any]) -> dict[str, Any]:
    _check_index(indexes, name)
    total, found = indexes.search(
        name,
        str(body.get("search") or "*"),
        all_words=body.get("searchMode", "any") == "all",
        top=_integer(body, "top", _DEFAULT_TOP, _MAX_TOP),
        skip=_integer(body, "skip", 0, _MAX_SKIP),
    )
    wanted = [field.strip() for field in str(body.get("select") or "*").split(",")]
    if wanted != ["*"]:
        unknown = [field for field in wanted if field not in FIELDS]
        if unknown:
            raise SearchError(400, f"Could not find a property named '{unknown[0]}' on type 'search.document'.")
        found = [{field: row[field] for field in ("@search.score", *wanted)} for row in found]
    answer: dict[str, Any] = {"@odata.count": total} if body.get("count") is True else {}
    return {**answer, "value": found}


def _query(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise SearchError(400, "The request body must be a JSON object.")
    unknown = sorted(body.keys() - _PARAMETERS)
    if unknown:
        raise SearchError(
            400, f"The sandbox's search does not know {unknown[0]}; it knows {', '.join(sorted(_PARAMETERS))}."
        )
    if body.get("queryType", "simple") != "simple" or body.get("searchMode", "any") not in ("any", "all"):
        raise SearchError(400, "The sandbox's search knows queryType simple, and searchMode any and all.")
    return body


def _integer(body: dict[str, Any], name: str, default: int, most: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise SearchError(400, f"Invalid value for {name}: an integer from 0 to {most} is expected.")
    return value


def _definition(name: str) -> dict[str, Any]:
    fields = [{"name": field, "type": "Edm.String", "key": field == "id"} for field in FIELDS]
    return {"name": name, "fields": fields}


def _check_index(indexes: IndexStore, name: str) -> None:
    if not indexes.exists(name):
        raise SearchError(404, f"No index with the name '{name}' was found in the service.")


def _check_caller(state: State) -> Any:
    async def check(request: Request) -> None:
        key = request.headers.get("api-key", "")
        if not secrets.compare_digest(key.encode(), state.settings.search_key.get_secret_value().encode()):
            raise SearchError(403, "The request has no valid api-key.")
        if not request.query_params.get("api-version"):
            raise SearchError(400, "The api-version query parameter is missing.")

    return check
