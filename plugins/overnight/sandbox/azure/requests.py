"""What a request to create a job must look like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from overnight.sandbox.azure.errors import invalid

DEFAULT_CHUNK_SIZE: Final = 1_024
COMPLETION_ACTIONS: Final = ("cleanUpAssets", "keepAllAssets")
REQUIRED_HEADERS: Final = ("searchServiceEndpoint", "storageConnectionString", "storageContainer")
OPTIONAL_HEADERS: Final = (
    "searchServiceAdminKey",
    "embeddingEndpoint",
    "embeddingKey",
    "storageEndpoint",
    "embeddingDeploymentName",
)
_READ_ONLY: Final = {"id": str, "status": str, "error": dict, "progress": dict, "warnings": list}
"""Fields of an ``IngestionJob`` that a request may have, to no effect."""
_KNOWN: Final = {"dataRefreshIntervalInMinutes", "chunkSize", "completionAction", *_READ_ONLY}
_INT32: Final = 2**31 - 1
# The job's id becomes the name of an index, which Azure AI Search restricts so.
_INDEX_NAME = re.compile(r"(?=.{2,128}$)[a-z0-9]+(-[a-z0-9]+)*")
_CONTAINER_NAME = re.compile(r"\$root|\$web|(?=.{3,63}$)[a-z0-9]+([.-][a-z0-9]+)*")


def check_id(job_id: str) -> None:
    """Refuse an id that no index can have."""
    if not _INDEX_NAME.fullmatch(job_id):
        raise invalid(
            "jobId",
            "The job id becomes the name of an index: 2 to 128 lower-case letters, digits and single dashes, beginning "
            "and ending with a letter or digit.",
        )


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a job is created with."""
    found = {
        name: headers[name].strip() for name in (*REQUIRED_HEADERS, *OPTIONAL_HEADERS) if headers.get(name, "").strip()
    }
    for name in REQUIRED_HEADERS:
        if name not in found:
            raise invalid(name, f"The header '{name}' is required.")
    for name in ("searchServiceEndpoint", "storageEndpoint", "embeddingEndpoint"):
        if name in found and not re.match(r"(https?://[^/\s]|file:/)", found[name]):
            raise invalid(name, f"The header '{name}' must be a URL.")
    if not _CONTAINER_NAME.fullmatch(found["storageContainer"]):
        raise invalid("storageContainer", "The header 'storageContainer' is not the name of a container.")
    parts = connection_string(found["storageConnectionString"])
    if "resourceid" in parts and "storageEndpoint" not in found:
        raise invalid("storageEndpoint", "The header 'storageEndpoint' is required for ResourceId connection strings.")
    if "resourceid" not in parts and not {"accountname", "blobendpoint", "usedevelopmentstorage"} & parts.keys():
        raise invalid("storageConnectionString", "The header 'storageConnectionString' is not a connection string.")
    return found


def check_body(body: Any) -> dict[str, Any]:
    """Return the settings of the job, defaults filled in."""
    if not isinstance(body, dict):
        raise invalid("body", "The request body must be a JSON object.")
    for name in body:
        if name not in _KNOWN:
            raise invalid(name, f"An ingestion job has no property '{name}'.")
    for name, kind in _READ_ONLY.items():
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise invalid(name, f"The property '{name}' is of the wrong type.")
    if "dataRefreshIntervalInMinutes" not in body:
        raise invalid("dataRefreshIntervalInMinutes", "The property 'dataRefreshIntervalInMinutes' is required.")
    action = body.get("completionAction")
    if action is not None and action not in COMPLETION_ACTIONS:
        raise invalid(
            "completionAction", f"The property 'completionAction' must be one of {', '.join(COMPLETION_ACTIONS)}."
        )
    return {
        "dataRefreshIntervalInMinutes": _integer(body, "dataRefreshIntervalInMinutes", least=0),
        "completionAction": action or COMPLETION_ACTIONS[0],
        "chunkSize": _integer(body, "chunkSize", least=1) if body.get("chunkSize") is not None else DEFAULT_CHUNK_SIZE,
    }


def connection_string(text: str) -> dict[str, str]:
    """Return the parts of a storage connection string, their names in lower case."""
    pairs = (part.partition("=") for part in text.split(";") if part.strip())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _integer(body: Mapping[str, Any], name: str, *, least: int) -> int:
    value = body[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _INT32:
        raise invalid(name, f"The property '{name}' must be an integer from {least} to {_INT32}.")
    return value
