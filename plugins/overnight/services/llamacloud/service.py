"""
LlamaCloud batches v2: files into directories, a batch over each directory, one parse or extract job for each file.

API: https://developers.llamaindex.ai/reference/resources/batches. A batch takes 1,000 files, a job of ours any number:
it is several batches, each over a directory of ours, and its id is theirs joined by ``+``. The directories' names are
the job's, which is how a lost job is found: a batch itself cannot be tagged.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar, Final, cast

from overnight.errors import NotFoundError, RequestRefusedError, SpecError
from overnight.jobs import FoundJob, JobKey, JobRecord, JobRef, JobState, JobStatus, ResultManifest, choose_found
from overnight.jobs.identity import JobName
from overnight.jobs.model import ListedOwnJob
from overnight.jobs.queue import Amount, ListedJob
from overnight.jobs.service import Service, get_max_other_pages
from overnight.services.create import CLOCK_SKEW, create_object_once
from overnight.services.llamacloud import queue
from overnight.services.llamacloud.answers import (
    AT_ONCE,
    BATCHES,
    DIRECTORIES,
    JOBS,
    Record,
    batched,
    get_batches,
    list_all,
    path,
    raising,
    read_record,
)
from overnight.services.llamacloud.choices import Content
from overnight.services.llamacloud.outcomes import FileOutcome, Jobs, job_ids, look_at_jobs, outcomes
from overnight.services.llamacloud.results import batch_ids, collect
from overnight.services.llamacloud.sources import SourceFile, digest, directory_files, stored_files, too_many
from overnight.services.llamacloud.spec import Limits, LlamaCloudBatchSpec, parse_part_name, part_name
from overnight.services.llamacloud.status import (
    THROTTLED_REASON,
    ended_status,
    is_over,
    is_throttled,
    lacks_results,
    mapping_state,
    parse_moment,
    raw_word,
    working_status,
)
from overnight.services.llamacloud.upload import (
    provide_configuration,
    provide_directory,
    provide_files,
)
from overnight.storage import Storage
from overnight.transport.flow import Flow, Gather
from overnight.transport.http import HttpCall, Retry

log = logging.getLogger(__name__)

_DIRECTORY_TYPES: Final = ["ephemeral", "user"]


class LlamaCloudService(Service[LlamaCloudBatchSpec]):
    """
    The five verbs for LlamaCloud batches.

    :param conn_id: The connection that every reference names.
    :param storage: Where source files are read from and results written to.
    :param limits: What the service takes.
    :param results_uri: The folder that :meth:`results` collects into; without it, it only counts.
    :param content: What is collected of a parse job.
    """

    name: ClassVar[str] = "llamacloud"

    def __init__(
        self,
        conn_id: str,
        storage: Storage | None = None,
        limits: Limits | None = None,
        *,
        results_uri: str | None = None,
        content: Sequence[Content] = ("markdown",),
    ) -> None:
        super().__init__(conn_id)
        self.storage = storage or Storage()
        self.limits = limits or Limits()
        self._results_uri = results_uri
        self._content = tuple(content)

    def measure(self, spec: LlamaCloudBatchSpec) -> Flow[LlamaCloudBatchSpec]:
        """
        Find and check the files, and return the spec with their digest: its fingerprint follows the files.

        :raises SpecError: there are no files, too many, or some that the service would refuse; all are named.
        """
        files = yield from self._files(spec)
        measured = {
            "files_sha256": digest(files),
            "files_count": len(files),
            "files_per_batch": self.limits.files_per_batch,
        }
        return spec.model_copy(update=measured)

    def find(self, key: JobKey, since: datetime, record: JobRecord | None = None) -> Flow[FoundJob | None]:
        """
        Look through the batches since a time for those over directories of this task instance.

        A job whose worker died before its last batch was created is not found when it is the very job that ``key``
        names: submitting it creates what is missing, and nothing twice.
        """
        jobs = yield from _list_named(since - CLOCK_SKEW)
        candidates = [(name, total, parts) for (name, total), parts in jobs.items() if name.split("-")[1] == key.tag]
        found: list[FoundJob] = []
        for name, total, parts in candidates:
            job = self._found(name, parts, since)
            is_whole = len(parts) == total
            if not is_whole and (job.generation, job.fingerprint) == (key.generation, key.fingerprint):
                log.info("%d of %d batches of this job were created; the others follow.", len(parts), total)
            else:
                found.append(job)
        return choose_found(found, key)

    def submit(self, spec: LlamaCloudBatchSpec, key: JobKey) -> Flow[JobRef]:
        """
        Upload what is not there yet and create the batches that do not exist yet.

        Every file is at the service before the first batch is created, so that a file it refuses costs nothing.

        :raises SpecError: the files or the configuration will not do, or changed since they were measured.
        """
        files = yield from self._files(spec)
        if spec.files_sha256 not in (None, digest(files)):
            raise SpecError(
                "The source files changed since they were measured. Something still writes to them; submit once they "
                "are complete. Nothing was submitted."
            )
        configuration_id = yield from provide_configuration(spec)
        parts = list(batched(files, spec.files_per_batch or self.limits.files_per_batch))
        directories: list[str] = []
        for number, part in enumerate(parts, 1):
            described = f"{key.dag_id} / {key.task_id} / {key.run_id}: part {number} of {len(parts)}, by Overnight"
            directory_id = yield from provide_directory(part_name(key, number, len(parts)), spec, described)
            if (yield from _batch_over(directory_id)) is None:
                yield from provide_files(directory_id, part, self.storage, self.limits)
            directories.append(directory_id)
        ids: list[str] = []
        for directory_id in directories:
            found = yield from _batch_over(directory_id)
            ids.append(found or (yield from _create(spec, directory_id, configuration_id)))
        return self.ref("+".join(ids))

    def status(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Look at every batch and, once all are over, at the jobs of their files.

        A COMPLETED batch has given every file a job; our job is over when those are. A look costs a call for each
        batch and, when all are over, one for each 100 files, up to the first 2,000 with one still at work.
        """
        batches = yield from get_batches(batch_ids(ref))
        if not all(is_over(batch) for batch in batches):
            return _running(batches)
        batches, jobs = yield from _get_jobs(ref)
        if any(lacks_results(batch) for batch in batches):
            return JobStatus(state=JobState.RUNNING, raw=f"{raw_word(batches)}, results to come")
        if not jobs.all_over:
            total = sum(len(batch.get("results") or ()) for batch in batches)
            return working_status(batches, jobs.by_id.values(), total)
        files: list[FileOutcome] = []
        for batch in batches:
            files += yield from outcomes(batch, jobs.by_id)
        return ended_status(batches, files)

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        """
        Read the list of batches until all of the wanted jobs' were seen.

        Only jobs with a batch at work are in what it returns: what became of the files the list does not say.
        """
        parts = {job: batch_ids(self.ref(job)) for job in wanted}
        needed = {batch for ids in parts.values() for batch in ids}
        by_id = {batch["id"]: batch for batch in (yield from list_all(BATCHES, {}, _until_seen(needed)))}
        seen = {}
        for job, ids in parts.items():
            batches = [by_id[batch] for batch in ids if batch in by_id]
            if len(batches) == len(ids) and not all(is_over(batch) for batch in batches):
                seen[job] = _running(batches)
        return seen

    def list_own(self, since: datetime) -> Flow[Sequence[ListedOwnJob]]:
        """
        List the jobs whose batches are over directories of ours.

        What became of the files of a batch that is over is in no list; :meth:`status` looks.
        """
        own = []
        for (name, _), parts in (yield from _list_named(since)).items():
            batches = [parts[number] for number in sorted(parts)]
            ref = self.ref("+".join(str(batch["id"]) for batch in batches))
            created_at = min((at for one in batches if (at := parse_moment(one.get("created_at")))), default=None)
            own.append(ListedOwnJob(ref=ref, name=name, created_at=created_at, status=_running(batches)))
        return own

    def get_queue(self, spec: LlamaCloudBatchSpec) -> tuple[str, Amount]:
        """Return how many batches the job is."""
        return queue.get_queue(spec, self.limits.files_per_batch)

    def list_queue(self, queue_name: str, /) -> Flow[Collection[ListedJob]]:
        """List the account's batches that are not over, whoever created them."""
        del queue_name
        return (yield from queue.list_queue(_directory_names))

    def cancel(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Ask for the end of every batch, and of the files' jobs of the batches that have given out all of theirs.

        Files that are finished keep their results, and are billed.
        """
        ids = batch_ids(ref)
        batches = yield from get_batches(ids)
        live = [str(batch["id"]) for batch in batches if not is_over(batch)]
        yield from _cancel([f"{path(BATCHES, one)}/cancel" for one in live])
        if not live:
            _, jobs = yield from _get_jobs(ref, every=True)
            base = JOBS[_job_type(batches)]
            at_work = [one for one, job in jobs.by_id.items() if not is_over(job)]
            yield from _cancel([f"{path(base, one)}/cancel" for one in at_work])
        status = yield from self.status(ref)
        if status.state.is_terminal:
            return status
        return status.model_copy(update={"state": JobState.CANCELLING})

    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        """Collect the results into ``results_uri``, where the service was given one; otherwise only count them."""
        if self._results_uri is not None:
            return (yield from collect(ref, self._results_uri, self.storage, self._content))
        status = yield from self.status(ref)
        return ResultManifest(ref=ref, counts=status.counts, detail={"batches": batch_ids(ref), "raw": status.raw})

    def _files(self, spec: LlamaCloudBatchSpec) -> Flow[list[SourceFile]]:
        if spec.directory_id is not None:
            return (yield from directory_files(spec.directory_id, limits=self.limits, metadata=spec.metadata))
        files = stored_files(
            spec.sources, self.storage, job_type=spec.job_type, limits=self.limits, metadata=spec.metadata
        )
        if len(files) > self.limits.files_per_batch * self.limits.batches:
            raise too_many(len(files), self.limits)
        return files

    def _found(self, name: str, parts: Mapping[int, Record], since: datetime) -> FoundJob:
        tagged = cast("JobName", JobKey.parse_name(name))
        batches = [parts[number] for number in sorted(parts)]
        return FoundJob(
            ref=self.ref("+".join(str(batch["id"]) for batch in batches)),
            generation=tagged.generation,
            fingerprint=tagged.fingerprint,
            created_at=min((at for batch in batches if (at := parse_moment(batch.get("created_at")))), default=since),
            state=mapping_state(batches),
        )


def _create(spec: LlamaCloudBatchSpec, directory_id: str, configuration_id: str) -> Flow[str]:
    """Create the batch over a directory of ours, once, and return its id."""
    job = {"type": spec.job_type, "configuration_id": configuration_id}
    body = {"source_directory_id": directory_id, "config": {"job": job}}

    def create() -> Flow[str]:
        answer = yield HttpCall("POST", BATCHES, json=body, retry=Retry.REJECTED)
        return str(read_record(answer, "the created batch")["id"])

    def find(since: datetime) -> Flow[str | None]:
        # The directory is of this job alone, so that any batch over it is ours.
        del since
        return (yield from _batch_over(directory_id))

    return (yield from create_object_once(create, find, f"the batch over the directory {directory_id}"))


def _batch_over(directory_id: str) -> Flow[str | None]:
    """Return the first batch over a directory of ours, if there is one."""
    listed = yield from list_all(BATCHES, {"source_directory_id": directory_id})
    ours = [batch for batch in _oldest_first(listed) if batch.get("source_directory_id") == directory_id]
    return str(ours[0]["id"]) if ours else None


def _list_named(since: datetime) -> Flow[dict[tuple[str, int], dict[int, Record]]]:
    """List the batches over directories of ours, by the job's name and number of parts and the part's number."""
    after = since.astimezone(UTC).isoformat()
    batches = yield from list_all(BATCHES, {"created_at_on_or_after": after})
    names = yield from _directory_names(batches)
    jobs: dict[tuple[str, int], dict[int, Record]] = defaultdict(dict)
    for batch in _oldest_first(batches):
        part = parse_part_name(names.get(str(batch.get("source_directory_id"))))
        if part is not None:
            jobs[part.name, part.total].setdefault(part.number, batch)
    return jobs


def _directory_names(batches: Sequence[Record]) -> Flow[dict[str, str]]:
    wanted = {str(batch.get("source_directory_id")) for batch in batches}
    if not wanted:
        return {}

    def all_seen(directories: Sequence[Record]) -> bool:
        return wanted <= {str(directory["id"]) for directory in directories}

    listed = yield from list_all(DIRECTORIES, {"types": _DIRECTORY_TYPES}, enough=all_seen)
    return {str(directory["id"]): str(directory.get("name")) for directory in listed}


def _until_seen(needed: Collection[str]) -> Callable[[Sequence[Record]], bool]:
    """Return when a list was read far enough: all were seen, or too many pages had none of them."""
    missing = set(needed)
    read = others = 0

    def enough(batches: Sequence[Record]) -> bool:
        nonlocal read, others
        found = missing & {batch["id"] for batch in batches[read:]}
        missing.difference_update(found)
        read, others = len(batches), 0 if found else others + 1
        return not missing or others >= get_max_other_pages(len(missing))

    return enough


def _running(batches: Sequence[Record]) -> JobStatus:
    """Return the status of a job of which a batch is still giving its files out."""
    over = sum(is_over(batch) for batch in batches)
    progress = over / len(batches) if len(batches) > 1 else None
    state = mapping_state(batches)
    warnings = (THROTTLED_REASON,) if state is JobState.QUEUED and is_throttled(batches) else ()
    return JobStatus(state=state, raw=raw_word(batches), progress=progress, warnings=warnings)


def _get_jobs(ref: JobRef, *, every: bool = False) -> Flow[tuple[list[Record], Jobs]]:
    """Return the batches with their results, and the jobs they refer to."""
    batches = yield from get_batches(batch_ids(ref), results=True)
    ids = [one for batch in batches for one in job_ids(batch)]
    return batches, (yield from look_at_jobs(_job_type(batches), ids, every=every))


def _job_type(batches: Sequence[Record]) -> str:
    return str(batches[0]["config"]["job"]["type"])


def _cancel(paths: Sequence[str]) -> Flow[None]:
    answers = yield Gather([HttpCall("POST", one) for one in paths], AT_ONCE)
    # What ended meanwhile refuses to be cancelled.
    raising([answer for answer in answers if not isinstance(answer, RequestRefusedError | NotFoundError)])


def _oldest_first(batches: Sequence[Record]) -> list[Record]:
    return sorted(batches, key=lambda batch: str(batch.get("created_at")))
