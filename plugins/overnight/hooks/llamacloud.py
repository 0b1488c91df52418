"""A connection to LlamaCloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from overnight.hooks.connection import Timeout, Verify, read_address, read_extra
from overnight.hooks.job import JobHook
from overnight.services.llamacloud.choices import Content, Region

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from overnight.jobs.client import JobClient
    from overnight.services.llamacloud.service import LlamaCloudService
    from overnight.services.llamacloud.spec import Limits
    from overnight.storage import Storage
    from overnight.transport.flow import Flow


class LlamaCloudExtra(BaseModel):
    """
    What a LlamaCloud connection's extra may hold.

    :param region: ``na`` or ``eu``; the connection's host goes before it.
    :param verify: ``false``, or the path of a CA bundle.
    """

    # Built with the first connection that is read: a DAG that is parsed reads none.
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, defer_build=True)

    region: Region = "na"
    project_id: str | None = None
    organization_id: str | None = None
    timeout: Timeout = 60.0
    verify: Verify = True


class LlamaCloudHook(JobHook["LlamaCloudService"]):
    """
    Reach LlamaCloud's batches.

    The password is the API key; the host a base URL, for a deployment of one's own; the extra is a
    :class:`LlamaCloudExtra`.

    :param conn_id: The connection.
    :param storage: Where source files are read from and results written to.
    :param limits: What the service takes.
    :param results_uri: The folder that results are collected into.
    :param content: What is collected of a parse job.
    """

    default_conn_name: ClassVar[str] = "llamacloud_default"
    conn_type: ClassVar[str] = "overnight_llamacloud"
    hook_name: ClassVar[str] = "LlamaCloud batches (Overnight)"

    def __init__(
        self,
        conn_id: str | None = None,
        *,
        storage: Storage | None = None,
        limits: Limits | None = None,
        results_uri: str | None = None,
        content: Sequence[Content] = ("markdown",),
        **kwargs: Any,
    ) -> None:
        from overnight.services.llamacloud.spec import Limits  # noqa: PLC0415 - not at parse
        from overnight.storage import Storage  # noqa: PLC0415 - not at parse

        super().__init__(conn_id, **kwargs)
        self.storage = storage or Storage()
        self.limits = limits or Limits()
        self.results_uri = results_uri
        self.content = tuple(content)

    def client_from(self, connection: Connection, extra: Mapping[str, Any]) -> JobClient[LlamaCloudService]:
        """Return a client for the connection's project."""
        from overnight.jobs.client import JobClient  # noqa: PLC0415 - not at parse
        from overnight.services.llamacloud.connection import BASE_URLS, LlamaCloudConnection  # noqa: PLC0415 - not at parse
        from overnight.services.llamacloud.service import LlamaCloudService  # noqa: PLC0415 - not at parse

        facts = read_extra(LlamaCloudExtra, extra, "LlamaCloud")
        config = LlamaCloudConnection(
            api_key=connection.password,
            base_url=read_address(connection, "LlamaCloud", default=BASE_URLS[facts.region]),
            project_id=facts.project_id,
            organization_id=facts.organization_id,
            timeout=facts.timeout,
            verify=facts.verify,
        )
        service = LlamaCloudService(
            self.conn_id,
            storage=self.storage,
            limits=self.limits,
            results_uri=self.results_uri,
            content=self.content,
        )
        return JobClient(service, config.transport())

    def probe(self, service: LlamaCloudService) -> Flow[str]:
        """List one batch, which costs nothing and needs the same rights as submitting."""
        from overnight.services.llamacloud.answers import BATCHES  # noqa: PLC0415 - not at parse
        from overnight.transport.http import HttpCall  # noqa: PLC0415 - not at parse

        yield HttpCall("GET", BATCHES, params={"page_size": 1})
        return f"The batch API of {service.conn_id} answers."
