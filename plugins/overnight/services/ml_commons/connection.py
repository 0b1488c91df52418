"""How to reach ML Commons through a connection to an OpenSearch cluster."""

from __future__ import annotations

from typing import Final

from overnight.services.ml_commons.causes import FINAL_CODES, THROTTLED_CODES, read_ml_error
from overnight.transport.http import HttpTransport
from overnight.transport.opensearch import OpenSearchConnection

ML: Final = "_plugins/_ml"
"""The path that every call of the plugin begins with."""


def transport(connection: OpenSearchConnection, *, attempts: int = 6) -> HttpTransport:
    """Return a transport that understands the plugin's errors. Does no I/O."""
    return connection.transport(
        attempts=attempts, error_reader=read_ml_error, final_codes=FINAL_CODES, throttled_codes=THROTTLED_CODES
    )
