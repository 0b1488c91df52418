"""The lifecycle of a remote batch job: model, identity and decisions. Pure: no I/O, no Airflow."""

from overnight.jobs.identity import JobKey, JobName, fingerprint_of
from overnight.jobs.model import (
    Blame,
    FoundJob,
    JobCounts,
    JobError,
    JobRef,
    JobState,
    JobStatus,
    ResultFile,
    ResultManifest,
)

__all__ = [
    "Blame",
    "FoundJob",
    "JobCounts",
    "JobError",
    "JobKey",
    "JobName",
    "JobRef",
    "JobState",
    "JobStatus",
    "ResultFile",
    "ResultManifest",
    "fingerprint_of",
]
