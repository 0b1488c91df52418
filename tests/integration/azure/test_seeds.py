"""The page of ``tests/seeds`` on Azure's ingestion jobs: sent to the emulator, and what we send and read."""

from __future__ import annotations

import json
from typing import Any

import httpx

import seed_texts
from http_server import Answer, Server, json_answer
from overnight.jobs import JobKey, JobState
from overnight.services.azure_ingestion.spec import AzureIngestionSpec

PAGE = seed_texts.read_page("002")
(CREATE,) = seed_texts.requests(PAGE)
(CREATED,) = seed_texts.answers(PAGE)
URL = httpx.URL(CREATE.target)


def test_the_emulator_takes_the_request_and_gives_the_answer(azure: Any, key: JobKey) -> None:
    headers = {
        **azure.client().service.account.job_headers(),
        "api-key": azure.facts["api_key"],
        "Content-Type": "application/json",
    }
    # Jobs have no end here, and the page's id is one for all runs.
    target = azure.url + str(URL.raw_path, "ascii").replace("/test?", f"/{key.name}?")
    answer = httpx.request(CREATE.method, target, headers=headers, content=CREATE.body).raise_for_status().json()
    # The default of the page's table, which its sample leaves out.
    assert answer.pop("chunkSize") == 1_024
    assert {**answer, "id": CREATED["id"]} == CREATED


def test_we_send_the_request_and_read_the_answer(azure: Any, key: JobKey) -> None:
    server = Server()
    server.handler = lambda request: json_answer({"error": {"code": "notFound"}}, 404) if request.method == "GET" else (
        json_answer({**CREATED, "id": key.name})
    )  # fmt: skip
    asked = CREATE.json()
    spec = AzureIngestionSpec(
        data_refresh_interval_minutes=asked["dataRefreshIntervalInMinutes"],
        completion_action=asked["completionAction"],
    )
    try:
        with azure.client(endpoint=server.url) as client:
            ref = client.run(client.service.submit(spec, key))
            server.handler = lambda _: Answer(body=json.dumps({**CREATED, "id": key.name}).encode())
            status = client.run(client.service.status(ref))
    finally:
        server.stop()
    (sent,) = [request for request in server.requests if request.method == CREATE.method]
    assert json.loads(sent.body) == asked
    assert (sent.path, sent.query) == (URL.path.replace("/test", f"/{key.name}"), URL.query.decode())
    assert {"api-key", "searchserviceendpoint", "storageconnectionstring", "storagecontainer"} <= set(sent.headers)
    assert (status.state, status.raw) == (JobState.QUEUED, CREATED["status"])
