from __future__ import annotations

import json
from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.ingest import IngestRequest, LoadOptions, LoadReport

SECRET = "wJalrXUtnFEMI"
DOCUMENTED = {
    "index_name": "my-nlp-index",
    "field_map": {"chapter": "$.content[0]", "_id": "$.id"},
    "ingest_fields": ["$.id"],
    "credential": {"region": "us-east-1", "access_key": "AKIA", "secret_key": SECRET, "session_token": "token"},
    "data_source": {"type": "s3", "source": ["s3://offlinebatch/output/sagemaker_batch.json.out"]},
}


def test_the_documented_request_is_understood_as_object_and_as_text() -> None:
    request = IngestRequest.of(DOCUMENTED)
    assert IngestRequest.of(json.dumps(DOCUMENTED)) == request
    assert IngestRequest.of(request) is request
    assert request.s3_credential == {"key": "AKIA", "secret": SECRET, "token": "token", "region": "us-east-1"}


def test_a_request_that_works_around_the_swapped_region_is_put_right() -> None:
    keys = {"access_key": "AKIA", "secret_key": SECRET, "session_token": "eu-central-1"}
    request = IngestRequest.of({**DOCUMENTED, "credential": keys})
    assert request.s3_credential == {"key": "AKIA", "secret": SECRET, "region": "eu-central-1"}
    request = IngestRequest.of({**DOCUMENTED, "credential": {**keys, "region": "FwoGZXIvYXdzE"}})
    assert request.s3_credential["token"] == "FwoGZXIvYXdzE"


def test_credentials_are_never_shown() -> None:
    request = IngestRequest.of(DOCUMENTED)
    assert SECRET not in repr(request) + str(request) + request.model_dump_json()
    for broken in ({**DOCUMENTED, "index_name": ""}, {**DOCUMENTED, "credential": {"secret_key": [SECRET]}}):
        for form in (broken, json.dumps(broken), json.dumps(broken)[:-1]):
            with pytest.raises(SpecError) as caught:
                IngestRequest.of(form)
            assert SECRET not in str(caught.value)
            assert caught.value.__cause__ is None


def test_openai_files_may_be_bare_ids() -> None:
    request = IngestRequest.of(
        {**DOCUMENTED, "data_source": {"type": "openAI", "source": ["file-1", "openai://file-2"]}}
    )
    assert request.data_source.uris == (("openai://file-1",), ("openai://file-2",))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"index_name": None}, "index_name"),
        ({"index_name": "a,b"}, "index_name"),
        ({"index_name": "a*"}, "index_name"),
        ({"index_name": "_all"}, "index_name"),
        ({"index_name": "a/_bulk"}, "index_name"),
        ({"data_source": None}, "data_source"),
        ({"data_source": {"type": "s3"}}, "data_source.source"),
        ({"data_source": {"type": "s3", "source": []}}, "data_source.source"),
        ({"data_source": {"source": [""]}}, "data_source"),
        ({"data_source": {"source": [[]]}}, "data_source"),
        ({"data_source": {"type": "ftp", "source": ["x"]}}, "data_source.type"),
        ({"data_source": {"type": "s3", "source": ["file:///x"]}}, "not of type 's3'"),
        ({"data_source": {"type": "file", "source": ["s3://b/k"]}}, "not of type 'file'"),
        ({"fieldmap": {}}, "fieldmap"),
        ({"ingest_fields": None}, "ingest_fields"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], where: str) -> None:
    with pytest.raises(SpecError, match=where):
        IngestRequest.of({**DOCUMENTED, **change})


@pytest.mark.parametrize("allowed", [-1, 1.5, "many", True, "200%"])
def test_an_allowance_is_a_count_or_a_share(allowed: Any) -> None:
    with pytest.raises(ValueError, match="allowed"):
        LoadOptions(allowed_failures=allowed)


@pytest.mark.parametrize(
    ("allowed", "is_enough"),
    [(0, False), (4, False), (5, True), (0.04, False), (0.05, True), ("5%", True), ("1", False)],
)
def test_counts_and_shares_decide(allowed: float | str, is_enough: bool) -> None:
    for rejected in (0, 2, 5):
        report = LoadReport(index="docs", submitted=100, indexed=95, rejected=rejected, missing=5 - rejected)
        assert (report.excess(allowed) is None) is is_enough


def test_what_exceeds_is_said_in_words() -> None:
    reasons = {"blank_line": 3, "no_partner": 2}
    report = LoadReport(index="docs", submitted=100, indexed=95, rejected=3, missing=2, reasons=reasons)
    assert report.excess("4%") == (
        "5 of 100 documents were not indexed (3 rejected, 2 missing: 3 blank_line, 2 no_partner), more than "
        "allowed_failures=4 % lets pass."
    )
    named = report.model_copy(update={"dead_letter_uri": "s3://b/letters.jsonl"})
    assert str(named.excess(4)).endswith("allowed_failures=4 lets pass. Each is named in s3://b/letters.jsonl.")


def test_options_that_do_not_fit_are_named() -> None:
    with pytest.raises(SpecError, match="bulk_bytes"):
        LoadOptions.of({"bulk_bytes": "lots"})
    with pytest.raises(SpecError, match="allowed_rejected"):
        LoadOptions.of({"allowed_rejected": 1})
    assert LoadOptions.of({"allowed_failures": "5%"}).allowed_failures == "5%"


def test_a_report_adds_up() -> None:
    with pytest.raises(ValueError, match="100 submitted is not 95"):
        LoadReport(index="docs", submitted=100, indexed=95, rejected=4)
