"""An AWS connection to SageMaker, with the amazon provider's ways of getting credentials."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowNotFoundException

from overnight.hooks.aws import naming_aws, read_aws_extra
from overnight.hooks.job import JobHook

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from overnight.jobs.client import JobClient
    from overnight.services.sagemaker.service import SageMakerTransformService
    from overnight.transport.flow import Flow

_CONSOLES = {"cn-": "amazonaws.cn", "us-gov-": "amazonaws-us-gov.com"}
_ENDPOINTS = ("AWS_ENDPOINT_URL_SAGEMAKER", "AWS_ENDPOINT_URL")


class SageMakerHook(JobHook["SageMakerTransformService"]):
    """
    Reach SageMaker, and the S3 that its jobs read and write, through a connection of type ``aws``.

    Every way that the amazon provider has of getting credentials works: keys, profiles, an assumed role, a web
    identity, and, as in that provider, boto's own chain when there is no such connection.

    :param conn_id: The connection, ``aws_default`` when left out.
    """

    default_conn_name: ClassVar[str] = "aws_default"
    conn_type: ClassVar[str] = "aws"
    hook_name: ClassVar[str] = "Amazon Web Services"

    def client(self) -> JobClient[SageMakerTransformService]:
        """Look the connection up, blocking, and return a client. For workers."""
        try:
            return super().client()
        except AirflowNotFoundException:
            return self._without_connection()

    async def aclient(self) -> JobClient[SageMakerTransformService]:
        """Look the connection up on the event loop and return a client. For triggerers."""
        try:
            return await super().aclient()
        except AirflowNotFoundException:
            return self._without_connection()

    def client_from(self, connection: Connection, extra: Mapping[str, Any]) -> JobClient[SageMakerTransformService]:
        """Return a client for the connection's account and region; boto3 is first asked by the first call."""
        extra = read_aws_extra(extra, self.conn_id)
        facts = _Facts(
            conn_id=self.conn_id,
            conn_type=connection.conn_type,
            login=connection.login,
            password=connection.password,
            schema=connection.schema,
            extra_dejson=extra,
        )
        return self._client(facts, extra)

    def probe(self, service: SageMakerTransformService) -> Flow[str]:
        """List one job, which costs nothing."""
        from overnight.transport.aws_call import SAGEMAKER, AwsCall  # noqa: PLC0415 - not at parse

        yield AwsCall(SAGEMAKER, "ListTransformJobs", {"MaxResults": 1})
        return f"SageMaker answers to {service.conn_id}."

    def _without_connection(self) -> JobClient[SageMakerTransformService]:
        self.log.warning("There is no connection %r; boto's own chain of credentials is used.", self.conn_id)
        return self._client(None, {})

    def _client(self, facts: _Facts | None, extra: Mapping[str, Any]) -> JobClient[SageMakerTransformService]:
        # botocore takes as long to load as all of ours, and a DAG that is parsed makes no client.
        from overnight.jobs.client import JobClient  # noqa: PLC0415 - not at parse
        from overnight.services.sagemaker.connection import transport  # noqa: PLC0415
        from overnight.services.sagemaker.service import SageMakerTransformService  # noqa: PLC0415 - not at parse

        service = SageMakerTransformService(self.conn_id, console=_console(extra))
        return JobClient(service, transport(_Connector(self.conn_id, facts)))


@dataclass(frozen=True)
class _Facts:
    """
    What the amazon provider reads of a connection.

    The connection itself will not do: decoding its extra registers secrets with the supervisor, which deadlocks
    in a triggerer unless it is awaited. Here the extra is decoded already.
    """

    conn_id: str
    conn_type: str | None = None
    login: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    schema: str | None = None
    extra_dejson: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class _Connector:
    """Makes boto3 clients. It blocks, and may ask STS; the transport calls it in the right thread."""

    conn_id: str
    facts: _Facts | None = field(repr=False)

    def __call__(self, service: str) -> Any:
        # boto3 takes longer to load than all the rest of a DAG's file, which makes no client.
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook  # noqa: PLC0415
        from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper  # noqa: PLC0415

        from overnight.services.sagemaker.connection import BOTO_CONFIG  # noqa: PLC0415

        with naming_aws(self.conn_id):
            aws = AwsBaseHook(aws_conn_id=self.conn_id, client_type=service)
            # Its own look-up is a blocking one; here it finds the connection looked up.
            aws.conn_config = AwsConnectionWrapper(conn=self.facts)  # type: ignore[arg-type]
            # Whatever the connection's config_kwargs say comes before ours.
            return aws.get_client_type(config=BOTO_CONFIG.merge(aws.config))


def _console(extra: Mapping[str, Any]) -> str | None:
    own = extra.get("service_config", {}).get("sagemaker", {}).get("endpoint_url")
    if own or extra.get("endpoint_url") or any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    region = extra.get("region_name") or os.environ.get("AWS_DEFAULT_REGION") or ""
    domain = next((name for prefix, name in _CONSOLES.items() if region.startswith(prefix)), "aws.amazon.com")
    return f"https://console.{domain}/sagemaker/home{f'?region={region}' if region else ''}"
