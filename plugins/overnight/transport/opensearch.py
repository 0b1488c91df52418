"""The connection config of an OpenSearch cluster, its version, and the reader of its errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from overnight.errors import NotFoundError, UnavailableError
from overnight.transport.errors import ErrorReader
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall, HttpTransport
from overnight.transport.sigv4 import SigV4Auth

REMEDIES: Mapping[int, str] = {
    401: "Check the user and password, or the AWS connection, of the OpenSearch connection.",
    403: "The OpenSearch user lacks a permission (or, on AWS, the role is not mapped).",
}


@dataclass(frozen=True)
class ServerVersion:
    """
    What kind of server answers.

    :param distribution: ``opensearch``, ``serverless``, or ``elasticsearch`` for whatever does not say.
    :param number: As the server writes it, ``2.19.6``; empty for Serverless, which has none.
    """

    distribution: str
    number: str = ""

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor; ``(0, 0)`` when there is no number to read."""
        major, _, rest = self.number.partition(".")
        minor = rest.partition(".")[0]
        return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)

    def __str__(self) -> str:
        name = {"opensearch": "OpenSearch", "serverless": "OpenSearch Serverless"}.get(
            self.distribution, self.distribution.title()
        )
        return f"{name} {self.number}".strip()


@dataclass(frozen=True)
class OpenSearchConnection:
    """
    The facts of a connection to a cluster.

    :param url: Of a node or a load balancer, with any path prefix, without credentials.
    :param auth: Basic, or a signer for Amazon OpenSearch.
    :param verify: ``False``, or a CA bundle's path, for a cluster with a certificate of its own.
    :param headers: Sent with every call; they may be secret.
    :param timeout: Seconds for each read and write.
    """

    url: str
    auth: httpx.Auth | None = field(default=None, repr=False)
    verify: bool | str = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 120.0

    @property
    def is_serverless(self) -> bool:
        """Whether this is an Amazon OpenSearch Serverless collection."""
        return isinstance(self.auth, SigV4Auth) and self.auth.service == "aoss"

    def transport(
        self,
        *,
        remedies: Mapping[int, str] | None = None,
        attempts: int = 6,
        error_reader: ErrorReader | None = None,
        final_codes: Collection[str] = (),
        throttled_codes: Collection[str] = (),
    ) -> HttpTransport:
        """
        Return a transport for these facts. Does no I/O.

        :param remedies: What a user can do about a status, beside :data:`REMEDIES`.
        :param error_reader: Reads error bodies; :func:`read_opensearch_error` when left out.
        :param final_codes: What the reader calls errors that no waiting mends.
        :param throttled_codes: What the reader calls errors that say "not carried out, try later".
        :raises SpecError: the address or a header cannot be sent as it is.
        """
        return HttpTransport(
            service="OpenSearch",
            base_url=self.url,
            headers={"Accept": "application/json", **self.headers},
            auth=self.auth,
            verify=self.verify,
            timeout=self.timeout,
            attempts=attempts,
            error_reader=error_reader or read_opensearch_error,
            remedies={**REMEDIES, **(remedies or {})},
            final_codes=final_codes,
            throttled_codes=throttled_codes,
        )

    def version(self) -> Flow[ServerVersion]:
        """Ask the server what it is. Serverless is not asked: it has no version and no ``GET /``."""
        if self.is_serverless:
            return ServerVersion("serverless")
        answer = yield HttpCall("GET", "")
        version = answer.get("version") if isinstance(answer, dict) else None
        if not isinstance(version, dict) or "number" not in version:
            raise UnavailableError("The answer at the connection's address is not OpenSearch's. Check host and port.")
        return ServerVersion(str(version.get("distribution") or "elasticsearch"), str(version["number"]))

    def probe(self) -> Flow[str]:
        """Make the cheapest call that proves the credentials, and say in a few words what was reached."""
        if self.is_serverless:
            yield HttpCall("GET", "_cat/indices", params={"format": "json"})
            return "The OpenSearch Serverless collection answers."
        version = yield from self.version()
        return f"{version} answers."


def index_exists(index: str) -> Flow[bool]:
    """Ask whether an index, an alias or a data stream of this name is there."""
    try:
        yield HttpCall("GET", f"{quote(index, safe='')}/_mapping")
    except NotFoundError:
        return False
    return True


def read_opensearch_error(body: Any) -> tuple[str | None, str] | None:
    """
    Read ``{"error": {"type", "reason", "root_cause"}}`` of the core and ``{"error": {"type", "reason", "details"}}`` of
    its plugins, whose ``reason`` is a phrase for all and whose ``details`` say what is wrong.
    """
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, str):
        return None, error
    if not isinstance(error, dict):
        return None
    texts = [str(error[name]) for name in ("reason", "details", "message", "Message") if error.get(name)]
    if not texts:
        return None
    kind = error.get("type")
    return (str(kind) if kind else None), ": ".join(dict.fromkeys(texts))
