"""
Loads into a real OpenSearch through a proxy that changes the answers to ``_bulk``. The index is what is checked.

What is between a load and a node (a load balancer, an ingest pipeline) can reorder, lose, double and throttle items,
and lose whole answers. Which items are changed is random, from a seed.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from http_server import Answer, Request, Server
from overnight.ingest import LoadOptions, OpenSearchTarget, load, read_dead_letters
from overnight.ingest.write.index import create_index

DOCUMENTS = 400
SEEDS = range(3)
THROTTLED = {"type": "rejected_execution_exception", "reason": "rejected execution of coordinating operation"}


class ChangingProxy(Server):
    """Passes every call on; of the answers to ``_bulk`` more than a half is changed."""

    def __init__(self, upstream: str, seed: int) -> None:
        super().__init__()
        self.changes = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._upstream = upstream
        self.handler = self.pass_on

    def pass_on(self, request: Request) -> Answer:
        url = f"{self._upstream}{request.path}{'?' if request.query else ''}{request.query}"
        headers = {"Content-Type": request.headers.get("content-type", "application/json")}
        answer = httpx.request(request.method, url, content=request.body, headers=headers, timeout=60)
        status, content = answer.status_code, answer.content
        if request.path.endswith("/_bulk"):
            status, content = self.change(status, content)
        return Answer(status, content, {"Content-Type": "application/json"})

    def change(self, status: int, content: bytes) -> tuple[int, bytes]:
        with self._lock:
            dice = self._random
            if dice.random() < 0.4:
                return status, content
            self.changes += 1
            kind = dice.randrange(6)
            if kind == 0:
                return 503, b"<html>busy</html>"
            if kind == 1:
                return status, content[: len(content) // 2]
            answer = json.loads(content)
            items = answer["items"]
            dice.shuffle(items)
            some = dice.sample(range(len(items)), k=max(1, len(items) // 4))
            if kind == 2:
                answer["items"] = [item for number, item in enumerate(items) if number not in some]
            elif kind == 3:
                answer["items"] += [items[number] for number in some]
            elif kind == 4:
                for number in some:
                    (found,) = items[number].values()
                    # It was carried out, and is said not to be.
                    items[number] = {"index": {"_id": found["_id"], "status": 429, "error": THROTTLED}}
                answer["errors"] = True
            return status, json.dumps(answer).encode()


@pytest.fixture
def proxy(opensearch_url: str, seed: int) -> Iterator[ChangingProxy]:
    found = ChangingProxy(opensearch_url, seed)
    yield found
    found.stop()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("write", ["index", "update"])
def test_each_document_gets_its_own_outcome_whatever_becomes_of_the_answers(
    write: Any, opensearch_url: str, proxy: ChangingProxy, index_name: str, seed: int, tmp_path: Path
) -> None:
    dice = random.Random(1_000 + seed)
    kinds = {f"d{n}": dice.choice(["good"] * 6 + ["dropped", "failed", "unfit"]) for n in range(DOCUMENTS)}
    pipeline = [
        {"drop": {"if": "ctx.kind == 'dropped'"}},
        {"fail": {"if": "ctx.kind == 'failed'", "message": "refused by the pipeline"}},
    ]
    settings: dict[str, Any] = {"number_of_replicas": 0}
    if write == "index":  # a pipeline refuses updates
        settings["default_pipeline"] = index_name
    else:
        kinds = {key: "good" if kind in ("dropped", "failed") else kind for key, kind in kinds.items()}
    mappings = {"properties": {"n": {"type": "integer"}, "kind": {"type": "keyword"}}}
    with OpenSearchTarget(opensearch_url) as direct, OpenSearchTarget(proxy.url) as target:
        direct.put(f"_ingest/pipeline/{index_name}", {"processors": pipeline})
        create_index(direct, index_name, {"settings": settings, "mappings": mappings})
        path = tmp_path / "a.jsonl"
        rows = [
            {"id": key, "kind": kind, "n": "no number" if kind == "unfit" else n}
            for n, (key, kind) in enumerate(kinds.items())
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        dead_letters = str(tmp_path / "dead.jsonl")
        report = load(
            {
                "index_name": index_name,
                "field_map": {"_id": "$.id", "kind": "$.kind", "n": "$.n"},
                "data_source": {"source": [str(path)]},
            },
            target=target,
            options=LoadOptions(write=write, dead_letter_uri=dead_letters, bulk_bytes=2_000, max_in_flight=4),
        )
        direct.post(f"{index_name}/_refresh")
        hits = direct.post(f"{index_name}/_search", {"size": 10_000, "query": {"match_all": {}}})["hits"]["hits"]
    by_kind = {kind: {key for key, other in kinds.items() if other == kind} for kind in set(kinds.values())}
    assert {hit["_id"]: hit["_source"]["n"] for hit in hits} == {
        row["id"]: row["n"] for row in rows if row["kind"] == "good"
    }
    records = list(read_dead_letters(dead_letters))
    dropped = [record.id for record in records if record.outcome == "dropped"]
    rejected = [record.id for record in records if record.outcome == "rejected"]
    assert sorted(dropped) == sorted(by_kind.get("dropped", ()))
    assert sorted(rejected) == sorted(by_kind.get("failed", set()) | by_kind["unfit"])
    assert (report.submitted, report.indexed, report.dropped, report.rejected) == (
        DOCUMENTS,
        len(hits),
        len(dropped),
        len(rejected),
    )
    assert proxy.changes
