"""The pipelines of the demo: what each needs, how its DAG is run, and what it must have done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from overnight.sandbox.airflow import Airflow, DagRun
from overnight.sandbox.corpus import documents, files
from overnight.sandbox.services import KEY
from overnight.sandbox.store import BUCKET, Store

MIN_DOCUMENTS = 6_000


class Counts(msgspec.Struct, frozen=True):
    """One pipeline's row in ``.demo/report.json``."""

    submitted: int
    indexed: int
    rejected: int
    missing: int

    @property
    def complete(self) -> bool:
        """Whether every document that was submitted is in the index."""
        return self.submitted == self.indexed and not self.rejected and not self.missing


@dataclass(frozen=True)
class Search:
    """A question in plain words and the document that must be among the first five answers."""

    question: str
    expected: str


@dataclass(frozen=True)
class Pipeline:
    """
    One pipeline of the demo.

    :param name: In the table and the report.
    :param run: Runs it in an Airflow and returns the run; the XCom ``report`` of the run holds the counts.
    :param steps: The tasks whose seconds the table shows.
    :param index: Where to search.
    :param searches: What to search for.
    :param at_least: Fewer documents than this are a failure.
    :param read: Makes the counts of the run's report.
    """

    name: str
    run: Callable[[Airflow], DagRun]
    steps: tuple[str, ...]
    index: str = ""
    searches: tuple[Search, ...] = ()
    at_least: int = 1
    read: Callable[[Mapping[str, Any]], Counts] = lambda report: msgspec.convert(report, Counts)

    def counts(self, run: DagRun) -> Counts:
        """Read the run's report."""
        return self.read(run.xcoms["report"])


def _put_corpus(store: Store, prefix: str, *, objects: int) -> str:
    """Write the corpus as JSON Lines in several objects and return the prefix as a URI."""
    all_documents = list(documents())
    for number in range(objects):
        store.put_lines(f"{prefix}/corpus-{number:02d}.jsonl", all_documents[number::objects])
    return f"s3://{BUCKET}/{prefix}/"


FIELDS = ["$.kind", "$.module", "$.name", "$.signature"]
SEARCHES = (
    Search("recursively delete a directory tree", "shutil.rmtree"),
    Search("compute the arithmetic mean of a list of numbers", "statistics.mean"),
    Search("wrap a paragraph of text so that every line fits a width", "textwrap.wrap"),
)


def openai_batch_to_index(store: Store) -> Pipeline:
    """Return the first pipeline: documents, OpenAI batches, index."""

    def run(airflow: Airflow) -> DagRun:
        conf = {
            "input_uri": _put_corpus(store, "documents/openai", objects=2),
            "work_uri": f"s3://{BUCKET}/work",
            "index_name": "openai-batch-to-index",
            "ingest_fields": FIELDS,
            "batch_requests": 4_000,
            "poll_seconds": 1.0,
        }
        return airflow.run_dag("openai_batch_to_index", conf, xcoms={"report": "return_value"})

    return Pipeline(
        name="openai_batch_to_index",
        run=run,
        steps=("prepare", "batch.embed", "batch.load", "verify"),
        index="openai-batch-to-index",
        searches=SEARCHES,
        at_least=MIN_DOCUMENTS,
    )


def s3_sagemaker_to_index(store: Store) -> Pipeline:
    """Return the second pipeline: files in S3, a transform job, index."""
    return _transformed(store, "s3_sagemaker_to_index")


def mlcommons_batch_predict_to_index(store: Store) -> Pipeline:
    """Return the same on the cluster: connector, model, batch predict, batch ingestion."""
    return _transformed(store, "mlcommons_batch_predict_to_index")


def _transformed(store: Store, name: str) -> Pipeline:
    index = name.replace("_", "-")

    def run(airflow: Airflow) -> DagRun:
        conf = {
            "input_uri": _put_corpus(store, f"transform/{name}", objects=3),
            "work_uri": f"s3://{BUCKET}/work",
            "index_name": index,
            "ingest_fields": FIELDS,
            "poll_seconds": 1.0,
            "sagemaker_url": store.environment["AWS_ENDPOINT_URL_SAGEMAKER"],
        }
        return airflow.run_dag(name, conf, xcoms={"report": "return_value"})

    return Pipeline(
        name=name,
        run=run,
        steps=("transform", "load", "verify"),
        index=index,
        searches=SEARCHES[:1],
        at_least=MIN_DOCUMENTS,
    )


def llamacloud_parse_to_index(store: Store) -> Pipeline:
    """Return the fourth pipeline: real files, parsed, cut, embedded, indexed."""

    def run(airflow: Airflow) -> DagRun:
        conf = {
            "sources": store.put_files("files", files()),
            "work_uri": f"s3://{BUCKET}/work",
            "index_name": "llamacloud-parse-to-index",
            "poll_seconds": 1.0,
        }
        return airflow.run_dag("llamacloud_parse_to_index", conf, xcoms={"report": "return_value"})

    return Pipeline(
        name="llamacloud_parse_to_index",
        run=run,
        steps=("parse", "chunk", "batch.embed", "batch.load", "verify"),
        index="llamacloud-parse-to-index",
        searches=(),
    )


def azure_ingestion_job(store: Store) -> Pipeline:
    """Return the fifth: an ingestion job into a search index of Azure's."""

    def run(airflow: Airflow) -> DagRun:
        blobs = f"{store.environment['AZURE_OPENAI_ENDPOINT']}/_sandbox/blobs/documents"
        for name, path in files().items():
            httpx.put(f"{blobs}/{name}", content=path.read_bytes()).raise_for_status()
        return airflow.run_dag("azure_ingestion_job", {"poll_seconds": 0.5}, xcoms={"report": "return_value"})

    def read(report: Mapping[str, Any]) -> Counts:
        # What the job says, against what the search index holds.
        address = f"{store.environment['AZURE_OPENAI_ENDPOINT']}/indexes/{report['index']}/docs/$count"
        counted = httpx.get(address, params={"api-version": "2023-11-01"}, headers={"api-key": KEY}).raise_for_status()
        submitted, indexed = report["chunks"] + report["failed_chunks"], int(counted.text.strip("\ufeff"))
        return Counts(submitted, indexed, report["failed_chunks"], report["chunks"] - indexed)

    return Pipeline(name="azure_ingestion_job", run=run, steps=("ingest",), read=read)


PIPELINES: tuple[Callable[[Store], Pipeline], ...] = (
    openai_batch_to_index,
    s3_sagemaker_to_index,
    mlcommons_batch_predict_to_index,
    llamacloud_parse_to_index,
    azure_ingestion_job,
)
SERVICES = ("s3", "openai", "sagemaker", "llamacloud", "azure", "opensearch")
"""What of the sandbox the pipelines need."""
