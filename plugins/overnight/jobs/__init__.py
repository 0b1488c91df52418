"""
The lifecycle of a remote batch job, without Airflow: model, identity, decisions, and the steps of one try.

Only :mod:`~overnight.jobs.record_store` does I/O of its own; calls to a service are flows, carried out by a transport.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from overnight.jobs.identity import JobKey, JobName, compute_fingerprint
    from overnight.jobs.model import (
        FailureCause,
        FoundJob,
        JobCounts,
        JobError,
        JobRef,
        JobState,
        JobStatus,
        ResultFile,
        ResultManifest,
        choose_found,
    )
    from overnight.jobs.record import JobRecord
    from overnight.jobs.record_store import FileRecordStore, RecordStore
    from overnight.jobs.runner import run

__all__ = [
    "FailureCause",
    "FileRecordStore",
    "FoundJob",
    "JobCounts",
    "JobError",
    "JobKey",
    "JobName",
    "JobRecord",
    "JobRef",
    "JobState",
    "JobStatus",
    "RecordStore",
    "ResultFile",
    "ResultManifest",
    "choose_found",
    "compute_fingerprint",
    "run",
]

_HOMES: Final = {
    "FailureCause": "model",
    "FileRecordStore": "record_store",
    "FoundJob": "model",
    "JobCounts": "model",
    "JobError": "model",
    "JobKey": "identity",
    "JobName": "identity",
    "JobRecord": "record",
    "JobRef": "model",
    "JobState": "model",
    "JobStatus": "model",
    "RecordStore": "record_store",
    "ResultFile": "model",
    "ResultManifest": "model",
    "choose_found": "model",
    "compute_fingerprint": "identity",
    "run": "runner",
}


def __getattr__(name: str) -> Any:
    # A DAG that is parsed carries out no job.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
