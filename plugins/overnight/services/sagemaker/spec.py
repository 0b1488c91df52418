"""What a transform job is asked to do, and the rules that SageMaker checks late, or not at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from overnight.errors import SpecError
from overnight.jobs import compute_fingerprint
from overnight.jobs.service import JobSpec
from overnight.services.sagemaker.filter import FilterSegment, Names, parse_filter
from overnight.services.sagemaker.locations import S3Uri, is_s3_uri, to_s3_uri
from overnight.storage import Storage

MANIFESTS: Final = "_manifests"
"""The folder below the output's that gets the manifest of listed inputs."""
DEFAULT_MAX_PAYLOAD_MB: Final = 6
MAX_PAYLOAD_MB: Final = 100
OUR_TAGS: Final = 4
MAX_TAGS: Final = 50

_TAG_TEXT = re.compile(r"[^\W_]|[\s_.:/=+\-@]")
_BINARY = ("image/", "audio/", "video/", "application/octet-stream", "application/x-recordio", "application/x-npy")
_JSON_LINES = frozenset(
    {"application/jsonlines", "application/x-jsonlines", "application/jsonl", "application/x-ndjson"}
)


def _none(value: Any) -> Any:
    # The API's own word for "not at all".
    return None if value == "None" else value


class Experiment(BaseModel):
    """
    The experiment that a job is shown under, as one of its trial components.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ExperimentConfig.html
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(default=None, max_length=120)
    trial: str | None = Field(default=None, max_length=120)
    trial_component: str | None = Field(default=None, max_length=120)
    run: str | None = Field(default=None, max_length=120)

    def request(self) -> dict[str, str]:
        """Return ``ExperimentConfig``."""
        fields = {
            "ExperimentName": self.name,
            "TrialName": self.trial,
            "TrialComponentDisplayName": self.trial_component,
            "RunName": self.run,
        }
        return {name: value for name, value in fields.items() if value is not None}


class DataCapture(BaseModel):
    """
    Where the records that the model was given, and its answers, are kept.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_BatchDataCaptureConfig.html

    :param uri: The folder that gets them.
    :param kms_key: What they are encrypted with.
    :param inference_id: Whether each record gets an id of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: S3Uri
    kms_key: str | None = Field(default=None, max_length=2048)
    inference_id: bool | None = None

    def request(self) -> dict[str, Any]:
        """Return ``DataCaptureConfig``."""
        return {
            "DestinationS3Uri": self.uri,
            **_given(KmsKeyId=self.kms_key, GenerateInferenceId=self.inference_id),
        }


class SageMakerTransformSpec(JobSpec):
    """
    One batch transform job.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTransformJob.html

    :param model_name: A model that is there in the connection's account and region.
    :param input_uri: Every object whose key *begins* with it, but for those that
        :func:`~overnight.storage.is_ignored` leaves out; or, with ``input_kind="ManifestFile"``, the object that lists
        them (:func:`write_manifest` writes one). ``s3://bucket/key``, or a web address of S3.
    :param output_uri: The folder that gets one ``<input>.out`` for every input. Give each run one of its own
        (``…/{{ run_id }}/``): a job overwrites what an earlier one wrote.
    :param content_type: The MIME type of the input, as the container reads it.
    :param accept: The MIME type of the output that the container is asked for.
    :param split_type: ``Line``, ``RecordIO`` or ``TFRecord``; ``None`` sends a whole object as one payload.
    :param compression: ``Gzip`` when the inputs are compressed; the outputs are not.
    :param assemble_with: ``Line`` puts a newline behind every output record, ``None`` nothing.
    :param strategy: ``SingleRecord`` or ``MultiRecord`` in one payload. SageMaker takes ``MultiRecord`` when it is
        left out and the input is split.
    :param max_payload_mb: Megabytes in one payload, 6 when it is left out; 0 is for containers that read chunked
        requests of any length.
    :param max_concurrent_transforms: Payloads in flight for each instance.
    :param input_filter: The part of a record that the model gets, as JSONPath.
    :param join_source: ``Input`` puts the model's answer into the input record, as ``SageMakerOutput``.
    :param output_filter: The part of the (joined) record that is written.
    :param environment: For the container. It is shown by DescribeTransformJob: no secrets.
    :param ami_version: The machine image of the instances (``TransformAmiVersion``), for another version of their GPU
        driver.
    :param data_capture: Where records and answers are kept beside the output (``DataCaptureConfig``).
    :param invocation_timeout: Seconds a payload may take, 600 when it is left out.
    :param invocation_retries: How often a failing payload is sent again, 3 when it is left out.
    :param tags: Your own, at most 46: four of SageMaker's 50 are Overnight's. They need ``sagemaker:AddTags``.
    """

    model_name: str = Field(pattern=r"^[a-zA-Z0-9]([\-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$")
    input_uri: S3Uri
    input_kind: Literal["S3Prefix", "ManifestFile"] = "S3Prefix"
    output_uri: S3Uri
    instance_type: str = Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$")
    instance_count: int = Field(default=1, ge=1, le=100)
    content_type: str | None = Field(default=None, min_length=1, max_length=256)
    accept: str | None = Field(default=None, min_length=1, max_length=256)
    split_type: Annotated[Literal["Line", "RecordIO", "TFRecord"] | None, BeforeValidator(_none)] = None
    compression: Annotated[Literal["Gzip"] | None, BeforeValidator(_none)] = None
    assemble_with: Annotated[Literal["Line"] | None, BeforeValidator(_none)] = None
    strategy: Literal["SingleRecord", "MultiRecord"] | None = None
    max_payload_mb: int | None = Field(default=None, ge=0, le=MAX_PAYLOAD_MB)
    max_concurrent_transforms: int | None = Field(default=None, ge=0)
    input_filter: str = "$"
    output_filter: str = "$"
    join_source: Annotated[Literal["Input"] | None, BeforeValidator(_none)] = None
    environment: Mapping[
        Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,1023}$")], Annotated[str, Field(max_length=10_240)]
    ] = Field(default_factory=dict, max_length=16)
    output_kms_key: str | None = Field(default=None, max_length=2048)
    volume_kms_key: str | None = Field(default=None, max_length=2048)
    invocation_timeout: int | None = Field(default=None, ge=1, le=3600)
    invocation_retries: int | None = Field(default=None, ge=0, le=3)
    tags: Mapping[str, str] = Field(default_factory=dict)
    experiment: Experiment | None = None
    ami_version: str | None = Field(default=None, max_length=63, pattern=r"^[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*$")
    data_capture: DataCapture | None = None

    def fingerprint(self, conn_id: str) -> str:
        """Return the digest of the spec. What came later and is not given leaves that of a running job as it was."""
        later = {name for name in ("ami_version", "data_capture") if getattr(self, name) is None}
        return compute_fingerprint({"spec": self.model_dump(mode="json", exclude=later), "conn_id": conn_id})

    @model_validator(mode="after")
    def _would_be_refused_or_mangled(self) -> Self:
        problems = [*_places(self), *_payloads(self), *_formats(self), *_processing(self), *_tags(self)]
        if problems:
            raise ValueError(" ".join(problems))
        return self

    @property
    def payload_bytes(self) -> int | None:
        """The most one payload may have; ``None`` when there is no limit."""
        megabytes = DEFAULT_MAX_PAYLOAD_MB if self.max_payload_mb is None else self.max_payload_mb
        return megabytes * 1024 * 1024 or None

    def request(self, name: str, tags: Mapping[str, str]) -> dict[str, Any]:
        """
        Return the arguments of CreateTransformJob.

        :param tags: Overnight's own.
        """
        optional = {
            "BatchStrategy": self.strategy,
            "MaxPayloadInMB": self.max_payload_mb,
            "MaxConcurrentTransforms": self.max_concurrent_transforms,
            "Environment": dict(self.environment) or None,
            "ModelClientConfig": _given(
                InvocationsTimeoutInSeconds=self.invocation_timeout, InvocationsMaxRetries=self.invocation_retries
            )
            or None,
            "DataProcessing": self._data_processing(),
            "DataCaptureConfig": self.data_capture.request() if self.data_capture else None,
            "ExperimentConfig": (self.experiment.request() if self.experiment else None) or None,
        }
        return {
            "TransformJobName": name,
            "ModelName": self.model_name,
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": self.input_kind, "S3Uri": self.input_uri}},
                "SplitType": self.split_type or "None",
                "CompressionType": self.compression or "None",
                **_given(ContentType=self.content_type),
            },
            "TransformOutput": {
                "S3OutputPath": self.output_uri,
                "AssembleWith": self.assemble_with or "None",
                **_given(Accept=self.accept, KmsKeyId=self.output_kms_key),
            },
            "TransformResources": {
                "InstanceType": self.instance_type,
                "InstanceCount": self.instance_count,
                **_given(VolumeKmsKeyId=self.volume_kms_key, TransformAmiVersion=self.ami_version),
            },
            "Tags": [{"Key": key, "Value": value} for key, value in {**self.tags, **tags}.items()],
            **{field: value for field, value in optional.items() if value is not None},
        }

    def _data_processing(self) -> dict[str, str] | None:
        if self.join_source is None and self.input_filter == self.output_filter == "$":
            return None
        return {
            "InputFilter": self.input_filter,
            "OutputFilter": self.output_filter,
            "JoinSource": self.join_source or "None",
        }


def write_manifest(
    uris: Sequence[str], folder: str, *, prefix: str | None = None, storage: Storage | None = None
) -> str:
    """
    Write the manifest that makes a job take exactly these objects.

    Its name is a digest of its content: the same objects have the same manifest, and so a retry the same spec.

    :param uris: ``s3://`` objects, all of one bucket.
    :param folder: The URI of the folder that gets the manifest.
    :param prefix: What the objects' places below the output folder are relative to; their deepest common folder when
        it is left out. Give the first job's (``detail["input_prefix"]`` of its results) when its missing inputs are
        submitted again, and the outputs come to lie beside its own.
    :return: The manifest's URI, for ``input_uri`` with ``input_kind="ManifestFile"``.
    :raises SpecError: there are no objects, or a manifest cannot name them together.
    """
    uri, body = build_manifest(uris, folder, prefix=prefix)
    with (storage or Storage()).open(uri, "wb") as file:
        file.write(body)
    return uri


def build_manifest(uris: Sequence[str], folder: str, *, prefix: str | None = None) -> tuple[str, bytes]:
    """
    Return the URI and the content of a manifest; see :func:`write_manifest`.

    :raises SpecError: there are no objects, or a manifest cannot name them together.
    """
    wanted = sorted(set(map(to_s3_uri, uris)))
    if not wanted:
        raise SpecError("There is no input to transform: the list of objects is empty.")
    base = prefix if prefix is not None else _common_folder(wanted)
    if not base.endswith("/") or not is_s3_uri(base):
        raise SpecError(f"The objects of one manifest share one s3:// folder; {base!r} is none. Submit a job for each.")
    strange = [uri for uri in wanted if not uri.startswith(base) or uri == base]
    if strange:
        raise SpecError(f"{strange[0]} does not lie below {base}.")
    body = orjson.dumps([{"prefix": base}, *(uri.removeprefix(base) for uri in wanted)])
    return f"{folder.rstrip('/')}/{hashlib.sha256(body).hexdigest()[:32]}.manifest", body


def read_manifest(uri: str, body: bytes) -> tuple[str, list[str]]:
    """
    Read a manifest.

    :return: Its prefix, and the URIs of its objects in its order.
    :raises SpecError: it is not ``[{"prefix": "s3://…"}, "key", …]``.
    """
    try:
        head, *names = orjson.loads(body)
        prefix = to_s3_uri(str(head["prefix"]))
    except (TypeError, KeyError, ValueError) as error:
        raise _no_manifest(uri, str(error)) from error
    if not names or not all(isinstance(name, str) and name for name in names):
        raise _no_manifest(uri, "it names no objects, or something that is no key")
    return prefix, [f"{prefix}{name}" for name in names]


def _no_manifest(uri: str, why: str) -> SpecError:
    return SpecError(f'{uri} is not a manifest, [{{"prefix": "s3://bucket/folder/"}}, "key", …]: {why}.')


def media(value: str | None) -> str | None:
    """Return a MIME type without its parameters, in the one spelling for JSON Lines."""
    if value is None:
        return None
    bare = value.partition(";")[0].strip().lower()
    return "application/jsonlines" if bare in _JSON_LINES else bare


def tag_text(value: str) -> str:
    """Return a text with only what a tag may hold, at most 256 characters of it."""
    return "".join(character if _TAG_TEXT.fullmatch(character) else "_" for character in value)[:256]


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _common_folder(uris: Sequence[str]) -> str:
    first, last = uris[0], uris[-1]  # sorted: what these two share, all share
    length = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(map(len, uris)))
    return first[: first.rfind("/", 0, length) + 1]


def _places(spec: SageMakerTransformSpec) -> Iterator[str]:
    if spec.input_kind == "ManifestFile":
        if spec.input_uri.endswith("/"):
            yield f"{spec.input_uri} is a folder: a manifest is one object."
        return
    output = spec.output_uri.rstrip("/") + "/"
    if output.startswith(spec.input_uri):
        yield (
            f"The output {output} begins with the input prefix {spec.input_uri}, so the next run would read this one's "
            "output. Give them folders beside each other, and the prefix a final slash."
        )
    elif spec.input_uri.startswith(output):
        yield (
            f"The output {output} contains the input {spec.input_uri}, and outputs of nested inputs could land among "
            "them. Give them folders beside each other."
        )


# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTransformJob.html
def _payloads(spec: SageMakerTransformSpec) -> Iterator[str]:
    if spec.strategy == "MultiRecord" and spec.split_type is None:
        yield "strategy='MultiRecord' needs a split_type: without one, an object is a single record."
    payload = DEFAULT_MAX_PAYLOAD_MB if spec.max_payload_mb is None else spec.max_payload_mb
    concurrent = spec.max_concurrent_transforms or 0
    if concurrent * payload > MAX_PAYLOAD_MB:
        yield (
            f"max_concurrent_transforms ({concurrent}) times max_payload_mb ({payload}"
            f"{', the default' if spec.max_payload_mb is None else ''}) must not be over {MAX_PAYLOAD_MB} MB."
        )


# https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform.html
def _formats(spec: SageMakerTransformSpec) -> Iterator[str]:
    given, wanted = media(spec.content_type), media(spec.accept)
    if given == "application/jsonlines" and spec.split_type != "Line":
        yield "JSON Lines input needs split_type='Line': otherwise a whole object is one payload."
    if given == "application/json" and spec.split_type == "Line" and spec.strategy != "SingleRecord":
        yield (
            "Lines of JSON as application/json need strategy='SingleRecord': otherwise a payload holds several "
            "documents, which is not JSON. Or say content_type='application/jsonlines' if the container reads that."
        )
    if wanted == "application/jsonlines" and spec.split_type is None and spec.assemble_with is None:
        yield "JSON Lines output needs assemble_with='Line'."
    is_text = wanted is None or not wanted.startswith(_BINARY)
    if spec.split_type == "Line" and spec.assemble_with is None and is_text:
        yield (
            "split_type='Line' needs assemble_with='Line': otherwise the records of the output follow each other "
            "without a newline. (A binary output says so in accept.)"
        )


# https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-data-processing.html
def _processing(spec: SageMakerTransformSpec) -> Iterator[str]:
    given, wanted = _family(spec.content_type), _family(spec.accept)
    steps: dict[str, tuple[FilterSegment, ...]] = {}
    for name in ("input_filter", "output_filter"):
        try:
            steps[name] = parse_filter(getattr(spec, name))
        except SpecError as error:
            yield f"{name}: {error}"
    if spec.join_source is not None:
        if given is None or given != wanted:
            yield (
                "join_source='Input' needs content_type and accept, both CSV or both JSON; they are "
                f"{spec.content_type!r} and {spec.accept!r}."
            )
        elif spec.split_type != "Line" and media(spec.content_type) != "application/json":
            yield "join_source='Input' needs split_type='Line' and assemble_with='Line'."
    if steps.get("input_filter") and given is None:
        yield f"input_filter needs content_type CSV or JSON, not {spec.content_type!r}."
    if steps.get("output_filter") and wanted is None:
        yield f"output_filter needs accept CSV or JSON, not {spec.accept!r}."
    for name, family in (("input_filter", given), ("output_filter", wanted)):
        if family == "csv" and any(isinstance(step, Names) for step in steps.get(name, ())):
            yield f"{name}: the columns of CSV have no names; select them by index, $[0] or $[1:]."


def _family(value: str | None) -> str | None:
    return {"text/csv": "csv", "application/json": "json", "application/jsonlines": "json"}.get(media(value) or "")


# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Tag.html
def _tags(spec: SageMakerTransformSpec) -> Iterator[str]:
    room = MAX_TAGS - OUR_TAGS
    if len(spec.tags) > room:
        yield f"There are {len(spec.tags)} tags; SageMaker takes {MAX_TAGS}, and {OUR_TAGS} of them are Overnight's."
    for key, value in spec.tags.items():
        if key.startswith("overnight:") or key.lower().startswith("aws:"):
            yield f"The tag {key!r} is reserved: those beginning with overnight: and aws: are not yours to set."
        elif not 1 <= len(key) <= 128 or len(value) > 256:
            yield f"The tag {key[:40]!r} is too long: keys have up to 128 characters, values up to 256."
        elif tag_text(key) != key or tag_text(value) != value:
            yield f"The tag {key!r} may hold letters, digits, blanks and _.:/=+-@ only, as may its value."
