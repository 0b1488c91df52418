"""The worker behind the API: it moves jobs on, one input at a time, and can be killed between any two."""

from __future__ import annotations

import logging
import re
import time
from functools import partial

from botocore.exceptions import BotoCoreError, ClientError

from overnight.errors import SpecError
from overnight.sandbox.emulator.worker import Worker
from overnight.sandbox.sagemaker import objects
from overnight.sandbox.sagemaker.container import ContainerError, get_dimensions, invoke
from overnight.sandbox.sagemaker.faults import Draws
from overnight.sandbox.sagemaker.settings import Settings
from overnight.sandbox.sagemaker.store import JobRecord, State, Store
from overnight.sandbox.sagemaker.transform import Recipe, RecordError, transform

log = logging.getLogger(__name__)

_MAX_LOG = 200


class Runner(Worker):
    """
    A thread that carries out jobs, an input of each in turn.

    :param settings: Read anew for every step, so that they can be changed meanwhile.
    """

    def __init__(self, settings: Settings, store: Store, draws: Draws, s3: objects.Objects) -> None:
        super().__init__("transform-jobs")
        self._settings = settings
        self._store = store
        self._draws = draws
        self._s3 = s3

    def _turn(self) -> bool:
        busy = False
        for job in self._store.jobs(unfinished=True):
            if self._stopping.is_set():
                break
            try:
                busy |= self._step(job)
            except BotoCoreError as error:
                log.warning("S3 does not answer; %s waits: %s", job.name, error)
            except Exception:
                log.exception("%s cannot be carried on.", job.name)
                self._end(job, "Failed", "InternalServerError: We encountered an internal error. Please try again.")
        return busy

    def _step(self, job: JobRecord) -> bool:
        """Move a job on; say whether there is more to do at once."""
        if job.status == "Stopping":
            if time.time() - (job.stopping_at or 0.0) >= self._settings.pace.stopping:
                self._end(job, "Stopped")
            return False
        if job.started_at is None:
            if time.time() - job.created_at < self._settings.pace.starting:
                return False
            self._begin(job)
            return True
        half = len(job.inputs) // 2
        if job.fate == "lost" and job.position >= half:
            self._end(job, "Failed", "InternalServerError: We encountered an internal error. Please try again.")
            return False
        if job.fate == "stuck" and job.position >= half:
            return False
        if job.position < len(job.inputs):
            self._stopping.wait(self._settings.pace.per_file)
            self._do(job, job.inputs[job.position])
            return True
        reason = f"{self._fault(job)}: See job logs for more information" if job.refused else None
        self._end(job, "Failed" if job.refused else "Completed", reason)
        return False

    def _begin(self, job: JobRecord) -> None:
        source = job.request["TransformInput"]["DataSource"]["S3DataSource"]
        try:
            prefix, inputs = objects.find(self._s3, source["S3DataType"], source["S3Uri"])
        except (SpecError, ClientError) as error:
            self._end(job, "Failed", f"ClientError: {error}")
            return
        with self._store.change(job.arn) as record:
            record.started_at = time.time()
            record.prefix = prefix
            record.inputs = inputs

    def _do(self, job: JobRecord, uri: str) -> None:
        try:
            output = self._transform(job, uri)
        except RecordError as error:
            self._refuse(job, uri, error)
            return
        except ClientError as error:
            self._refuse(job, uri, RecordError(str(error)))
            return
        target = objects.get_output_uri(job.prefix, uri, job.request["TransformOutput"]["S3OutputPath"])
        # Once it is stopping, a job writes nothing more.
        if (now := self._store.job(job.arn)) is not None and now.status == "InProgress":
            objects.write(self._s3, target, output)
            with self._store.change(job.arn) as record:
                record.position += 1

    def _transform(self, job: JobRecord, uri: str) -> bytes:
        pattern = self._settings.faults.files_refused.key
        if self._draws.refuses(uri) and re.search(pattern, uri):
            raise RecordError("Bad HTTP status received from algorithm: 400")
        try:
            dimensions = get_dimensions(self._environment(job))
        except ContainerError as error:
            raise RecordError(str(error), "AlgorithmError") from error
        recipe = Recipe.of(job.request)
        ask = partial(invoke, content_type=recipe.content_type, accept=recipe.accept, dimensions=dimensions)
        return transform(objects.read(self._s3, uri), recipe, ask)

    def _environment(self, job: JobRecord) -> dict[str, str]:
        account = job.arn.partition(":transform-job/")[0]
        model = self._store.model(f"{account}:model/{job.request['ModelName'].lower()}")
        return {**(model.environment if model is not None else {}), **job.request.get("Environment", {})}

    def _refuse(self, job: JobRecord, uri: str, error: RecordError) -> None:
        with self._store.change(job.arn) as record:
            if record.status == "InProgress":
                record.refused.append(uri)
                record.position += 1
                record.log = [*record.log, f"{error.fault}: {uri.removeprefix('s3://')}: {error}"][-_MAX_LOG:]

    def _end(self, job: JobRecord, status: State, reason: str | None = None) -> None:
        with self._store.change(job.arn) as record:
            if record.status == "Stopping" and status != "Stopped":
                return  # stopped meanwhile: the next step sees to that
            record.status = status
            record.failure_reason = reason
            record.ended_at = time.time()

    @staticmethod
    def _fault(job: JobRecord) -> str:
        return "AlgorithmError" if any(line.startswith("AlgorithmError") for line in job.log) else "ClientError"
