"""What each service lists as unfinished, whoever submitted it, and which of its refusals mean that a job waits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from overnight.errors import NotFoundError, RateLimitedError, RequestRefusedError, ServiceError, UnavailableError
from overnight.jobs import JobError, JobKey, JobState, JobStatus
from overnight.jobs.queue import NOTHING, Amount, Budget, ListedJob
from overnight.services.azure_ingestion.connection import AzureIngestionConnection
from overnight.services.azure_ingestion.service import AzureIngestionService
from overnight.services.llamacloud.queue import OLDEST
from overnight.services.llamacloud.service import LlamaCloudService
from overnight.services.llamacloud.spec import LlamaCloudBatchSpec, part_name
from overnight.services.ml_commons.queue import find_refusal as find_ml_refusal
from overnight.services.ml_commons.queue import list_queue as list_ml_queue
from overnight.services.sagemaker.causes import explain
from overnight.services.sagemaker.queue import find_refusal as find_sagemaker_refusal
from overnight.services.sagemaker.service import SageMakerTransformService
from overnight.services.sagemaker.spec import SageMakerTransformSpec
from overnight.transport.aws import to_service_error
from overnight.transport.aws_call import SAGEMAKER, AwsCall
from overnight.transport.flow import Flow, Gather

KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
OVER = JobKey(dag_id="d", task_id="t", run_id="another", fingerprint="0" * 16)
NOW = datetime.now(UTC)
CALL = AwsCall(SAGEMAKER, "CreateTransformJob")


def run(flow: Flow[Any], answer: Callable[[Any], Any], calls: list[Any] | None = None) -> Any:
    """Drive a flow with a function from calls to answers."""
    seen = calls if calls is not None else []

    def respond(call: Any) -> Any:
        seen.append(call)
        return answer(call)

    reply: Any = None
    try:
        while True:
            call = flow.send(reply)
            reply = [respond(one) for one in call.calls] if isinstance(call, Gather) else respond(call)
    except StopIteration as ended:
        return ended.value


class TestSageMaker:
    JOBS: dict[str, tuple[str, str, int | None]] = {
        KEY.name: ("InProgress", "ml.m5.large", 2),
        "other-peoples": ("InProgress", "ml.m5.large", 3),
        "stopping": ("Stopping", "ml.m5.large", None),
        "another-type": ("InProgress", "ml.g5.xlarge", 8),
        "gone": ("InProgress", "", None),
    }

    def answer(self, call: AwsCall) -> Any:
        if call.operation == "ListTransformJobs" and "NameContains" in call.arguments:
            assert call.arguments["CreationTimeAfter"] < NOW
            recent = [(KEY.name, "InProgress"), (OVER.name, "Completed"), ("overnight-of-others", "Completed")]
            items = [
                {"TransformJobName": name, "TransformJobStatus": word, "CreationTime": NOW} for name, word in recent
            ]
            return {"TransformJobSummaries": items}
        if call.operation == "ListTransformJobs":
            assert call.arguments["StatusEquals"] in ("InProgress", "Stopping")
            names = [name for name, job in self.JOBS.items() if job[0] == call.arguments["StatusEquals"]]
            # Two pages.
            start = int(call.arguments.get("NextToken", 0))
            items = [
                {"TransformJobName": name, "TransformJobStatus": self.JOBS[name][0], "CreationTime": NOW}
                for name in names[start : start + 2]
            ]
            more = {"NextToken": str(start + 2)} if len(names) > start + 2 else {}
            return {"TransformJobSummaries": items, **more}
        name = call.arguments["TransformJobName"]
        if name == "gone":
            return NotFoundError("it ended")
        _, kind, count = self.JOBS[name]
        resources = {"InstanceType": kind} | ({"InstanceCount": count} if count else {})
        return {"TransformJobName": name, "TransformResources": resources}

    def test_instances_of_all_jobs_of_a_type_count(self) -> None:
        service = SageMakerTransformService("aws_default")
        listed = run(service.list_queue("ml.m5.large"), self.answer)
        assert listed == [
            ListedJob(KEY.name, Amount(instances=2), KEY.name),
            ListedJob("other-peoples", Amount(instances=3)),
            ListedJob("stopping", Amount(instances=1)),
            # It ended between two looks; what was reserved for it is free.
            ListedJob(OVER.name, NOTHING, OVER.name),
        ]

    def test_each_job_is_described_once(self) -> None:
        service = SageMakerTransformService("aws_default")
        calls: list[Any] = []
        for _ in range(2):
            run(service.list_queue("ml.m5.large"), self.answer, calls)
        described = [call.arguments["TransformJobName"] for call in calls if call.operation == "DescribeTransformJob"]
        # What has ended meanwhile is asked for again while the list has it.
        assert sorted(described) == sorted([*self.JOBS, "gone"])

    def test_a_description_that_fails_is_no_empty_queue(self) -> None:
        def answer(call: AwsCall) -> Any:
            return self.answer(call) if call.operation == "ListTransformJobs" else UnavailableError("503")

        with pytest.raises(UnavailableError):
            run(SageMakerTransformService("aws_default").list_queue("ml.m5.large"), answer)

    def test_a_job_takes_instances_of_its_type(self) -> None:
        spec = SageMakerTransformSpec(
            model_name="m",
            input_uri="s3://b/in/",
            output_uri="s3://b/out/",
            instance_type="ml.m5.large",
            instance_count=4,
        )
        service = SageMakerTransformService("aws_default")
        assert service.get_queue(spec) == ("ml.m5.large", Amount(instances=4))

    @pytest.mark.parametrize(
        ("code", "message", "limit"),
        [
            (
                "ResourceLimitExceeded",
                "The account-level service limit 'ml.m5.large for transform job usage' is 4 Instances, please wait.",
                Budget(instances=4),
            ),
            ("ThrottlingException", "Rate exceeded", Budget()),
            ("TooManyRequestsException", "Slow down.", Budget()),
        ],
    )
    def test_a_quota_that_is_used_up_and_a_throttle_wait(self, code: str, message: str, limit: Budget) -> None:
        refusal = find_sagemaker_refusal(refuse(code, message))
        assert refusal is not None
        assert refusal.limit == limit
        assert message in refusal.text

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("ValidationException", "Could not find model"),
            ("ResourceLimitExceeded", "The account-level service limit 'ml.p5.48xlarge' is 0 Instances"),
        ],
    )
    def test_what_no_waiting_mends_fails(self, code: str, message: str) -> None:
        assert find_sagemaker_refusal(refuse(code, message)) is None


def refuse(code: str, message: str) -> ServiceError:
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    return to_service_error(ClientError(answer, "CreateTransformJob"), CALL, explain)  # type: ignore[arg-type]


class TestMLCommons:
    def test_tasks_that_are_not_over_count_and_bear_the_name_of_their_remote_job(self) -> None:
        states = {"a": "CREATED", "b": "RUNNING", "c": "CANCELLING", "d": "COMPLETED", "e": "FAILED"}

        def answer(call: Any) -> Any:
            assert {"term": {"task_type": "BATCH_PREDICTION"}} in call.json["query"]["bool"]["filter"]
            hits = [{"_id": name, "_source": {"state": state}, "sort": [0]} for name, state in states.items()]
            return {"hits": {"hits": hits}}

        names = {"b": KEY.name, "c": "somebody's"}
        listed = run(list_ml_queue("BATCH_PREDICTION", lambda task: names.get(task["task_id"])), answer)
        assert listed == [
            ListedJob("a", Amount(), None, may_be_ours=True),
            ListedJob("b", Amount(), KEY.name),
            ListedJob("c", Amount(), None, may_be_ours=True),
            ListedJob("d", NOTHING, None, may_be_ours=True),
            ListedJob("e", NOTHING, None, may_be_ours=True),
        ]

    def test_the_clusters_limit_and_a_throttled_remote_service_wait(self) -> None:
        refusal = find_ml_refusal(RateLimitedError("Exceeded maximum limit for BATCH_PREDICT tasks.", retry_after=3.0))
        assert refusal is not None
        assert refusal.retry_after == 3.0
        assert find_ml_refusal(RequestRefusedError("no such model")) is None

    @pytest.mark.parametrize(("code", "waits"), [("token_limit_exceeded", True), ("model_not_found", False)])
    def test_a_batch_behind_the_connector_that_found_its_queue_full_waits(self, code: str, waits: bool) -> None:
        text = "Enqueued token limit reached for m. Limit: 3,000,000 enqueued tokens."
        status = JobStatus(state=JobState.FAILED, raw="failed", errors=(JobError(code=code, message=text),))
        refusal = find_ml_refusal(status)
        assert (refusal is not None) is waits
        if refusal is not None:
            assert refusal.limit == Budget(tokens=3_000_000)


class TestLlamaCloud:
    def test_other_peoples_batches_count_and_ours_bear_their_name(self) -> None:
        def batch(name: str, status: str, age: timedelta = timedelta(minutes=1)) -> dict[str, Any]:
            created = (NOW - age).isoformat()
            return {"id": name, "status": status, "source_directory_id": f"dir-{name}", "created_at": created}

        batches = [
            batch("ours", "RUNNING"),
            batch("over", "COMPLETED"),
            batch("theirs", "THROTTLED"),
            batch("old", "PENDING", timedelta(hours=9)),
        ]
        directories = [
            {"id": "dir-ours", "name": part_name(KEY, 1, 2)},
            {"id": "dir-over", "name": part_name(KEY, 2, 2)},
            {"id": "dir-theirs", "name": "invoices"},
        ]

        def answer(call: Any) -> Any:
            if call.path.endswith("batches"):
                since = datetime.fromisoformat(call.params["created_at_on_or_after"])
                assert timedelta() <= datetime.now(UTC) - OLDEST - since < timedelta(minutes=5)
                return {"items": batches, "next_page_token": None}
            return {"items": directories, "next_page_token": None}

        assert run(LlamaCloudService("llamacloud_default").list_queue(""), answer) == [
            ListedJob("ours", Amount(), KEY.name),
            ListedJob("over", NOTHING, KEY.name),
            ListedJob("theirs", Amount()),
            ListedJob("old", Amount()),
        ]

    @pytest.mark.parametrize(("files", "jobs"), [(None, 1), (1, 1), (1_000, 1), (1_001, 2)])
    def test_a_job_is_as_many_batches_as_its_files_need(self, files: int | None, jobs: int) -> None:
        spec = LlamaCloudBatchSpec(
            sources=("/a.pdf",), job_type="parse_v2", configuration_name="mine", files_count=files
        )
        assert LlamaCloudService("llamacloud_default").get_queue(spec) == ("", Amount(jobs=jobs, records=files or 1))

    def test_too_many_calls_wait(self) -> None:
        assert LlamaCloudService("llamacloud_default").find_refusal(RateLimitedError("429", retry_after=9)) is not None


class TestAzure:
    def test_jobs_that_are_not_over_count(self) -> None:
        account = AzureIngestionConnection(endpoint="https://x.openai.azure.com", api_key="k")
        jobs = [("theirs", "running"), (KEY.name, "notRunning"), ("done", "succeeded")]

        def answer(_: Any) -> Any:
            return {"value": [{"id": name, "status": status} for name, status in jobs]}

        listed = run(AzureIngestionService("conn", account).list_queue(""), answer)
        assert listed == [
            ListedJob("theirs", Amount()),
            ListedJob(KEY.name, Amount(), KEY.name),
            ListedJob("done", NOTHING),
        ]
