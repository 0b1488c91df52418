"""SageMaker's operations on models and transform jobs."""

from __future__ import annotations

import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import orjson
from botocore.exceptions import BotoCoreError, ClientError

from overnight.errors import SpecError
from overnight.sandbox.sagemaker import objects
from overnight.sandbox.sagemaker.container import (
    CSV,
    DIMENSIONS,
    JSON,
    JSON_LINES,
    ContainerError,
    get_dimensions,
    invoke,
)
from overnight.sandbox.sagemaker.errors import AwsError, in_use, internal, invalid
from overnight.sandbox.sagemaker.faults import Draws
from overnight.sandbox.sagemaker.settings import Settings
from overnight.sandbox.sagemaker.shapes import check_request
from overnight.sandbox.sagemaker.store import JobRecord, ModelRecord, Store
from overnight.sandbox.sagemaker.transform import Recipe
from overnight.services.sagemaker.spec import DEFAULT_MAX_PAYLOAD_MB, MAX_PAYLOAD_MB, media

_DEFAULT_PAGE = 10
Request = Mapping[str, Any]


@dataclass
class Api:
    """
    One account. Each operation takes its region and its request, and returns its answer.

    :param s3: Where it is looked whether there is any input.
    """

    settings: Settings
    store: Store
    draws: Draws
    s3: objects.Objects
    _creating: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def call(self, operation: str, region: str, body: Any) -> dict[str, Any]:
        """
        Carry out one call.

        :raises AwsError: it is refused.
        """
        operations: dict[str, Callable[[str, Request], dict[str, Any]]] = {
            "AddTags": self._add_tags,
            "CreateModel": self._create_model,
            "CreateTransformJob": self._create_job,
            "DeleteModel": self._delete_model,
            "DescribeModel": self._describe_model,
            "DescribeTransformJob": self._describe_job,
            "ListModels": self._list_models,
            "ListTags": self._list_tags,
            "ListTransformJobs": self._list_jobs,
            "StopTransformJob": self._stop_job,
        }
        if operation not in operations:
            raise AwsError("UnknownOperationException", f"This emulator has no {operation or 'such operation'}.")
        return operations[operation](region, check_request(operation, body))

    def invoke(self, region: str, name: str, payload: bytes, content_type: str | None, accept: str | None) -> bytes:
        """
        Answer one request to an endpoint: every model has one of its name.

        :raises AwsError: there is none, or its container does not answer 200.
        """
        model = self._model(region, name)
        if model is None:
            raise invalid(f"Endpoint {name} of account {self.settings.account} not found.")
        try:
            return invoke(payload, content_type, accept, get_dimensions(model.environment))
        except ContainerError as error:
            message = f'Received client error ({error.status}) from primary with message "{error}".'
            raise AwsError("ModelError", message, status=424) from error

    def _create_model(self, region: str, request: Request) -> dict[str, Any]:
        name = request["ModelName"]
        if not request.get("PrimaryContainer") and not request.get("Containers"):
            raise invalid("You must provide either PrimaryContainer or Containers.")
        arn = self._arn(region, "model", name)
        kept = {key: value for key, value in request.items() if key != "Tags"}
        if not self.store.add_model(ModelRecord(arn=arn, name=name, request=kept, created_at=time.time())):
            raise invalid(f'Cannot create already existing model "{arn}".')
        self.store.tag(arn, request.get("Tags", []))
        return {"ModelArn": arn}

    def _describe_model(self, region: str, request: Request) -> dict[str, Any]:
        arn = self._arn(region, "model", request["ModelName"])
        model = self._model(region, request["ModelName"])
        if model is None:
            raise invalid(f'Could not find model "{arn}".')
        return {**model.request, "ModelArn": arn, "CreationTime": model.created_at}

    def _delete_model(self, region: str, request: Request) -> dict[str, Any]:
        arn = self._arn(region, "model", request["ModelName"])
        if not self.store.delete_model(arn):
            raise invalid(f'Could not find model "{arn}".')
        return {}

    def _list_models(self, region: str, request: Request) -> dict[str, Any]:
        for name in self.settings.models:
            self._model(region, name)
        shown = [
            {"ModelName": model.name, "ModelArn": model.arn, "CreationTime": model.created_at}
            for model in self.store.models()
            if f":{region}:" in model.arn
        ]
        return _page("Models", _chosen(shown, request, "ModelName"), request, "ModelName")

    def _create_job(self, region: str, request: Request) -> dict[str, Any]:
        name, model = request["TransformJobName"], request["ModelName"]
        arn = self._arn(region, "transform-job", name)
        if self.store.job(arn) is not None:
            raise in_use(arn)
        if self._model(region, model) is None:
            raise invalid(f'Could not find model "{self._arn(region, "model", model)}".')
        _check_combination(request)
        self._check_input(region, request["TransformInput"]["DataSource"]["S3DataSource"])
        now = time.time()
        kept = {key: value for key, value in request.items() if key != "Tags"}
        record = JobRecord(
            arn=arn, name=name, region=region, request=kept, created_at=now, modified_at=now, fate=self.draws.fate()
        )
        # Calls come in several threads; two of them must not both get the last instance.
        with self._creating:
            self._check_quota(request["TransformResources"])
            if not self.store.add_job(record):
                raise in_use(arn)
        self.store.tag(arn, request.get("Tags", []))
        return {"TransformJobArn": arn}

    def _describe_job(self, region: str, request: Request) -> dict[str, Any]:
        name = request["TransformJobName"]
        job = self.store.job(self._arn(region, "transform-job", name))
        if job is None:
            raise invalid(f"Could not find requested job with name: {name}")
        return job.description()

    def _stop_job(self, region: str, request: Request) -> dict[str, Any]:
        name = request["TransformJobName"]
        arn = self._arn(region, "transform-job", name)
        if self.store.job(arn) is None:
            raise AwsError("ResourceNotFound", f"Could not find job to update with name: {name}")
        with self.store.change(arn) as job:
            if job.status != "InProgress":
                raise invalid(f"The request was rejected because the transform job is in status {job.status}.")
            job.status = "Stopping"
            job.stopping_at = time.time()
        return {}

    def _list_jobs(self, region: str, request: Request) -> dict[str, Any]:
        shown = [job.summary() for job in self.store.jobs() if job.region == region]
        status = request.get("StatusEquals")
        chosen = [
            item for item in _chosen(shown, request, "TransformJobName") if status in (None, item["TransformJobStatus"])
        ]
        return _page("TransformJobSummaries", chosen, request, "TransformJobName")

    def _add_tags(self, _: str, request: Request) -> dict[str, Any]:
        self._check_resource(request["ResourceArn"])
        self.store.tag(request["ResourceArn"], request["Tags"])
        return {"Tags": request["Tags"]}

    def _list_tags(self, _: str, request: Request) -> dict[str, Any]:
        self._check_resource(request["ResourceArn"])
        return {"Tags": self.store.tags(request["ResourceArn"])}

    def _arn(self, region: str, kind: str, name: str) -> str:
        # Names are unique whatever their case.
        return f"arn:aws:sagemaker:{region}:{self.settings.account}:{kind}/{name.lower()}"

    def _model(self, region: str, name: str) -> ModelRecord | None:
        arn = self._arn(region, "model", name)
        model = self.store.model(arn)
        if model is None and name in self.settings.models:
            environment = {DIMENSIONS: str(self.settings.models[name])}
            container = {"Image": "overnight/sandbox-embedding:latest", "Environment": environment}
            request = {"ModelName": name, "PrimaryContainer": container}
            model = ModelRecord(arn=arn, name=name, request=request, created_at=time.time())
            self.store.add_model(model)
        return model

    def _check_resource(self, arn: str) -> None:
        if self.store.job(arn) is None and self.store.model(arn) is None:
            raise invalid(f"Could not find resource: {arn}")

    def _check_quota(self, resources: Request) -> None:
        kind, wanted, limit = resources["InstanceType"], resources["InstanceCount"], self.settings.limits.instances
        used = sum(
            job.request["TransformResources"]["InstanceCount"]
            for job in self.store.jobs(unfinished=True)
            if job.request["TransformResources"]["InstanceType"] == kind
        )
        if used + wanted > limit:
            raise AwsError(
                "ResourceLimitExceeded",
                f"The account-level service limit '{kind} for transform job usage' is {limit} Instances, with current "
                f"utilization of {used} Instances and a request delta of {wanted} Instances. Please use AWS Service "
                "Quotas to request an increase for this quota. If AWS Service Quotas is not available, contact AWS "
                "support to request an increase for this quota.",
            )

    def _check_input(self, region: str, source: Request) -> None:
        kind, uri = source["S3DataType"], source["S3Uri"]
        if kind not in ("S3Prefix", "ManifestFile"):
            raise invalid(f"S3DataType {kind} is not supported for transform jobs.")
        try:
            _, found = objects.find(self.s3, kind, uri)
        except (SpecError, ClientError):
            found = []
        except BotoCoreError as error:
            raise internal() from error
        if not found:
            raise invalid(
                f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
                f"exists in the selected region ({region}), that objects exist under that S3 prefix, and that the role "
                f'"arn:aws:iam::{self.settings.account}:role/sandbox" has "s3:ListBucket" permissions on bucket '
                f'"{uri.removeprefix("s3://").partition("/")[0]}".'
            )


def _check_combination(request: Request) -> None:
    """Refuse what the real service refuses, and what this one cannot do."""
    source, target = request["TransformInput"], request["TransformOutput"]
    split = source.get("SplitType", "None")
    if split not in ("None", "Line"):
        raise invalid(f"This emulator splits by Line only; SplitType {split} is not emulated.")
    if request.get("BatchStrategy") == "MultiRecord" and split == "None":
        raise invalid("BatchStrategy MultiRecord requires a SplitType other than None.")
    if request["TransformResources"]["InstanceCount"] > 100:
        raise invalid("InstanceCount cannot be greater than 100.")
    payload = request.get("MaxPayloadInMB", DEFAULT_MAX_PAYLOAD_MB)
    if payload > MAX_PAYLOAD_MB:
        raise invalid(f"MaxPayloadInMB cannot be greater than {MAX_PAYLOAD_MB} MB.")
    if request.get("MaxConcurrentTransforms", 0) * payload > MAX_PAYLOAD_MB:
        raise invalid(f"MaxConcurrentTransforms * MaxPayloadInMB cannot exceed {MAX_PAYLOAD_MB} MB.")
    try:
        recipe = Recipe.of(request)
    except SpecError as error:
        raise invalid(f"Invalid JSONPath in DataProcessing: {error}") from error
    families = {media(kind) for kind in (source.get("ContentType"), target.get("Accept")) if kind is not None}
    if recipe.processes and (not families or not families <= {CSV, JSON, JSON_LINES}):
        raise invalid(
            "DataProcessing is only supported for the content types text/csv, application/json and "
            "application/jsonlines."
        )


def _chosen(shown: Iterable[dict[str, Any]], request: Request, name: str) -> list[dict[str, Any]]:
    part = request.get("NameContains", "").lower()
    bounds = {
        "CreationTimeAfter": lambda item, bound: item["CreationTime"] > bound,
        "CreationTimeBefore": lambda item, bound: item["CreationTime"] < bound,
        "LastModifiedTimeAfter": lambda item, bound: item["LastModifiedTime"] > bound,
        "LastModifiedTimeBefore": lambda item, bound: item["LastModifiedTime"] < bound,
    }
    tests = [partial(test, bound=_seconds(request[field])) for field, test in bounds.items() if field in request]
    return [item for item in shown if part in item[name].lower() and all(test(item) for test in tests)]


def _seconds(value: Any) -> float:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            raise AwsError("SerializationException", f"{value} is not a timestamp.") from None
    return float(value)


def _page(field: str, items: list[dict[str, Any]], request: Request, name: str) -> dict[str, Any]:
    fields = {"Name": name, "CreationTime": "CreationTime", "Status": "TransformJobStatus"}
    key = fields[request.get("SortBy", "CreationTime")]
    items = sorted(items, key=lambda item: item[key], reverse=request.get("SortOrder", "Descending") == "Descending")
    limit = request.get("MaxResults", _DEFAULT_PAGE)
    # A page goes on behind the last name it showed, whatever was created meanwhile.
    start = 0
    if "NextToken" in request:
        last = _read_token(request["NextToken"])
        start = next((place for place, item in enumerate(items, 1) if item[name] == last), len(items))
    shown = items[start : start + limit]
    answer: dict[str, Any] = {field: shown}
    if start + limit < len(items):
        answer["NextToken"] = urlsafe_b64encode(orjson.dumps({"after": shown[-1][name]})).decode()
    return answer


def _read_token(token: str) -> str:
    try:
        return str(orjson.loads(urlsafe_b64decode(token.encode()))["after"])
    except (ValueError, KeyError, TypeError):
        raise invalid("The pagination token is invalid.") from None
