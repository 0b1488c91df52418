"""Directories of ours: made once, filled in parallel, and filled up where an earlier try stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, BinaryIO, Final, cast

import orjson

from overnight.errors import RequestRefusedError, ServiceError, SpecError, TransientError
from overnight.services.create import create_object_once
from overnight.services.llamacloud.answers import (
    CONFIGURATIONS,
    DIRECTORIES,
    Record,
    batched,
    get_files_path,
    list_all,
    read_record,
)
from overnight.services.llamacloud.sources import SourceFile
from overnight.services.llamacloud.spec import Limits, LlamaCloudBatchSpec
from overnight.storage import Storage
from overnight.transport.flow import Flow, Gather, Pause
from overnight.transport.http import HttpCall, Retry

log = logging.getLogger(__name__)

ROUND: Final = 100
"""Files between two looks at how fast they go."""
IDLE_TRIES: Final = 4
"""Passes over the missing files in which not one more arrives, before giving up."""
RETRY_WAIT: Final = 5.0
"""Seconds before another pass; the service counts uploads in windows of this length."""
UPLOAD_TIMEOUT: Final = 600.0


def find_directory(name: str) -> Flow[Record | None]:
    """Return the oldest directory of exactly this name, if there is one."""
    listed = yield from list_all(DIRECTORIES, {"name": name})
    ours = [item for item in listed if item.get("name") == name and not item.get("deleted_at")]
    return min(ours, key=lambda item: str(item.get("created_at")), default=None)


def provide_directory(name: str, spec: LlamaCloudBatchSpec, description: str) -> Flow[str]:
    """Return the id of our directory of a name, which is created, once, when it is missing."""
    found = yield from find_directory(name)
    if found is not None:
        log.info("Using the directory %s, which an earlier try made.", found["id"])
        return str(found["id"])
    body = {"name": name, "type": spec.directory_type, "description": description}

    def create() -> Flow[Record]:
        return read_record((yield HttpCall("POST", DIRECTORIES, json=body, retry=Retry.REJECTED)), "the new directory")

    def find(since: datetime) -> Flow[Record | None]:
        # The name has the job's generation and fingerprint, so that any directory of it is ours.
        del since
        return (yield from find_directory(name))

    made = yield from create_object_once(create, find, f"the directory {name}")
    return str(made["id"])


def provide_files(directory_id: str, files: Sequence[SourceFile], storage: Storage, limits: Limits) -> Flow[None]:
    """
    See to it that a directory holds these files: those that are there are left alone, the others sent in parallel.

    A file whose upload got no answer is looked for before it is sent again. A refusal ends it at once; whatever
    has arrived stays for the next try.

    :raises RequestRefusedError: the service does not take a file.
    :raises TransientError: nothing more arrived in several passes.
    """
    missing = yield from _missing(directory_id, files)
    if len(missing) < len(files):
        log.info("%d of %d files are in %s already.", len(files) - len(missing), len(files), directory_id)
    idle = 0
    while missing:
        failure = yield from _send(directory_id, missing, storage, limits)
        if failure is None:
            return
        before = len(missing)
        missing = yield from _missing(directory_id, files)
        idle = idle + 1 if len(missing) == before else 0
        if idle == IDLE_TRIES:
            raise failure
        if missing:
            log.warning("%d files have not arrived in %s: %s", len(missing), directory_id, failure)
            asked = failure.retry_after if isinstance(failure, TransientError) else None
            yield Pause(asked or RETRY_WAIT)


def provide_configuration(spec: LlamaCloudBatchSpec) -> Flow[str]:
    """
    Return the id of the spec's configuration.

    :raises SpecError: there is none of that name and no parameters to make it with, or one with other parameters.
    """
    if spec.configuration_id is not None:
        return spec.configuration_id
    name, job_type = spec.configuration_name, spec.job_type
    params = {"name": name, "product_type": job_type, "latest_only": "true"}
    listed = yield from list_all(CONFIGURATIONS, params)
    found = next((item for item in listed if (item.get("name"), item.get("product_type")) == (name, job_type)), None)
    if found is None:
        if spec.parameters is None:
            raise SpecError(
                f"There is no {job_type} configuration called {name!r}. Give its parameters to have it made, or the "
                "configuration_id of another one. Nothing was submitted."
            )
        # The service updates a configuration of the same name, so a lost answer is no second one.
        body = {"name": name, "parameters": {**spec.parameters, "product_type": job_type}}
        made = yield HttpCall("POST", CONFIGURATIONS, json=body)
        return str(read_record(made, "the new configuration")["id"])
    if spec.parameters is not None and not _has(found.get("parameters"), spec.parameters):
        raise SpecError(
            f"The {job_type} configuration {name!r} ({found['id']}) has other parameters. It was left as it is, for "
            "others may use it: choose another configuration_name, or leave the parameters out. Nothing was submitted."
        )
    return str(found["id"])


def _missing(directory_id: str, files: Sequence[SourceFile]) -> Flow[list[SourceFile]]:
    listed = yield from list_all(get_files_path(directory_id), {})
    there = {file.get("unique_id") for file in listed}
    return [file for file in files if file.unique_id not in there]


def _send(
    directory_id: str, files: Sequence[SourceFile], storage: Storage, limits: Limits
) -> Flow[ServiceError | None]:
    """Send files and return the last failure that another pass may mend."""
    failure: ServiceError | None = None
    for some in batched(files, ROUND):
        began = time.monotonic()
        answers = yield Gather([_call(directory_id, file, storage) for file in some], limits.uploads_at_once)
        for file, answer in zip(some, answers, strict=True):
            if isinstance(answer, TransientError):
                failure = answer
            elif isinstance(answer, ServiceError) and not (yield from _is_there(directory_id, file)):
                raise RequestRefusedError(
                    f"{file.uri or file.name} cannot be sent: {answer} What arrived is kept for the next try.",
                    status=answer.status,
                    code=answer.code,
                ) from answer
        ahead = len(some) / limits.uploads_per_second - (time.monotonic() - began)
        if ahead > 0:
            yield Pause(ahead)
    return failure


def _call(directory_id: str, file: SourceFile, storage: Storage) -> HttpCall:
    fields: dict[str, Any] = {"display_name": file.name, "unique_id": file.unique_id}
    if file.uri is None:
        body = {**fields, "file_id": file.file_id, "metadata": file.metadata}
        return HttpCall("POST", get_files_path(directory_id), json=body, retry=Retry.REJECTED)
    uri = file.uri

    def open_file() -> BinaryIO:
        return cast("BinaryIO", storage.open(uri))

    return HttpCall(
        "POST",
        f"{get_files_path(directory_id)}/upload",
        data={**fields, "metadata": orjson.dumps(file.metadata).decode()},
        files={"upload_file": (file.name, open_file)},
        retry=Retry.REJECTED,
        timeout=UPLOAD_TIMEOUT,
    )


def _is_there(directory_id: str, file: SourceFile) -> Flow[bool]:
    """Whether a refusal means that the file had arrived: its answer was lost, and the list lagged behind."""
    listed = yield from list_all(get_files_path(directory_id), {"unique_id": file.unique_id})
    return any(item.get("unique_id") == file.unique_id for item in listed)


def _has(actual: Any, wanted: Any) -> bool:
    """Whether everything that is wanted is there; the service adds defaults of its own."""
    if isinstance(wanted, dict):
        return isinstance(actual, dict) and all(_has(actual.get(key), value) for key, value in wanted.items())
    return bool(actual == wanted)
