from __future__ import annotations

from datetime import UTC, datetime

import pytest

from overnight.services.sagemaker.objects import find_inputs, list_objects
from unit.services.sagemaker.bucket import Bucket, run

BEFORE = datetime(2026, 11, 23, 2, tzinfo=UTC)


def test_a_listing_is_read_to_its_last_page() -> None:
    bucket = Bucket(dict.fromkeys(("in/", "in/a", "in/b", "in/c/", "in/c/d", "other"), BEFORE))
    assert [item.uri for item in run(list_objects("s3://b/in/"), bucket)] == [
        "s3://b/in/",
        "s3://b/in/a",
        "s3://b/in/b",
        "s3://b/in/c/",
        "s3://b/in/c/d",
    ]


HIDDEN = ("in/_SUCCESS", "in/a/.crc", "in/_delta_log/1.json", "in/a/_temporary/b", "in/", "in/a/")


@pytest.mark.parametrize("prefix", ["s3://b/in/", "s3://b/in", "s3://b/i", "https://b.s3.eu-west-1.amazonaws.com/in/"])
def test_what_is_no_input_for_the_load_is_none_for_a_job(prefix: str) -> None:
    bucket = Bucket(dict.fromkeys(("in/a/1", "in//2", *HIDDEN), BEFORE))
    inputs = run(find_inputs("S3Prefix", prefix), bucket)
    assert sorted(inputs.uris) == ["s3://b/in//2", "s3://b/in/a/1"]
    assert inputs.ignored == len(HIDDEN)


def test_what_the_prefix_says_itself_is_asked_for() -> None:
    bucket = Bucket(dict.fromkeys(("_in/a", "_in/_b", "_in/c/.d"), BEFORE))
    for prefix in ("s3://b/_i", "s3://b/_in/"):
        assert run(find_inputs("S3Prefix", prefix), bucket).uris == ("s3://b/_in/a",)
    assert run(find_inputs("S3Prefix", "s3://b/_in/_"), bucket).uris == ("s3://b/_in/_b",)


def test_a_manifest_asks_for_what_it_names() -> None:
    bucket = Bucket({"in/_a": BEFORE}, {"m": b'[{"prefix": "s3://b/in/"}, "_a"]'})
    inputs = run(find_inputs("ManifestFile", "s3://b/m"), bucket)
    assert (inputs.uris, inputs.ignored) == (("s3://b/in/_a",), 0)
