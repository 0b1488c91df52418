"""
Azure OpenAI ingestion jobs: the service chunks a container's documents and puts them into an Azure AI Search index.

API: https://learn.microsoft.com/rest/api/azureopenai/ingestion-jobs, version 2023-10-01-preview. It belongs to "On Your
Data", which is being retired; ``docs/azure-ingestion.md`` names the ways out.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, ClassVar, Final, Literal, TypeAlias
from urllib.parse import quote

from pydantic import Field

from overnight.errors import (
    ChangedSpecError,
    NotFoundError,
    ServiceError,
    UnavailableError,
    UnsupportedError,
    shorten,
)
from overnight.jobs import FoundJob, JobKey, JobRecord, JobRef, JobStatus, ResultManifest, choose_found
from overnight.jobs.service import JobSpec, Service
from overnight.services.azure_ingestion.causes import explain, is_taken
from overnight.services.azure_ingestion.connection import JOBS, AzureIngestionConnection
from overnight.services.azure_ingestion.status import read_state, read_status, stages
from overnight.services.create import create_once
from overnight.transport.flow import Flow
from overnight.transport.http import HttpAnswer, HttpCall, Retry

log = logging.getLogger(__name__)

MAX_ID: Final = 256
"""Characters of a listed id that is looked at; ours are far shorter."""
STATUS_KEPT_HOURS: Final = 48
"""How long the service knows a job after its end."""

CompletionAction: TypeAlias = Literal["cleanUpAssets", "keepAllAssets"]


class AzureIngestionSpec(JobSpec):
    """
    One ingestion job. Where documents and index are, and every credential, is the connection's.

    :param data_refresh_interval_minutes: 0 ingests once. More makes the service ingest again and again, for ever.
    :param chunk_size: Tokens in a chunk at most; the service's default is 1,024.
    :param completion_action: Whether the intermediate assets are kept; the service cleans up by default.
    :param storage_container: Another container than the connection's.
    :param embedding_deployment_name: Another deployment for the vectors than the connection's.
    """

    data_refresh_interval_minutes: int = Field(default=0, ge=0, le=2**31 - 1)
    chunk_size: int | None = Field(default=None, ge=1, le=2**31 - 1)
    completion_action: CompletionAction | None = None
    storage_container: str | None = Field(
        default=None, min_length=3, max_length=63, pattern=r"^(\$root|\$web|[a-z0-9]+(-[a-z0-9]+)*)$"
    )
    embedding_deployment_name: str | None = Field(default=None, min_length=1)

    def body(self) -> dict[str, Any]:
        """Return the request body; what is left out is the service's to choose."""
        values = {
            "dataRefreshIntervalInMinutes": self.data_refresh_interval_minutes,
            "chunkSize": self.chunk_size,
            "completionAction": self.completion_action,
        }
        return {name: value for name, value in values.items() if value is not None}


class AzureIngestionService(Service[AzureIngestionSpec]):
    """
    The five verbs for ingestion jobs.

    The job's id is ours: the key's name, which is the name of the index as well. With a refresh interval a job has no
    end; the end of the first run that is seen stands for it.

    :param conn_id: The connection that every reference names.
    :param account: Its facts. A job is created with more than the API key.
    """

    name: ClassVar[str] = "azure_ingestion"

    def __init__(self, conn_id: str, account: AzureIngestionConnection) -> None:
        super().__init__(conn_id)
        self.account = account

    def find(self, key: JobKey, since: datetime, record: JobRecord | None = None) -> Flow[FoundJob | None]:
        """
        Look for this task instance's newest job, by its id.

        The service does not say when a job was created: ``since`` stands for it, and a deadline counts from there.
        """
        listed = yield from self.list_jobs()
        jobs = {job["id"]: job for job in listed}
        if key.name not in jobs and (job := (yield from self._existing(key.name))) is not None:
            # The list is told to be paged, without a way to the next page.
            jobs[key.name] = job
        ours = []
        for job_id, job in jobs.items():
            found = FoundJob.from_name(job_id, key, ref=self.ref(job_id), created_at=since, state=read_state(job))
            if found is not None:
                ours.append(found)
        return choose_found(ours, key)

    def submit(self, spec: AzureIngestionSpec, key: JobKey) -> Flow[JobRef]:
        """
        Create the job, unless one with its id is there already.

        :raises SpecError: the connection lacks something that the job needs; nothing was sent.
        :raises ChangedSpecError: the id is taken by a job with other settings.
        """
        headers = self.account.job_headers(spec.storage_container, spec.embedding_deployment_name)
        existing = yield from self._existing(key.name)
        if existing is not None:
            return self._attached(existing, spec, key)
        call = HttpCall("PUT", _job(key.name), json=spec.body(), headers=headers, retry=Retry.REJECTED)

        def create() -> Flow[JobRef]:
            # The id is ours, so whatever a success says, this is the job.
            yield from self._call(call)
            return self.ref(key.name)

        def find(since: datetime) -> Flow[FoundJob | None]:
            job = yield from self._existing(key.name)
            if job is None:
                return None
            ref = self._attached(job, spec, key)
            return FoundJob.from_name(key.name, key, ref=ref, created_at=since, state=read_state(job))

        return (yield from create_once(create, find, key, is_taken=is_taken))

    def status(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Look at the job once; the answer's ``Retry-After`` is kept to.

        :raises NotFoundError: 48 hours after its end the service forgets a job; the text says so.
        """
        job, retry_after = yield from self._get(ref)
        return read_status(job, scrub=self.account.scrub, poll_after=retry_after)

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        """Read the list of ingestion jobs, which has no pages."""
        del wanted
        listed = yield from self.list_jobs()
        return {job["id"]: read_status(job, scrub=self.account.scrub) for job in listed}

    def cancel(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Return the status of a job that is over.

        :raises UnsupportedError: the job is not over, or begins again and again; the text says what is left running.
        """
        job, _ = yield from self._get(ref)
        status = read_status(job, scrub=self.account.scrub)
        minutes = job.get("dataRefreshIntervalInMinutes")
        recurring = isinstance(minutes, int) and minutes > 0
        if status.state.is_terminal and not recurring:
            return status
        until = f"every {minutes} minutes, for ever" if recurring else "until it ends by itself"
        raise UnsupportedError(
            f"Azure OpenAI has no call that ends an ingestion job. {ref} ({status.raw}) goes on {until}, and fills the "
            f"index {ref.id} of the connection {ref.conn_id}'s search service. To stop it, disable the indexers there "
            f"whose names begin with {ref.id}, and delete the index if it is of no use."
        )
        yield

    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        """Name the index that holds the chunks: there are no result files. ``detail`` has the stages, too."""
        job, _ = yield from self._get(ref)
        minutes = job.get("dataRefreshIntervalInMinutes")
        return ResultManifest(
            ref=ref,
            counts=read_status(job).counts,
            detail={
                "index": ref.id,
                "refresh_minutes": minutes if type(minutes) is int else None,
                "stages": [
                    {"name": stage.name, "total": stage.total, "processed": stage.processed} for stage in stages(job)
                ],
            },
        )

    def list_jobs(self) -> Flow[list[dict[str, Any]]]:
        """Return the jobs that are running or ended in the last 48 hours."""
        answer = yield from self._call(HttpCall("GET", JOBS))
        value = answer.get("value") if isinstance(answer, dict) else None
        if isinstance(answer, dict) and "value" in answer and value is None:
            # An empty list, as some serializers write it.
            return []
        if not isinstance(value, list):
            raise UnavailableError(
                "The list of ingestion jobs has no value; does something else answer at this address?"
            )
        return [job for job in value if isinstance(job, dict) and _is_id(job.get("id"))]

    def _call(self, call: HttpCall) -> Flow[Any]:
        try:
            return (yield call)
        except ServiceError as error:
            # Not chained: the text has it all, and the code decides what kind of error it is.
            raise explain(error) from None

    def _existing(self, job_id: str) -> Flow[dict[str, Any] | None]:
        try:
            answer = yield from self._call(HttpCall("GET", _job(job_id)))
        except NotFoundError:
            return None
        if not isinstance(answer, dict):
            raise UnavailableError(f"The answer about {job_id} is not a job.")
        return answer

    def _get(self, ref: JobRef) -> Flow[tuple[dict[str, Any], float | None]]:
        try:
            answer: HttpAnswer = yield from self._call(HttpCall("GET", _job(ref.id), whole=True))
        except NotFoundError as error:
            raise NotFoundError(
                f"Azure OpenAI does not know {ref} (any more). It keeps a job for {STATUS_KEPT_HOURS} hours after its "
                "end and then forgets it: if the job ended well, its index of the same name is still in the search "
                f"service. Otherwise see whether the connection {ref.conn_id} still points at the right resource.",
                status=error.status,
                code=error.code,
            ) from None
        if not isinstance(answer.body, dict) or not isinstance(answer.body.get("status"), str):
            raise UnavailableError(f"The service's answer about {ref} is not a job.")
        return answer.body, answer.retry_after

    def _attached(self, job: Mapping[str, Any], spec: AzureIngestionSpec, key: JobKey) -> JobRef:
        """Return the reference to a job that has our id, if it is what was asked for."""
        other = [
            f"{name} is {shorten(repr(job[name]), 100)} there and {value!r} here"
            for name, value in spec.body().items()
            if job.get(name) is not None and str(job[name]).lower() != str(value).lower()
        ]
        if other:
            raise ChangedSpecError(
                f"Azure OpenAI already has a job {key.name} with other settings: {'; '.join(other)}. Nothing was "
                "submitted. Overnight chose that id, so something else has created the job: clear the task after the "
                f"service has forgotten it, {STATUS_KEPT_HOURS} hours after its end."
            )
        log.info("The job %s is there already; attaching to it.", key.name)
        return self.ref(key.name)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID


def _job(job_id: str) -> str:
    return f"{JOBS}/{quote(job_id, safe='')}"
