"""Which certificates a server may have, and what is wrong when a call fails for its TLS."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from pathlib import Path
from typing import Final

import certifi

from overnight.errors import ConnectionConfigError, shorten

VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where the environment names a CA file or folder: those of Python and OpenSSL, and of requests and curl."""
MAX_CHAIN: Final = 10
"""How deep an error's causes are looked through."""
NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST"})
"""OpenSSL's words for an answer that is no TLS."""
OTHER_TLS: Final = frozenset(
    {
        "BAD_CERTIFICATE", "CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "NO_PROTOCOLS_AVAILABLE", "NO_SHARED_CIPHER",
        "PROTOCOL_VERSION", "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_PROTOCOL_VERSION", "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV1_UNRECOGNIZED_NAME", "UNKNOWN_CA", "UNSUPPORTED_PROTOCOL",
    }
)  # fmt: skip
"""OpenSSL's words for what is the same at every attempt."""
NO_PEM: Final = frozenset({"NO_CERTIFICATE_OR_CRL_FOUND", "NO_START_LINE", "BAD_BASE64_DECODE", "PEM_LIB"})
"""OpenSSL's words for a file without certificates."""


def load_certificates(verify: bool | str, service: str) -> ssl.SSLContext | bool:
    """
    Return what httpx takes as ``verify``; clients with the same CA file have one context.

    :param verify: ``False``, the path of a CA file or folder, or ``True`` for the environment's.
    :param service: The name that an error's text starts with.
    :raises ConnectionConfigError: there is no such file, or no certificate in it.
    """
    if verify is False:
        return False
    named = "the connection" if isinstance(verify, str) else next(filter(os.environ.get, VARIABLES), None)
    path = verify if isinstance(verify, str) else os.environ[named] if named is not None else certifi.where()
    try:
        return _make_context(path, Path(path).stat().st_mtime_ns)
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise ConnectionConfigError(
            f"{service}: the CA file {shorten(path, 300)!r} that {named} names cannot be used ({why}). Name a file of "
            "PEM certificates that is there on every worker and triggerer."
        ) from None


@lru_cache(maxsize=16)
def _make_context(path: str, changed_ns: int) -> ssl.SSLContext:
    """Read a CA file or folder, once for each time that it changed: 20 ms, which every client would spend."""
    del changed_ns
    return ssl.create_default_context(capath=path) if Path(path).is_dir() else ssl.create_default_context(cafile=path)


def explain_tls(error: BaseException | None, service: str) -> ConnectionConfigError | None:
    """
    Return the error for a call that failed for its TLS in a way that every attempt will; ``None`` for any other.

    :param error: Of httpx or botocore; what it was caused by is looked through.
    """
    seen = 0
    while error is not None and seen < MAX_CHAIN:
        found = _explain_one(error, service)
        if found is not None:
            return found
        # urllib3 and botocore keep what happened as an argument.
        inner = next((one for one in error.args if isinstance(one, BaseException)), None)
        kept = getattr(error, "kwargs", None)
        inner = inner or (kept.get("error") if isinstance(kept, dict) else None)
        error = error.__cause__ or error.__context__ or inner
        seen += 1
    return None


def _explain_one(error: BaseException, service: str) -> ConnectionConfigError | None:
    why = shorten(f"{type(error).__name__}: {error}", 500)
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectionConfigError(
            f"{service}: the certificate of the server is not trusted ({why}). Name the CA's file in the connection, "
            "or in SSL_CERT_FILE; where the connection's address is wrong, correct it."
        )
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    if reason in NO_PEM or isinstance(error, FileNotFoundError):
        return ConnectionConfigError(
            f"{service}: the CA file cannot be used ({why}). Check verify in the connection's extra, and AWS_CA_BUNDLE "
            "and REQUESTS_CA_BUNDLE, for a file of PEM certificates."
        )
    if reason in NO_TLS:
        return ConnectionConfigError(
            f"{service}: the server does not speak TLS at this address ({why}). Write http:// in the connection, or "
            "correct its port."
        )
    if reason in OTHER_TLS:
        return ConnectionConfigError(
            f"{service}: the server refuses to speak TLS with this client ({why}). Correct the connection's address, "
            "or ask the server's administrator which versions and certificates it takes."
        )
    return None
