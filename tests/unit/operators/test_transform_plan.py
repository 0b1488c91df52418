from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from airflow.sdk.exceptions import AirflowFailException
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from overnight.operators import transform_plan
from overnight.operators.transform_plan import ListTransformInputsOperator, PlanTransformLoadsOperator
from overnight.storage import Storage, get_folder

INPUT, OUTPUT = "s3://bucket/in/", "s3://bucket/run/outputs/"
REQUEST = {"index_name": "docs", "field_map": {"_id": "$.id"}, "ingest_fields": []}


class Disk(DirFileSystem):
    """A folder that is looked at as S3 is."""

    protocol = "s3"
    cachable = False

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(Path(self._join(path)).stat().st_mtime, UTC)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("s3://")


class Bucket:
    """The bucket: each write is a second after the one before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clock = 1_700_000_000

    def put(self, uri: str, body: bytes = b'{"id": "1"}\n{"id": "2"}\n') -> str:
        path = self._folder / uri.removeprefix("s3://")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        self._clock += 1
        os.utime(path, (self._clock, self._clock))
        return uri

    def read(self, uri: str) -> bytes:
        return (self._folder / uri.removeprefix("s3://")).read_bytes()


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    def storage(conn_id: str | None) -> Storage:
        assert conn_id == "aws_default"
        return Storage(connectors={"s3": lambda: Disk(str(tmp_path), LocalFileSystem(auto_mkdir=True))})

    monkeypatch.setattr(transform_plan, "connected_storage", storage)
    return Bucket(tmp_path)


@pytest.fixture
def listed(task_run: Any) -> Callable[..., dict[str, Any]]:
    def run(uri: str = INPUT) -> dict[str, Any]:
        operator = ListTransformInputsOperator(task_id="list_inputs", input_uri=uri, output_uri=OUTPUT)
        return operator.execute(task_run.context)

    return run


@pytest.fixture
def planned(task_run: Any) -> Callable[..., list[dict[str, Any]]]:
    def run(uri: str = INPUT, **options: Any) -> list[dict[str, Any]]:
        operator = PlanTransformLoadsOperator(
            task_id="plan", input_uri=uri, output_uri=OUTPUT, request=REQUEST, **options
        )
        return operator.execute(task_run.context)

    return run


def todo(bucket: Bucket, message: dict[str, Any]) -> list[str]:
    head, *names = orjson.loads(bucket.read(message["manifest"]))
    assert head == {"prefix": INPUT}
    return list(names)


# --- Listing -------------------------------------------------------------------------------------------------------


def test_every_input_is_in_the_first_manifest(bucket: Bucket, listed: Any) -> None:
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl"):
        bucket.put(f"{INPUT}{name}")
    message = listed()
    assert (message["inputs"], message["done"], message["todo"]) == (3, 0, 3)
    assert todo(bucket, message) == ["a.jsonl", "b.jsonl", "deep/c.jsonl"]
    assert message["manifest"].startswith(f"{OUTPUT}_manifests/")


def test_only_what_has_no_output_is_to_be_done_again(bucket: Bucket, listed: Any) -> None:
    for name in ("a", "b", "deep/c"):
        bucket.put(f"{INPUT}{name}.jsonl")
    for name in ("a", "deep/c"):
        bucket.put(f"{OUTPUT}{name}.jsonl.out")
    message = listed()
    assert (message["inputs"], message["done"], message["todo"]) == (3, 2, 1)
    assert todo(bucket, message) == ["b.jsonl"]


def test_an_input_that_changed_after_its_output_is_to_be_done_again(bucket: Bucket, listed: Any) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        bucket.put(f"{INPUT}{name}")
        bucket.put(f"{OUTPUT}{name}.out")
    bucket.put(f"{INPUT}a.jsonl")
    assert todo(bucket, listed()) == ["a.jsonl"]


def test_nothing_to_do_is_no_manifest(bucket: Bucket, listed: Any) -> None:
    bucket.put(f"{INPUT}a.jsonl")
    bucket.put(f"{OUTPUT}a.jsonl.out")
    assert listed() == {"manifest": None, "inputs": 1, "done": 1, "todo": 0}


def test_the_same_inputs_have_the_same_manifest_so_that_a_retry_has_the_same_job(bucket: Bucket, listed: Any) -> None:
    bucket.put(f"{INPUT}a.jsonl")
    first = listed()
    assert listed() == first
    bucket.put(f"{INPUT}b.jsonl")
    assert listed()["manifest"] != first["manifest"]


def test_a_glob_leaves_the_others_alone_and_has_the_folder_in_front_of_it_as_its_prefix(
    bucket: Bucket, listed: Any
) -> None:
    for name in ("a.jsonl", "a.txt", "b.jsonl"):
        bucket.put(f"{INPUT}{name}")
    message = listed(f"{INPUT}*.jsonl")
    assert message["inputs"] == 2
    assert todo(bucket, message) == ["a.jsonl", "b.jsonl"]


def test_a_prefix_without_an_object_is_refused_for_good(bucket: Bucket, listed: Any) -> None:
    with pytest.raises(AirflowFailException, match="No object matches s3://bucket/in/"):
        listed()


def test_a_day_without_inputs_can_be_allowed(bucket: Bucket, task_run: Any, planned: Any) -> None:
    operator = ListTransformInputsOperator(task_id="t", input_uri=INPUT, output_uri=OUTPUT, allow_empty="True")
    assert operator.execute(task_run.context) == {"manifest": None, "inputs": 0, "done": 0, "todo": 0}
    assert planned() == []
    assert task_run.xcoms["missing"] == {"count": 0, "uri": None, "inputs": 0}


# --- Planning ------------------------------------------------------------------------------------------------------


def test_each_load_has_its_outputs_and_says_how_many_documents_they_are(
    bucket: Bucket, listed: Any, planned: Any, task_run: Any
) -> None:
    for number in range(3):
        bucket.put(f"{INPUT}{number}.jsonl")
        bucket.put(f"{OUTPUT}{number}.jsonl.out", b'{"id": "x"}\n' * (number + 1))
    listed()
    plan = planned(files_per_load=2)
    assert [part["requests"] for part in plan] == [3, 3]
    assert [part["request"]["data_source"] for part in plan] == [
        {"type": "s3", "source": [[f"{OUTPUT}0.jsonl.out", f"{OUTPUT}1.jsonl.out"]]},
        # The cluster's own ingestion takes one plain URI, and no lists.
        {"type": "s3", "source": [f"{OUTPUT}2.jsonl.out"]},
    ]
    assert all(part["request"].items() >= REQUEST.items() for part in plan)
    assert task_run.xcoms["missing"] == {"count": 0, "uri": None, "inputs": 0}


def test_blank_lines_are_no_documents_and_a_last_line_needs_no_newline(
    bucket: Bucket, listed: Any, planned: Any
) -> None:
    bucket.put(f"{INPUT}a.jsonl")
    bucket.put(f"{OUTPUT}a.jsonl.out", b'{"id": "1"}\n\n  \r\n{"id": "2"}')
    listed()
    assert [part["requests"] for part in planned()] == [2]


def test_inputs_without_an_output_are_named_with_their_documents(
    bucket: Bucket, listed: Any, planned: Any, task_run: Any
) -> None:
    bucket.put(f"{INPUT}good.jsonl")
    bucket.put(f"{INPUT}bad.jsonl", b"{}\n" * 5)
    bucket.put(f"{INPUT}bad.jsonl.gz", gzip.compress(b"{}\n" * 7))
    bucket.put(f"{OUTPUT}good.jsonl.out")
    listed()
    (part,) = planned(allowed_failures=2)
    assert part["requests"] == 2
    missing = task_run.xcoms["missing"]
    assert (missing["count"], missing["inputs"]) == (12, 2)
    named = [orjson.loads(line) for line in bucket.read(missing["uri"]).splitlines()]
    assert [(line["uri"], line["documents"]) for line in named] == [
        (f"{INPUT}bad.jsonl", 5),
        (f"{INPUT}bad.jsonl.gz", 7),
    ]
    assert all(line["reason"] for line in named)


@pytest.mark.parametrize(("allowed", "passes"), [(0, False), (1, True), (0.25, True), ("24%", False), ("25%", True)])
def test_the_allowance_counts_inputs(allowed: Any, passes: bool, bucket: Bucket, listed: Any, planned: Any) -> None:
    for number in range(4):
        bucket.put(f"{INPUT}{number}.jsonl")
    for number in range(3):
        bucket.put(f"{OUTPUT}{number}.jsonl.out")
    listed()
    if passes:
        assert len(planned(allowed_failures=allowed)) == 3
        return
    with pytest.raises(AirflowFailException, match=r"1 of 4 inputs have no output.*missing\.jsonl"):
        planned(allowed_failures=allowed)


def test_more_missing_than_allowed_is_reported_all_the_same(
    bucket: Bucket, listed: Any, planned: Any, task_run: Any
) -> None:
    bucket.put(f"{INPUT}a.jsonl")
    listed()
    with pytest.raises(AirflowFailException):
        planned()
    assert task_run.xcoms["missing"]["count"] == 2


def test_an_input_that_came_after_the_listing_is_of_no_concern(bucket: Bucket, listed: Any, planned: Any) -> None:
    bucket.put(f"{INPUT}a.jsonl")
    bucket.put(f"{OUTPUT}a.jsonl.out")
    listed()
    bucket.put(f"{INPUT}late.jsonl")
    assert len(planned()) == 1


def test_the_manifests_beside_the_outputs_are_no_outputs(bucket: Bucket, listed: Any, planned: Any) -> None:
    bucket.put(f"{INPUT}a.jsonl")
    bucket.put(f"{OUTPUT}a.jsonl.out")
    bucket.put(f"{OUTPUT}_manifests/other.jsonl.out")
    listed()
    assert [part["request"]["data_source"]["source"] for part in planned()] == [[f"{OUTPUT}a.jsonl.out"]]


# --- Where things lie ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("s3://bucket/in/", "s3://bucket/in/"),
        ("s3://bucket/in/*.jsonl", "s3://bucket/in/"),
        ("s3://bucket/in/part-*/x.jsonl", "s3://bucket/in/"),
        ("s3://bucket/in/[ab]/x", "s3://bucket/in/"),
        ("s3://bucket/in/day?/", "s3://bucket/in/"),
        ("s3://bucket/in/one.jsonl", "s3://bucket/in/"),
    ],
)
def test_outputs_keep_their_place_below_the_deepest_folder_without_a_pattern(uri: str, folder: str) -> None:
    assert get_folder(uri) == folder
