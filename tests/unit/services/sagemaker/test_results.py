from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from overnight.errors import UnavailableError
from overnight.jobs import JobRef
from overnight.services.sagemaker.objects import find_inputs
from overnight.services.sagemaker.results import (
    TransformOutputs,
    build_result_manifest,
    find_outputs,
    output_names,
    relative,
)
from overnight.transport.aws_call import AwsCall
from unit.services.sagemaker.bucket import Bucket, run

CREATED = datetime(2026, 11, 23, 3, 0, 0, 500_000, tzinfo=UTC)
STARTED = CREATED + timedelta(minutes=4)


def job(kind: str = "S3Prefix", uri: str = "s3://b/in/", output: str = "s3://b/out") -> dict[str, Any]:
    return {
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": kind, "S3Uri": uri}}},
        "TransformOutput": {"S3OutputPath": output},
        "CreationTime": CREATED,
        "TransformStartTime": STARTED,
    }


def made(objects: Mapping[str, datetime], **source: str) -> TransformOutputs:
    found: TransformOutputs = run(find_outputs(job(**source)), Bucket(objects))
    return found


BEFORE, AFTER = CREATED - timedelta(hours=1), STARTED + timedelta(minutes=1)


def test_inputs_and_outputs_are_paired_in_the_order_of_the_inputs() -> None:
    keys = {"in/b": BEFORE, "in/a": BEFORE, "in/x/a": BEFORE, "out/a.out": AFTER, "out/x/a.out": AFTER}
    found = made(keys)
    assert found.outputs == (("s3://b/in/a", "s3://b/out/a.out"), ("s3://b/in/x/a", "s3://b/out/x/a.out"))
    assert found.missing == ("s3://b/in/b",)
    assert found.total == 3


def test_an_output_below_the_full_key_is_found_as_well() -> None:
    assert made({"in/a": BEFORE, "out/in/a.out": AFTER}).outputs == (("s3://b/in/a", "s3://b/out/in/a.out"),)


def test_keys_with_empty_names_have_outputs_of_their_own() -> None:
    keys = {"in/a": BEFORE, "in//a": BEFORE, "in//b": BEFORE, "in/c//d": BEFORE}
    exact = made(keys | {"out/a.out": AFTER, "out//a.out": AFTER, "out//b.out": AFTER, "out/c//d.out": AFTER})
    assert exact.missing == ()
    assert dict(exact.outputs)["s3://b/in//a"] == "s3://b/out//a.out"
    # A server that leaves them out wrote one over the other: it is the output of the one that it is named after.
    short = made(keys | {"out/a.out": AFTER, "out/b.out": AFTER, "out/c//d.out": AFTER})
    assert short.missing == ("s3://b/in//a",)
    assert dict(short.outputs)["s3://b/in//b"] == "s3://b/out/b.out"


def test_an_output_of_an_earlier_job_is_none_of_this_one() -> None:
    assert made({"in/a": BEFORE, "out/a.out": CREATED - timedelta(seconds=2)}).missing == ("s3://b/in/a",)


def test_an_output_of_the_second_of_the_creation_counts() -> None:
    assert made({"in/a": BEFORE, "out/a.out": CREATED.replace(microsecond=0)}).missing == ()


def test_an_input_that_came_after_the_start_is_not_missing() -> None:
    assert made({"in/a": AFTER, "in/b": BEFORE}).missing == ("s3://b/in/b",)


def test_an_input_that_was_written_again_keeps_its_output() -> None:
    assert made({"in/a": AFTER, "out/a.out": AFTER}).outputs == (("s3://b/in/a", "s3://b/out/a.out"),)


def test_a_manifests_inputs_are_named_whether_they_are_there_or_not() -> None:
    body = orjson.dumps([{"prefix": "s3://b/in/"}, "z", "a"])
    bucket = Bucket({"in/a": BEFORE, "out/a.out": AFTER}, {"m": body})
    found = run(find_outputs(job("ManifestFile", "s3://b/m")), bucket)
    assert found.outputs == (("s3://b/in/a", "s3://b/out/a.out"),)
    assert found.missing == ("s3://b/in/z",)
    inputs = run(find_inputs("ManifestFile", "s3://b/m"), bucket)
    assert (inputs.uris, set(inputs.listed)) == (("s3://b/in/z", "s3://b/in/a"), {"s3://b/in/a"})


@pytest.mark.parametrize(
    ("prefix", "uri", "place"),
    [
        ("s3://b/in/", "s3://b/in/a/b", "a/b"),
        ("s3://b/in", "s3://b/in/a/b", "a/b"),
        ("s3://b/in/pa", "s3://b/in/part-1", "part-1"),
        ("s3://b/in/a.csv", "s3://b/in/a.csv", "a.csv"),
        ("s3://b/", "s3://b/a", "a"),
        ("s3://b", "s3://b/a", "a"),
        ("s3://b/in/", "s3://b/in//a", "/a"),
        ("s3://b/in", "s3://b/in//a", "/a"),
    ],
)
def test_an_output_lies_as_its_input_lies_below_the_prefix(prefix: str, uri: str, place: str) -> None:
    assert relative(prefix, uri) == place
    assert next(output_names(prefix, uri, "s3://o/")) == f"s3://o/{place}.out"


def test_a_transient_failure_of_the_listing_is_not_an_empty_one() -> None:
    flow = find_outputs(job())
    call = next(flow)
    assert isinstance(call, AwsCall)
    assert call.operation == "ListObjectsV2"
    with pytest.raises(UnavailableError):
        flow.throw(UnavailableError("gone"))


def test_the_folders_of_a_job_may_be_web_addresses() -> None:
    host = "https://b.s3.eu-west-1.amazonaws.com"
    found = made({"in/a": BEFORE, "out/a.out": AFTER}, uri=f"{host}/in/", output=f"{host}/out")
    assert found.outputs == (("s3://b/in/a", "s3://b/out/a.out"),)


@pytest.mark.parametrize(("ended", "seconds"), [(STARTED + timedelta(seconds=90), 90.0), (None, None)])
def test_results_say_how_long_the_job_ran(ended: datetime | None, seconds: float | None) -> None:
    found = made({"in/a": BEFORE, "out/a.out": AFTER})
    ref = JobRef(service="sagemaker", id="t", conn_id="aws_default")
    assert build_result_manifest(ref, {**job(), "TransformEndTime": ended}, found).detail.get("seconds") == seconds
