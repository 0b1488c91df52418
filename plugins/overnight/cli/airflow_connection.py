"""Airflow's connections in a command, which imports this within an Airflow session."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowException

from overnight.errors import SpecError, shorten
from overnight.hooks.openai import OpenAIHook
from overnight.services.openai.connection import OpenAIConnection


def find_openai_connection(conn_id: str) -> OpenAIConnection:
    """
    Return how the server of an OpenAI connection is reached; nothing is sent.

    :raises SpecError: Airflow does not know the connection, or it lacks something.
    """
    try:
        return OpenAIHook(conn_id).find_connection()
    except AirflowException as error:
        raise refuse_connection(conn_id, error) from None


def refuse_connection(conn_id: str, error: AirflowException) -> SpecError:
    """Return the refusal of a connection that Airflow cannot look up."""
    return SpecError(
        f"The connection {conn_id!r} cannot be used: {shorten(str(error), 300)}. Create it in Airflow, or set "
        f"AIRFLOW_CONN_{conn_id.upper()}, or name another one with --conn-id."
    )
