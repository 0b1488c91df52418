"""Where a command finds its servers: what it is given, the environment, or a sandbox that runs here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from overnight.errors import SpecError
from overnight.ingest.read.openers import OPENAI_URL, openai_opener
from overnight.ingest.read.sources import Opener
from overnight.jobs.client import JobClient
from overnight.services.openai.connection import DEFAULT_BASE_URL, OpenAIConnection
from overnight.services.openai.limits import Limits
from overnight.services.openai.service import CONSOLE_URL, OpenAIBatchService
from overnight.storage import Storage
from overnight.transport.flow import Flow

T = TypeVar("T")

OPENAI_CONN_ID: Final = "openai_default"
"""What references to jobs name that were submitted with OPENAI_API_KEY."""


@dataclass(frozen=True)
class Addresses:
    """
    The servers of one command.

    :param environment: The variables that name OpenAI's address and key.
    """

    opensearch_url: str
    environment: Mapping[str, str]

    def run_openai(self, flow: Flow[T]) -> T:
        """
        Carry out calls to OpenAI, or to the server that is named instead.

        :raises SpecError: there is no key.
        """
        connection = find_openai(self.environment)
        if connection is None:
            raise SpecError("Set OPENAI_API_KEY (and OPENAI_BASE_URL for another server), or search with --words.")
        with closing(connection.transport()) as transport:
            return transport.run(flow)


def find_openai(environment: Mapping[str, str]) -> OpenAIConnection | None:
    """Return the connection of OPENAI_API_KEY and OPENAI_BASE_URL; ``None`` when neither is set."""
    key, base_url = environment.get("OPENAI_API_KEY"), environment.get("OPENAI_BASE_URL")
    if not key and not base_url:
        return None
    return OpenAIConnection(api_key=key, base_url=base_url or DEFAULT_BASE_URL, auth_style="bearer" if key else "none")


def make_openai_client(
    connection: OpenAIConnection,
    storage: Storage | None = None,
    limits: Limits | None = None,
    conn_id: str = OPENAI_CONN_ID,
) -> JobClient[OpenAIBatchService]:
    """
    Return a client of OpenAI's batches; nothing is sent.

    :param conn_id: What its references to jobs name.
    """
    console_url_prefix = CONSOLE_URL if connection.base_url == DEFAULT_BASE_URL else None
    service = OpenAIBatchService(conn_id, storage=storage, limits=limits, console_url_prefix=console_url_prefix)
    return JobClient(service, connection.transport())


def find_openers(openai_key: str | None) -> dict[str, Opener]:
    """
    Return what opens ``openai://file-…``, by OPENAI_API_KEY and OPENAI_BASE_URL; nothing when there is no key.

    :param openai_key: A request's own, for want of a variable.
    """
    key, base_url = os.environ.get("OPENAI_API_KEY") or openai_key, os.environ.get("OPENAI_BASE_URL")
    return {"openai": openai_opener(key, base_url or OPENAI_URL)} if key or base_url else {}


def find_addresses(opensearch_url: str | None, sandbox: Path) -> Addresses:
    """
    Return the servers that a command was given; those of the sandbox in a folder when it was given none.

    :param sandbox: The folder of a sandbox, which need not run.
    :raises SpecError: no address is known.
    """
    if opensearch_url:
        return Addresses(opensearch_url, os.environ)
    from overnight.sandbox.errors import SandboxError  # noqa: PLC0415 - only where nothing else is given
    from overnight.sandbox.supervisor import Sandbox  # noqa: PLC0415

    try:
        environment = Sandbox(sandbox).environment()
    except SandboxError:
        environment = {}
    if "OPENSEARCH_URL" not in environment:
        raise SpecError(f"Give --url, or set OPENSEARCH_URL: no sandbox with an OpenSearch runs in {sandbox}.")
    return Addresses(environment["OPENSEARCH_URL"], environment)
