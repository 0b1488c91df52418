"""The API is held against the fields of its reference: headers, body, types, version, errors."""

from __future__ import annotations

from typing import Any

import pytest

JOBS = "/openai/extensions/on-your-data/ingestion-jobs"


def refused(answer: Any, status: int, code: str, target: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["target"]) == (code, target)
    assert error["message"]
    if code == "invalidPayload":
        assert error["innererror"] == {"code": "invalidPayload"}


def test_the_samples_request_has_the_samples_answer(azure: Any) -> None:
    azure.set("pace", queued=60)
    answer = azure.put("test", {"dataRefreshIntervalInMinutes": 60, "completionAction": "cleanUpAssets"})
    assert answer.status_code == 200
    assert answer.json() == {
        "id": "test",
        "dataRefreshIntervalInMinutes": 60,
        "completionAction": "cleanUpAssets",
        "chunkSize": 1024,
        "status": "notRunning",
        "warnings": [],
        "progress": {
            "stageProgress": [
                {"name": "Preprocessing", "totalItems": 0, "processedItems": 0},
                {"name": "Indexing", "totalItems": 0, "processedItems": 0},
            ]
        },
    }
    assert azure.get("test").json() == answer.json()
    assert azure.client.get(JOBS).json() == {"value": [answer.json()]}


@pytest.mark.parametrize("header", ["searchServiceEndpoint", "storageConnectionString", "storageContainer"])
@pytest.mark.parametrize("value", [None, "", " "])
def test_a_required_header_is_required(azure: Any, header: str, value: str | None) -> None:
    refused(azure.put(**{header: value}), 400, "invalidPayload", header)
    assert azure.client.get(JOBS).json() == {"value": []}


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("searchServiceEndpoint", "s.search.windows.net"),
        ("embeddingEndpoint", "ada"),
        ("storageEndpoint", "acc"),
        ("storageContainer", "No Container"),
        ("storageConnectionString", "hello"),
    ],
)
def test_a_malformed_header_is_refused(azure: Any, header: str, value: str) -> None:
    refused(azure.put(**{header: value}), 400, "invalidPayload", header)


def test_a_managed_identity_needs_the_storage_endpoint(azure: Any) -> None:
    keyless = {"storageConnectionString": "ResourceId=/subscriptions/1"}
    refused(azure.put(**keyless), 400, "invalidPayload", "storageEndpoint")
    assert azure.put(**keyless, storageEndpoint="https://acc.blob.core.windows.net").status_code == 200


@pytest.mark.parametrize(
    ("body", "target"),
    [
        ({}, "dataRefreshIntervalInMinutes"),
        ({"dataRefreshIntervalInMinutes": "60"}, "dataRefreshIntervalInMinutes"),
        ({"dataRefreshIntervalInMinutes": 1.5}, "dataRefreshIntervalInMinutes"),
        ({"dataRefreshIntervalInMinutes": True}, "dataRefreshIntervalInMinutes"),
        ({"dataRefreshIntervalInMinutes": None}, "dataRefreshIntervalInMinutes"),
        ({"dataRefreshIntervalInMinutes": -1}, "dataRefreshIntervalInMinutes"),
        ({"dataRefreshIntervalInMinutes": 2**31}, "dataRefreshIntervalInMinutes"),
        ({"dataRefreshIntervalInMinutes": 0, "chunkSize": 0}, "chunkSize"),
        ({"dataRefreshIntervalInMinutes": 0, "chunkSize": "1024"}, "chunkSize"),
        ({"dataRefreshIntervalInMinutes": 0, "completionAction": "cleanupassets"}, "completionAction"),
        ({"dataRefreshIntervalInMinutes": 0, "completionAction": 1}, "completionAction"),
        ({"dataRefreshIntervalInMinutes": 0, "dataRefreshIntervalInHours": 1}, "dataRefreshIntervalInHours"),
        ({"dataRefreshIntervalInMinutes": 0, "warnings": "w"}, "warnings"),
        ({"dataRefreshIntervalInMinutes": 0, "progress": []}, "progress"),
        ({"dataRefreshIntervalInMinutes": 0, "id": "other"}, "id"),
        ([], "body"),
        ("text", "body"),
    ],
)
def test_a_body_of_another_form_is_refused(azure: Any, body: Any, target: str) -> None:
    refused(azure.put(body=body), 400, "invalidPayload", target)


def test_a_body_that_is_not_json_is_refused(azure: Any) -> None:
    answer = azure.client.put(
        f"{JOBS}/job",
        content=b"{",
        headers={
            "searchServiceEndpoint": "https://s",
            "storageConnectionString": "UseDevelopmentStorage=true",
            "storageContainer": "docs",
        },
    )
    refused(answer, 400, "invalidPayload", "body")


def test_read_only_fields_may_be_sent_to_no_effect(azure: Any) -> None:
    body = {"dataRefreshIntervalInMinutes": 0, "id": "job", "progress": {"stageProgress": []}, "warnings": ["w"]}
    assert azure.put(body=body).json()["warnings"] == []


@pytest.mark.parametrize("job_id", ["Upper", "a--b", "-a", "a-", "a", "a_b", "x" * 129])
def test_an_id_that_no_index_can_have_is_refused(azure: Any, job_id: str) -> None:
    refused(azure.put(job_id), 400, "invalidPayload", "jobId")


@pytest.mark.parametrize("key", ["", "wrong"])
def test_a_call_without_the_key_is_refused(azure: Any, key: str) -> None:
    for answer in (
        azure.client.get(JOBS, headers={"api-key": key}),
        azure.client.get(f"{JOBS}/job", headers={"api-key": key}),
        azure.client.put(f"{JOBS}/job", json={}, headers={"api-key": key}),
    ):
        refused(answer, 401, "unauthorized", "api-key")


@pytest.mark.parametrize("version", ["", "2024-05-01-preview", "2023-10-01"])
def test_another_api_version_finds_nothing(azure: Any, version: str) -> None:
    refused(azure.client.get(JOBS, params={"api-version": version}), 404, "notFound", "api-version")


def test_an_unknown_job_is_not_found(azure: Any) -> None:
    refused(azure.get("none"), 404, "notFound", "jobId")


def test_an_unknown_path_is_the_gateways(azure: Any) -> None:
    answer = azure.client.get("/openai/ingestion/jobs")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "404")


def test_there_is_no_cancel_and_no_delete(azure: Any) -> None:
    azure.put()
    assert azure.client.delete(f"{JOBS}/job").status_code == 405
    assert azure.client.post(f"{JOBS}/job/cancel").status_code == 404


def test_the_same_words_twice_are_one_job(azure: Any) -> None:
    azure.blob("a.md", "text")
    first = azure.put()
    assert azure.put().status_code == 200
    assert [job["id"] for job in azure.client.get(JOBS).json()["value"]] == [first.json()["id"]]


@pytest.mark.parametrize("change", [{"body": {"dataRefreshIntervalInMinutes": 1}}, {"storageContainer": "other"}])
def test_other_words_for_the_same_id_are_a_conflict(azure: Any, change: dict[str, Any]) -> None:
    azure.put()
    refused(azure.put(**change), 409, "conflict", "jobId")


def test_no_answer_repeats_a_header_of_the_creation(azure: Any) -> None:
    secret = "AccountName=a;AccountKey=hush-hush;BlobEndpoint=https://nowhere.invalid.windows.net"
    azure.put(storageConnectionString=secret, searchServiceAdminKey="sandbox", embeddingKey="hush-key")
    job = azure.over()
    assert job["error"]["code"] == "fileImportFailed"
    assert "hush" not in str(job) + azure.client.get(JOBS).text
