"""Azure OpenAI ingestion jobs as a DAG step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from overnight.hooks.azure_ingestion import AzureIngestionHook
from overnight.operators.job import JobOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.hooks.job import JobHook
    from overnight.services.azure_ingestion.spec import AzureIngestionSpec


class AzureIngestionJobOperator(JobOperator["AzureIngestionSpec"]):
    """
    Have Azure OpenAI ingest a blob container into an Azure AI Search index, and wait for the end.

    The index has the job's id for its name; the XCom tells it as ``results.detail.index``. Every credential, the search
    service and the container are the connection's: nothing of it is an argument.

    :param data_refresh_interval_minutes: 0 ingests once. More makes the service ingest again and again; the task ends
        with the first run that it sees ending, and nothing in this API stops the others.
    :param chunk_size: Tokens in a chunk at most; the service's default is 1,024.
    :param completion_action: ``"cleanUpAssets"`` or ``"keepAllAssets"``, for the intermediate assets.
    :param storage_container: Another container than the connection's.
    :param embedding_deployment_name: Another deployment for the vectors than the connection's.
    :param conn_id: An Azure OpenAI connection, ``azure_openai_default`` when left out.
    :param cancel_on_deadline: Off, since the service cannot cancel: a task that missed its deadline looks at the same
        job again when it is retried or cleared, and pays for no second one beside it.
    :param durable: Even without it, a retry within 48 hours finds the job by its id.

    All further parameters are those of :class:`~overnight.operators.job.JobOperator`. A job cannot be cancelled: when
    the task is killed, the log says what is left running.
    """

    template_fields: Sequence[str] = (
        "data_refresh_interval_minutes",
        "chunk_size",
        "completion_action",
        "storage_container",
        "embedding_deployment_name",
        *JobOperator.template_fields,
    )
    hook_class: ClassVar[type[JobHook[Any]]] = AzureIngestionHook

    def __init__(
        self,
        *,
        data_refresh_interval_minutes: int | str = 0,
        chunk_size: int | str | None = None,
        completion_action: str | None = None,
        storage_container: str | None = None,
        embedding_deployment_name: str | None = None,
        cancel_on_deadline: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(cancel_on_deadline=cancel_on_deadline, **kwargs)
        self.data_refresh_interval_minutes = data_refresh_interval_minutes
        self.chunk_size = chunk_size
        self.completion_action = completion_action
        self.storage_container = storage_container
        self.embedding_deployment_name = embedding_deployment_name

    def build_spec(self, context: Context) -> AzureIngestionSpec:
        """Return the validated spec."""
        from overnight.services.azure_ingestion.spec import AzureIngestionSpec  # noqa: PLC0415 - not at parse

        values = {
            "data_refresh_interval_minutes": self.data_refresh_interval_minutes,
            "chunk_size": self.chunk_size,
            "completion_action": self.completion_action,
            "storage_container": self.storage_container,
            "embedding_deployment_name": self.embedding_deployment_name,
        }
        # An empty template means that nothing was chosen.
        return AzureIngestionSpec.model_validate(
            {name: value for name, value in values.items() if value not in (None, "")}
        )
