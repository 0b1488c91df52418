from __future__ import annotations

from typing import Any

import pytest

from http_server import Server, json_answer
from overnight.errors import CredentialsError, RequestRefusedError, ServiceError, SpecError
from overnight.services.llamacloud.answers import list_all
from overnight.services.llamacloud.connection import LlamaCloudConnection, read_detail
from overnight.transport.http import HttpCall

SECRET = "llx-a-secret-key"


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ({"detail": "Not found"}, (None, "Not found")),
        ({"detail": {"message": "exists", "directory_id": "dir-1"}}, (None, "exists")),
        ({"detail": {"code": "quota", "message": "used up"}}, ("quota", "used up")),
        (
            {"detail": [{"type": "missing", "loc": ["body", "name"], "msg": "Field required", "input": {"k": SECRET}}]},
            ("missing", "body.name: Field required"),
        ),
        ({"detail": []}, None),
        ({"other": 1}, None),
        ([], None),
    ],
)
def test_every_shape_of_an_error_is_read_and_no_input_repeated(body: Any, read: Any) -> None:
    assert read_detail(body) == read


def test_project_and_organization_go_into_the_query_and_the_key_into_a_header(server: Server) -> None:
    reach = LlamaCloudConnection(SECRET, server.url, project_id="prj-1", organization_id="org-1")
    with reach.transport() as transport:
        transport.send(HttpCall("GET", "api/v2/batches", params={"page_size": 1}))
    (request,) = server.requests
    assert request.path == "/api/v2/batches"
    assert sorted(request.query.split("&")) == ["organization_id=org-1", "page_size=1", "project_id=prj-1"]
    assert request.headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("status", "kind", "remedy"),
    [(401, CredentialsError, "region"), (402, RequestRefusedError, "credits"), (403, CredentialsError, "project_id")],
)
def test_a_refusal_names_its_remedy_and_never_the_key(
    server: Server, status: int, kind: type[ServiceError], remedy: str
) -> None:
    server.answers = [json_answer({"detail": f"bad key {SECRET}"}, status)]
    with LlamaCloudConnection(SECRET, server.url).transport() as transport, pytest.raises(kind) as caught:
        transport.send(HttpCall("GET", "api/v2/batches"))
    assert remedy in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_key_is_wanted_and_not_shown() -> None:
    with pytest.raises(SpecError, match="no API key"):
        LlamaCloudConnection("  ").transport()
    assert SECRET not in repr(LlamaCloudConnection(SECRET))


def test_a_list_is_read_to_its_end_and_no_further_than_needed(server: Server) -> None:
    pages = [{"items": [{"id": str(n)}], "next_page_token": str(n) if n < 3 else None} for n in range(4)]
    with LlamaCloudConnection(SECRET, server.url).transport() as transport:
        server.answers = [json_answer(page) for page in pages]
        assert [item["id"] for item in transport.run(list_all("x", {}))] == ["0", "1", "2", "3"]
        server.answers = [json_answer(page) for page in pages]
        assert len(transport.run(list_all("x", {}, enough=lambda items: len(items) == 2))) == 2


def test_a_list_that_never_ends_or_is_none_is_an_error(server: Server) -> None:
    with LlamaCloudConnection(SECRET, server.url).transport() as transport:
        server.answers = [json_answer({"items": [{"id": "a"}], "next_page_token": "same"})]
        with pytest.raises(ServiceError, match="in a circle"):
            transport.run(list_all("x", {}))
        server.answers = [json_answer({"detail": "hello"})]
        with pytest.raises(ServiceError, match="cannot be read"):
            transport.run(list_all("x", {}))
