"""Whether a triggerer runs: what defers waits there."""

from __future__ import annotations

from typing import Any

from overnight.doctor.airflow_command import run_airflow
from overnight.doctor.finding import Finding, State, fail, ok, warn
from overnight.errors import ServiceError
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
    if found.state is not State.FAILURE or is_needed:
        return found
    return warn(f"{found.text} No DAG here needs one.")


def _ask_server(api_url: str, seconds: float) -> Finding:
    with HttpTransport(service="Airflow", base_url=api_url, timeout=seconds) as transport:
        try:
            answer: Any = transport.send(HttpCall("GET", "api/v2/monitor/health", retry=Retry.NEVER))
        except ServiceError as error:
            return fail(f"{error} Correct --api-url, or leave it out: the database is asked then.")
    triggerer = answer.get("triggerer") if isinstance(answer, dict) else None
    if not isinstance(triggerer, dict):
        return fail(f"What answers at {api_url} is no API server of Airflow's. Correct --api-url.")
    if triggerer.get("status") == "healthy":
        return ok("A triggerer runs.")
    last = triggerer.get("latest_triggerer_heartbeat")
    return fail(f"No triggerer runs{f' since {last}' if last else ', and none ever did'}. {_REMEDY}")


def _ask_database(seconds: float) -> Finding:
    command = ["jobs", "check", "--job-type", "TriggererJob", "--allow-multiple", "--limit", "100"]
    answer = run_airflow(command, seconds)
    if not answer.status:
        return ok("A triggerer runs.")
    if "No alive jobs found" in answer.stderr:
        return fail(f"No triggerer runs: Airflow's database has no sign of one that lives. {_REMEDY}")
    return fail(
        "Whether a triggerer runs is not known: Airflow's database does not answer. Name the API server with "
        "--api-url, or run this where the database can be reached."
    )
