"""The DAG runs of a soak: how each is triggered, what is wanted of it, and how an operator sees it through."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final
from uuid import uuid4

import httpx
import orjson

from overnight.jobs import JobKey
from overnight.sandbox.corpus import documents, files
from overnight.sandbox.documents import parse
from system.bench.store import Store, client, indexed, lines
from system.console import Console, Run
from system.pipeline import BUCKET

from .checks import (
    Violation,
    WantedJob,
    check_chunks,
    check_documents,
    check_empty,
    check_report,
)
from .kills import Note
from .plan import FAILED_LINES, MISSING_LINES, PIPELINES, PlannedRun
from .servers import BLOBS, Servers

CLEARS: Final = 10
"""How often an operator clears the failed tasks of a run; one that still fails then is a violation."""
CORPUS: Final = 600
FILES: Final = 24
TRANSFORMING: Final = frozenset({"soak_transform", "soak_predict"})
"""Pipelines whose model is SageMaker's; the others embed with OpenAI."""

Document = Mapping[str, str]


@dataclass
class SoakRun:
    """
    One DAG run.

    :param documents: By id, the texts of the documents that went in; empty where files did.
    :param files: The addresses of the files that went in.
    """

    planned: PlannedRun
    run: Run
    jobs: tuple[WantedJob, ...]
    documents: Mapping[str, str] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    clears: int = 0
    state: str = "queued"

    @property
    def name(self) -> str:
        return f"{self.planned.dag_id} {self.planned.number}"

    @property
    def index(self) -> str:
        return get_index(self.planned)


def get_index(planned: PlannedRun) -> str:
    return f"soak-{planned.number}"


class PatientConsole(Console):
    """The REST API of an Airflow whose server may be too busy for an answer."""

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> Run:
        """Trigger a run whose id is ours, so that one whose answer was lost is not triggered twice."""
        run = Run(self, dag_id, f"soak_{uuid4().hex}")
        body = {"logical_date": None, "conf": dict(conf or {}), "dag_run_id": run.run_id}
        try:
            self.post(f"/dags/{dag_id}/dagRuns", body)
        except AssertionError as error:
            if ": 409 " not in str(error):
                raise
        return run

    def _send(self, method: str, path: str, **arguments: Any) -> Any:
        for tries_left in reversed(range(5)):
            try:
                return super()._send(method, path, **arguments)
            except httpx.TransportError:
                if not tries_left:
                    raise
        raise AssertionError("unreachable")


class Runs:
    """
    Triggers, watches, clears and judges runs, once every DAG is parsed.

    :param note: Gets a line whenever something changed.
    """

    def __init__(self, servers: Servers, console: Console, note: Note) -> None:
        self._servers = servers
        self._console = console
        self._note = note
        self._corpus: list[Document] = list(islice(documents(), CORPUS))
        self._files = dict(files(FILES))
        # A page that a script fills, say: its parsing succeeds and gives nothing to embed.
        self._without_text = {
            name
            for name, path in self._files.items()
            if not any(page.markdown.strip() for page in parse(name, path.read_bytes()))
        }
        self._s3 = client("s3", servers.s3_url)
        self._s3.create_bucket(Bucket=BUCKET)
        self.all: list[SoakRun] = []
        for dag_id in PIPELINES:
            console.unpause(dag_id)

    @property
    def active(self) -> list[SoakRun]:
        return [run for run in self.all if run.state not in {"success", "given up"}]

    def trigger(self, planned: PlannedRun) -> None:
        """Put the input of a run into the store, and trigger it."""
        conf, texts, inputs, tasks = self._prepare(planned)
        run = self._console.trigger(planned.dag_id, conf)
        name = f"{planned.dag_id} {planned.number}"
        jobs = tuple(
            WantedJob(service, get_tag(run, task, index), name, f"{task}[{index}]") for service, task, index in tasks
        )
        self.all.append(SoakRun(planned, run, jobs, texts, inputs))
        self._note(f"trigger {name}: {conf.get('input_uri') or conf.get('sources') or 'the container'}")

    def look(self) -> None:
        """Look at every run that is not over, and clear what failed."""
        for run in self.active:
            state = str(run.run.facts()["state"])
            if state != run.state:
                self._note(f"{run.name} is {state}")
                run.state = state
            if state == "failed":
                self._clear(run)

    def evaluate(self, run: SoakRun) -> list[Violation]:
        """Hold a run's index and report against what went in."""
        if run.state != "success":
            return [Violation(f"{run.name} is {run.state}: {self.describe(run)}", run.name)]
        if run.planned.dag_id == "soak_azure":
            return self._evaluate_azure(run)
        report = run.run.xcom("report")
        bucket, _, key = str(report["uri"]).removeprefix("s3://").partition("/")
        stored = orjson.loads(self._read(bucket, key))
        found = indexed(self._servers.node.url, run.index)
        violations = []
        if run.planned.dag_id == "soak_llamacloud":
            wanted = self._read_chunks(bucket, key)
            chunks = [(one["source_uri"], one["chunk"], one["chunks"]) for one in found.values()]
            without_text = {uri for uri in run.files if uri.rpartition("/")[2] in self._without_text}
            violations += check_chunks(run.name, run.files - without_text, chunks)
            violations += check_empty(run.name, without_text, run.run.xcom("chunk"))
        else:
            wanted = dict(run.documents)
        lossy = run.planned.dag_id not in TRANSFORMING
        failed = {one for one in wanted if lossy and re.search(FAILED_LINES, one)}
        missing = {one for one in wanted if lossy and re.search(MISSING_LINES, one)}
        left = {one: text for one, text in wanted.items() if one not in failed | missing}
        counts = {
            "submitted": len(wanted),
            "indexed": len(left),
            "dropped": 0,
            "rejected": len(failed),
            "missing": len(missing),
        }
        violations += check_documents(run.name, left, {one: document["text"] for one, document in found.items()})
        violations += check_report(run.name, report, stored, counts)
        return violations

    def describe(self, run: SoakRun) -> str:
        """Return the tasks of a run that are not done, each with its tries and what it last said."""
        shown = []
        for task in run.run.tasks():
            if task["state"] in {"success", "skipped"}:
                continue
            shown.append(f"{task['task_id']}[{task['map_index']}] {task['state']}, try {task['try_number']}")
        return "; ".join(shown)

    def history(self, run: SoakRun) -> list[str]:
        """Return every try of every task of a run, and what the failed ones said."""
        found = []
        for task in run.run.tasks():
            mapped = f"/{task['map_index']}" if task["map_index"] >= 0 else ""
            path = f"{run.run.path}/taskInstances/{task['task_id']}{mapped}/tries"
            for one in self._console.get(path)["task_instances"]:
                said = self._read_error(run, one) if one["state"] == "failed" or one["state"] == "up_for_retry" else ""
                found.append(
                    f"{one['start_date']}  {one['task_id']}[{one['map_index']}] try {one['try_number']} {one['state']} "
                    f"on {one['hostname']} {said}"
                )
        return sorted(found)

    def _prepare(
        self, planned: PlannedRun
    ) -> tuple[dict[str, Any], dict[str, str], frozenset[str], list[tuple[str, str, int]]]:
        """Return the conf, the documents, the files, and service, task and map index of each job."""
        if planned.dag_id == "soak_azure":
            return {}, {}, frozenset(), [("azure", "ingest", -1)]
        store = Store({"AWS_ENDPOINT_URL_S3": self._servers.s3_url}, f"soak/{planned.number}")
        conf: dict[str, Any] = {"index_name": get_index(planned)}
        if planned.dag_id == "soak_llamacloud":
            names = sorted(self._files)
            chosen = [names[(planned.start + step) % len(names)] for step in range(2 + planned.documents // 16)]
            uris = frozenset(store.put(name, self._files[name].read_bytes()) for name in chosen)
            jobs = [("llamacloud", "parse", -1), ("openai", "batch.embed", 0)]
            return {**conf, "sources": store.uri}, {}, uris, jobs
        batch = self._corpus[planned.start : planned.start + planned.documents]
        texts = {document["id"]: document["text"] for document in batch}
        each = math.ceil(len(batch) / planned.parts)
        if planned.dag_id in {"soak_openai", "soak_openai_on_worker"}:
            store.put("corpus.jsonl", lines(batch))
            jobs = [("openai", "batch.embed", number) for number in range(math.ceil(len(batch) / each))]
            return {**conf, "input_uri": store.uri, "batch_requests": each}, texts, frozenset(), jobs
        for number in range(math.ceil(len(batch) / each)):
            store.put(f"{number}.jsonl", lines(batch[number * each : (number + 1) * each]))
        conf |= {"input_uri": store.uri}
        if planned.dag_id == "soak_predict":
            conf["sagemaker_url"] = self._servers.sagemaker.url
        return conf, texts, frozenset(), [("sagemaker", "transform", -1)]

    def _clear(self, run: SoakRun) -> None:
        """Do what the failed tasks' messages ask for: see that everything is mended, and clear them."""
        for task in run.run.tasks():
            if task["state"] == "failed":
                self._note(f"{run.name}: {task['task_id']}[{task['map_index']}] failed. {self._read_error(run, task)}")
        if run.clears == CLEARS:
            self._note(f"{run.name} is given up after {CLEARS} clears")
            run.state = "given up"
            return
        run.clears += 1
        self._note(f"clear the failed tasks of {run.name}")
        self._console.post(f"{run.run.path}/clear", {"dry_run": False, "only_failed": True})
        run.state = "cleared"

    def _read_error(self, run: SoakRun, task: Mapping[str, Any]) -> str:
        """Return what a try of a task last said of its failure."""
        path = f"{run.run.path}/taskInstances/{task['task_id']}/logs/{task['try_number']}"
        try:
            log = self._console.get(path, full_content="true", map_index=task["map_index"])["content"]
        except AssertionError:
            return "(its log cannot be read)"
        errors = [each for entry in log if isinstance(entry, dict) for each in entry.get("error_detail") or ()]
        if errors:
            return f"{errors[-1]['exc_type']}: {str(errors[-1]['exc_value'])[:600]}"
        said = [str(entry.get("event")) for entry in log if isinstance(entry, dict) and entry.get("level") == "error"]
        return said[-1][:300] if said else "(its log has no error: its process died)"

    def _evaluate_azure(self, run: SoakRun) -> list[Violation]:
        report = run.run.xcom("report", map_index=-1)
        chunks = self._servers.list_chunks(report["index"])
        violations = check_chunks(run.name, set(files(BLOBS)), chunks)
        said = (report["state"], report["documents"], report["chunks"], report["failed_chunks"])
        right = ("succeeded", BLOBS, len(chunks), 0)
        if said != right:
            violations.append(Violation(f"the report of {run.name} says {said}; right is {right}", run.name))
        (job,) = run.jobs
        parsed = JobKey.parse_name(report["index"])
        if parsed is None or parsed.tag != job.tag:
            violations.append(Violation(f"the report of {run.name} names another index, {report['index']}", run.name))
        return violations

    def _read_chunks(self, bucket: str, report_key: str) -> dict[str, str]:
        """Return the chunks that were embedded, by id; their file is beside the report."""
        content = self._read(bucket, f"{report_key.rpartition('/')[0]}/chunks/chunks.jsonl")
        return {chunk["id"]: chunk["text"] for chunk in map(orjson.loads, content.splitlines())}

    def _read(self, bucket: str, key: str) -> bytes:
        return bytes(self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def get_tag(run: Run, task_id: str, map_index: int) -> str:
    """Return the tag that the jobs of a task instance bear at their service."""
    key = JobKey(dag_id=run.dag_id, task_id=task_id, run_id=run.run_id, map_index=map_index, fingerprint="0" * 16)
    return key.tag


def list_wanted(runs: Sequence[SoakRun]) -> list[WantedJob]:
    return [job for run in runs for job in run.jobs]
