"""
Batch prediction of ML Commons: a model's connector starts a job at a remote service, and the cluster follows it.

API: https://docs.opensearch.org/latest/ml-commons-plugin/api/model-apis/batch-predict/.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final
from urllib.parse import quote

import orjson
from pydantic import Field, JsonValue, field_validator

from overnight.errors import RequestRefusedError, ServiceError, SpecError, UnavailableError, UnsupportedError
from overnight.jobs import FoundJob, JobKey, JobRecord, JobRef, JobStatus, ResultFile, ResultManifest, choose_found
from overnight.jobs.service import JobSpec, Service
from overnight.services.ml_commons.connection import (
    ML,
    SEARCH_LAG,
    created_at,
    get_task,
    get_tasks,
    plain,
    task_path,
    tasks_since,
)
from overnight.services.ml_commons.errors import NAME_TAKEN, NO_HANDLER, ask
from overnight.services.ml_commons.status import read_prediction
from overnight.transport.flow import Flow, Pause
from overnight.transport.http import HttpCall, Retry

log = logging.getLogger(__name__)

NAME_TAG: Final = "overnight_name"
"""The key of a job's name in OpenAI's metadata; the same as the one of a batch that is submitted directly."""
IDENTITIES: Final = ("TransformJobName", "metadata", "jobName", "name")
"""Parameters that carry a job's name to the remote service, as SageMaker, OpenAI, Bedrock and Cohere call theirs."""
LOOKUP_WAITS: Final = (SEARCH_LAG, 3.0, 8.0)
_SECRET = re.compile(r"(access|secret|api|openai|cohere)_?key|session_?token|password|authorization", re.IGNORECASE)

RemoteLookup = Callable[[JobKey, datetime], FoundJob | None]
"""Looks for a task instance's job at the remote service itself; blocking, so for workers only."""


class MLCommonsPredictSpec(JobSpec):
    """
    One batch prediction.

    :param model_id: A deployed remote model, whose connector has the actions ``batch_predict`` and
        ``batch_predict_status``.
    :param parameters: What overrides the connector's own parameters for this job. Objects are given as objects.
    """

    model_id: str = Field(min_length=1)
    parameters: Mapping[str, JsonValue] = Field(default_factory=dict)

    @field_validator("parameters")
    @classmethod
    def _no_secret(cls, parameters: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        secrets = [name for name in parameters if _SECRET.search(name)]
        if secrets:
            raise ValueError(
                f"{secrets} look like credentials, which belong into the connector (and reach it from an Airflow "
                "connection), not into a job's parameters"
            )
        return parameters


class MLCommonsPredictService(Service[MLCommonsPredictSpec]):
    """
    The five verbs for batch predictions.

    :param conn_id: The OpenSearch connection that every reference names.
    :param look_up_remote: Where an orphan is looked for that the cluster has no task of.
    """

    name: ClassVar[str] = "ml_commons_predict"

    def __init__(self, conn_id: str, look_up_remote: RemoteLookup | None = None) -> None:
        super().__init__(conn_id)
        self.look_up_remote = look_up_remote

    def find(self, key: JobKey, since: datetime, record: JobRecord | None = None) -> Flow[FoundJob | None]:
        """
        Look through the cluster's tasks for this task instance's, by the name that its remote job bears.

        :raises RequestRefusedError: the remote service has a job that the cluster has no task of.
        """
        found = yield from self._listed(key, since)
        if found is None and self.look_up_remote is not None:
            orphan = self.look_up_remote(key, since)
            if orphan is not None and not orphan.state.is_stopped and orphan.generation >= key.generation:
                raise _build_orphan_error(orphan.ref)
        return found

    def submit(self, spec: MLCommonsPredictSpec, key: JobKey) -> Flow[JobRef]:
        """
        Start the job, its name passed through the connector.

        :raises SpecError: the connector has no parameter that a name could be passed in; a retry could not find the job
            and would pay for it again.
        """
        body = {"parameters": (yield from self._named(spec, key))}
        call = HttpCall("POST", f"{ML}/models/{_quoted(spec.model_id)}/_batch_predict", json=body, retry=Retry.REJECTED)
        try:
            answer = yield from ask(call)
        except (UnavailableError, RequestRefusedError) as error:
            if isinstance(error, RequestRefusedError) and error.code != NAME_TAKEN:
                raise
            # The answer may be lost, or it is an earlier try's job that has the name: is there a task of it?
            for seconds in LOOKUP_WAITS:
                yield Pause(seconds)
                found = yield from self._listed(key, None)
                if found is not None and (found.generation, found.fingerprint) == (key.generation, key.fingerprint):
                    log.info("%s had been submitted.", found.ref)
                    return found.ref
            if error.code == NAME_TAKEN:
                raise _build_orphan_error(JobRef(service="sagemaker", id=key.name, conn_id="aws_default")) from error
            raise
        task_id = answer.get("task_id") if isinstance(answer, dict) else None
        if not task_id:
            raise UnavailableError(
                "The cluster answered a _batch_predict without a task id. Versions before 2.16 keep no task of it; "
                "such a job can only be followed at the remote service."
            )
        return self.ref(str(task_id))

    def status(self, ref: JobRef) -> Flow[JobStatus]:
        """Have the cluster ask the remote service once."""
        return read_prediction((yield from get_task(ref.id)))

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        """Search the tasks; the cluster asks the remote services about them once a minute."""
        tasks = yield from get_tasks(wanted)
        return {task["task_id"]: read_prediction(task) for task in tasks}

    def cancel(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Ask for the end of the remote job, by ``_cancel`` or, on 2.17.0, the documented ``_cancel_batch``.

        A job that is over refuses with whatever its service says; its status tells.
        """
        refused: ServiceError | None = None
        for verb in ("_cancel", "_cancel_batch"):
            refused = None
            try:
                yield from ask(HttpCall("POST", f"{task_path(ref.id)}/{verb}", retry=Retry.REJECTED))
            except ServiceError as error:
                refused = error
                if error.code == NO_HANDLER:
                    continue
            break
        if refused is not None and refused.code == NO_HANDLER:
            raise UnsupportedError(f"This OpenSearch cannot cancel batch predictions; {ref.id} runs on. {refused}")
        if isinstance(refused, UnsupportedError):
            raise refused
        status = yield from self.status(ref)
        # SageMaker answers a stop with nothing, which the plugin takes for a failure.
        if refused is not None and not (status.state.is_terminal or status.state.is_stopped):
            raise refused
        return status

    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        """
        Say where the remote service put the results.

        OpenAI's files are ``openai://file-…``. SageMaker's are all below ``S3OutputPath``, a prefix that other jobs may
        write to, too: give each run its own.
        """
        task = yield from get_task(ref.id)
        remote = plain(task.get("remote_job") or {})
        return ResultManifest(
            ref=ref,
            files=tuple(_files(remote)),
            counts=read_prediction(task).counts,
            detail={name: remote[name] for name in _DETAILS if remote.get(name) is not None},
        )

    def _listed(self, key: JobKey, since: datetime | None) -> Flow[FoundJob | None]:
        oldest = since or datetime.fromtimestamp(0, UTC)
        found = []
        for task in (yield from tasks_since("BATCH_PREDICTION", oldest)):
            parts = JobKey.parse_name(_get_name(task.get("remote_job") or {}))
            if parts is not None and parts.tag == key.tag:
                found.append(
                    FoundJob(
                        ref=self.ref(task["task_id"]),
                        generation=parts.generation,
                        fingerprint=parts.fingerprint,
                        created_at=created_at(task, oldest),
                        state=read_prediction(task).state,
                    )
                )
        return choose_found(found, key)

    def _named(self, spec: MLCommonsPredictSpec, key: JobKey) -> Flow[dict[str, JsonValue]]:
        """Return the parameters with the job's name in the one that the connector passes on."""
        model = yield from ask(HttpCall("GET", f"{ML}/models/{_quoted(spec.model_id)}"))
        connector = model.get("connector")
        if connector is None and model.get("connector_id"):
            connector = yield from ask(HttpCall("GET", f"{ML}/connectors/{_quoted(model['connector_id'])}"))
        parameter = identity_parameter(connector or {})
        if parameter is None:
            raise SpecError(
                f"The connector of the model {spec.model_id} passes none of {', '.join(IDENTITIES)} on to its service "
                "in the request_body of its action 'batch_predict'. A job without a name cannot be found again, and a "
                "retry would pay twice: add the placeholder, as the blueprints in include/connectors have it."
            )
        parameters = dict(spec.parameters)
        if parameter != "metadata":
            if parameter in parameters:
                raise SpecError(f"Leave {parameter} out of the parameters: it is how a retry finds the job again.")
            return {**parameters, parameter: key.name}
        metadata = _metadata(parameters.get("metadata"), connector or {})
        return {**parameters, "metadata": {**metadata, NAME_TAG: key.name}}


def identity_parameter(connector: Mapping[str, Any]) -> str | None:
    """Return the parameter in which a connector passes a job's name on to its service."""
    for action in connector.get("actions") or ():
        if str(action.get("action_type")).lower() == "batch_predict":
            body = str(action.get("request_body"))
            return next((name for name in IDENTITIES if f"${{parameters.{name}}}" in body), None)
    return None


def _metadata(given: JsonValue, connector: Mapping[str, Any]) -> dict[str, JsonValue]:
    value = given if given is not None else (connector.get("parameters") or {}).get("metadata")
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise SpecError("The parameter metadata is not a JSON object.") from None
    if value is not None and not isinstance(value, dict):
        raise SpecError("The parameter metadata is not a JSON object.")
    return value or {}


def _get_name(remote: Mapping[str, Any]) -> str:
    metadata = remote.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get(NAME_TAG), str):
        return str(metadata[NAME_TAG])
    for name in ("TransformJobName", "jobName", "name"):
        if isinstance(remote.get(name), str):
            return str(remote[name])
    # Until its first status a SageMaker job is known by its ARN alone.
    return str(remote.get("TransformJobArn", "")).rpartition("/")[2]


_DETAILS = (
    "id", "status", "endpoint", "model", "usage", "job_id", "output_dataset_id", "TransformJobName", "TransformJobArn",
    "TransformJobStatus", "TransformInput", "TransformOutput", "FailureReason",
)  # fmt: skip


def _files(remote: Mapping[str, Any]) -> list[ResultFile]:
    files = []
    for kind, field in (("output", "output_file_id"), ("error", "error_file_id"), ("input", "input_file_id")):
        if remote.get(field):
            files.append(ResultFile(kind=kind, uri=f"openai://{remote[field]}"))
    output = (remote.get("TransformOutput") or {}).get("S3OutputPath")
    if output:
        files.append(ResultFile(kind="output", uri=f"{str(output).rstrip('/')}/"))
    source = ((remote.get("TransformInput") or {}).get("DataSource") or {}).get("S3DataSource") or {}
    if source.get("S3Uri"):
        files.append(ResultFile(kind="input", uri=str(source["S3Uri"])))
    return files


def _build_orphan_error(ref: JobRef) -> RequestRefusedError:
    return RequestRefusedError(
        f"An earlier try created {ref} at the remote service, and the cluster has no task of it, so it can neither be "
        "followed nor cancelled through the cluster. It is not created twice. Wait for it with "
        f"BatchJobSensor(job={{'service': {ref.service!r}, 'id': {ref.id!r}, 'conn_id': {ref.conn_id!r}}}), or stop it "
        "there and clear the task.",
        code=NAME_TAKEN,
    )


def _quoted(part: object) -> str:
    return quote(str(part), safe="")
