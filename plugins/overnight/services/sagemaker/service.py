"""
SageMaker batch transform: create, describe, stop and find jobs by name, and say which inputs have an output.

API: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTransformJob.html. A job's name is its
idempotency key: it is unique in an account and region for ever, so a second job of one key cannot come to be.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final
from urllib.parse import quote

from overnight.errors import (
    CredentialsError,
    NotFoundError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    TransientError,
    UnavailableError,
)
from overnight.jobs import FoundJob, JobKey, JobRecord, JobRef, JobStatus, ResultManifest, choose_found
from overnight.jobs.model import ListedOwnJob
from overnight.jobs.queue import Amount, ListedJob, QueueFull
from overnight.jobs.service import Service, get_max_other_pages
from overnight.services.sagemaker import queue
from overnight.services.sagemaker.answers import describe_job, list_job_pages
from overnight.services.sagemaker.causes import NAME_TAKEN
from overnight.services.sagemaker.locations import bucket_and_key
from overnight.services.sagemaker.objects import Inputs, find_inputs, too_large
from overnight.services.sagemaker.queue import InstanceQueue
from overnight.services.sagemaker.results import build_result_manifest, find_outputs
from overnight.services.sagemaker.spec import MANIFESTS, SageMakerTransformSpec, build_manifest, tag_text
from overnight.services.sagemaker.status import read_state, read_status
from overnight.storage import Listing
from overnight.transport.aws_call import S3, SAGEMAKER, AwsCall
from overnight.transport.flow import Flow

log = logging.getLogger(__name__)

PAGE: Final = 100
CLOCK_SKEW: Final = timedelta(hours=1)
"""How far the service's clock may be behind ours; it only makes a listing longer."""


class SageMakerTransformService(Service[SageMakerTransformSpec]):
    """
    The five verbs for batch transform jobs.

    :param console: The address of the AWS console that shows the account's jobs; ``None`` when there is none.
    """

    name: ClassVar[str] = "sagemaker"
    queue_units: ClassVar[frozenset[str]] = frozenset({"instances", "jobs"})

    def __init__(self, conn_id: str, console: str | None = None) -> None:
        super().__init__(conn_id)
        self._console = console
        self._instances = InstanceQueue()

    def find(self, key: JobKey, since: datetime, record: JobRecord | None = None) -> Flow[FoundJob | None]:
        """Look for this task instance's jobs by name, in which their generation and fingerprint are."""
        arguments: dict[str, Any] = {
            "NameContains": key.tag,
            "CreationTimeAfter": since - CLOCK_SKEW,
            "SortBy": "CreationTime",
            "SortOrder": "Descending",
            "MaxResults": PAGE,
        }
        found: list[FoundJob] = []
        following: Mapping[str, Any] | None = arguments
        while following is not None:
            items, following = yield from list_job_pages(following)
            found += [job for item in items if (job := self._found(item, key)) is not None]
        return choose_found(found, key)

    def submit(self, spec: SageMakerTransformSpec, key: JobKey) -> Flow[JobRef]:
        """
        Look at the inputs, and create the job under the key's name.

        A job of that name is this task's own, created by a try that was not told, or, when a Dag run was deleted and
        another took its id, by that run: it is attached to. (Clear the task to run it anew: a finished task's next
        generation has another name.)

        Where objects below the prefix are no input (``_SUCCESS``, ``_delta_log/``, ``.crc`` files, folder markers), the
        job gets a manifest of those that are: SageMaker would read them all, and be paid for it.

        :raises SpecError: there is nothing to read, or an input cannot be one payload.
        :raises CredentialsError: the connection may not list the inputs, without which no results could be told.
        :raises RequestRefusedError: SageMaker refuses the job, or the name is taken by another one.
        """
        inputs = yield from _check_inputs(spec)
        if inputs.ignored:
            spec = yield from _name_inputs(spec, inputs)
        request = spec.request(key.name, _tags(key))
        try:
            yield AwsCall(SAGEMAKER, "CreateTransformJob", request)
        except UnavailableError:
            try:
                return (yield from self._attach(request))
            except NotFoundError:
                log.info("%s was not created.", key.name)
            raise
        except RequestRefusedError as error:
            if error.code != NAME_TAKEN:
                raise
            return (yield from self._attach(request))
        return self.ref(key.name)

    def status(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Look at the job once, and, when it is over, at which inputs have an output.

        SageMaker tells nothing of a running job's progress.
        """
        job = yield from describe_job(ref.id)
        state = read_state(job.get("TransformJobStatus"))
        if not state.is_terminal or state.is_stopped:
            return read_status(job)
        try:
            made = yield from find_outputs(job)
        except TransientError:
            raise
        except (ServiceError, SpecError) as error:
            return read_status(job, note=f"which inputs have an output could not be told: {error}")
        return read_status(job, made)

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        """Read the list of our transform jobs, newest first, until all that are wanted were seen."""
        seen: dict[str, JobStatus] = {}
        missing = set(wanted)
        arguments: dict[str, Any] = {"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": PAGE}
        if all(JobKey.parse_name(name) is not None for name in wanted):
            arguments["NameContains"] = "overnight-"
        others = 0
        following: Mapping[str, Any] | None = arguments
        while following is not None and missing and others < get_max_other_pages(len(missing)):
            items, following = yield from list_job_pages(following)
            listed = {item["TransformJobName"]: item for item in items}
            seen.update((name, read_status(item)) for name, item in listed.items())
            others = 0 if missing & listed.keys() else others + 1
            missing -= listed.keys()
        return seen

    def list_own(self, since: datetime) -> Flow[Sequence[ListedOwnJob]]:
        """List the transform jobs with a name of ours, the newest first."""
        following: Mapping[str, Any] | None = {
            "NameContains": "overnight-",
            "CreationTimeAfter": since,
            "SortBy": "CreationTime",
            "SortOrder": "Descending",
            "MaxResults": PAGE,
        }
        own = []
        while following is not None:
            items, following = yield from list_job_pages(following)
            for item in items:
                name = item["TransformJobName"]
                if JobKey.parse_name(name) is not None:
                    ref, status = self.ref(name), read_status(item)
                    own.append(ListedOwnJob(ref=ref, name=name, created_at=item["CreationTime"], status=status))
        return own

    def get_queue(self, spec: SageMakerTransformSpec) -> tuple[str, Amount]:
        """Return the queue of the job's instance type, and how many of these instances it takes."""
        return queue.get_queue(spec)

    def list_queue(self, queue_name: str, /) -> Flow[Collection[ListedJob]]:
        """List the jobs that have instances of a type, whoever created them."""
        return (yield from self._instances.list_jobs(queue_name))

    def find_refusal(self, answer: ServiceError | JobStatus) -> QueueFull | None:
        """Say whether other jobs have the instances, or calls came too fast."""
        return queue.find_refusal(answer)

    def cancel(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Stop the job.

        It is Stopping for up to two minutes; the outputs that are written stay, and the time until then is billed.
        """
        try:
            yield AwsCall(SAGEMAKER, "StopTransformJob", {"TransformJobName": ref.id})
        except RequestRefusedError:
            # A job that is over, or on its way, is refused.
            status = yield from self.status(ref)
            if not status.state.is_terminal and not status.state.is_stopped:
                raise
            return status
        return (yield from self.status(ref))

    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        """
        Name the outputs, their inputs in the same order, and as ``missing`` the inputs without one.

        :raises CredentialsError: the connection may not list the objects.
        """
        job = yield from describe_job(ref.id)
        return build_result_manifest(ref, job, (yield from find_outputs(job)))

    def console_url(self, ref: JobRef) -> str | None:
        """Return the address of the job in the AWS console."""
        return f"{self._console}#/transform-jobs/{quote(ref.id, safe='')}" if self._console else None

    def _attach(self, request: Mapping[str, Any]) -> Flow[JobRef]:
        name = request["TransformJobName"]
        job = yield from describe_job(name)
        if _identity(job) != _identity(request):
            raise RequestRefusedError(
                f"The name {name} is taken by a transform job with another model, input or output, and SageMaker never "
                "frees a name. Change the spec, or clear the task.",
                code=NAME_TAKEN,
            )
        log.info("%s had been created at %s and is %s.", name, job["CreationTime"], job["TransformJobStatus"])
        return self.ref(name)

    def _found(self, item: Mapping[str, Any], key: JobKey) -> FoundJob | None:
        return FoundJob.from_name(
            item["TransformJobName"],
            key,
            ref=self.ref(item["TransformJobName"]),
            created_at=item["CreationTime"],
            state=read_state(item["TransformJobStatus"]),
        )


def _check_inputs(spec: SageMakerTransformSpec) -> Flow[Inputs]:
    """Refuse what SageMaker would refuse after minutes, once the instances are up and billed."""
    try:
        inputs = yield from find_inputs(spec.input_kind, spec.input_uri)
    except CredentialsError as error:
        raise CredentialsError(
            f"The inputs at {spec.input_uri} cannot be listed, so what came of them could not be told either. {error}",
            status=error.status,
            code=error.code,
        ) from error
    except RequestRefusedError as error:
        raise SpecError(f"The inputs at {spec.input_uri} cannot be found: {error}") from error
    if not inputs.uris:
        remark = Listing(ignored=inputs.ignored).remark
        raise SpecError(
            f"No input's key begins with {spec.input_uri}: there is nothing to transform. {remark}".rstrip()
        )
    absent = [uri for uri in inputs.uris if uri not in inputs.listed]
    if absent:
        raise SpecError(f"{spec.input_uri} names {len(absent)} objects that are not there, {absent[0]} for one.")
    limit = spec.payload_bytes
    if spec.split_type is not None or spec.compression is not None or limit is None:
        return inputs
    if large := too_large(inputs, limit):
        raise SpecError(
            f"{len(large)} inputs are larger than one payload of {limit >> 20} MB, {large[0].uri} ({large[0].size:,} "
            "bytes) for one. Set split_type='Line' if they have records, or raise max_payload_mb (up to 100)."
        )
    return inputs


def _name_inputs(spec: SageMakerTransformSpec, inputs: Inputs) -> Flow[SageMakerTransformSpec]:
    """Write a manifest of the inputs, and return the spec that reads it."""
    folder = f"{spec.output_uri.rstrip('/')}/{MANIFESTS}"
    uri, body = build_manifest(inputs.uris, folder, prefix=inputs.prefix[: inputs.prefix.rfind("/") + 1])
    bucket, key = bucket_and_key(uri)
    try:
        yield AwsCall(S3, "PutObject", {"Bucket": bucket, "Key": key, "Body": body})
    except CredentialsError as error:
        raise CredentialsError(
            f"{inputs.ignored:,} objects below {spec.input_uri} are no inputs, and the manifest that keeps the job "
            f"from reading them cannot be written to {uri}. Take them away, or allow s3:PutObject there. {error}",
            status=error.status,
            code=error.code,
        ) from error
    log.info("%s: %s The job reads %s.", spec.input_uri, Listing(ignored=inputs.ignored).remark, uri)
    return spec.model_copy(update={"input_uri": uri, "input_kind": "ManifestFile"})


def _tags(key: JobKey) -> dict[str, str]:
    facts = {"dag": key.dag_id, "run": key.run_id, "task": key.task_id, "map-index": str(key.map_index)}
    return {f"overnight:{name}": tag_text(value) for name, value in facts.items()}


def _identity(job: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a request and the description of a job have in common when they are the same work."""
    source = job["TransformInput"]["DataSource"]["S3DataSource"]
    return (
        job.get("ModelName"),
        source["S3DataType"],
        source["S3Uri"],
        job["TransformOutput"]["S3OutputPath"].rstrip("/"),
        (job.get("TransformResources") or {}).get("InstanceType"),
    )
