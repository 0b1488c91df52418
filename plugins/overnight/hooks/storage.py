"""Object stores with the credentials of Airflow connections."""

from __future__ import annotations

from airflow.sdk.io import get_fs

from overnight.storage import Storage

DEFAULT_AWS_CONN_ID = "aws_default"


def connected_storage(aws_conn_id: str | None = DEFAULT_AWS_CONN_ID) -> Storage:
    """
    Return a storage whose ``s3://`` is reached through an Airflow connection.

    Other protocols are opened with fsspec's defaults.

    :param aws_conn_id: The connection; ``None`` for boto's own chain of credentials.
    """
    return Storage(connectors={"s3": lambda: get_fs("s3", conn_id=aws_conn_id)})
