"""The steps behind a pipeline's load: they delete what its jobs left at their service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowNotFoundException

from overnight.errors import OvernightError, SpecError, shorten
from overnight.hooks.job import hook_for
from overnight.hooks.outcome import failing_for_good
from overnight.operators.parameters import check_parameters, require_mapping
from overnight.validation import parse_parameter

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.jobs import JobRef
    from overnight.services.cleanup import Deleted
    from overnight.transport.flow import Flow

Cleanup = Literal["keep", "delete"]
_MODES: Final = get_args(Cleanup)


class _CleanupOperator(BaseOperator):
    """Deletes what jobs left at their service, and never fails for what it did not delete."""

    template_fields: Sequence[str] = ("job", "cleanup")

    def __init__(self, *, job: Any, cleanup: str = "delete", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.cleanup = cleanup

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete file by file, and log what could not be deleted."""
        from overnight.services.cleanup import Deleted  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            if self.cleanup not in _MODES:
                raise SpecError(f"cleanup={shorten(repr(self.cleanup), 200)} is not one of {', '.join(_MODES)}.")
        found = Deleted()
        if self.cleanup == "delete":
            for outcome in _list_outcomes(self.job):
                found += self._delete(outcome)
            self.log.info("Files at the service that were deleted: %d. Kept: %d.", len(found.deleted), len(found.kept))
        return {"deleted": list(found.deleted), "kept": list(found.kept)}

    def _delete(self, outcome: Any) -> Deleted:
        from overnight.jobs import JobRef  # noqa: PLC0415 - not at parse
        from overnight.services.cleanup import Deleted  # noqa: PLC0415 - not at parse

        found = Deleted()
        try:
            ref = JobRef.read(outcome)
            with hook_for(ref).client() as client:
                for flow in self._list_deletes(ref, outcome):
                    found += client.run(flow)
        except (OvernightError, AirflowNotFoundException) as error:
            # The results are loaded and paid for; what is left behind costs nothing, or a little.
            self.log.warning("Not everything of %s was deleted. %s", shorten(str(outcome), 200), shorten(str(error)))
        return found

    def _list_deletes(self, ref: JobRef, outcome: Any) -> Iterator[Flow[Deleted]]:
        """Yield what deletes the files of a job, given its XCom."""
        raise NotImplementedError


class OpenAICleanupOperator(_CleanupOperator):
    """
    Delete the uploaded inputs and the result files of batches whose results are loaded.

    Put it behind the last task that reads results: clearing such a task later finds none. Files of all rounds are
    deleted; the batches stay in the service's list. The task never fails for what the service did not delete, and may
    run again. The XCom is ``{"deleted", "kept"}``, two lists of file ids.

    :param job: The XCom of the task that ran the batch (its ``output``), or of a mapped one's all instances.
    :param cleanup: ``"delete"``, or ``"keep"`` to leave everything where it is.
    """

    def _list_deletes(self, ref: JobRef, outcome: Any) -> Iterator[Flow[Deleted]]:
        from overnight.services.openai.cleanup import delete_files  # noqa: PLC0415 - not at parse

        return map(delete_files, _list_batches(ref, outcome))


class LlamaCloudCleanupOperator(_CleanupOperator):
    """
    Delete the files that were uploaded to LlamaCloud for jobs whose results are collected.

    The batches, their jobs and results, and our directories, which a job is found by, stay; so do the files of a
    directory that the user gave. The task never fails for what the service did not delete, and may run again. The XCom
    is ``{"deleted", "kept"}``, two lists of file ids.

    :param job: The XCom of the task that ran the job (its ``output``), or of a mapped one's all instances.
    :param cleanup: ``"delete"``, or ``"keep"`` to leave everything where it is.
    """

    def _list_deletes(self, ref: JobRef, outcome: Any) -> Iterator[Flow[Deleted]]:
        from overnight.services.llamacloud.cleanup import delete_uploads  # noqa: PLC0415 - not at parse

        del outcome
        yield delete_uploads(ref)


def _list_outcomes(job: Any) -> Sequence[Any]:
    """Return the XComs of a mapped task's instances, or the one of another task; none of a task that was skipped."""
    if job is None:
        return ()
    return job if isinstance(job, Sequence) and not isinstance(job, str) else (job,)


def _list_batches(ref: JobRef, outcome: Any) -> Iterator[str]:
    """Yield the ids of all rounds of a job."""
    from overnight.jobs import JobRef, ResultManifest  # noqa: PLC0415 - not at parse

    results = outcome.get("results") if isinstance(outcome, Mapping) else None
    manifest = parse_parameter(ResultManifest, results, "the results of a job") if results is not None else None
    rounds = manifest.detail.get("rounds") if manifest is not None else None
    for one in rounds or ({"id": ref.id},):
        yield JobRef.read({**ref.model_dump(), "id": require_mapping(one, "a round of a job").get("id")}).id
