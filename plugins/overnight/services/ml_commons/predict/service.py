"""
Batch prediction of ML Commons: a model's connector starts a job at a remote service, and the cluster follows it.

API: https://docs.opensearch.org/latest/ml-commons-plugin/api/model-apis/batch-predict/.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

import orjson
from pydantic import JsonValue

from overnight.errors import RequestRefusedError, ServiceError, SpecError, UnavailableError, UnsupportedError
from overnight.jobs import FoundJob, JobKey, JobRecord, JobRef, JobStatus, ResultManifest, choose_found
from overnight.jobs.model import ListedOwnJob
from overnight.jobs.queue import ListedJob, QueueFull
from overnight.jobs.service import Service
from overnight.services.create import create_once
from overnight.services.ml_commons import queue
from overnight.services.ml_commons.answers import (
    ask,
    created_at,
    get_task,
    get_tasks,
    quote_answer,
    quote_part,
    read_task_id,
    task_path,
    tasks_since,
)
from overnight.services.ml_commons.causes import NAME_TAKEN, NO_ACTION, NO_HANDLER
from overnight.services.ml_commons.connection import ML
from overnight.services.ml_commons.predict.results import build_result_manifest
from overnight.services.ml_commons.predict.spec import MLCommonsPredictSpec
from overnight.services.ml_commons.status import get_remote, read_prediction
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall, Retry

NAME_TAG: Final = "overnight_name"
"""The key of a job's name in OpenAI's metadata; the same as the one of a batch that is submitted directly."""
IDENTITIES: Final = ("TransformJobName", "metadata", "jobName", "name")
"""Parameters that carry a job's name to the remote service, as SageMaker, OpenAI, Bedrock and Cohere call theirs."""
SERVICES: Final[Mapping[str, str]] = {"TransformJobName": "sagemaker", "metadata": "openai"}
"""The service of ours that such a parameter belongs to."""
UNIQUE: Final = frozenset({"TransformJobName", "jobName"})
"""Those whose names a service gives to one job only, so that "already exists" is said of the job."""

RemoteLookup = Callable[[JobKey, datetime], FoundJob | None]
"""Looks for a task instance's job at the remote service itself; blocking, so for workers only."""


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
            # A job of an earlier generation counts while it runs: it is billed, and nothing else would stop it.
            if (
                orphan is not None
                and not orphan.state.is_stopped
                and (orphan.generation >= key.generation or not orphan.state.is_terminal)
            ):
                raise _build_orphan_error(orphan.ref.service, orphan.ref.id, orphan.ref.conn_id)
        return found

    def submit(self, spec: MLCommonsPredictSpec, key: JobKey) -> Flow[JobRef]:
        """
        Start the job, its name passed through the connector.

        :raises SpecError: the connector has no parameter that a name could be passed in; a retry could not find the job
            and would pay for it again.
        """
        body = {"parameters": (yield from self._named(spec, key))}
        path = f"{ML}/models/{quote_part(spec.model_id)}/_batch_predict"
        identity = _get_identity(body["parameters"])

        def create() -> Flow[JobRef | None]:
            task_id = read_task_id((yield from ask(HttpCall("POST", path, json=body, retry=Retry.REJECTED))))
            return self.ref(task_id) if task_id is not None else None

        def find(since: datetime) -> Flow[FoundJob | None]:
            if identity is None:
                raise UnsupportedError("Its connector passes no name on to the remote service.")
            return (yield from self._listed(key, since))

        def is_taken(error: ServiceError) -> bool:
            return error.code == NAME_TAKEN and identity in UNIQUE

        try:
            return (yield from create_once(create, find, key, is_taken=is_taken))
        except ServiceError as error:
            if identity is None or not is_taken(error):
                raise
            # The name is an earlier try's job's, and the cluster has no task of it.
            raise _build_orphan_error(SERVICES.get(identity), key.name, None) from error

    def status(self, ref: JobRef) -> Flow[JobStatus]:
        """Have the cluster ask the remote service once."""
        return read_prediction((yield from get_task(ref.id)))

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        """Search the tasks; the cluster asks the remote services about them once a minute."""
        tasks = yield from get_tasks(wanted)
        return {task["task_id"]: read_prediction(task) for task in tasks}

    def list_queue(self, queue_name: str, /) -> Flow[Collection[ListedJob]]:
        """List the batch predictions that the cluster is at, whoever started them."""
        del queue_name
        return (yield from queue.list_queue("BATCH_PREDICTION", lambda task: _get_name(get_remote(task))))

    def list_own(self, since: datetime) -> Flow[Sequence[ListedOwnJob]]:
        """List the tasks whose remote job bears a name of ours, as the cluster knows them."""
        own = []
        for task in (yield from tasks_since("BATCH_PREDICTION", since)):
            name, ref = _get_name(get_remote(task)), self.ref(task["task_id"])
            if JobKey.parse_name(name) is not None:
                created, status = created_at(task, since), read_prediction(task)
                own.append(ListedOwnJob(ref=ref, name=name, created_at=created, status=status))
        return own

    def find_refusal(self, answer: ServiceError | JobStatus) -> QueueFull | None:
        """Say whether the cluster, or the service behind the connector, had no room."""
        return queue.find_refusal(answer)

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
        if refused is not None and refused.code == NO_ACTION:
            raise UnsupportedError(
                f"The connector of {ref.id}'s model has no action 'cancel_batch_predict', so the cluster cannot cancel "
                f"the job; it runs on at the remote service. Stop it there, or add the action. {refused}",
                code=NO_ACTION,
            )
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
        return build_result_manifest(ref, (yield from get_task(ref.id)))

    def _listed(self, key: JobKey, oldest: datetime) -> Flow[FoundJob | None]:
        found = []
        for task in (yield from tasks_since("BATCH_PREDICTION", oldest)):
            job = FoundJob.from_name(
                _get_name(get_remote(task)),
                key,
                ref=self.ref(task["task_id"]),
                created_at=created_at(task, oldest),
                state=read_prediction(task).state,
            )
            if job is not None:
                found.append(job)
        return choose_found(found, key)

    def _named(self, spec: MLCommonsPredictSpec, key: JobKey) -> Flow[dict[str, JsonValue]]:
        """Return the parameters with the job's name in the one that the connector passes on."""
        model = yield from self._read_object(f"{ML}/models/{quote_part(spec.model_id)}", "model")
        connector = model.get("connector")
        if not isinstance(connector, dict) and model.get("connector_id"):
            connector = yield from self._read_object(
                f"{ML}/connectors/{quote_part(model['connector_id'])}", "connector"
            )
        connector = connector if isinstance(connector, dict) else {}
        parameter = identity_parameter(connector)
        if parameter is None and spec.allow_unnamed:
            return dict(spec.parameters)
        if parameter is None:
            raise SpecError(
                f"The connector of the model {spec.model_id} passes none of {', '.join(IDENTITIES)} on to its service "
                "in the request_body of its action 'batch_predict'. A job without a name cannot be found again, and a "
                "retry would pay twice. Add the placeholder, as the blueprints in include/connectors have it, or set "
                "allow_unnamed=True."
            )
        parameters = dict(spec.parameters)
        if parameter != "metadata":
            if parameter in parameters:
                raise SpecError(f"Leave {parameter} out of the parameters: it is how a retry finds the job again.")
            return {**parameters, parameter: key.name}
        metadata = _metadata(parameters.get("metadata"), connector)
        return {**parameters, "metadata": {**metadata, NAME_TAG: key.name}}

    def _read_object(self, path: str, what: str) -> Flow[dict[str, Any]]:
        answer = yield from ask(HttpCall("GET", path))
        if not isinstance(answer, dict):
            raise UnavailableError(f"OpenSearch's answer about a {what} is not one: {quote_answer(answer)}.")
        return answer


def identity_parameter(connector: Mapping[str, Any]) -> str | None:
    """Return the parameter in which a connector passes a job's name on to its service."""
    actions = connector.get("actions")
    for action in actions if isinstance(actions, list) else ():
        if isinstance(action, dict) and str(action.get("action_type")).lower() == "batch_predict":
            body = str(action.get("request_body"))
            return next((name for name in IDENTITIES if f"${{parameters.{name}}}" in body), None)
    return None


def _metadata(given: JsonValue, connector: Mapping[str, Any]) -> dict[str, JsonValue]:
    defaults = connector.get("parameters")
    value = given if given is not None else defaults.get("metadata") if isinstance(defaults, dict) else None
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


def _get_identity(parameters: Mapping[str, Any]) -> str | None:
    return next((name for name in IDENTITIES if name in parameters), None)


def _build_orphan_error(service: str | None, job_id: str, conn_id: str | None) -> RequestRefusedError:
    """
    Return the refusal to create a job that is at the remote service already.

    :param service: Ours that can wait for it; ``None`` where there is none.
    :param conn_id: Its connection, where that is known.
    """
    wait = "Wait for its end"
    if service is not None:
        job = {"service": service, "id": job_id, "conn_id": conn_id or "<a connection to it>"}
        wait = f"Wait for it with BatchJobSensor(job={job})"
    return RequestRefusedError(
        f"An earlier try created the job {job_id} at the remote service{f' ({service})' if service else ''}, and the "
        "cluster has no task of it, so it can neither be followed nor cancelled through the cluster. It is not created "
        f"twice. {wait}, or stop it there and clear the task.",
        code=NAME_TAKEN,
    )
