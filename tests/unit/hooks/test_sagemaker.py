from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from overnight.errors import CredentialsError
from overnight.hooks.job import hook_for
from overnight.hooks.sagemaker import SageMakerHook
from overnight.jobs import JobRef
from overnight.jobs.client import JobClient
from overnight.transport.aws import AwsTransport
from overnight.transport.aws_call import AwsCall

REF = JobRef(service="sagemaker", id="job-1", conn_id="aws_default")
SECRET = "very-secret-key"


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_connection(**extra: Any) -> SageMakerHook:
        fields = {"conn_type": "aws", "login": "AKID", "password": SECRET, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(fields))
        return SageMakerHook()

    return set_connection


def boto(client: JobClient[Any], service: Any = "sagemaker") -> Any:
    transport = client.transport
    assert isinstance(transport, AwsTransport)
    return transport._client(service)


def test_the_registry_knows_the_hook() -> None:
    hook = hook_for(REF)
    assert isinstance(hook, SageMakerHook)
    assert hook.conn_id == "aws_default"


def test_clients_have_the_connections_region_keys_and_endpoints(connect: Any) -> None:
    hook = connect(region_name="eu-west-1", service_config={"s3": {"endpoint_url": "http://localhost:9"}})
    with hook.client() as client:
        sagemaker, s3 = boto(client), boto(client, "s3")
    assert sagemaker.meta.region_name == "eu-west-1"
    assert sagemaker.meta.endpoint_url == "https://api.sagemaker.eu-west-1.amazonaws.com"
    assert s3.meta.endpoint_url == "http://localhost:9"
    credentials = sagemaker._request_signer._credentials
    assert (credentials.access_key, credentials.secret_key) == ("AKID", SECRET)


def test_retries_are_ours_unless_the_connection_has_its_own(connect: Any) -> None:
    with connect(region_name="eu-west-1").client() as client:
        assert boto(client).meta.config.retries["total_max_attempts"] == 5
    own = {"retries": {"mode": "adaptive", "total_max_attempts": 2}}
    with connect(region_name="eu-west-1", config_kwargs=own).client() as client:
        assert boto(client).meta.config.retries["total_max_attempts"] == 2
        assert boto(client).meta.config.read_timeout == 60


def test_nothing_shows_the_secret(connect: Any) -> None:
    client = connect(region_name="eu-west-1", aws_session_token="also-" + SECRET).client()
    assert SECRET not in repr(client)
    assert SECRET not in repr(client.transport._connect)


def test_a_triggerer_gets_the_same_client_without_blocking(connect: Any) -> None:
    hook = connect(region_name="eu-west-1")

    async def get() -> Any:
        async with await hook.aclient() as client:
            return await asyncio.to_thread(boto, client)

    assert asyncio.run(get()).meta.region_name == "eu-west-1"


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_without_the_connection_botos_own_chain_is_used(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-gov-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROMENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    hook = SageMakerHook("aws_absent")
    client = hook.client() if mode == "sync" else asyncio.run(hook.aclient())
    assert boto(client)._request_signer._credentials.access_key == "FROMENV"
    assert client.service.console_url(REF) == (
        "https://console.amazonaws-us-gov.com/sagemaker/home?region=us-gov-west-1#/transform-jobs/job-1"
    )


@pytest.mark.parametrize(
    ("extra", "console"),
    [
        ({"region_name": "eu-west-1"}, "https://console.aws.amazon.com/sagemaker/home?region=eu-west-1"),
        ({"region_name": "cn-north-1"}, "https://console.amazonaws.cn/sagemaker/home?region=cn-north-1"),
        ({}, "https://console.aws.amazon.com/sagemaker/home"),
        ({"endpoint_url": "http://localhost:1"}, None),
        ({"service_config": {"sagemaker": {"endpoint_url": "http://localhost:1"}}}, None),
    ],
)
def test_the_console_is_that_of_the_region_and_an_emulator_has_none(
    connect: Any, extra: dict[str, Any], console: str | None
) -> None:
    page = connect(**extra).client().service.console_url(REF)
    assert page == (f"{console}#/transform-jobs/job-1" if console else None)


def test_a_connection_without_a_region_is_told_what_it_lacks(connect: Any) -> None:
    with connect().client() as client, pytest.raises(CredentialsError, match="region_name"):
        client.transport.send(AwsCall("sagemaker", "ListTransformJobs"))


def test_a_connection_that_the_provider_refuses_is_told_so(connect: Any) -> None:
    hook = connect(region_name="eu-west-1", role_arn="arn:aws:iam::1:role/x", assume_role_method="by-magic")
    with hook.client() as client, pytest.raises(CredentialsError, match="'aws_default' cannot be used"):
        client.transport.send(AwsCall("sagemaker", "ListTransformJobs"))


def test_the_button_in_the_ui_says_what_is_wrong(connect: Any) -> None:
    worked, message = connect().test_connection()
    assert not worked
    assert "region_name" in message
