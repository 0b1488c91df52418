"""From a connection to the print shop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from overnight.hooks.job import JobHook
from overnight.jobs.client import JobClient
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall, HttpTransport
from slowprint.service import PrintService

if TYPE_CHECKING:
    from airflow.sdk import Connection


class PrintHook(JobHook[PrintService]):
    """The host is the shop's address, the password the customer's word."""

    default_conn_name: ClassVar[str] = "slowprint_default"
    conn_type: ClassVar[str] = "slowprint"
    hook_name: ClassVar[str] = "Slow print"

    def client_from(self, connection: Connection, extra: Mapping[str, Any]) -> JobClient[PrintService]:
        """Return a client for the connection's shop."""
        headers = {"Authorization": f"Bearer {connection.password}"}
        transport = HttpTransport(service="The print shop", base_url=connection.host or "", headers=headers, attempts=1)
        return JobClient(PrintService(self.conn_id), transport)

    def probe(self, service: PrintService) -> Flow[str]:
        """List the orders."""
        yield HttpCall("GET", "orders")
        return "The print shop is open."
