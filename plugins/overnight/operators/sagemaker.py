"""SageMaker batch transform as a DAG step."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from overnight.errors import SpecError
from overnight.hooks.sagemaker import SageMakerHook
from overnight.hooks.storage import connected_storage
from overnight.operators.job import JobOperator
from overnight.operators.parameters import require_mapping

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.hooks.job import JobHook
    from overnight.services.sagemaker.spec import SageMakerTransformSpec


# The amazon provider's hook machinery makes our clients; its SageMakerTransformOperator (9.39) is not used. Nothing in
# it ever stops a job: it has no on_kill, and neither has its trigger. A retry finds the name taken by the first try's
# job and, by default, starts and pays a second one under a name with a timestamp. Its deadline is the deferral's
# timeout, which bypasses the task. And it knows no partial success: a job with one bad input in a thousand just failed.
class SageMakerBatchTransformOperator(JobOperator["SageMakerTransformSpec"]):
    """
    Run one batch transform job and wait for its end.

    A job that failed for some of its inputs only is PARTIAL: ``allowed_failures`` counts inputs without an output. The
    XCom's results name the outputs (``output``), their inputs in the same order (``input``) and the inputs without one
    (``missing``), which another task can submit again, and only those, as ``input_uris``.

    :param model_name: A model that is there in the connection's account and region.
    :param input_uri: Every input whose key begins with it (names that start with ``_`` or ``.`` at any depth are none),
        or a manifest with ``input_kind="ManifestFile"``; or
    :param input_uris: the very objects to read, in one bucket: a manifest of them is written below the output.
    :param input_prefix: With ``input_uris``: the folder that their outputs' places are relative to, the deepest that
        they share when it is left out. To submit missing inputs again, ``results["detail"]["input_prefix"]``.
    :param input_kind: What ``input_uri`` is.
    :param output_uri: The folder that gets one ``<input>.out`` for each input; give every run one of its own.
    :param instance_type: Such as ``ml.m5.large``; with ``instance_count`` of them.
    :param content_type: The MIME type of the input, and
    :param accept: that of the output.
    :param split_type: ``Line``, ``RecordIO``, ``TFRecord`` or ``None``.
    :param assemble_with: ``Line`` or ``None``.
    :param strategy: ``SingleRecord`` or ``MultiRecord``.
    :param compression: ``Gzip`` or ``None``, of the inputs.
    :param max_payload_mb: Megabytes in one payload.
    :param max_concurrent_transforms: Payloads in flight for each instance.
    :param input_filter: The part of a record that the model gets, as JSONPath.
    :param join_source: ``Input`` puts the model's answer into the input record, as ``SageMakerOutput``.
    :param output_filter: The part of the record that is written.
    :param environment: For the container; no secrets.
    :param tags: Your own cost allocation tags.
    :param options: Further fields of :class:`~overnight.services.sagemaker.spec.SageMakerTransformSpec`:
        ``output_kms_key``, ``volume_kms_key``, ``invocation_timeout``, ``invocation_retries``, ``experiment``,
        ``ami_version``, ``data_capture``.
    :param conn_id: An AWS connection, ``aws_default`` when left out. It needs ``sagemaker:CreateTransformJob``,
        ``DescribeTransformJob``, ``ListTransformJobs``, ``StopTransformJob``, ``AddTags``, and ``s3:ListBucket`` and
        ``s3:GetObject`` on the inputs and outputs; ``s3:PutObject`` below the output for ``input_uris``, and where
        objects below ``input_uri`` are no inputs.

    All further parameters are those of :class:`~overnight.operators.job.JobOperator`.
    """

    template_fields: Sequence[str] = (
        "model_name",
        "input_uri",
        "input_uris",
        "input_prefix",
        "output_uri",
        "instance_type",
        "instance_count",
        "input_filter",
        "output_filter",
        "environment",
        "tags",
        "options",
        *JobOperator.template_fields,
    )
    hook_class: ClassVar[type[JobHook[Any]]] = SageMakerHook

    def __init__(
        self,
        *,
        model_name: str,
        output_uri: str,
        instance_type: str,
        instance_count: int = 1,
        input_uri: str | None = None,
        input_uris: Sequence[str] | None = None,
        input_prefix: str | None = None,
        input_kind: Literal["S3Prefix", "ManifestFile"] = "S3Prefix",
        content_type: str | None = None,
        accept: str | None = None,
        split_type: str | None = None,
        assemble_with: str | None = None,
        strategy: str | None = None,
        compression: str | None = None,
        max_payload_mb: int | None = None,
        max_concurrent_transforms: int | None = None,
        input_filter: str = "$",
        join_source: str | None = None,
        output_filter: str = "$",
        environment: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.output_uri = output_uri
        self.instance_type = instance_type
        self.instance_count = instance_count
        self.input_uri = input_uri
        self.input_uris = input_uris
        self.input_prefix = input_prefix
        self.input_kind = input_kind
        self.content_type = content_type
        self.accept = accept
        self.split_type = split_type
        self.assemble_with = assemble_with
        self.strategy = strategy
        self.compression = compression
        self.max_payload_mb = max_payload_mb
        self.max_concurrent_transforms = max_concurrent_transforms
        self.input_filter = input_filter
        self.join_source = join_source
        self.output_filter = output_filter
        self.environment = environment
        self.tags = tags
        self.options = options

    def list_inputs(self) -> Sequence[str]:
        """Return the listed objects, or the prefix that they are below."""
        return [self.input_uri] if self.input_uri is not None else list(self.input_uris or ())

    def build_spec(self, context: Context) -> SageMakerTransformSpec:
        """Validate the parameters, and write the manifest of listed inputs."""
        from overnight.services.sagemaker.spec import MANIFESTS, SageMakerTransformSpec, write_manifest  # noqa: PLC0415 - not at parse

        fields: dict[str, Any] = {
            **require_mapping(self.options or {}, "options"),
            "model_name": self.model_name,
            "output_uri": self.output_uri,
            "instance_type": self.instance_type,
            "instance_count": self.instance_count,
            "content_type": self.content_type,
            "accept": self.accept,
            "split_type": self.split_type,
            "assemble_with": self.assemble_with,
            "strategy": self.strategy,
            "compression": self.compression,
            "max_payload_mb": self.max_payload_mb,
            "max_concurrent_transforms": self.max_concurrent_transforms,
            "input_filter": self.input_filter,
            "join_source": self.join_source,
            "output_filter": self.output_filter,
            "environment": self.environment or {},
            "tags": self.tags or {},
        }
        if (self.input_uri is None) == (self.input_uris is None):
            raise SpecError("Give either input_uri or input_uris.")
        if self.input_uri is not None:
            return SageMakerTransformSpec(input_uri=self.input_uri, input_kind=self.input_kind, **fields)
        # Whatever else is wrong is said before anything is written.
        placeholder = f"{self.output_uri.rstrip('/')}/{MANIFESTS}/x.manifest"
        spec = SageMakerTransformSpec(input_uri=placeholder, input_kind="ManifestFile", **fields)
        manifest = write_manifest(
            _listed(self.input_uris),
            f"{self.output_uri.rstrip('/')}/{MANIFESTS}",
            prefix=self.input_prefix,
            storage=connected_storage(self.conn_id),
        )
        return spec.model_copy(update={"input_uri": manifest})


def _listed(value: object) -> list[str]:
    """Read a list of URIs, also as the text that a template without native objects makes of it."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            value = None
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(uri, str) for uri in value):
        raise SpecError("input_uris is not a list of s3:// URIs.")
    return list(value)
