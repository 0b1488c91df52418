"""LlamaCloud batches as DAG steps: parse or extract files, collect the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from overnight.hooks.llamacloud import LlamaCloudHook
from overnight.hooks.outcome import failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.operators.job import XCOM_RETURN_KEY, JobOperator
from overnight.operators.parameters import check_parameters, require_truth
from overnight.services.llamacloud.choices import Content, JobType, MetadataValue
from overnight.validation import parse_parameter

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.hooks.job import JobHook
    from overnight.jobs.client import JobClient
    from overnight.services.llamacloud.service import LlamaCloudService
    from overnight.services.llamacloud.spec import LlamaCloudBatchSpec


class LlamaCloudBatchOperator(JobOperator["LlamaCloudBatchSpec"]):
    """
    Parse files, or extract from them, with LlamaCloud batches; however many batches the files need, they are one job.

    Every file is at the service before the first batch is created. A try that died while uploading is gone on with: no
    second directory, no second upload, no second batch.

    :param job_type: ``parse_v2`` or ``extract_v2``.
    :param configuration_id: A saved configuration or a built-in preset such as ``cfg-PARSE_AGENTIC``; or
    :param configuration_name: the name of a configuration, which is looked up, and
    :param parameters: what it is created with when there is none of that name.
    :param sources: Files on a disk or in an object store: a URI, a glob, a prefix ending in ``/``, or a list; or
    :param directory_id: a directory at the service.
    :param results_uri: The folder that the results are collected into, one line of JSON for each file: the XCom names
        them as ``results.files`` of the kinds ``output`` and ``error``. Without it they stay at the service.
    :param content: What is collected of a parse job: ``markdown``, ``text``, or both.
    :param metadata: Put on every file of the job, and so on every line of the results.
    :param directory_type: ``ephemeral`` directories are cleaned up by the service, ``user`` ones stay.
    :param limits: What the service takes, and how fast files are sent: fields of
        :class:`~overnight.services.llamacloud.spec.Limits`.
    :param allow_empty: Whether ``sources`` may have no files: the task is skipped then. Otherwise that is refused.
    :param conn_id: A LlamaCloud connection, ``llamacloud_default`` when left out.
    :param aws_conn_id: The connection for ``s3://`` URIs.

    All further parameters are those of :class:`~overnight.operators.job.JobOperator`.
    """

    template_fields: Sequence[str] = (
        "job_type",
        "configuration_id",
        "configuration_name",
        "parameters",
        "sources",
        "directory_id",
        "results_uri",
        "metadata",
        "limits",
        "allow_empty",
        "aws_conn_id",
        *JobOperator.template_fields,
    )
    hook_class: ClassVar[type[JobHook[Any]]] = LlamaCloudHook

    def __init__(
        self,
        *,
        job_type: JobType = "parse_v2",
        configuration_id: str | None = None,
        configuration_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        sources: str | Sequence[str] = (),
        directory_id: str | None = None,
        results_uri: str | None = None,
        content: Sequence[Content] = ("markdown",),
        metadata: Mapping[str, MetadataValue] | None = None,
        directory_type: Literal["ephemeral", "user"] = "ephemeral",
        limits: Mapping[str, Any] | None = None,
        allow_empty: bool | str = False,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_type = job_type
        self.configuration_id = configuration_id
        self.configuration_name = configuration_name
        self.parameters = parameters
        self.sources = sources
        self.directory_id = directory_id
        self.results_uri = results_uri
        self.content = content
        self.metadata = metadata
        self.directory_type = directory_type
        self.limits = limits
        self.allow_empty = allow_empty
        self.aws_conn_id = aws_conn_id

    def build_spec(self, context: Context) -> LlamaCloudBatchSpec:
        """Find and check the files; the same files give the same spec on every try."""
        from overnight.services.llamacloud.spec import LlamaCloudBatchSpec  # noqa: PLC0415 - not at parse

        spec = LlamaCloudBatchSpec(
            job_type=self.job_type,
            configuration_id=self.configuration_id,
            configuration_name=self.configuration_name,
            parameters=self.parameters,
            sources=self._list_sources(),
            directory_id=self.directory_id,
            metadata=self.metadata or {},
            directory_type=self.directory_type,
        )
        with self.make_client() as client:
            measured = client.run(client.service.measure(spec))
        self.log.info("%d files.", measured.files_count)
        return measured

    def _list_sources(self) -> tuple[str, ...]:
        """
        Return the sources, without those that have no files where that is allowed.

        :raises AirflowSkipException: none has any.
        """
        from overnight.storage import redact  # noqa: PLC0415 - not at parse

        sources = (self.sources,) if isinstance(self.sources, str) else tuple(self.sources)
        if not sources or not require_truth(self.allow_empty, "allow_empty"):
            return sources
        storage = connected_storage(self.aws_conn_id)
        found = tuple(source for source in sources if storage.list_files(source).files)
        if not found:
            raise AirflowSkipException(f"There are no files in {', '.join(map(redact, sources))}.")
        return found

    def make_client(self) -> JobClient[LlamaCloudService]:
        """Return a client that reads sources and writes results through this task's own connections."""
        from overnight.services.llamacloud.spec import Limits  # noqa: PLC0415 - not at parse

        hook = LlamaCloudHook(
            self.conn_id,
            storage=connected_storage(self.aws_conn_id),
            limits=parse_parameter(Limits, self.limits or {}, "limits"),
            results_uri=self.results_uri,
            content=self.content,
        )
        return hook.client()


class LlamaCloudResultsOperator(BaseOperator):
    """
    Collect the results of a job that is over into object storage, for a job that was waited for elsewhere.

    The XCom is that of a :class:`~overnight.jobs.ResultManifest`: the URIs of the ``output`` and ``error`` files, and
    the counts.

    :param job: The job: the XCom of the task that submitted or waited for it (its ``output``), a
        :class:`~overnight.jobs.JobRef`, or ``{"service": …, "id": …, "conn_id": …}``; templated.
    :param results_uri: The folder to write to.
    :param content: What is collected of a parse job: ``markdown``, ``text``, or both.
    :param allowed_failures: How many files may be without a result: a count, a ratio or a percentage.
    :param aws_conn_id: The connection for ``s3://`` URIs.
    """

    template_fields: Sequence[str] = ("job", "results_uri", "allowed_failures", "aws_conn_id")

    def __init__(
        self,
        *,
        job: Any,
        results_uri: str,
        content: Sequence[Content] = ("markdown",),
        allowed_failures: float | str = 0,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.results_uri = results_uri
        self.content = content
        self.allowed_failures = allowed_failures
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Collect, and return where the results are."""
        from overnight.jobs import JobRef  # noqa: PLC0415 - not at parse
        from overnight.jobs.allowance import Allowance  # noqa: PLC0415 - not at parse
        from overnight.jobs.evaluate import evaluate_results  # noqa: PLC0415 - not at parse
        from overnight.services.llamacloud.results import collect  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            allowed = Allowance.parse(self.allowed_failures)
            ref = JobRef.read(self.job)
            storage = connected_storage(self.aws_conn_id)
            with LlamaCloudHook(ref.conn_id).client() as client:
                results = client.run(collect(ref, self.results_uri, storage, self.content))
            evaluation = evaluate_results(ref, results, allowed)
            if evaluation.error is not None:
                context["ti"].xcom_push(key=XCOM_RETURN_KEY, value=results.model_dump(mode="json"))
                raise evaluation.error
        return results.model_dump(mode="json")
