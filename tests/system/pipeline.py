"""The documents of the project's own DAG, and what its index holds in the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any

import boto3
import httpx
import orjson

from overnight.sandbox.corpus import documents

from .console import Console, Run, eventually

PIPELINE = "openai_batch_to_index"
NIGHTLY = "nightly"
"""The same with a schedule."""
BUCKET = "overnight"
BACKFILLED = date(2026, 1, 5)
BUDGETED = [date(2026, 1, day) for day in (6, 7, 8)]
A_DAY = 40
"""Documents of each scheduled day."""


@dataclass
class Documents:
    """
    Real text in the object store, and the index it ends in.

    :param environment: Where both are.
    """

    environment: Mapping[str, str]
    _s3: Any = field(init=False)

    def __post_init__(self) -> None:
        names = {"endpoint_url": "AWS_ENDPOINT_URL_S3", "region_name": "AWS_DEFAULT_REGION"}
        keys = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}
        self._s3 = boto3.client("s3", **{name: self.environment[at] for name, at in (names | keys).items()})
        self._s3.create_bucket(Bucket=BUCKET)
        today = datetime.now(UTC).date()
        # The day may change while the tests run.
        for day in (BACKFILLED, *BUDGETED, *(today + timedelta(days=shift) for shift in (-1, 0, 1))):
            self.put(f"documents/{day}", A_DAY)

    def put(self, prefix: str, count: int) -> str:
        """Write the first documents of the corpus and return the prefix as a URI."""
        body = b"".join(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE) for document in first(count))
        self._s3.put_object(Bucket=BUCKET, Key=f"{prefix}/corpus.jsonl", Body=body)
        return f"s3://{BUCKET}/{prefix}/"

    def conf(
        self, *, account: str, index: str, count: int, parts: int = 1, allowed: str = "0", **others: Any
    ) -> dict[str, Any]:
        """Return the conf of a run over the first documents of the corpus."""
        return {
            "input_uri": self.put(f"corpus/{count}", count),
            "index_name": index,
            "ingest_fields": ["$.module", "$.signature"],
            "batch_requests": -(-count // parts),
            "poll_seconds": 0.5,
            "allowed_failures": allowed,
            "openai_conn_id": account,
            **others,
        }

    def read(self, uri: str) -> bytes:
        """Return an object."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return bytes(self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    def indexed(self, index: str) -> dict[str, dict[str, Any]]:
        """Return every document of an index by its id."""
        url = self.environment["OPENSEARCH_URL"]
        with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as client:
            client.post(f"/{index}/_refresh").raise_for_status()
            answer = client.post(f"/{index}/_search", json={"size": 10_000, "query": {"match_all": {}}})
            return {hit["_id"]: hit["_source"] for hit in answer.raise_for_status().json()["hits"]["hits"]}


def first(count: int) -> Iterator[dict[str, str]]:
    """Yield the first documents of the corpus."""
    return islice(documents(), count)


@dataclass(frozen=True)
class Nights:
    """The runs of the DAG with a schedule."""

    scheduled: Run
    backfilled: Run


def start_nights(console: Console) -> Nights:
    """Let the schedule make its run, and fill in a day of the past."""

    def of_type(kind: str) -> Run:
        (found,) = eventually(
            lambda: console.get(f"/dags/{NIGHTLY}/dagRuns", run_type=kind)["dag_runs"], why=f"a {kind} run"
        )
        return Run(console, NIGHTLY, found["dag_run_id"])

    console.unpause(NIGHTLY)
    body = {
        "dag_id": NIGHTLY,
        "from_date": f"{BACKFILLED}T00:00:00Z",
        "to_date": f"{BACKFILLED}T00:00:00Z",
        "dag_run_conf": {"index_name": "backfilled", "poll_seconds": 0.5},
    }
    console.post("/backfills", body)
    return Nights(of_type("scheduled"), of_type("backfill"))


def start_budgeted(console: Console) -> list[Run]:
    """Fill in three days of the DAG with a budget for two, all at once."""
    console.unpause("budgeted")
    first_day, last_day = BUDGETED[0], BUDGETED[-1]
    console.post(
        "/backfills",
        {
            "dag_id": "budgeted",
            "from_date": f"{first_day}T00:00:00Z",
            "to_date": f"{last_day}T00:00:00Z",
            "max_active_runs": len(BUDGETED),
        },
    )

    def find() -> list[dict[str, Any]]:
        found = list(console.get("/dags/budgeted/dagRuns", run_type="backfill")["dag_runs"])
        return found if len(found) == len(BUDGETED) else []

    return [Run(console, "budgeted", run["dag_run_id"]) for run in eventually(find, why="the runs of the backfill")]
