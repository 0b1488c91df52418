from __future__ import annotations

import pytest

from overnight.errors import SpecError
from overnight.services.sagemaker.locations import bucket_and_key, to_s3_uri


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("s3://b/k", "s3://b/k"),
        ("s3://b", "s3://b"),
        ("s3://b/a?b#c%20", "s3://b/a?b#c%20"),
        ("https://my-bucket.s3.eu-west-1.amazonaws.com/a/b", "s3://my-bucket/a/b"),
        ("https://my.bucket.s3.amazonaws.com/a%20b/", "s3://my.bucket/a b/"),
        ("https://s3.us-east-1.amazonaws.com/bucket/a", "s3://bucket/a"),
        ("https://s3-us-gov-west-1.amazonaws.com/bucket/a", "s3://bucket/a"),
        ("https://s3.dualstack.us-east-1.amazonaws.com/bucket/", "s3://bucket/"),
        ("https://bucket.s3.cn-north-1.amazonaws.com.cn/a", "s3://bucket/a"),
        ("https://s3.amazonaws.com/bucket", "s3://bucket"),
    ],
)
def test_both_forms_of_a_location_are_read(given: str, uri: str) -> None:
    assert to_s3_uri(given) == uri


@pytest.mark.parametrize(
    "given",
    ["", "bucket/key", "s3:///key", "https://corpus/in/", "https://s3.amazonaws.com/", "http://b.s3.amazonaws.com/k"],
)
def test_what_is_none_is_refused(given: str) -> None:
    with pytest.raises(SpecError, match="is not s3://bucket/key"):
        to_s3_uri(given)


def test_keys_may_hold_what_means_something_in_other_uris() -> None:
    assert bucket_and_key("s3://b/a?b#c/d") == ("b", "a?b#c/d")
    assert bucket_and_key("s3://b") == ("b", "")
