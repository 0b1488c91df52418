"""Whether a triggerer runs: what defers waits there."""

from __future__ import annotations

from typing import Any

from overnight.doctor.airflow_command import run_airflow
from overnight.doctor.finding import Finding, fail, ok, warn
from overnight.transport.http import HttpCall, HttpTransport, Retry

_REMEDY = (
    "Start one (airflow triggerer), or give the operators and templates deferrable=False, which wait on a worker then."
)


def check_triggerer(api_url: str | None, seconds: float, *, is_needed: bool) -> Finding:
    """
    Ask the API server, or the metadata database where no server is known.

    :param api_url: Of Airflow's API server; its health needs no login.
    :param is_needed: Whether a DAG here defers.
    """
    found = _ask_server(api_url, seconds) if api_url else _ask_database(seconds)
    if found is None:
        return ok("A triggerer runs.")
    return fail(f"{found} {_REMEDY}") if is_needed else warn(f"{found} No DAG here needs one. {_REMEDY}")


def _ask_server(api_url: str, seconds: float) -> str | None:
    """Return what is wrong."""
    with HttpTransport(service="Airflow", base_url=api_url, timeout=seconds) as transport:
        answer: Any = transport.send(HttpCall("GET", "api/v2/monitor/health", retry=Retry.NEVER))
    triggerer = answer.get("triggerer") if isinstance(answer, dict) else None
    if not isinstance(triggerer, dict):
        return f"What answers at {api_url} does not say how Airflow is, so the address is none of its API server."
    if triggerer.get("status") == "healthy":
        return None
    last = triggerer.get("latest_triggerer_heartbeat")
    return f"No triggerer runs: the last sign of one is of {last}." if last else "No triggerer ever ran here."


def _ask_database(seconds: float) -> str | None:
    """Return what is wrong."""
    command = ["jobs", "check", "--job-type", "TriggererJob", "--allow-multiple", "--limit", "100"]
    answer = run_airflow(command, seconds)
    if not answer.status:
        return None
    if "No alive jobs found" in answer.stderr:
        return "No triggerer runs: Airflow's database has no sign of one that lives."
    return (
        "Whether a triggerer runs is not known: Airflow's database does not answer. Name the API server with "
        "--api-url, or run this where the database can be reached."
    )
