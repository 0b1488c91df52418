"""A connection to OpenSearch: a cluster of one's own, an Amazon domain, or a Serverless collection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
from airflow.sdk import BaseHook
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from overnight.errors import OvernightError, SpecError
from overnight.hooks.connection import Timeout, aread_extra_dejson, check_extra, read_address, read_extra
from overnight.transport.sigv4 import AwsService

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from overnight.ingest.write.target import OpenSearchTarget
    from overnight.transport.http import HttpTransport
    from overnight.transport.opensearch import OpenSearchConnection, ServerVersion
    from overnight.transport.sigv4 import SigV4Auth

DEFAULT_PORT = 9200
"""Where a host that is neither a URL nor Amazon's listens, as opensearch-py has it."""


class OpenSearchExtra(BaseModel):
    """
    What an OpenSearch connection's extra may hold; the names are those of the standard ``opensearch`` connection.

    :param use_ssl: ``false`` is the same as the scheme ``http``.
    :param verify_certs: ``false`` takes any certificate.
    :param ca_certs: Path of a CA bundle.
    :param url_prefix: Path under which a proxy serves the cluster.
    :param timeout: Seconds for each read and write.
    :param headers: Sent with every request: ``secret_headers``, which Airflow masks, or ``headers``, which it shows in
        clear.
    :param aws_conn_id: The AWS connection whose credentials sign the requests; the empty string for boto's own chain.
    :param aws_service: ``es`` for an Amazon domain, ``aoss`` for a Serverless collection.
    :param region_name: Of the domain or collection; the AWS connection's when left out.
    """

    # Built with the first connection that is read: a DAG that is parsed reads none.
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, defer_build=True)

    use_ssl: bool | None = None
    scheme: str | None = None
    verify_certs: bool = True
    ca_certs: str | None = None
    url_prefix: str = ""
    timeout: Timeout = 120.0
    headers: dict[str, str] = Field(
        default_factory=dict, repr=False, validation_alias=AliasChoices("secret_headers", "headers")
    )
    aws_conn_id: str | None = None
    aws_service: AwsService | None = None
    region_name: str | None = None

    @field_validator("url_prefix", "timeout", "verify_certs", "headers", mode="before")
    @classmethod
    def _blank_is_absent(cls, value: Any, info: Any) -> Any:
        # A form that was left empty saves null or an empty text.
        return (
            cls.model_fields[info.field_name].get_default(call_default_factory=True) if value in (None, "") else value
        )

    @field_validator("scheme", "ca_certs", "aws_service", "region_name", "use_ssl", mode="before")
    @classmethod
    def _blank_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @property
    def is_signed(self) -> bool:
        """Whether requests are signed the AWS way."""
        return self.aws_conn_id is not None or self.aws_service is not None


class OpenSearchHook(BaseHook):
    """
    Reach an OpenSearch cluster through a connection of type ``overnight_opensearch`` or the standard ``opensearch``.

    Host (with or without ``https://`` or ``http://``), port, login and password, and an :class:`OpenSearchExtra`. TLS
    is on and certificates are checked unless the connection says otherwise: ``http://`` in the host, ``http`` as
    schema or ``scheme``, ``use_ssl: false``. The first of these that is given decides.

    :param conn_id: The connection.
    """

    conn_name_attr: ClassVar[str] = "conn_id"
    default_conn_name: ClassVar[str] = "opensearch_default"
    conn_type: ClassVar[str] = "overnight_opensearch"
    hook_name: ClassVar[str] = "OpenSearch (Overnight)"

    def __init__(self, conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id or self.default_conn_name

    def get_config(self) -> OpenSearchConnection:
        """
        Look the connection up, blocking, and return the cluster's configuration. For workers.

        :raises SpecError: the connection lacks something; the text says which field.
        """
        connection = self.get_connection(self.conn_id)
        check_extra(connection)
        return parse_connection(connection, connection.extra_dejson, self.get_connection)

    async def aget_config(self) -> OpenSearchConnection:
        """Look the connection up on the event loop and return the cluster's configuration. For triggerers."""
        from asgiref.sync import sync_to_async  # noqa: PLC0415 - not at parse

        connection = await self.aget_connection(self.conn_id)
        check_extra(connection)
        extra = read_extra(OpenSearchExtra, await aread_extra_dejson(connection), "OpenSearch")
        auth: httpx.Auth | None = None
        if extra.is_signed:
            aws = await self.aget_connection(extra.aws_conn_id) if extra.aws_conn_id else None
            # Making an AWS session reads files and masks secrets, both blocking.
            auth = await sync_to_async(_signer)(aws, extra)
        return _build_config(connection, extra, auth)

    def transport(self) -> HttpTransport:
        """Look the connection up, blocking, and return a transport for calls of any API of the cluster."""
        return self.get_config().transport()

    def get_conn(self) -> HttpTransport:
        """Return :meth:`transport`, under the name that every Airflow hook has."""
        return self.transport()

    def target(self) -> OpenSearchTarget:
        """Look the connection up, blocking, and return the cluster as :func:`overnight.ingest.load` takes it."""
        from overnight.ingest.write.target import OpenSearchTarget  # noqa: PLC0415 - nothing of the load at parse time

        config = self.get_config()
        return OpenSearchTarget(
            config.url, auth=config.auth, verify=config.verify, headers=config.headers, timeout=config.timeout
        )

    def server_version(self) -> ServerVersion:
        """Ask the server for its distribution and number."""
        config = self.get_config()
        with config.transport() as transport:
            return transport.run(config.version())

    def try_connection(self) -> str:
        """
        Try the connection with one cheap call, and say in a few words what was reached.

        :raises OvernightError: the connection cannot be used, or the call failed.
        """
        config = self.get_config()
        with config.transport(attempts=1) as transport:
            return transport.run(config.probe())

    def test_connection(self) -> tuple[bool, str]:
        """Try the connection with one cheap call, for the button in Airflow's UI."""
        try:
            return True, self.try_connection()
        except OvernightError as error:
            return False, str(error)


def parse_connection(
    connection: Connection, extra: Mapping[str, Any], look_up: Callable[[str], Connection]
) -> OpenSearchConnection:
    """
    Return the configuration of the cluster of a connection that has been looked up.

    :param extra: The connection's extra, decoded.
    :param look_up: Finds the AWS connection, if there is one, by its id.
    """
    facts = read_extra(OpenSearchExtra, extra, "OpenSearch")
    auth: httpx.Auth | None = None
    if facts.is_signed:
        auth = _signer(look_up(facts.aws_conn_id) if facts.aws_conn_id else None, facts)
    return _build_config(connection, facts, auth)


def _build_config(connection: Connection, extra: OpenSearchExtra, auth: httpx.Auth | None) -> OpenSearchConnection:
    from overnight.transport.opensearch import OpenSearchConnection  # noqa: PLC0415 - not at parse

    if auth is None and connection.login:
        auth = httpx.BasicAuth(connection.login, connection.password or "")
    return OpenSearchConnection(
        url=_parse_url(connection, extra),
        auth=auth,
        verify=(extra.ca_certs or True) if extra.verify_certs else False,
        headers=extra.headers,
        timeout=extra.timeout,
    )


def _parse_url(connection: Connection, extra: OpenSearchExtra) -> str:
    port = None if extra.is_signed else DEFAULT_PORT
    address = read_address(connection, "OpenSearch", scheme=_get_scheme(extra), port=port)
    prefix = extra.url_prefix.strip("/")
    return f"{address}/{prefix}" if prefix else address


def _get_scheme(extra: OpenSearchExtra) -> str:
    if extra.scheme:
        return extra.scheme
    return "http" if extra.use_ssl is False else "https"


def _signer(aws: Connection | None, extra: OpenSearchExtra) -> SigV4Auth:
    # The amazon provider loads boto3, up to a second for each task that never signs anything.
    from airflow.providers.amazon.aws.hooks.base_aws import resolve_session_factory  # noqa: PLC0415
    from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper  # noqa: PLC0415

    from overnight.hooks.aws import naming_aws  # noqa: PLC0415
    from overnight.transport.sigv4 import SigV4Auth  # noqa: PLC0415 - not at parse

    with naming_aws(extra.aws_conn_id):
        wrapped = AwsConnectionWrapper(conn=aws, region_name=extra.region_name)
        session = resolve_session_factory()(conn=wrapped, region_name=wrapped.region_name).create_session()
        credentials, region = session.get_credentials(), extra.region_name or session.region_name
    if credentials is None:
        raise SpecError(
            f"No AWS credentials: neither the connection {extra.aws_conn_id!r} nor this machine's environment has any."
        )
    if not region:
        raise SpecError("Put region_name into the OpenSearch connection's extra: a signature is made for one region.")
    return SigV4Auth(credentials, region, extra.aws_service or "es")
