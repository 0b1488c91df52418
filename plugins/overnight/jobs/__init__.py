"""
The lifecycle of a remote batch job, without Airflow: model, identity, decisions, and the steps of one try.

Only :mod:`~overnight.jobs.record_store` does I/O of its own; calls to a service are flows, carried out by a transport.
"""

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
