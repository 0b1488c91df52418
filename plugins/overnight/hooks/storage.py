"""Object stores with the credentials of Airflow connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.io import get_fs

from overnight.errors import SpecError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from overnight.storage import Storage

DEFAULT_AWS_CONN_ID = "aws_default"


def connected_storage(aws_conn_id: str | None = DEFAULT_AWS_CONN_ID) -> Storage:
    """
    Return a storage whose object stores are opened through Airflow connections.

    A URI names its connection as Airflow's ``ObjectStoragePath`` has it: ``s3://conn_id@bucket/key``,
    ``gs://conn_id@bucket/key``, ``abfs://conn_id@container/key``. An ``s3://`` without one takes ``aws_conn_id``;
    the other stores then take the credentials of the environment.

    :param aws_conn_id: The connection; ``None`` for boto's own chain of credentials.
    """
    from overnight.storage import Storage  # noqa: PLC0415 - not at parse

    return Storage(
        connectors={"s3": lambda: _connect("s3", aws_conn_id)},
        connect=_connect,
        conn_ids={"s3": aws_conn_id} if aws_conn_id else {},
    )


def _connect(scheme: str, conn_id: str | None) -> AbstractFileSystem:
    try:
        if conn_id not in (None, DEFAULT_AWS_CONN_ID):
            # The amazon provider would go on without credentials, and report that access is denied.
            BaseHook.get_connection(conn_id)
        return get_fs(scheme, conn_id=conn_id)
    except AirflowNotFoundException:
        raise SpecError(
            f"There is no Airflow connection {conn_id!r} for {scheme}://. Create it, or name another in the URI "
            f"({scheme}://conn_id@bucket/key)."
        ) from None
