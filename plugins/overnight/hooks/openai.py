"""A connection to OpenAI, Azure OpenAI, or any compatible server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from overnight.errors import SpecError
from overnight.hooks.connection import Timeout, Verify, check_extra, read_address, read_extra
from overnight.hooks.job import JobHook
from overnight.services.openai.choices import AuthStyle

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from overnight.jobs.client import JobClient
    from overnight.services.openai.connection import OpenAIConnection
    from overnight.services.openai.limits import Limits
    from overnight.services.openai.service import OpenAIBatchService
    from overnight.storage import Storage
    from overnight.transport.flow import Flow


class OpenAIClientArguments(BaseModel):
    """
    What the openai provider's connections hold as ``openai_client_kwargs``: arguments of OpenAI's own client.

    Those that are not here are refused: left out, they could send documents to the wrong place.
    """

    # Built with the first connection that is read: a DAG that is parsed reads none.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)

    api_key: str | None = Field(default=None, repr=False)
    base_url: str | None = None
    organization: str | None = None
    project: str | None = None
    timeout: Timeout | None = None
    max_retries: int | None = Field(default=None, ge=0, le=100)
    default_headers: dict[str, str] = Field(default_factory=dict, repr=False)


class OpenAIExtra(BaseModel):
    """
    What an OpenAI connection's extra may hold.

    :param auth_style: ``bearer``, ``api-key`` (Azure OpenAI) or ``none``.
    :param headers: ``secret_headers``, which Airflow masks, or ``headers``, which it shows in clear.
    :param verify: ``false``, or the path of a CA bundle.
    :param openai_client_kwargs: As the openai provider reads them; they go before the connection's own fields.
    """

    # Built with the first connection that is read: a DAG that is parsed reads none.
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, defer_build=True)

    organization: str | None = None
    project: str | None = None
    auth_style: AuthStyle = "bearer"
    api_version: str | None = None
    headers: dict[str, str] = Field(
        default_factory=dict, repr=False, validation_alias=AliasChoices("secret_headers", "headers")
    )
    timeout: Timeout = 60.0
    verify: Verify = True
    openai_client_kwargs: OpenAIClientArguments = Field(default_factory=OpenAIClientArguments)


class OpenAIHook(JobHook["OpenAIBatchService"]):
    """
    Reach the batch API of a connection.

    The password is the API key and the host the base URL, ``https://api.openai.com/v1`` when it is left out; the extra
    is an :class:`OpenAIExtra`. A connection of type ``openai``, as the openai provider has it, works as well.

    :param conn_id: The connection.
    :param storage: Where input files are read from.
    :param limits: What the server takes in one batch.
    """

    default_conn_name: ClassVar[str] = "openai_default"
    conn_type: ClassVar[str] = "overnight_openai"
    hook_name: ClassVar[str] = "OpenAI batches (Overnight)"

    def __init__(
        self,
        conn_id: str | None = None,
        *,
        storage: Storage | None = None,
        limits: Limits | None = None,
        **kwargs: Any,
    ) -> None:
        from overnight.services.openai.limits import Limits  # noqa: PLC0415 - not at parse
        from overnight.storage import Storage  # noqa: PLC0415 - not at parse

        super().__init__(conn_id, **kwargs)
        self.storage = storage or Storage()
        self.limits = limits or Limits()

    def client_from(self, connection: Connection, extra: Mapping[str, Any]) -> JobClient[OpenAIBatchService]:
        """Return a client for the connection's account."""
        from overnight.jobs.client import JobClient  # noqa: PLC0415 - not at parse
        from overnight.services.openai.connection import DEFAULT_BASE_URL  # noqa: PLC0415 - not at parse
        from overnight.services.openai.service import CONSOLE_URL, OpenAIBatchService  # noqa: PLC0415 - not at parse

        config = _read(connection, extra)
        console_url_prefix = CONSOLE_URL if config.base_url == DEFAULT_BASE_URL else None
        service = OpenAIBatchService(
            self.conn_id, storage=self.storage, limits=self.limits, console_url_prefix=console_url_prefix
        )
        return JobClient(service, config.transport())

    def find_connection(self) -> OpenAIConnection:
        """
        Look the connection up, blocking, and return how its server is reached; nothing is sent.

        :raises SpecError: the connection lacks something; the text says which field.
        """
        connection = self.get_connection(self.conn_id)
        check_extra(connection)
        return _read(connection, connection.extra_dejson)

    def probe(self, service: OpenAIBatchService) -> Flow[str]:
        """List one batch, which costs nothing and needs the same rights as submitting."""
        from overnight.transport.http import HttpCall  # noqa: PLC0415 - not at parse

        yield HttpCall("GET", "batches", params={"limit": 1})
        return f"The batch API of {service.conn_id} answers."


def _read(connection: Connection, extra: Mapping[str, Any]) -> OpenAIConnection:
    from overnight.services.openai.connection import ATTEMPTS, DEFAULT_BASE_URL, OpenAIConnection  # noqa: PLC0415 - not at parse

    names = ", ".join(OpenAIClientArguments.model_fields)
    facts = read_extra(OpenAIExtra, extra, "OpenAI", f"Of openai_client_kwargs, {names} are read.")
    given = facts.openai_client_kwargs
    if "@" in (given.base_url or "").partition("?")[0]:
        raise SpecError("OpenAI: base_url in openai_client_kwargs holds a user or a password; give the api_key alone.")
    return OpenAIConnection(
        api_key=given.api_key or connection.password,
        base_url=(given.base_url or "").rstrip("/") or read_address(connection, "OpenAI", default=DEFAULT_BASE_URL),
        organization=given.organization or facts.organization,
        project=given.project or facts.project,
        auth_style=facts.auth_style,
        api_version=facts.api_version,
        headers={**facts.headers, **given.default_headers},
        timeout=given.timeout or facts.timeout,
        attempts=given.max_retries + 1 if given.max_retries is not None else ATTEMPTS,
        verify=facts.verify,
    )
