"""The page of ``tests/seeds`` on LlamaCloud's batches: its request at the emulator, its request and answer with us."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import orjson

import seed_texts
from http_server import Answer, Request, Server, json_answer
from overnight.jobs import JobKey, JobState
from overnight.jobs.client import JobClient
from overnight.sandbox.services import KEY
from overnight.services.llamacloud.connection import LlamaCloudConnection
from overnight.services.llamacloud.service import LlamaCloudService

from .conftest import Bench, parsing

PAGE = seed_texts.read_page("004")
(CREATE,) = seed_texts.curls(PAGE, {"LLAMA_CLOUD_API_KEY": KEY})
CREATED, CREATED_AGAIN = seed_texts.answers(PAGE)
PATH = httpx.URL(CREATE.target).path
CONFIGURATION = CREATE.json()["config"]["job"]["configuration_id"]
DIRECTORY = CREATE.json()["source_directory_id"]


def test_the_emulator_takes_the_request_and_gives_the_answer(bench: Bench) -> None:
    assert CREATED == CREATED_AGAIN
    headers = {"Authorization": CREATE.headers["Authorization"]}
    directories = f"{bench.url}/api/v1/beta/directories"
    directory = httpx.post(directories, headers=headers, json={"name": "pages"}).raise_for_status().json()["id"]
    httpx.post(
        f"{directories}/{directory}/files/upload", headers=headers, files={"upload_file": ("a.md", b"# A\n")}
    ).raise_for_status()
    assert CREATE.body is not None
    # The page's ids are those of an account that is not here.
    body = CREATE.body.replace(CONFIGURATION, "cfg-PARSE_FAST").replace(DIRECTORY, directory)
    created = httpx.request(CREATE.method, bench.url + PATH, headers=CREATE.headers, content=body)
    answer = created.raise_for_status().json()
    assert set(answer) == set(CREATED)
    assert answer["status"] == CREATED["status"]
    assert {name: answer[name] for name in ("config", "source_directory_id")} == json.loads(body)


def test_we_send_the_request_and_read_the_answer(key: JobKey, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n")

    def respond(request: Request) -> Answer:
        if request.path == PATH and request.method == "POST":
            return json_answer(CREATED)
        if request.path == f"{PATH}/{CREATED['id']}":
            return json_answer(CREATED)
        if request.method == "GET":
            return json_answer({"items": [], "next_page_token": None})
        # The directory, and the file in it.
        return json_answer({"id": DIRECTORY, "name": "any", "unique_id": "any"})

    server = Server()
    server.handler = respond
    service = LlamaCloudService("llamacloud_default")
    transport = LlamaCloudConnection(api_key=KEY, base_url=server.url).transport(backoff=0.01)
    try:
        with JobClient(service, transport) as client:
            ref = client.run(client.service.submit(parsing(f"{tmp_path}/*.md", configuration_id=CONFIGURATION), key))
            status = client.run(client.service.status(ref))
    finally:
        server.stop()
    (sent,) = [request for request in server.requests if (request.method, request.path) == (CREATE.method, PATH)]
    assert sent.headers["authorization"] == CREATE.headers["Authorization"]
    assert orjson.loads(sent.body) == CREATE.json()
    assert (ref.id, status.state, status.raw) == (CREATED["id"], JobState.QUEUED, CREATED["status"])
