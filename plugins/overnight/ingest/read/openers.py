"""How what is no file system is read: OpenAI's files and plain HTTP, each going on where a connection broke."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit

import fsspec
import httpx
from fsspec import AbstractFileSystem

from overnight.errors import SpecError, UnknownHostError
from overnight.ingest.read.sources import Opener
from overnight.services.openai.files import content
from overnight.storage import Storage, redact
from overnight.transport.errors import NOT_SENT
from overnight.transport.http import HttpTransport
from overnight.transport.proxies import is_unresolved

OPENAI_URL = "https://api.openai.com/v1"

OpenTransport: TypeAlias = Callable[[], AbstractContextManager[HttpTransport]]
"""Opens a transport to OpenAI, or to a compatible server."""

# A compressed answer has other offsets than the file, and reading could not go on in the middle of it.
_AS_STORED = {"Accept-Encoding": "identity"}


def openai_opener(key: str | None, base_url: str = OPENAI_URL) -> Opener:
    """
    Return the opener of ``openai://file-…``.

    :param key: The API key, for servers that want one.
    :param base_url: OpenAI's or a compatible server's, ``/v1`` included.
    """
    headers = {"Authorization": f"Bearer {key}", **_AS_STORED} if key else _AS_STORED
    return transport_opener(lambda: HttpTransport(service="OpenAI", base_url=base_url, headers=headers))


def transport_opener(connect: OpenTransport) -> Opener:
    """
    Return the opener of ``openai://file-…`` through a connection.

    :param connect: Is called for each reading.
    """

    def read(uri: str, start: int) -> Iterator[bytes]:
        with connect() as transport:
            yield from content(transport, uri.partition("://")[2], start)

    return read


def http_opener() -> Opener:
    """Return the opener of ``http://`` and ``https://``."""

    def read(uri: str, start: int) -> Iterator[bytes]:
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise SpecError(f"{redact(uri)} is no web address: {error}.") from error
        user = httpx.BasicAuth(unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        with HttpTransport(service="The source's server", base_url=server, headers=_AS_STORED, auth=user) as transport:
            yield from transport.stream(path, start=start)

    return read


def web_openers(storage: Storage) -> dict[str, Opener]:
    """Return the openers of web addresses, but for schemes that the storage has connectors for."""
    return {scheme: http_opener() for scheme in ("http", "https") if scheme not in storage.connectors}


def look_at_http(uri: str) -> tuple[int | None, str]:
    """
    Ask a web server for a file's size and version.

    Where it refuses ``HEAD``, as it does for an address that was signed for ``GET``, it is asked for one byte.

    :return: The size, ``None`` when it is not known; the version, empty when it is not known.
    :raises UnknownHostError: its host's name has no address.
    """
    try:
        response = httpx.head(uri, headers=_AS_STORED, follow_redirects=True, timeout=10.0)
        size = response.headers.get("Content-Length", "")
        if response.is_error:
            headers = {**_AS_STORED, "Range": "bytes=0-0"}
            with httpx.stream("GET", uri, headers=headers, follow_redirects=True, timeout=10.0) as response:
                is_part = response.status_code == httpx.codes.PARTIAL_CONTENT
                size = response.headers.get("Content-Range", "").rpartition("/")[2] if is_part else ""
                size = size or response.headers.get("Content-Length", "")
    except NOT_SENT as error:
        if is_unresolved(error) and (host := httpx.URL(uri).host):
            raise UnknownHostError(
                f"{redact(uri)} cannot be read: the name {host!r} has no address. Correct it, or look at the name "
                "server of this machine."
            ) from error
        return None, ""  # reading it will say what is wrong
    if response.is_error:
        return None, ""
    version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    return (int(size) if size.isdecimal() else None), f"{size}:{version}" if version else ""


def with_s3(storage: Storage, credential: dict[str, str]) -> Storage:
    """Return a storage whose S3 uses a request's credential (``key``, ``secret``, ``token``, ``region``)."""
    region = credential.get("region")

    def connect() -> AbstractFileSystem:
        return fsspec.filesystem(
            "s3",
            key=credential.get("key"),
            secret=credential.get("secret"),
            token=credential.get("token"),
            client_kwargs={"region_name": region} if region else {},
        )

    return replace(storage, connectors={**storage.connectors, "s3": connect}, conn_ids={})
