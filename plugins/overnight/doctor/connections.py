"""Each connection: whether it is there, can be read, is answered, and its key is taken."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from overnight.doctor.dag_uses import SAGEMAKER
from overnight.doctor.finding import Finding, fail, ok, warn
from overnight.doctor.survey import DEFAULT_AWS_CONN_ID, VARIABLE
from overnight.errors import OvernightError, UnavailableError, shorten
from overnight.hooks.aws import naming_aws, read_aws_extra
from overnight.hooks.azure_ingestion import AzureIngestionHook
from overnight.hooks.connection import check_extra
from overnight.hooks.job import ENTRY_POINT_GROUP
from overnight.hooks.llamacloud import LlamaCloudHook
from overnight.hooks.openai import OpenAIHook
from overnight.hooks.opensearch import OpenSearchHook
from overnight.hooks.sagemaker import SageMakerHook

if TYPE_CHECKING:
    from airflow.sdk import Connection

AWS: Final = "aws"
_HOOKS: Final[Mapping[str, type[Any]]] = {
    "openai": OpenAIHook,
    "opensearch": OpenSearchHook,
    **{hook.conn_type: hook for hook in (AzureIngestionHook, LlamaCloudHook, OpenAIHook, OpenSearchHook)},
}
"""By connection type."""
_PARAMETERS: Final[Mapping[str, str]] = {
    "openai_conn_id": OpenAIHook.conn_type,
    "opensearch_conn_id": OpenSearchHook.conn_type,
    "llamacloud_conn_id": LlamaCloudHook.conn_type,
    "azure_conn_id": AzureIngestionHook.conn_type,
    "aws_conn_id": AWS,
}
"""The connection type to create for a parameter of a template or an operator."""
_REMEDIES: Final[Mapping[type[Exception], str]] = {
    UnavailableError: "Correct the connection's host and port, or open the way from this machine to there.",
}
"""Where no answer came; of an unknown host or a proxy the error itself says what to do."""


def check_connection(
    conn_id: str, parameters: Collection[str], needs: Collection[str] = (), *, opens_folder: bool = False
) -> Finding:
    """
    Try a connection with its hook's cheapest call.

    :param parameters: Those of DAGs that name it (``openai_conn_id``).
    :param needs: What the DAGs need beside their connections.
    :param opens_folder: Whether a check of an object store tries an AWS connection.
    """
    wanted = next((_PARAMETERS[name] for name in sorted(parameters) if name in _PARAMETERS), None)
    connection = find_connection(conn_id)
    if connection is None:
        return _check_missing(conn_id, wanted)
    check_extra(connection)
    if AWS in (connection.conn_type, wanted):
        return _check_aws(connection, needs, opens_folder=opens_folder)
    hook = find_hook(connection.conn_type) or find_hook(wanted)
    if hook is None:
        return warn(
            f"Nothing here can try a connection of type {connection.conn_type!r}. Give it one of this package's types: "
            f"{', '.join(sorted(_PARAMETERS.values()))}."
        )
    blanks = " and ".join(_find_blanks(connection))
    advice = f"White space begins or ends its {blanks}: enter it again, without." if blanks else ""
    try:
        text = hook(conn_id).try_connection()
    except UnavailableError as error:
        remedy = _REMEDIES.get(type(error), "") if error.status is None else ""
        return fail(f"{error} {remedy}".rstrip())
    except OvernightError as error:
        return fail(f"{advice} {error}".lstrip())
    return warn(f"{text} {advice}") if advice else ok(text)


def find_connection(conn_id: str) -> Connection | None:
    """
    Look a connection up in the environment, the secrets backends and, on a server, the metadata database.

    :return: ``None`` where it is in none of them, or cannot be read.
    """
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return None


def find_hook(conn_type: str | None) -> type[Any] | None:
    """Return the hook of a connection type: of this package, or of one that adds a service to it."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        hook = entry.load()
        if getattr(hook, "conn_type", None) == conn_type:
            return hook  # type: ignore[no-any-return]
    return _HOOKS.get(conn_type or "")


def _check_missing(conn_id: str, conn_type: str | None) -> Finding:
    variable = f"{VARIABLE}{conn_id.upper()}"
    if variable in os.environ:
        return fail(
            f'The variable {variable} cannot be read as a connection. Write it as JSON, {{"conn_type": "…", "host": '
            '"…", "password": "…"}, or as a URI with its special characters escaped.'
        )
    if conn_id == DEFAULT_AWS_CONN_ID:
        return _check_boto_chain()
    kind = f" of type {conn_type}" if conn_type else ""
    return fail(
        f"There is no connection {conn_id!r}. Create one{kind} in Airflow's UI (Admin, Connections), as {variable}, or "
        "in the secrets backend."
    )


def _check_boto_chain() -> Finding:
    import boto3  # noqa: PLC0415 - a second to load, for those who have no connection

    credentials = boto3.Session().get_credentials()
    if credentials is None:
        return fail(
            f"There is no connection {DEFAULT_AWS_CONN_ID!r}, and boto's own chain (environment, profile, instance "
            "role) has no credentials either. Create one of type aws."
        )
    return ok(f"No connection of this name; boto's own chain has credentials ({credentials.method}).")


def _check_aws(connection: Connection, needs: Collection[str], *, opens_folder: bool) -> Finding:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook  # noqa: PLC0415 - loads boto3

    conn_id = connection.conn_id
    extra = read_aws_extra(connection.extra_dejson, conn_id)
    if SAGEMAKER in needs:
        return ok(SageMakerHook(conn_id).try_connection())
    hook = AwsBaseHook(aws_conn_id=conn_id, client_type="sts")
    with naming_aws(conn_id):
        credentials = hook.get_session().get_credentials()
    if credentials is None:
        return fail(f"The connection {conn_id!r} has no credentials. Put a key into login and password, or a role.")
    if opens_folder:
        return ok("Has credentials; the check of the object store uses them.")
    if extra.get("endpoint_url") or extra.get("service_config", {}).get("s3", {}).get("endpoint_url"):
        return warn(
            "Has credentials, which nothing here has tried: its server is not AWS's own. Name a folder of it with "
            f"--work-uri s3://{conn_id}@bucket/folder."
        )
    is_well, text = hook.test_connection()  # type: ignore[no-untyped-call]
    if is_well:
        return ok("AWS takes its credentials.")
    return fail(f"AWS does not take its credentials: {shorten(text, 300)}. Correct key, role or region.")


def _find_blanks(connection: Connection) -> Iterator[str]:
    """Yield the fields that white space was pasted into."""
    for name in ("login", "password", "host"):
        value = getattr(connection, name)
        if isinstance(value, str) and value != value.strip():
            yield name
