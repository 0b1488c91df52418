"""Whether runs can keep their files where the DAGs say."""

from __future__ import annotations

import uuid

from overnight.doctor.finding import Finding, fail, ok
from overnight.errors import UnavailableError
from overnight.hooks.executor import require_shared
from overnight.hooks.storage import connected_storage
from overnight.storage import redact

_CONTENT = b"overnight doctor\n"


def check_folder(uri: str, aws_conn_id: str) -> Finding:
    """
    Write a file into a folder, read it and delete it again.

    :param uri: As a DAG has it; what is a template in it is left out.
    :param aws_conn_id: The connection of a URI of S3 that names none.
    :raises OvernightError: it cannot be used.
    """
    folder = cut_template(uri).rstrip("/")
    require_shared(folder)
    storage = connected_storage(aws_conn_id)
    file = f"{folder}/_overnight-doctor-{uuid.uuid4().hex[:8]}"
    try:
        storage.put(file, _CONTENT)
    except UnavailableError as error:
        return fail(f"{error}. Correct endpoint_url and region_name of the connection, or open the way to there.")
    try:
        with storage.open(file) as opened:
            content = opened.read()
    finally:
        storage.delete(file)
    if content != _CONTENT:
        return fail(f"{redact(folder)} gives back other bytes than were written. Look for what changes files there.")
    if storage.exists(file):
        return fail(f"A file in {redact(folder)} is still there after it was deleted. Grant s3:DeleteObject.")
    return ok(f"{redact(folder)} can be written, read and deleted from.")


def cut_template(uri: str) -> str:
    """Return the part of a URI's folders that is the same for every run."""
    fixed, brace, _ = uri.partition("{")
    return fixed[: fixed.rfind("/") + 1] if brace else fixed
