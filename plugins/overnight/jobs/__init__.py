"""The lifecycle of a remote batch job: model, identity and decisions. Pure: no I/O, no Airflow."""

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
)
from overnight.jobs.record import JobRecord

__all__ = [
    "FailureCause",
    "FoundJob",
    "JobCounts",
    "JobError",
    "JobKey",
    "JobName",
    "JobRecord",
    "JobRef",
    "JobState",
    "JobStatus",
    "ResultFile",
    "ResultManifest",
    "compute_fingerprint",
]
