"""How to reach LlamaCloud: its regions, its project and organization parameters, its error bodies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from overnight.errors import SpecError
from overnight.services.llamacloud.causes import CALL_CAUSES
from overnight.services.llamacloud.choices import Region
from overnight.transport.http import HttpTransport

BASE_URLS: Final[Mapping[Region, str]] = {
    "na": "https://api.cloud.llamaindex.ai",
    "eu": "https://api.cloud.eu.llamaindex.ai",
}
"""https://developers.llamaindex.ai/llamaparse/general/regions/; a key of one region is unknown in the other."""


@dataclass(frozen=True)
class LlamaCloudConnection:
    """
    The facts of a connection to LlamaCloud.

    :param api_key: Sent as a Bearer token. Blanks and line breaks around it are dropped.
    :param base_url: Without ``/api``: a region's address or a deployment of one's own.
    :param project_id: Sent as a query parameter with every call; the key's default project when left out.
    :param organization_id: The same.
    :param timeout: Seconds to wait for each read and write.
    :param attempts: How often a call is sent at most when it may be repeated.
    :param verify: ``False`` or a CA bundle's path for a server with a certificate of its own.
    """

    api_key: str | None = field(default=None, repr=False)
    base_url: str = BASE_URLS["na"]
    project_id: str | None = None
    organization_id: str | None = None
    timeout: float = 60.0
    attempts: int = 6
    verify: bool | str = True

    def transport(self, *, backoff: float = 0.5) -> HttpTransport:
        """
        Return a transport for these facts. Does no I/O.

        :param backoff: Seconds before a call's second attempt, doubled for each one after it.
        :raises SpecError: the address or a header cannot be sent as it is, or the key is missing.
        """
        key = (self.api_key or "").strip()
        if not key:
            raise SpecError("LlamaCloud: the connection has no API key. Put it into the connection's password field.")
        params = {"project_id": self.project_id, "organization_id": self.organization_id}
        return HttpTransport(
            service="LlamaCloud",
            base_url=self.base_url,
            headers={"Accept": "application/json", "Authorization": f"Bearer {key}"},
            params={name: value for name, value in params.items() if value},
            verify=self.verify,
            timeout=self.timeout,
            attempts=self.attempts,
            backoff=backoff,
            error_reader=read_detail,
            remedies={status: row.remedy for status, row in CALL_CAUSES.items()},
        )


def read_detail(body: Any) -> tuple[str | None, str] | None:
    """
    Read FastAPI's errors: ``{"detail": "…"}``, ``{"detail": {"message": …}}`` and the list of a failed validation.

    Of a validation's entries only place and message are quoted: ``input`` repeats what was sent.
    """
    detail = body.get("detail") if isinstance(body, dict) else None
    if isinstance(detail, str):
        return None, detail
    if isinstance(detail, dict):
        message = detail.get("message") or detail.get("detail") or detail.get("error")
        code = detail.get("code") or detail.get("error_code")
        return (str(code) if code else None), str(message or detail)
    if isinstance(detail, list):
        entries = [entry for entry in detail if isinstance(entry, dict)]
        places = (".".join(str(step) for step in entry.get("loc", ())) for entry in entries)
        message = "; ".join(f"{place}: {entry.get('msg')}" for place, entry in zip(places, entries, strict=True))
        return (str(entries[0].get("type")), message) if entries else None
    return None
