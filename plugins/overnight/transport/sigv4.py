"""Requests signed the AWS way (Signature Version 4), for Amazon OpenSearch Service and Serverless."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Literal, Protocol

import httpx

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

AwsService = Literal["es", "aoss"]
"""Amazon OpenSearch Service (domains), or Serverless (collections)."""

_DIGEST = "X-Amz-Content-SHA256"


def digest_header(body: bytes | memoryview) -> dict[str, str]:
    """Return the header that says what a body is, for one that is sent in pieces and not to be read in."""
    return {_DIGEST: hashlib.sha256(body).hexdigest()}


class Credentials(Protocol):
    """What botocore's credentials have in common; those that expire renew themselves here."""

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return a key, a secret and perhaps a token that are valid now."""


class SigV4Auth(httpx.Auth):
    """
    Sign every request, with the body's digest in it, as
    https://docs.aws.amazon.com/opensearch-service/latest/developerguide/serverless-clients.html asks for.

    The credentials are asked for at each request, so those that expire are renewed in time. On an event loop that
    happens in a thread, since renewing them is a blocking call. A request that comes with :func:`digest_header` is
    signed without reading its body.

    :param credentials: As a boto3 session's ``get_credentials()`` returns them.
    :param region: Of the domain or collection.
    """

    requires_request_body = True

    def __init__(self, credentials: Credentials, region: str, service: AwsService) -> None:
        self._credentials = credentials
        self.region = region
        self.service = service

    def __repr__(self) -> str:
        return f"SigV4Auth({self.service!r}, {self.region!r})"

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign a request whose sender may block."""
        if _DIGEST not in request.headers:
            request.read()
        yield self._signed(request, self._credentials.get_frozen_credentials())

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Sign a request without blocking the event loop."""
        if _DIGEST not in request.headers:
            await request.aread()
        yield self._signed(request, await asyncio.to_thread(self._credentials.get_frozen_credentials))

    def _signed(self, request: httpx.Request, credentials: ReadOnlyCredentials) -> httpx.Request:
        # botocore takes long to import, and most connections never sign.
        from botocore.auth import SigV4Auth as Signer  # noqa: PLC0415
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415

        # A blank in a query is "+" for httpx and "%20" in a signature; a plus itself is "%2B" for both.
        request.url = request.url.copy_with(query=request.url.query.replace(b"+", b"%20") or None)
        digest = request.headers.get(_DIGEST) or hashlib.sha256(request.content).hexdigest()
        to_sign = AWSRequest(
            method=request.method,
            url=str(request.url),
            headers={"Host": request.headers["Host"], _DIGEST: digest},
        )
        Signer(credentials, self.service, self.region).add_auth(to_sign)
        request.headers.update({name: value for name, value in to_sign.headers.items() if name != "Host"})
        return request
