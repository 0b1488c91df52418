"""Whether the page *Overnight* is loaded."""

from __future__ import annotations

import json
from typing import Any, Final

from overnight.doctor.airflow_command import run_airflow
from overnight.doctor.finding import Finding, fail, ok
from overnight.errors import NotFoundError, ServiceError
from overnight.transport.http import HttpCall, HttpTransport, Retry

_STYLE: Final = "static/overnight.css"
"""A file of the page that needs no login; every other path of the API server answers with Airflow's own HTML."""


def check_page(api_url: str | None, seconds: float) -> Finding:
    """Ask the API server for a file of the page; where no server is known, ask what plugins load here."""
    return _ask_server(api_url, seconds) if api_url else _list_plugins(seconds)


def _ask_server(api_url: str, seconds: float) -> Finding:
    from overnight.links.page import PREFIX  # noqa: PLC0415 - Airflow may be too old for it, which is then the finding

    call = HttpCall("GET", f"{PREFIX.strip('/')}/{_STYLE}", retry=Retry.NEVER, decode=bytes)
    with HttpTransport(service="Airflow", base_url=api_url, timeout=seconds) as transport:
        try:
            style: bytes = transport.send(call) or b""
        except NotFoundError:
            style = b""
        except ServiceError as error:
            return fail(f"{error} Correct --api-url, or leave it out: the plugins of this environment count then.")
    if not style or style.lstrip().lower().startswith(b"<!doctype"):
        return _refuse("The API server does not have the page")
    return ok(f"The API server has the page, at {api_url.rstrip('/')}{PREFIX}/.")


def _list_plugins(seconds: float) -> Finding:
    answer = run_airflow(["plugins", "--output", "json"], seconds)
    start = answer.stdout.find("[")
    try:
        plugins: Any = json.loads(answer.stdout[start:]) if start >= 0 else []
    except ValueError:
        plugins = []
    if any(isinstance(plugin, dict) and plugin.get("name") == "overnight" for plugin in plugins):
        return ok("The plugin of the page loads here.")
    return _refuse("The plugin of the page does not load here")


def _refuse(what: str) -> Finding:
    return fail(
        f"{what}. Install airflow-provider-overnight in the API server's environment, or make plugins/ its plugins "
        "folder, and start it again; airflow plugins says what could not be loaded."
    )
