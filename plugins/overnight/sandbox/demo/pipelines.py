"""The pipelines of the demo: what each needs, how its DAG is run, and what it must have done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from overnight.sandbox.airflow import Airflow, DagRun
from overnight.sandbox.corpus import documents, files
from overnight.sandbox.demo.docstring import Docstring
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
class FieldSearch:
    """
    A search by extracted fields and the document that must be among the first five answers.

    :param words: The search in words.
    :param query: In OpenSearch's own.
    """

    words: str
    query: Mapping[str, Any]
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
    :param field_searches: What to search for by other fields than the embedding.
    :param at_least: Fewer documents than this are a failure.
    :param read: Makes the counts of the run's report.
    """

    name: str
    run: Callable[[Airflow], DagRun]
    steps: tuple[str, ...]
    index: str = ""
    searches: tuple[Search, ...] = ()
    field_searches: tuple[FieldSearch, ...] = ()
    at_least: int = 1
    read: Callable[[Mapping[str, Any]], Counts] = lambda report: msgspec.convert(report, Counts)

    def counts(self, run: DagRun) -> Counts:
        """Read the run's report."""
        return self.read(run.xcoms["report"])


def _put_corpus(store: Store, prefix: str, *, objects: int, modules: Collection[str] = ()) -> str:
    """
    Write the corpus as JSON Lines in several objects and return the prefix as a URI.

    :param modules: Only what is in these; all when left out.
    """
    chosen = [one for one in documents() if not modules or one["module"].partition(".")[0] in modules]
    for number in range(objects):
        store.put_lines(f"{prefix}/corpus-{number:02d}.jsonl", chosen[number::objects])
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


CLASSIFIED = frozenset(
    {
        *("bz2", "calendar", "csv", "datetime", "difflib", "fractions", "gzip", "heapq", "lzma", "pathlib", "random"),
        *("shutil", "socket", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap", "threading"),
        *("zipapp", "zipfile"),
    }
)
"""The modules whose docstrings are classified: a chat takes longer than an embedding."""
FIELD_SEARCHES = (
    FieldSearch(
        "topic is directory, text matches “delete a directory tree”",
        {"bool": {"filter": {"term": {"topic": "directory"}}, "must": {"match": {"text": "delete a directory tree"}}}},
        "shutil.rmtree",
    ),
    FieldSearch(
        "topic is statistics, a keyword is mean",
        {"bool": {"filter": [{"term": {"topic": "statistics"}}, {"term": {"keywords.keyword": "mean"}}]}},
        "statistics.mean",
    ),
)


def openai_batch_extract_to_index(store: Store) -> Pipeline:
    """Return the pipeline of structured answers: some of them are spoilt, and are repaired in further rounds."""

    def run(airflow: Airflow) -> DagRun:
        faults = f"{store.environment['OPENAI_BASE_URL'].removesuffix('/v1')}/_sandbox/faults"
        httpx.put(faults, json={"answers_invalid": 0.03}).raise_for_status()
        conf = {
            "input_uri": _put_corpus(store, "documents/extract", objects=1, modules=CLASSIFIED),
            "work_uri": f"s3://{BUCKET}/work",
            "index_name": "openai-batch-extract-to-index",
            "instruction": "Say what the docstring of ${id} is about.",
            "output_schema": Docstring.model_json_schema(),
            "output_limit": 2_000,
            "ingest_fields": FIELDS,
            "resubmit": 3,
            "repair": True,
            "poll_seconds": 1.0,
        }
        return airflow.run_dag("openai_batch_extract_to_index", conf, xcoms={"report": "return_value"})

    return Pipeline(
        name="openai_batch_extract_to_index",
        run=run,
        steps=("prepare", "batch.extract", "batch.load", "verify"),
        index="openai-batch-extract-to-index",
        field_searches=FIELD_SEARCHES,
        at_least=700,
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
    openai_batch_extract_to_index,
    s3_sagemaker_to_index,
    mlcommons_batch_predict_to_index,
    llamacloud_parse_to_index,
    azure_ingestion_job,
)
SERVICES = ("s3", "openai", "sagemaker", "llamacloud", "azure", "opensearch")
"""What of the sandbox the pipelines need."""
