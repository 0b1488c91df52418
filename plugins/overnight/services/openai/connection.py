"""How to reach OpenAI, Azure OpenAI, and compatible servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from overnight.errors import SpecError
from overnight.services.openai.causes import FINAL_CODES, QUEUE_CODES
from overnight.services.openai.choices import AuthStyle
from overnight.transport.errors import read_error
from overnight.transport.http import HttpTransport

DEFAULT_BASE_URL = "https://api.openai.com/v1"

ATTEMPTS = 6
"""How often a call is sent at most when it may be repeated."""

_REMEDIES = {
    401: "Check the API key in the connection, and that it belongs to the address there.",
    403: "The key is valid but may not do this: check the organization and the project in the connection.",
    404: "Check the id, and that the connection's address, organization and project are the ones that own it "
    "(the address ends in /v1 for OpenAI).",
    413: "The file is larger than the server takes; build the input with a smaller byte limit.",
    429: "The account's rate limit is reached.",
}


@dataclass(frozen=True)
class OpenAIConnection:
    """
    The facts of a connection to OpenAI or a compatible server.

    :param base_url: Up to and including the version, ``https://api.openai.com/v1``; for Azure OpenAI
        ``https://<resource>.openai.azure.com/openai/v1`` or, with ``api_version``, without the ``/v1``.
    :param api_key: Sent as ``auth_style`` says. Blanks and line breaks around it are dropped.
    :param organization: Sent as ``OpenAI-Organization``.
    :param project: Sent as ``OpenAI-Project``.
    :param api_version: Sent as the ``api-version`` query parameter, for Azure OpenAI.
    :param headers: Sent with every call, for a gateway in between; they may be secret.
    :param timeout: Seconds to wait for each read and write.
    :param attempts: How often a call is sent at most when it may be repeated.
    :param verify: ``False`` or a CA bundle's path for a server with a certificate of its own.
    """

    api_key: str | None = field(default=None, repr=False)
    base_url: str = DEFAULT_BASE_URL
    organization: str | None = None
    project: str | None = None
    auth_style: AuthStyle = "bearer"
    api_version: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 60.0
    attempts: int = ATTEMPTS
    verify: bool | str = True

    def transport(self, *, backoff: float = 0.5) -> HttpTransport:
        """
        Return a transport for these facts. Does no I/O.

        :param backoff: Seconds before a call's second attempt, doubled for each one after it.
        :raises SpecError: the address or a header cannot be sent as it is, or the key is missing.
        """
        headers = {"Accept": "application/json", **self.headers}
        key = (self.api_key or "").strip()
        if self.auth_style != "none" and not key:
            raise SpecError(
                "OpenAI: the connection has no API key. Put it into the connection's password field, or set auth_style "
                'to "none" for a server that asks for none.'
            )
        if self.auth_style == "bearer":
            headers["Authorization"] = f"Bearer {key}"
        elif self.auth_style == "api-key":
            headers["api-key"] = key
        if self.organization:
            headers["OpenAI-Organization"] = self.organization.strip()
        if self.project:
            headers["OpenAI-Project"] = self.project.strip()
        return HttpTransport(
            service="OpenAI",
            base_url=self.base_url,
            headers=headers,
            params={"api-version": self.api_version} if self.api_version else None,
            verify=self.verify,
            timeout=self.timeout,
            attempts=self.attempts,
            backoff=backoff,
            error_reader=read_openai_error,
            remedies=_REMEDIES,
            final_codes=FINAL_CODES,
            queue_codes=QUEUE_CODES,
        )


def read_openai_error(body: Any) -> tuple[str | None, str] | None:
    """
    Read ``{"error": {"message", "type", "param", "code"}}``, and what compatible servers make of it.

    ``type`` stands in for a missing ``code``; the parameter at fault is named in the message.
    """
    # vLLM and some gateways leave out the outer object or send a list of one.
    if isinstance(body, list) and body:
        body = body[0]
    read = read_error(body)
    if read is None:
        return None
    error = body.get("error", body)
    param = error.get("param") if isinstance(error, dict) else None
    code, message = read
    if isinstance(param, str) and param and param not in message:
        message = f"{message} (param {param!r})"
    return code, message
