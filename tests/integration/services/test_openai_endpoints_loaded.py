"""A batch of every endpoint, from documents to the index, by the path of its answers."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest

from integration.services.conftest import Bench
from overnight.ingest import LoadOptions, OpenSearchTarget, load
from overnight.ingest.write.index import create_index
from overnight.jobs import JobKey
from overnight.services.openai.endpoints import ENDPOINTS
from overnight.services.openai.input import RequestTemplate, build
from overnight.services.openai.results import chunks_from, join_results
from overnight.services.openai.service import OpenAIBatchSpec
from overnight.transport.http import HttpTransport

DOCUMENTS = [{"id": "a", "text": "There were 3 dogs."}, {"id": "b", "text": "A murder of crows."}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "gpt-4.1", "input": "${text}", "reasoning": {"effort": "low"}},
    "/v1/chat/completions": {"model": "gpt-4o", "messages": [{"role": "user", "content": "${text}"}]},
    "/v1/embeddings": {"model": "text-embedding-3-small", "input": "${text}", "dimensions": 4},
    "/v1/completions": {"model": "gpt-3.5-turbo-instruct", "prompt": "${text}"},
    "/v1/moderations": {"input": "${text}"},
    "/v1/images/generations": {"model": "gpt-image-1", "prompt": "${text}", "quality": "low"},
    "/v1/images/edits": {"model": "gpt-image-1", "prompt": "${text}", "images": [{"file_id": "file-1"}]},
    "/v1/videos": {"model": "sora-2", "prompt": "${text}"},
}
MAPPINGS: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {
        "type": "knn_vector",
        "dimension": 4,
        "method": {"name": "hnsw", "engine": "lucene", "space_type": "l2"},
    },
    "/v1/moderations": {"properties": {"flagged": {"type": "boolean"}}},
    # Base64 is kept and not searched; as text it would be analysed, and a keyword has at most 32,766 bytes.
    "/v1/images/generations": {"type": "binary"},
    "/v1/images/edits": {"type": "binary"},
}


def check_answer(endpoint: str, answer: Any, document: dict[str, Any]) -> None:
    if endpoint == "/v1/embeddings":
        assert len(answer) == 4
    elif endpoint == "/v1/moderations":
        assert answer["flagged"] is (document["id"] == "b")
        assert answer["category_scores"]["self-harm"] == 0.0001
    elif "/images/" in endpoint:
        assert base64.b64decode(answer).startswith(b"\x89PNG")
    elif endpoint == "/v1/videos":
        assert answer.startswith("video_")
    else:
        assert answer in (document["text"], [document["text"]])


@pytest.mark.parametrize("known", ENDPOINTS, ids=lambda known: known.path)
def test_the_answers_of_an_endpoint_are_in_the_index(
    known: Any, bench: Bench, key: JobKey, opensearch_url: str, index_name: str
) -> None:
    template = RequestTemplate(endpoint=known.path, body=BODIES[known.path])
    (part,) = build(DOCUMENTS, template, str(bench.folder / "in")).parts
    spec = OpenAIBatchSpec(input_uri=part.uri, endpoint=known.path).measured()
    ref = bench.client.run(bench.client.service.submit(spec, key))
    status = bench.wait(ref)
    manifest = bench.client.run(bench.client.service.results(ref))
    assert manifest.detail["usage"]["total"] > 0
    transport = bench.client.transport
    assert isinstance(transport, HttpTransport)
    succeeded = bench.folder / "succeeded.jsonl"
    counts = join_results(
        manifest,
        chunks_from(transport),
        outcomes_uri=str(bench.folder / "outcomes.jsonl"),
        retry_uri=str(bench.folder / "retry.jsonl"),
        succeeded_uri=str(succeeded),
        ended=status.state,
    )
    assert (counts.submitted, counts.succeeded) == (2, 2)
    request = {
        "index_name": index_name,
        "field_map": {
            "_id": ["source[0].$.id", "source[1].$.custom_id"],
            "text": "source[0].$.text",
            "answer": f"source[1].{known.answer_path}",
        },
        "data_source": {"source": [part.documents_uri, str(succeeded)]},
    }
    mapping = MAPPINGS.get(known.path, {"type": "text"})
    with OpenSearchTarget(opensearch_url) as target:
        settings = {"number_of_replicas": 0, "index.knn": True}
        create_index(target, index_name, {"settings": settings, "mappings": {"properties": {"answer": mapping}}})
        report = load(request, target=target, options=LoadOptions(format=(None, "openai")))
        assert (report.indexed, report.rejected, report.missing) == (2, 0, 0)
        found = target.post(f"{index_name}/_search", {"size": 10})["hits"]["hits"]
    assert {hit["_id"] for hit in found} == {"a", "b"}
    for hit, document in zip(sorted(found, key=lambda hit: hit["_id"]), DOCUMENTS, strict=True):
        assert hit["_source"]["text"] == document["text"]
        check_answer(known.path, hit["_source"]["answer"], document)


def test_an_image_that_is_longer_than_a_line_may_be_is_rejected_and_the_others_are_loaded(
    opensearch_url: str, index_name: str, tmp_path: Path
) -> None:
    images = {"a": "A" * 40_000, "b": "A" * 4_000}
    bodies = {name: {"created": 1, "data": [{"b64_json": image}]} for name, image in images.items()}
    lines = [{"custom_id": name, "response": {"status_code": 200, "body": body}} for name, body in bodies.items()]
    results = tmp_path / "results.jsonl"
    results.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    request = {
        "index_name": index_name,
        "field_map": {"_id": "$.custom_id", "image": "$.response.body.data[0].b64_json"},
        "data_source": {"source": [str(results)]},
    }
    options = LoadOptions(format="openai", max_line_bytes=32_000, allowed_failures=1)
    with OpenSearchTarget(opensearch_url) as target:
        body = {"settings": {"number_of_replicas": 0}, "mappings": {"properties": {"image": {"type": "binary"}}}}
        create_index(target, index_name, body)
        report = load(request, target=target, options=options)
    assert (report.indexed, report.rejected) == (1, 1)
