"""The files that were uploaded for a job, deleted once its results are collected."""

from __future__ import annotations

from overnight.errors import NotFoundError, UnavailableError
from overnight.jobs import JobRef
from overnight.services.cleanup import Deleted, delete_each
from overnight.services.llamacloud.answers import DIRECTORIES, get_batches, get_files_path, is_id, list_all, path
from overnight.services.llamacloud.outcomes import job_ids, look_at_jobs, read_metadata
from overnight.services.llamacloud.results import batch_ids
from overnight.services.llamacloud.sources import URI_TAG
from overnight.services.llamacloud.spec import parse_part_name
from overnight.services.llamacloud.status import is_over
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall

FILES = "api/v1/beta/files"


def delete_uploads(ref: JobRef) -> Flow[Deleted]:
    """
    Delete the files that were uploaded for a job that is over.

    The batches, their jobs with the results, and the directories stay: by the names of these a job is found. Files of
    the user's own directory are no uploads, and are left. What is deleted already is no error, so it may be done again.

    :raises UnavailableError: the job is not over.
    :raises NotFoundError: a batch is not there.
    """
    batches = yield from get_batches(batch_ids(ref), results=True)
    for batch in batches:
        jobs = yield from look_at_jobs(str(batch["config"]["job"]["type"]), job_ids(batch))
        if not is_over(batch) or not jobs.all_over:
            raise UnavailableError(f"{ref} is not over, so its files are still needed.", status=200)
    result = Deleted()
    for batch in batches:
        result += yield from _delete_from(str(batch["source_directory_id"]))
    return result


def _delete_from(directory_id: str) -> Flow[Deleted]:
    try:
        directory = yield HttpCall("GET", path(DIRECTORIES, directory_id))
        listed = yield from list_all(get_files_path(directory_id), {})
    except NotFoundError:
        # The service cleans up what is ephemeral.
        return Deleted()
    if not isinstance(directory, dict) or parse_part_name(directory.get("name")) is None:
        return Deleted()
    uploads = [file["file_id"] for file in listed if URI_TAG in read_metadata(file) and is_id(file.get("file_id"))]
    return (yield from delete_each({file_id: path(FILES, file_id) for file_id in uploads}))
