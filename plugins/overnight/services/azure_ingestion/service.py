"""
Azure OpenAI ingestion jobs: the service chunks a container's documents and puts them into an Azure AI Search index.

API: https://learn.microsoft.com/rest/api/azureopenai/ingestion-jobs, version 2023-10-01-preview. It belongs to "On Your
Data", which is being retired; ``docs/azure-ingestion.md`` names the ways out.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from overnight.errors import ChangedSpecError, UnsupportedError, shorten
from overnight.jobs import FoundJob, JobKey, JobRecord, JobRef, JobStatus, ResultManifest, choose_found
from overnight.jobs.model import ListedOwnJob
from overnight.jobs.queue import NOTHING, Amount, ListedJob
from overnight.jobs.service import Service
from overnight.services.azure_ingestion.answers import (
    STATUS_KEPT_HOURS,
    ask,
    find_job,
    get_job,
    get_job_path,
    list_jobs,
)
from overnight.services.azure_ingestion.causes import is_taken
from overnight.services.azure_ingestion.connection import AzureIngestionConnection
from overnight.services.azure_ingestion.results import build_result_manifest
from overnight.services.azure_ingestion.spec import AzureIngestionSpec
from overnight.services.azure_ingestion.status import read_state, read_status
from overnight.services.create import create_once
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall, Retry

log = logging.getLogger(__name__)


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
        listed = yield from list_jobs()
        jobs = {job["id"]: job for job in listed}
        if key.name not in jobs and (job := (yield from find_job(key.name))) is not None:
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
        existing = yield from find_job(key.name)
        if existing is not None:
            return self._attached(existing, spec, key)
        call = HttpCall("PUT", get_job_path(key.name), json=spec.body(), headers=headers, retry=Retry.REJECTED)

        def create() -> Flow[JobRef]:
            # The id is ours, so whatever a success says, this is the job.
            yield from ask(call)
            return self.ref(key.name)

        def find(since: datetime) -> Flow[FoundJob | None]:
            job = yield from find_job(key.name)
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
        job, retry_after = yield from get_job(ref)
        return read_status(job, scrub=self.account.scrub, poll_after=retry_after)

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        """Read the list of ingestion jobs, which has no pages."""
        del wanted
        listed = yield from list_jobs()
        return {job["id"]: read_status(job, scrub=self.account.scrub) for job in listed}

    def list_queue(self, queue: str, /) -> Flow[Collection[ListedJob]]:
        """List the ingestion jobs that are not over, whoever created them."""
        del queue
        listed = yield from list_jobs()
        return [
            ListedJob(
                job["id"],
                NOTHING if read_state(job).is_terminal else Amount(),
                job["id"] if JobKey.parse_name(job["id"]) is not None else None,
            )
            for job in listed
        ]

    def list_own(self, since: datetime) -> Flow[Sequence[ListedOwnJob]]:
        """List the ingestion jobs with an id of ours; the service does not say when they were created."""
        del since
        return [
            ListedOwnJob(ref=self.ref(job["id"]), name=job["id"], status=read_status(job, scrub=self.account.scrub))
            for job in (yield from list_jobs())
            if JobKey.parse_name(job["id"]) is not None
        ]

    def cancel(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Return the status of a job that is over.

        :raises UnsupportedError: the job is not over, or begins again and again; the text says what is left running.
        """
        job, _ = yield from get_job(ref)
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
        job, _ = yield from get_job(ref)
        return build_result_manifest(ref, job)

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
