"""The page of ``tests/seeds`` on OpenAI's batches: its request at the emulator, its request and answer with us."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

import seed_texts
from http_server import Answer, Request, Server, json_answer
from overnight.jobs import JobKey, JobState
from overnight.jobs.client import JobClient
from overnight.services.openai.connection import OpenAIConnection
from overnight.services.openai.service import OpenAIBatchService, OpenAIBatchSpec

from .conftest import Bench

PAGE = seed_texts.read_page("003")
(CREATE,) = seed_texts.curls(PAGE, {"ACCESS_TOKEN": "sandbox"})
EXAMPLE, CREATED = seed_texts.answers(PAGE)
PATH = httpx.URL(CREATE.target).path
MESSAGES = [{"role": "user", "content": "x"}]
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": MESSAGES}}


def test_the_emulator_takes_the_request_and_gives_the_answer(bench: Bench) -> None:
    assert CREATE.json() == EXAMPLE
    files = {"file": ("input.jsonl", json.dumps(LINE).encode())}
    authorization = {"Authorization": CREATE.headers["Authorization"]}
    uploaded = httpx.post(f"{bench.url}/files", headers=authorization, data={"purpose": "batch"}, files=files)
    assert CREATE.body is not None
    # The page's file has the id "string".
    body = CREATE.body.replace('"string"', json.dumps(uploaded.raise_for_status().json()["id"]), 1)
    target = bench.url.removesuffix("/v1") + PATH
    answer = httpx.request(CREATE.method, target, headers=CREATE.headers, content=body).raise_for_status().json()
    assert set(CREATED) <= set(answer)
    assert answer["status"] == CREATED["status"]
    assert set(answer["request_counts"]) == set(CREATED["request_counts"])
    assert {name: answer[name] for name in EXAMPLE} == json.loads(body)


def test_we_send_the_request_and_read_the_answer(key: JobKey, tmp_path: Path) -> None:
    source = tmp_path / "input.jsonl"
    source.write_text(json.dumps(LINE) + "\n")

    def respond(request: Request) -> Answer:
        if request.path.endswith("/files"):
            uploaded = {"id": EXAMPLE["input_file_id"], "object": "file", "status": "processed"}
            return json_answer(uploaded if request.method == "POST" else {"object": "list", "data": []})
        if request.path == PATH and request.method == "GET":
            return json_answer({"object": "list", "data": []})
        return json_answer(CREATED)

    server = Server()
    server.handler = respond
    transport = OpenAIConnection("sandbox", base_url=f"{server.url}/v1").transport(backoff=0.01)
    spec = OpenAIBatchSpec(
        input_uri=str(source),
        endpoint=EXAMPLE["endpoint"],
        completion_window=EXAMPLE["completion_window"],
        metadata=EXAMPLE["metadata"],
    ).measured()
    try:
        with JobClient(OpenAIBatchService("openai_default"), transport) as client:
            ref = client.run(client.service.submit(spec, key))
            status = client.run(client.service.status(ref))
    finally:
        server.stop()
    (sent,) = [request for request in server.requests if (request.method, request.path) == (CREATE.method, PATH)]
    assert sent.headers["authorization"] == CREATE.headers["Authorization"]
    body = json.loads(sent.body)
    # What is ours beside the user's metadata is how a retry finds the batch.
    ours = {name: value for name, value in body["metadata"].items() if name.startswith("overnight_")}
    assert {**body, "metadata": {n: v for n, v in body["metadata"].items() if n not in ours}} == EXAMPLE
    assert key.name in ours.values()
    assert (ref.id, status.state, status.raw) == (CREATED["id"], JobState.QUEUED, CREATED["status"])
    assert (status.counts.total, status.counts.succeeded, status.counts.failed) == (42, 42, 42)
    (error,) = status.errors
    assert (error.code, error.message, error.param, error.line) == ("string", "string", "string", 42)
