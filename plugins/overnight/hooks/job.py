"""From a connection to a client of the service behind it, in a worker or in a triggerer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from airflow.sdk import BaseHook

from overnight.errors import OvernightError, SpecError
from overnight.hooks.connection import aread_extra_dejson, check_extra

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from overnight.jobs import JobRef
    from overnight.jobs.client import JobClient
    from overnight.jobs.service import Service
    from overnight.transport.flow import Flow

ENTRY_POINT_GROUP = "overnight.job_hooks"
"""A package that adds a service names its hook here: ``<service> = "module:Class"``."""

_BUILT_IN: Mapping[str, str] = {
    "azure_ingestion": "overnight.hooks.azure_ingestion.AzureIngestionHook",
    "llamacloud": "overnight.hooks.llamacloud.LlamaCloudHook",
    "ml_commons_ingest": "overnight.hooks.ml_commons.MLCommonsIngestHook",
    "ml_commons_predict": "overnight.hooks.ml_commons.MLCommonsPredictHook",
    "openai": "overnight.hooks.openai.OpenAIHook",
    "sagemaker": "overnight.hooks.sagemaker.SageMakerHook",
}

ServiceT = TypeVar("ServiceT", bound="Service[Any]")


class JobHook(BaseHook, ABC, Generic[ServiceT]):
    """
    A connection to one batch service.

    :param conn_id: The connection; the hook's ``default_conn_name`` when left out.
    """

    conn_name_attr: ClassVar[str] = "conn_id"
    default_conn_name: ClassVar[str]
    conn_type: ClassVar[str]
    hook_name: ClassVar[str]

    def __init__(self, conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id or self.default_conn_name

    @abstractmethod
    def client_from(self, connection: Connection, extra: Mapping[str, Any]) -> JobClient[ServiceT]:
        """
        Return a client for a connection that has been looked up. Does no I/O.

        :param extra: The connection's extra, decoded.
        :raises SpecError: the connection lacks something; the text says which field.
        """

    @abstractmethod
    def probe(self, service: ServiceT) -> Flow[str]:
        """Make the cheapest call that proves the credentials, and say in a few words what was reached."""

    def client(self) -> JobClient[ServiceT]:
        """Look the connection up, blocking, and return a client. For workers."""
        connection = self.get_connection(self.conn_id)
        check_extra(connection)
        return self.client_from(connection, connection.extra_dejson)

    async def aclient(self) -> JobClient[ServiceT]:
        """Look the connection up on the event loop and return a client. For triggerers."""
        connection = await self.aget_connection(self.conn_id)
        check_extra(connection)
        return self.client_from(connection, await aread_extra_dejson(connection))

    def get_conn(self) -> JobClient[ServiceT]:
        """Return :meth:`client`, under the name that every Airflow hook has."""
        return self.client()

    def try_connection(self) -> str:
        """
        Try the connection with one cheap call, and say in a few words what was reached.

        :raises OvernightError: the connection cannot be used, or the call failed.
        """
        from overnight.transport.http import send_once  # noqa: PLC0415 - not at parse

        with self.client() as client:
            return client.run(send_once(self.probe(client.service)))

    def test_connection(self) -> tuple[bool, str]:
        """Try the connection with one cheap call, for the button in Airflow's UI."""
        try:
            return True, self.try_connection()
        except OvernightError as error:
            return False, str(error)


def hook_for(ref: JobRef) -> JobHook[Any]:
    """
    Return the hook of the service and connection that a reference names.

    :raises SpecError: no package that is installed here knows the service.
    """
    return find_hook(ref.service, ref.conn_id)


def find_hook(service: str, conn_id: str | None = None) -> JobHook[Any]:
    """
    Return a service's hook.

    :param conn_id: The connection; the hook's default one when left out.
    :raises SpecError: no package that is installed here knows the service.
    """
    path = _BUILT_IN.get(service)
    if path is not None:
        module, _, name = path.rpartition(".")
        return getattr(import_module(module), name)(conn_id)  # type: ignore[no-any-return]
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=service):
        return entry.load()(conn_id)  # type: ignore[no-any-return]
    raise SpecError(
        f"No hook is registered for the service {service!r}; known are {', '.join(_BUILT_IN)}. Install the package "
        f"that provides it (entry point group {ENTRY_POINT_GROUP!r}) on every worker and triggerer."
    )
