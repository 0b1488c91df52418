"""The OpenSearch that is loaded into: where it is and how to talk to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from overnight.errors import SpecError
from overnight.ingest.write.sink import Body
from overnight.transport.http import HttpCall, Retry, parse_address
from overnight.transport.opensearch import OpenSearchConnection
from overnight.transport.sigv4 import SigV4Auth, digest_header

_REMEDIES = {
    403: "The OpenSearch user lacks a permission for this index, or the index is blocked.",
    404: "Check the index name and the connection's address.",
    413: "Lower bulk_bytes, or raise http.max_content_length.",
}


_PIECE_BYTES = 1 << 20
_SERVERLESS = re.compile(r"\.aoss\.amazonaws\.com(\.cn)?$", re.IGNORECASE)


class _Pieces:
    """
    A body for one request, piece by piece, that lets go of it at its end.

    An httpx response and its stream refer to each other, and to the request: whatever the request holds stays in
    memory until Python's cycle collector comes by, long after many more bodies. Small pieces would be slow: a thread
    waits for the interpreter after each, while another one decodes lines. They are views, of which h11 makes bytes.

    A call that took too long is left to its own thread. It gets no further piece after :meth:`close`.
    """

    def __init__(self, body: Body) -> None:
        self._body: memoryview | None = memoryview(body)
        self._size = len(body)
        self._piece = self._body[:0]

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, self._size, _PIECE_BYTES):
            body = self._body
            if body is None:
                raise httpx.WriteError("the call was given up")
            self._piece = body[start : start + _PIECE_BYTES]
            del body
            yield self._piece  # type: ignore[misc] # h11 takes what has a buffer

    def close(self) -> None:
        """Let go of the body."""
        self._body = None
        with suppress(BufferError):  # while it is copied, its own thread needs it
            self._piece.release()


class OpenSearchTarget:
    """
    An OpenSearch cluster, as a client sees it. One object serves many threads and many loads.

    Calls raise :class:`~overnight.errors.ServiceError`.

    :param url: Of any node or of the load balancer; a user and password in it are used and not shown.
    :param auth: Any httpx auth: a pair of user and password, or a signer for Amazon OpenSearch.
    :param verify: Whether certificates are checked, or the path of a CA bundle.
    :param headers: Sent with every call; they may be secret.
    :param timeout: Seconds for each read and write; a ``_bulk`` under load answers late.
    :raises SpecError: the address is none, or of a collection of Amazon OpenSearch Serverless.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: httpx.Auth | tuple[str, str] | None = None,
        verify: bool | str = True,
        headers: Mapping[str, str] | None = None,
        timeout: float = 120.0,
    ) -> None:
        parsed = parse_address(url, "OpenSearch")
        if _SERVERLESS.search(parsed.host) or (isinstance(auth, SigV4Auth) and auth.service == "aoss"):
            raise SpecError(
                f"{parsed.host} is a collection of Amazon OpenSearch Serverless, which a load cannot fill: vector "
                "collections take neither an _id nor updates, and none can be refreshed. Load into a domain (es)."
            )
        if auth is None and parsed.username:
            auth = (parsed.username, parsed.password)
        connection = OpenSearchConnection(
            str(parsed.copy_with(username=None, password=None)).rstrip("/"),
            auth=httpx.BasicAuth(*auth) if isinstance(auth, tuple) else auth,
            verify=verify,
            headers=headers or {},
            timeout=timeout,
        )
        self.url = connection.url
        # A signature covers the body. Its digest is made here, where the body lies: a signer would read it all in.
        self._is_signed = isinstance(auth, SigV4Auth)
        self.transport = connection.transport(remedies=_REMEDIES)

    def __repr__(self) -> str:
        return f"OpenSearchTarget({self.url!r})"

    def get(self, path: str, **params: Any) -> Any:
        """GET a path and return the decoded answer."""
        return self.transport.send(HttpCall("GET", path, params=params))

    def put(self, path: str, body: Mapping[str, Any], *, retry: Retry = Retry.SAFE) -> Any:
        """PUT a JSON body to a path and return the decoded answer."""
        return self.transport.send(HttpCall("PUT", path, json=body, retry=retry))

    def post(self, path: str, body: Any = None, *, retry: Retry = Retry.SAFE, **params: Any) -> Any:
        """POST a JSON body to a path and return the decoded answer."""
        return self.transport.send(HttpCall("POST", path, json=body, params=params, retry=retry))

    def delete(self, path: str) -> Any:
        """DELETE a path and return the decoded answer."""
        return self.transport.send(HttpCall("DELETE", path))

    def bulk(
        self, index: str, body: Body, params: Mapping[str, str], *, decode: Callable[[bytes], Any] = orjson.loads
    ) -> Any:
        """
        Send one ``_bulk`` body, once; who calls decides about another attempt.

        :param index: Its name as a segment of a path (:func:`~overnight.ingest.write.names.quote_index_name`).
        :param decode: Reads the answer; it raises :class:`orjson.JSONDecodeError` for one that is no JSON.
        """
        with closing(_Pieces(body)) as pieces:
            return self.transport.send(
                HttpCall(
                    "POST",
                    f"{index}/_bulk",
                    params=params,
                    content=pieces,
                    headers={
                        "Content-Type": "application/x-ndjson",
                        "Content-Length": str(len(body)),
                        **(digest_header(body) if self._is_signed else {}),
                    },
                    retry=Retry.NEVER,
                    decode=decode,
                )
            )

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
