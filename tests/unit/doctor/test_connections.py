from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from http_server import Request, Server, json_answer
from overnight.doctor.connections import check_connection
from overnight.doctor.dag_uses import SAGEMAKER
from overnight.doctor.finding import State
from slowprint.server import Shop
from unit.doctor.conftest import SECRET

Connect = Callable[..., str]
BATCHES = {"object": "list", "data": [], "has_more": False}


def answer_as_openai(request: Request) -> Any:
    if request.path != "/v1/batches":
        return json_answer({"error": {"message": "Invalid URL"}}, 404)
    if request.headers.get("authorization") != f"Bearer {SECRET}":
        return json_answer({"error": {"code": "invalid_api_key", "message": "Incorrect API key provided"}}, 401)
    return json_answer(BATCHES)


@pytest.fixture
def openai(server: Server) -> str:
    server.handler = answer_as_openai
    return f"{server.url}/v1"


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_connection_whose_key_is_taken_is_well(connect: Connect, openai: str) -> None:
    found = check_connection(connect("c", "overnight_openai", host=openai), ())
    assert (found.state, found.text) == (State.OK, "The batch API of c answers.")


def test_a_wrong_key_is_found_and_not_printed(connect: Connect, openai: str) -> None:
    found = check_connection(connect("c", "overnight_openai", host=openai, password="sk-another"), ())
    assert found.state == State.FAILURE
    assert "Check the API key in the connection" in found.text
    assert "sk-another" not in found.text


def test_a_connection_that_is_missing_is_to_be_created_with_the_right_type() -> None:
    found = check_connection("nightly", {"openai_conn_id"})
    assert found.state == State.FAILURE
    assert "There is no connection 'nightly'. Create one of type overnight_openai" in found.text
    assert "AIRFLOW_CONN_NIGHTLY" in found.text


def test_a_server_that_does_not_answer_is_asked_once(connect: Connect, closed_port: int) -> None:
    found = check_connection(connect("c", "overnight_openai", host=f"http://127.0.0.1:{closed_port}/v1"), ())
    assert found.state == State.FAILURE
    assert "Correct the connection's host and port" in found.text


def test_a_server_that_fails_is_asked_once(connect: Connect, server: Server) -> None:
    server.answers = [json_answer({"error": "down"}, 503)]
    assert check_connection(connect("c", "overnight_openai", host=server.url), ()).state == State.FAILURE
    assert len(server.requests) == 1


def test_a_path_without_its_version_is_found(connect: Connect, openai: str) -> None:
    found = check_connection(connect("c", "overnight_openai", host=openai.removesuffix("/v1")), ())
    assert found.state == State.FAILURE
    assert "the address ends in /v1 for OpenAI" in found.text


def test_white_space_around_a_key_is_a_warning_where_it_is_dropped(connect: Connect, openai: str) -> None:
    found = check_connection(connect("c", "overnight_openai", host=openai, password=f"{SECRET}\n"), ())
    assert found.state == State.WARNING
    assert "White space begins or ends its password: enter it again" in found.text
    assert SECRET not in found.text


def test_white_space_around_a_password_is_named_before_the_refusal(connect: Connect, server: Server) -> None:
    server.answers = [json_answer({"error": "Unauthorized"}, 401)]
    conn_id = connect("c", "overnight_opensearch", host=server.url, login="admin", password=f"{SECRET} ")
    found = check_connection(conn_id, ())
    assert found.state == State.FAILURE
    assert found.text.startswith("White space begins or ends its password: enter it again")
    assert "Check the user and password" in found.text
    assert SECRET not in found.text


def test_white_space_inside_a_key_is_refused_without_quoting_it(connect: Connect, openai: str) -> None:
    found = check_connection(connect("c", "overnight_openai", host=openai, password="sk-\nsecret"), ())
    assert found.state == State.FAILURE
    assert "Authorization header" in found.text
    assert "secret" not in found.text


def test_a_variable_that_is_no_connection_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_C", f'{{"conn_type": "overnight_openai", "password": "{SECRET}"')
    found = check_connection("c", {"openai_conn_id"})
    assert found.state == State.FAILURE
    assert "AIRFLOW_CONN_C cannot be read as a connection. Write it as JSON" in found.text
    assert SECRET not in found.text


def test_an_extra_that_is_no_object_is_refused(monkeypatch: pytest.MonkeyPatch, connect: Connect) -> None:
    from overnight.errors import SpecError

    with pytest.raises(SpecError, match="no JSON object"):
        check_connection(connect("c", "overnight_openai", extra="[1]"), ())


@pytest.mark.parametrize("conn_type", ["overnight_opensearch", "opensearch"])
def test_an_opensearch_says_its_version(connect: Connect, server: Server, conn_type: str) -> None:
    server.answers = [json_answer({"version": {"distribution": "opensearch", "number": "2.19.6"}})]
    conn_id = connect("c", conn_type, host="127.0.0.1", port=server.port, extra={"use_ssl": False})
    found = check_connection(conn_id, {"opensearch_conn_id"})
    assert (found.state, found.text) == (State.OK, "OpenSearch 2.19.6 answers.")


def test_a_connection_of_another_type_is_tried_as_what_the_dag_uses_it_for(connect: Connect, openai: str) -> None:
    found = check_connection(connect("c", "http", host=openai), {"openai_conn_id"})
    assert found.state == State.OK


def test_a_type_that_nothing_can_try_is_a_warning(connect: Connect) -> None:
    found = check_connection(connect("c", "ftp", host="example.com"), {"conn_id"})
    assert found.state == State.WARNING
    assert "overnight_openai" in found.text


def test_a_service_of_another_package_is_tried_with_its_hook(connect: Connect, shop: Shop) -> None:
    found = check_connection("slowprint_default", ())
    assert (found.state, found.text) == (State.OK, "The print shop is open.")


def test_an_aws_connection_without_a_key_is_found(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    found = check_connection(connect("c", "aws", password=None), {"aws_conn_id"})
    assert found.state == State.FAILURE
    assert "'c' has no credentials. Put a key into login and password" in found.text
    missing = check_connection("aws_default", {"aws_conn_id"})
    assert missing.state == State.FAILURE
    assert "boto's own chain" in missing.text


def test_an_aws_connection_with_a_key_is_left_to_the_object_store(connect: Connect) -> None:
    found = check_connection(connect("c", "aws", login="AKIA"), {"aws_conn_id"}, opens_folder=True)
    assert found.state == State.OK
    assert "object store" in found.text


@pytest.mark.parametrize("place", ["whole", "service"])
def test_a_key_of_another_s3_that_nothing_tries_is_a_warning(connect: Connect, place: str) -> None:
    own = {"endpoint_url": "http://minio:9000"}
    extra = own if place == "whole" else {"service_config": {"s3": own}}
    found = check_connection(connect("c", "aws", login="AKIA", extra=extra), {"aws_conn_id"})
    assert found.state == State.WARNING
    assert "--work-uri s3://c@bucket/folder" in found.text


def test_without_a_connection_boto_has_credentials_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    found = check_connection("aws_default", {"aws_conn_id"})
    assert (found.state, "env" in found.text) == (State.OK, True)


def test_sagemaker_is_asked_where_a_dag_needs_it(connect: Connect, server: Server) -> None:
    server.answers = [json_answer({"TransformJobSummaries": []})]
    extra = {"region_name": "us-east-1", "service_config": {"sagemaker": {"endpoint_url": server.url}}}
    conn_id = connect("c", "aws", login="AKIA", extra=extra)
    found = check_connection(conn_id, {"aws_conn_id"}, {SAGEMAKER})
    assert (found.state, found.text) == (State.OK, "SageMaker answers to c.")
    assert "ListTransformJobs" in json.dumps(server.requests[0].headers)


def test_an_aws_connection_that_opens_no_folder_is_asked_who_it_is(connect: Connect, server: Server) -> None:
    refusal = (
        b"<ErrorResponse><Error><Code>InvalidClientTokenId</Code><Message>invalid</Message></Error></ErrorResponse>"
    )
    server.answers = [json_answer({}, 403)]
    server.answers[0].body = refusal
    extra = {"region_name": "us-east-1", "test_endpoint_url": server.url, "service_config": {}}
    found = check_connection(connect("c", "aws", login="AKIA", extra=extra), ())
    assert found.state == State.FAILURE
    assert "AWS does not take its credentials" in found.text
    assert SECRET not in found.text
