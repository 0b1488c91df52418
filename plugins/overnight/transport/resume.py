"""Reading a file over HTTP from where the last connection broke, and noticing when it is another file by now."""

from __future__ import annotations

import re

import httpx

from overnight.errors import RequestRefusedError
from overnight.transport.errors import get_path

_CONTENT_RANGE = re.compile(r"bytes (\d+)-")
_UNSATISFIED = re.compile(r"bytes \*/(\d+)")


class Reading:
    """How far a file was read, and which file it was."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self._etag: str | None = None

    def check_start(self, response: httpx.Response, service: str) -> int:
        """Return how many bytes of this answer were seen before."""
        etag = response.headers.get("ETag")
        if self._etag is not None and etag is not None and etag != self._etag:
            raise RequestRefusedError(
                f"{service} changed {get_path(response)} while it was being read (at byte {self.offset}). Read it "
                "again from the start.",
                status=response.status_code,
            )
        self._etag = self._etag or etag
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            return self.offset
        sent = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        # A server may send more than it was asked for, never less (RFC 9110, 15.3.7).
        first = int(sent[1]) if sent is not None else self.offset
        if first > self.offset:
            raise RequestRefusedError(
                f"{service} was asked for {get_path(response)} from byte {self.offset} on and sent it from byte "
                f"{first} on.",
                status=response.status_code,
            )
        return self.offset - first

    def check_end(self, response: httpx.Response, service: str) -> None:
        """Accept "nothing there" only where the file ends exactly here, or where the server does not say."""
        length = _UNSATISFIED.match(response.headers.get("Content-Range", ""))
        if length is not None and int(length[1]) < self.offset:
            raise self.shorter(service)

    def shorter(self, service: str) -> RequestRefusedError:
        """Return the error for a file that ends before the place where reading should go on."""
        return RequestRefusedError(f"{service} has fewer bytes of this file than the {self.offset} read before.")
