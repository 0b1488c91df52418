"""Lines that failed for a reason that passes go out again; the results of all rounds are one job's."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from overnight.errors import JobLostError
from overnight.jobs import ResultManifest
from overnight.operators.openai import OpenAIBatchOperator
from overnight.services.openai.files import FILE_SCHEME
from overnight.services.openai.input import RequestTemplate, build

from .conftest import Bench

COUNT = 400
PERMANENT = frozenset(range(0, COUNT, 100))
PASSING = r"^d\d*[37]$"
MISSING = r"^d\d*[05]1$"


class State(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = value


class Task:
    """One task instance over several tries."""

    def __init__(self, uri: str, run_id: str, **facts: Any) -> None:
        self.facts = {"input_uri": uri, "resubmit": 2, "allowed_failures": "2%", "deferrable": True} | facts
        self.run_id = run_id
        self.state = State()
        self.pushed: dict[str, Any] = {}
        self.max_tries = 0

    def build(self) -> OpenAIBatchOperator:
        return OpenAIBatchOperator(
            task_id="embed", endpoint="/v1/embeddings", aws_conn_id=None, poll_interval=0.1, **self.facts
        )

    @property
    def context(self) -> Any:
        ti = SimpleNamespace(
            dag_id="d",
            task_id="embed",
            run_id=self.run_id,
            map_index=0,
            max_tries=self.max_tries,
            xcom_push=lambda *, key, value: self.pushed.update({key: value}),
        )
        return {"ti": ti, "dag_run": SimpleNamespace(start_date=datetime.now(UTC)), "task_state_store": self.state}

    def run(self, on_trigger: Callable[[int], object] = lambda _: None, stop_at: int | None = None) -> Any:
        """Go on through all deferrals; ``None`` when the worker died at the deferral ``stop_at``."""
        step: Callable[[], Any] = lambda: self.build().execute(self.context)  # noqa: E731
        for number in range(50):
            try:
                return step()
            except TaskDeferred as deferred:
                trigger = deferred.trigger
            if number == stop_at:
                return None
            event = asyncio.run(_collect(trigger))
            on_trigger(number)
            step = lambda event=event: self.build().execute_complete(self.context, event)  # noqa: E731
        raise AssertionError("it defers for ever")


async def _collect(trigger: Any) -> Any:
    (event,) = [event async for event in trigger.run()]
    return event.payload


def read_lines(outcome: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    manifest = ResultManifest.model_validate(outcome["results"])
    uris = manifest.uris(kind)
    assert not any(uri.startswith(FILE_SCHEME) for uri in uris)
    return [orjson.loads(line) for uri in uris for line in Path(uri).read_bytes().splitlines()]


@pytest.fixture
def uri(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> str:
    """Documents of which some fail for good, some once, and some are in no file the first time."""
    connection = {"conn_type": "overnight_openai", "host": bench.url, "password": "sandbox"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))
    documents = ({"id": f"d{n}", "text": "long " * (200 if n in PERMANENT else 1)} for n in range(COUNT))
    template = RequestTemplate.embeddings("text-embedding-3-small", dimensions=8)
    bench.set("limits", input_tokens=100)
    bench.set("pace", validating=0.05)
    bench.set(
        "faults",
        lines_failed={"share": 1.0, "custom_id": PASSING},
        lines_missing={"share": 1.0, "custom_id": MISSING},
    )
    return build(documents, template, str(bench.folder / "in")).parts[0].uri


def batches(bench: Bench) -> int:
    return len(bench.requests("POST", "/v1/batches"))


def test_what_passes_is_done_and_what_does_not_is_named_once(bench: Bench, uri: str, tmp_path: Path) -> None:
    outcome = Task(uri, str(tmp_path)).run(lambda number: bench.set("faults") if number == 0 else None)
    assert outcome["status"]["state"] == "partial"
    assert outcome["status"]["counts"] == {"total": COUNT, "succeeded": COUNT - 4, "failed": 4}
    succeeded = [line["custom_id"] for line in read_lines(outcome, "output")]
    permanent = {f"d{n}" for n in PERMANENT}
    assert sorted(succeeded) == sorted({f"d{n}" for n in range(COUNT)} - permanent)
    errors = read_lines(outcome, "error")
    assert sorted(line["custom_id"] for line in errors) == sorted(permanent)
    assert all(line["error"]["code"] and line["error"]["message"] for line in errors)
    # Nothing was left after the first further round.
    assert batches(bench) == 2
    rounds = outcome["results"]["detail"]["rounds"]
    assert rounds[0]["submitted"] - rounds[0]["succeeded"] - 4 == rounds[1]["submitted"] == rounds[1]["succeeded"] > 80


def test_only_what_is_left_of_an_expired_batch_is_paid_for_again(bench: Bench, uri: str, tmp_path: Path) -> None:
    bench.set("faults", batch_expired=1.0)
    outcome = Task(uri, str(tmp_path), resubmit=None, allowed_failures="1%").run(
        lambda number: bench.set("faults") if number == 0 else None
    )
    assert outcome["status"]["counts"] == {"total": COUNT, "succeeded": COUNT - 4, "failed": 4}
    first, second = outcome["results"]["detail"]["rounds"]
    assert 0 < first["succeeded"] < COUNT
    assert second["submitted"] <= COUNT - first["succeeded"]
    assert batches(bench) == 2


def test_lines_that_failed_go_out_again_only_when_that_is_asked_for(bench: Bench, uri: str, tmp_path: Path) -> None:
    outcome = Task(uri, str(tmp_path), resubmit=None, allowed_failures="50%").run()
    assert outcome["status"]["state"] == "partial"
    assert batches(bench) == 1


def test_what_is_left_after_the_last_round_is_named_with_its_code(bench: Bench, uri: str, tmp_path: Path) -> None:
    outcome = Task(uri, str(tmp_path), resubmit="1", allowed_failures="50%").run()
    assert batches(bench) == 2
    failed = outcome["status"]["counts"]["failed"]
    errors = read_lines(outcome, "error")
    ids = [line["custom_id"] for line in errors]
    assert len(ids) == len(set(ids))
    # Missing ones are in no file; the load finds out by the join.
    assert len(ids) == failed - sum(re.match(MISSING, f"d{n}") is not None for n in range(COUNT))
    assert len(read_lines(outcome, "output")) == COUNT - failed


def test_a_worker_that_dies_in_any_round_costs_nothing(bench: Bench, uri: str, tmp_path: Path) -> None:
    task = Task(uri, str(tmp_path))
    assert task.run(lambda number: bench.set("faults") if number == 0 else None, stop_at=1) is None
    assert batches(bench) == 2
    # A retry finds the first batch, and then the one of the further round, by record or by name.
    for key in [key for key in task.state if key != "overnight_job"]:
        del task.state[key]
    outcome = task.run()
    assert batches(bench) == 2
    assert outcome["status"]["counts"]["succeeded"] == COUNT - 4
    # So does a worker that died when it was about to succeed.
    assert task.run() == outcome
    assert batches(bench) == 2


def test_a_lost_further_round_says_that_there_were_rounds_before_it(bench: Bench, uri: str, tmp_path: Path) -> None:
    task = Task(uri, str(tmp_path))
    with pytest.raises(JobLostError):
        task.run(lambda number: bench.set("faults", batch_failed=1.0) if number == 0 else None)
    assert batches(bench) == 2
    outcome = task.pushed["return_value"]
    assert (outcome["status"]["state"], outcome["former_rounds"]) == ("failed", 1)


def test_clearing_the_task_begins_with_new_rounds(bench: Bench, uri: str, tmp_path: Path) -> None:
    task = Task(uri, str(tmp_path))
    task.run(lambda number: bench.set("faults") if number == 0 else None)
    task.max_tries += 1
    task.run()
    # All lines that can be done are done in the first round now.
    assert batches(bench) == 3


def test_without_anything_that_passes_there_is_one_round(bench: Bench, uri: str, tmp_path: Path) -> None:
    bench.set("faults")
    outcome = Task(uri, str(tmp_path)).run()
    assert batches(bench) == 1
    assert outcome["results"]["files"][0]["uri"].startswith(FILE_SCHEME)


def test_in_a_worker_that_waits_it_is_the_same(bench: Bench, uri: str, tmp_path: Path) -> None:
    outcome = Task(uri, str(tmp_path), deferrable=False, allowed_failures="50%").run()
    assert batches(bench) == 3
    assert len(outcome["results"]["detail"]["rounds"]) == 3


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"resubmit": "many"}, "resubmit"),
        ({"resubmit": -1}, "resubmit"),
        ({"wait_for_completion": False}, "resubmit"),
        ({"repair": True}, "repair sends requests again"),
        ({"output_schema": SCHEMA}, "take no schema"),
    ],
)
def test_rounds_that_cannot_be_are_refused_before_anything_is_submitted(
    bench: Bench, uri: str, tmp_path: Path, facts: dict[str, Any], why: str
) -> None:
    with pytest.raises(AirflowFailException, match=why):
        Task(uri, str(tmp_path), **facts).run()
    assert batches(bench) == 0
