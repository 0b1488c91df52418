from __future__ import annotations

from datetime import UTC, datetime

from overnight.services.sagemaker.objects import bucket_and_key, list_objects
from unit.services.sagemaker.bucket import Bucket, run

BEFORE = datetime(2026, 11, 23, 2, tzinfo=UTC)


def test_a_listing_is_read_to_its_last_page_without_folders() -> None:
    bucket = Bucket(dict.fromkeys(("in/", "in/a", "in/b", "in/c/", "in/c/d", "other"), BEFORE))
    assert [item.uri for item in run(list_objects("s3://b/in/"), bucket)] == [
        "s3://b/in/a",
        "s3://b/in/b",
        "s3://b/in/c/d",
    ]


def test_keys_may_hold_what_means_something_in_other_uris() -> None:
    assert bucket_and_key("s3://b/a?b#c/d") == ("b", "a?b#c/d")
    assert bucket_and_key("s3://b") == ("b", "")
