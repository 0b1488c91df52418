"""The proxy that the environment names for an address, and the errors of calls that it did not let through."""

from __future__ import annotations

import re
import socket
from typing import Final
from urllib.request import getproxies, proxy_bypass

import httpx

from overnight.errors import ConnectionConfigError, ProxyUnavailableError, ServiceError, shorten

_REMEDY: Final = "Correct HTTP_PROXY, HTTPS_PROXY and ALL_PROXY in the environment, or name the host in NO_PROXY."
_FINAL: Final = re.compile(r"^4(?!08|29)\d\d\b")
"""How httpx words a proxy's answer that no waiting mends: the status first."""


def find_proxy(url: httpx.URL) -> str | None:
    """Return the address of the proxy that the environment names for a URL, without user and password."""
    if proxy_bypass(url.host):
        return None
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found:
        return None
    try:
        proxy = httpx.URL(found if "://" in found else f"http://{found}")
        return str(proxy.copy_with(username=None, password=None, query=None, fragment=None))
    except httpx.InvalidURL:
        return None


def explain_proxy(error: Exception, service: str) -> ServiceError | None:
    """
    Return the error for a call that got no further than the proxy; ``None`` for any other.

    :param error: Of httpx.
    """
    if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return None
    try:
        url = error.request.url
    except RuntimeError:  # it has none
        return None
    proxy = find_proxy(url)
    if proxy is None:
        return None
    why = shorten(str(error) or type(error).__name__, 300).rstrip(".")
    if isinstance(error, httpx.ProxyError):
        kind = ConnectionConfigError if _FINAL.match(str(error)) else ProxyUnavailableError
        return kind(f"{service}: the proxy {proxy} does not connect to {url.host} ({why}). {_REMEDY}")
    return ProxyUnavailableError(f"{service}: the proxy {proxy} cannot be reached ({why}). {_REMEDY}")


def is_unresolved(error: BaseException | None) -> bool:
    """Whether a call failed because its host's name has no address."""
    for _ in range(10):
        if error is None or isinstance(error, socket.gaierror):
            break
        error = error.__cause__ or error.__context__
    return isinstance(error, socket.gaierror)
