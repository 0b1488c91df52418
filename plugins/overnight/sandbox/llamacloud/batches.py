"""``/api/v2/batches``."""

from __future__ import annotations

import time
from datetime import datetime

from fastapi import APIRouter

from overnight.sandbox.llamacloud.access import Emulator, Paging, Project, listed
from overnight.sandbox.llamacloud.errors import ApiError, invalid
from overnight.sandbox.llamacloud.schemas import BatchCreate, BatchStatus, Expand
from overnight.sandbox.llamacloud.state import within
from overnight.sandbox.llamacloud.store import OVER, Record

router = APIRouter(prefix="/api/v2/batches")

_PUBLIC = ("id", "config", "project_id", "source_directory_id", "status", "created_at", "updated_at")


@router.post("")
def create_batch(body: BatchCreate, state: Emulator, project: Project) -> Record:
    """Create a batch over the files that the directory has now."""
    directory = state.store.get("directory", body.source_directory_id, parent=project)
    job = body.config.job
    parameters = state.configuration(job.configuration_id, job.type, project)
    files = state.store.all("directory_file", parent=directory["id"])
    limit = state.settings.limits.files_per_batch
    if not files:
        raise ApiError(400, f"Directory {directory['id']} has no files")
    if len(files) > limit:
        raise ApiError(400, f"Batch creation is limited to {limit:,} source files; the directory has {len(files):,}")
    record = {
        "config": body.config.model_dump(),
        "project_id": project,
        "source_directory_id": directory["id"],
        "status": "PENDING",
        "parameters": parameters,
        "files": [file["id"] for file in files],
        "results": [],
        "mapped": 0,
        "cancel_asked": False,
        "fate": state.decisions.fate(state.settings.faults),
        "since": time.time(),
    }
    return _public(state.store.add("batch", record, parent=project))


@router.get("")
def list_batches(
    state: Emulator,
    project: Project,
    paging: Paging,
    *,
    status: BatchStatus | None = None,
    source_directory_id: str | None = None,
    created_at_on_or_after: datetime | None = None,
    created_at_on_or_before: datetime | None = None,
) -> Record:
    """List batches, the newest first."""

    def wanted(record: Record) -> bool:
        return (
            status in (None, record["status"])
            and source_directory_id in (None, record["source_directory_id"])
            and within(record, "created_at", created_at_on_or_after, created_at_on_or_before)
        )

    found = state.store.page("batch", parent=project, token=paging.token, size=paging.size, wanted=wanted)
    return listed(found, _public)


@router.get("/{batch_id}")
def get_batch(batch_id: str, state: Emulator, project: Project, expand: Expand = None) -> Record:
    """Return one batch; its results once it is over, when they are asked for."""
    for name in expand or ():
        if name != "results":
            raise invalid(("query", "expand"), "the supported value is results", name)
    record = state.store.get("batch", batch_id, parent=project)
    are_ready = time.time() - record["since"] >= state.settings.pace.results
    return _public(record, results=bool(expand) and are_ready)


@router.post("/{batch_id}/cancel")
def cancel_batch(batch_id: str, state: Emulator, project: Project) -> Record:
    """Ask for a batch's end, which comes a little later."""
    current = state.store.get("batch", batch_id, parent=project)
    if current["status"] in OVER:
        raise ApiError(409, f"Batch {batch_id} is {current['status']} and cannot be cancelled")
    with state.store.change("batch", batch_id) as record:
        if not record["cancel_asked"] and record["status"] not in OVER:
            record.update(cancel_asked=True, since=time.time())
    return _public(record)


def _public(record: Record, *, results: bool = False) -> Record:
    shown = results and record["status"] in ("COMPLETED", "CANCELLED")
    return {name: record[name] for name in _PUBLIC} | {"results": record["results"] if shown else None}
