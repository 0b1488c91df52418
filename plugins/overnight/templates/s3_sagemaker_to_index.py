"""Files in S3 → SageMaker batch transform → an OpenSearch index, as a DAG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from airflow.sdk import DAG, BaseOperator, Context, TriggerRule, XComArg, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from pydantic import Field, model_validator

from overnight.operators.ml_commons import (
    MLCommonsBatchPredictOperator,
    MLCommonsConnectorOperator,
    MLCommonsRegisterModelOperator,
)
from overnight.operators.ml_commons_ingest import MLCommonsBatchIngestOperator
from overnight.operators.sagemaker import SageMakerBatchTransformOperator
from overnight.operators.transform_plan import ListTransformInputsOperator, PlanTransformLoadsOperator
from overnight.templates.params import AllowedFailures, JobConfig, SyncConfig, counted_by, run_folder
from overnight.templates.steps import TAGS, create_index, mirror, pipeline_dag, report_and_verify

Via = Literal["sagemaker", "ml_commons"]
"""Who creates the transform job: this DAG, or the cluster by ``_batch_predict``."""

_BUDGET_CHECK: Final = counted_by("overnight.services.sagemaker.service:SageMakerTransformService")


class S3SageMakerToIndexConfig(SyncConfig, JobConfig):
    """The config of :func:`s3_sagemaker_to_index`. Every field is a Param of the DAG."""

    input_uri: str = Field(
        title="Inputs", description="JSON Lines in S3: a prefix ending in '/', or a glob. May be a template."
    )
    work_uri: str = Field(
        title="Work folder",
        description="A folder in S3 for outputs and the report; each run has its own below.",
    )
    model_name: str = Field(title="Model", description="The SageMaker model.")
    region: str = Field(default="us-east-1", title="AWS region", description="Of the model, for ML Commons' connector.")
    sagemaker_url: str | None = Field(
        default=None, title="SageMaker's address", description="For ML Commons' connector; the region's own when empty."
    )
    instance_type: str = Field(
        default="ml.m5.large", title="Instance type", description="What the model runs on, such as ml.g5.xlarge."
    )
    instance_count: int = Field(
        default=1, ge=1, title="Instances", description="Of the type; input files are spread over them."
    )
    environment: dict[str, str] = Field(
        default_factory=dict, title="Environment", description="Variables of the model's container; no secrets."
    )
    input_filter: str = Field(
        default="$.text", title="Input filter", description="JSONPath of what the model gets of each line."
    )
    field_map: dict[str, Any] = Field(
        default_factory=lambda: {"_id": "$.id", "text": "$.text", "embedding": "$.SageMakerOutput"},
        title="Field map",
        description="Field of the index to JSONPath of an output line: the input line with SageMakerOutput beside it.",
    )
    ingest_fields: list[str] = Field(
        default_factory=list, title="More fields", description="JSONPaths of fields to index by their name."
    )
    dimension: int | None = Field(
        default=None, ge=1, le=16_000, title="Dimension", description="Length of the vectors."
    )
    index_body: dict[str, Any] | None = Field(
        default=None,
        title="Settings and mappings",
        description="What a missing index is created with; 'data_stream': {} in it makes a data stream.",
    )
    engine: Literal["auto", "server", "client"] = Field(
        default="auto", title="Engine", description="Who loads: the cluster, this worker, or whichever is right."
    )
    allow_empty: bool = Field(
        default=False,
        title="No inputs",
        description="A run without inputs is a success that indexes nothing; otherwise it fails.",
    )
    files_per_load: int = Field(default=1, ge=1, title="Files per load", description="Output files of one mapped load.")
    allowed_failures: AllowedFailures = Field(
        default=0,
        title="Allowed failures",
        description="How many inputs may fail: a count (10), a ratio (0.05) or a percentage ('5%').",
    )
    budget: Annotated[dict[str, int] | None, _BUDGET_CHECK] = Field(
        default=None,
        title="Budget",
        description=(
            'What may be at work at a time, of all jobs: {"instances": 4} of the type, or "jobs" (via ML Commons only '
            '"jobs"). Others wait for their turn. Empty: what the service takes.'
        ),
    )
    aws_conn_id: str = Field(
        default="aws_default", title="AWS connection", description="Of S3 and SageMaker: the id of the connection."
    )

    @model_validator(mode="after")
    def _check_sync(self) -> Self:
        """Refuse a comparison with the inputs by ids that they do not have."""
        path = self.field_map.get("_id")
        if self.sync != "upsert" and (not isinstance(path, str) or "SageMakerOutput" in path):
            raise ValueError(
                f"sync={self.sync!r} reads the ids of the inputs, so field_map['_id'] must be the JSONPath of one in "
                "an input line, such as '$.id'"
            )
        return self

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        """Refuse what the cluster cannot do, before anything is paid for."""
        if self.skip_unchanged and self.engine == "server":
            raise ValueError(
                "skip_unchanged is for our own load, and the cluster (engine='server') writes every document: set "
                "engine to auto or client, or skip_unchanged to false"
            )
        return self

    def get_vectors(self) -> dict[str, int]:
        """Return the length of the vectors that will be written, by field; none where it is not given."""
        outputs = [name for name, path in self.field_map.items() if path == "$.SageMakerOutput"]
        return dict.fromkeys(outputs, self.dimension) if self.dimension is not None else {}

    def connector(self, name: str) -> dict[str, Any]:
        """Return the config of ML Commons' connector to the model."""
        addresses = {"api_url": self.sagemaker_url, "runtime_url": self.sagemaker_url} if self.sagemaker_url else {}
        return {"kind": "sagemaker", "name": name, "region": self.region, "ModelName": self.model_name, **addresses}


def s3_sagemaker_to_index(
    dag_id: str,
    config: S3SageMakerToIndexConfig,
    *,
    via: Via = "sagemaker",
    blueprint: str | Path | Mapping[str, Any] | None = None,
    deferrable: bool = True,
    default_args: Mapping[str, Any] | None = None,
    tags: Sequence[str] = TAGS,
    **dag_arguments: Any,
) -> DAG:
    """
    Return a DAG that runs a model over files in S3 in one batch transform job, and loads what it wrote.

    ``configure → create_index → list_inputs → transform → plan → load → mirror → report → verify``: loads are mapped
    tasks, so that an executor spreads them over machines. An input without an output is named, and when
    ``allowed_failures`` lets it pass the others are loaded. Clear ``list_inputs`` and what follows to transform only
    what is missing.

    :param dag_id: The DAG's id.
    :param config: The defaults of the trigger form.
    :param via: Who creates the transform job: ``sagemaker`` directly, or ``ml_commons`` with ``_batch_predict``, for
        which a connector and a remote model are made in the cluster first.
    :param blueprint: With ``via="ml_commons"``: the connector's, such as
        ``include/connectors/sagemaker_batch_transform.json``.
    :param deferrable: Wait in the triggerer.
    :param default_args: For every task; two retries unless it says otherwise.
    :param dag_arguments: ``schedule``, ``start_date``, ``catchup`` and whatever else a DAG takes.
    """
    with pipeline_dag(dag_id, config, doc_md=__doc__, default_args=default_args, tags=tags, **dag_arguments) as dag:

        @task
        def configure() -> dict[str, Any]:
            """Check the run's params and work out what follows from them, before anything is paid for."""
            context = get_current_context()
            run = config.render(context)
            run_uri = run_folder(run.work_uri, context)
            return {
                **run.model_dump(mode="json"),
                "vectors": run.get_vectors(),
                "run_uri": run_uri,
                "output_uri": f"{run_uri}/outputs/",
                "deletes_uri": f"{run_uri}/deletes.jsonl",
                "document_id_path": run.field_map.get("_id", ""),
                "deadline_seconds": run.deadline_hours * 3600,
                "queue_deadline_seconds": run.queue_hours * 3600,
                "connector_name": f"overnight-{dag_id}-{run.model_name}",
                "connector": run.connector(f"overnight-{dag_id}-{run.model_name}"),
                "request": {
                    "index_name": run.index_name,
                    "field_map": run.field_map,
                    "ingest_fields": run.ingest_fields,
                },
            }

        # An operator's arguments are typed by what they are in the run; until then they are references to XComs.
        settings: Any = configure()
        files = {
            "input_uri": settings["input_uri"],
            "output_uri": settings["output_uri"],
            "aws_conn_id": settings["aws_conn_id"],
        }
        list_inputs = ListTransformInputsOperator(
            task_id="list_inputs", allow_empty=settings["allow_empty"], multiple_outputs=True, **files
        )
        manifest: Any = XComArg(list_inputs, key="manifest")
        transform = _transform(via, blueprint, settings, manifest, deferrable)
        plan = PlanTransformLoadsOperator(
            task_id="plan",
            request=settings["request"],
            files_per_load=settings["files_per_load"],
            allowed_failures=settings["allowed_failures"],
            # The transform is skipped when every input has its output already.
            trigger_rule=TriggerRule.NONE_FAILED,
            **files,
        )
        parts: Any = plan.output
        load = MLCommonsBatchIngestOperator.partial(
            task_id="load",
            engine=settings["engine"],
            skip_unchanged=settings["skip_unchanged"],
            conn_id=settings["opensearch_conn_id"],
            aws_conn_id=settings["aws_conn_id"],
            poll_interval=settings["poll_seconds"],
            deferrable=deferrable,
        ).expand(request=parts.map(lambda part: part["request"]))
        index = create_index(settings)
        mirrored = mirror(settings, settings["input_uri"], index=index.output, id_path=settings["document_id_path"])
        report = report_and_verify(
            settings,
            mirror=mirrored.output,
            parts=plan.output,
            loads=load.output,
            jobs=transform.output,
            without_result=XComArg(plan, key="missing"),
        )
        settings >> index >> list_inputs >> transform >> plan >> load >> mirrored >> report
    return dag


def _transform(via: Via, blueprint: Any, settings: Any, manifest: Any, deferrable: bool) -> BaseOperator:
    waiting = {
        "poll_interval": settings["poll_seconds"],
        "deadline": settings["deadline_seconds"],
        "budget": settings["budget"],
        "queue_deadline": settings["queue_deadline_seconds"],
        "allowed_failures": settings["allowed_failures"],
        "on_clear": settings["on_clear"],
        "deferrable": deferrable,
        "pre_execute": skip_without_inputs,
    }
    if via == "ml_commons":
        return _predict(_model(blueprint, settings), settings, manifest, waiting)
    return SageMakerBatchTransformOperator(
        task_id="transform",
        model_name=settings["model_name"],
        input_uri=manifest,
        input_kind="ManifestFile",
        output_uri=settings["output_uri"],
        instance_type=settings["instance_type"],
        instance_count=settings["instance_count"],
        environment=settings["environment"],
        content_type="application/json",
        accept="application/json",
        split_type="Line",
        assemble_with="Line",
        strategy="SingleRecord",
        input_filter=settings["input_filter"],
        join_source="Input",
        conn_id=settings["aws_conn_id"],
        **waiting,
    )


def _model(blueprint: Any, settings: Any) -> MLCommonsRegisterModelOperator:
    """Make the steps that put a remote model into the cluster; a second run finds the first one's."""
    if blueprint is None:
        raise ValueError("via='ml_commons' needs the connector's blueprint")
    connector = MLCommonsConnectorOperator(
        task_id="connector",
        blueprint=str(blueprint) if isinstance(blueprint, Path) else blueprint,
        config=settings["connector"],
        credential_conn_id=settings["aws_conn_id"],
        conn_id=settings["opensearch_conn_id"],
    )
    connector_id: Any = connector.output
    return MLCommonsRegisterModelOperator(
        task_id="model",
        model_name=settings["connector_name"],
        connector_id=connector_id,
        conn_id=settings["opensearch_conn_id"],
    )


def _predict(
    model: MLCommonsRegisterModelOperator, settings: Any, manifest: Any, waiting: Mapping[str, Any]
) -> BaseOperator:
    model_id: Any = model.output
    return MLCommonsBatchPredictOperator(
        task_id="transform",
        model_id=model_id,
        parameters={
            "ModelName": settings["model_name"],
            "BatchStrategy": "SingleRecord",
            "DataProcessing": {"InputFilter": settings["input_filter"], "OutputFilter": "$", "JoinSource": "Input"},
            "TransformInput": {
                "ContentType": "application/json",
                "SplitType": "Line",
                "DataSource": {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": manifest}},
            },
            "TransformOutput": {
                "Accept": "application/json",
                "AssembleWith": "Line",
                "S3OutputPath": settings["output_uri"],
            },
            "TransformResources": {
                "InstanceType": settings["instance_type"],
                "InstanceCount": settings["instance_count"],
            },
        },
        remote_service="sagemaker",
        remote_conn_id=settings["aws_conn_id"],
        conn_id=settings["opensearch_conn_id"],
        **waiting,
    )


def skip_without_inputs(context: Context) -> None:
    """Skip the transform when every input has its output; fail for good when nobody listed them."""
    found = context["ti"].xcom_pull(task_ids="list_inputs")
    if not isinstance(found, Mapping) or "manifest" not in found:
        raise AirflowFailException(
            "list_inputs left no list of inputs, as when it was marked as succeeded by hand. Clear it."
        )
    if found["manifest"] is None:
        raise AirflowSkipException("Every input has its output already.")
