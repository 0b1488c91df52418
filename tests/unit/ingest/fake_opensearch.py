"""A server with the few OpenSearch calls that a load makes, which a test can make misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What a ``_bulk`` request gets instead of being carried out. Status 0 drops the connection."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    carried_out: bool = False


class FakeOpenSearch:
    def __init__(self) -> None:
        self.indices: dict[str, dict[str, Any]] = {}
        self.documents: dict[str, dict[str, Any]] = {}
        self.sequence: dict[str, int] = {}
        self.versions: dict[str, int] = {}
        self.page = 3
        self._scans: dict[str, list[dict[str, Any]]] = {}
        self.settings: list[dict[str, Any]] = []
        self.bulks: list[list[str]] = []
        self.faults: list[Answer] = []
        self.requests: list[str] = []
        self.on_request: Callable[[str, str], Answer | None] = lambda _method, _path: None
        self.on_item: Callable[[str, dict[str, Any]], dict[str, Any] | None] = lambda _id, _document: None
        self.on_answer: Callable[[list[Any]], list[Any]] = lambda items: items
        self.max_bytes = 100 << 20
        self.running = self.most_running = 0
        self.gate: Callable[[list[str]], None] = lambda _ids: None
        self.lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # The head and the body are two writes: without this, the second waits for the acknowledgement of the first.
            disable_nagle_algorithm = True

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fake.requests.append(f"{self.command} {self.path.partition('?')[0]}")
                answer = fake.on_request(self.command, self.path.partition("?")[0]) or fake.answer(
                    self.command, self.path.partition("?")[0].strip("/"), body
                )
                if answer.status == 0:
                    self.close_connection = True
                    self.connection.close()
                    return
                content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def create(self, name: str, properties: dict[str, Any] | None = None) -> None:
        self.indices[name] = {
            "aliases": {},
            "mappings": {"properties": properties or {}},
            "settings": {"index": {"uuid": f"uuid-{name}-{len(self.indices)}"}},
        }

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        if not path:
            return Answer(200, {"version": {"number": "2.19.6", "distribution": "opensearch"}})
        name, _, action = path.partition("/")
        if action == "_bulk":
            return self._bulk(body)
        if path == "_search/scroll":
            return Answer(200, {}) if method == "DELETE" else self._scroll(json.loads(body)["scroll_id"])
        if name not in self.indices and method != "PUT":
            return Answer(404, {"error": {"type": "index_not_found_exception", "reason": f"no such index [{name}]"}})
        if method == "PUT" and not action:
            self.create(name, json.loads(body).get("mappings", {}).get("properties"))
            return Answer(200, {"acknowledged": True})
        if action == "_settings":
            if method == "PUT":
                self.settings.append(json.loads(body))
                return Answer(200, {"acknowledged": True})
            settings = {"index.refresh_interval": "7s", "index.number_of_shards": "1"}
            return Answer(200, {name: {"settings": settings}})
        if action == "_stats":
            copies = [{"seq_no": {"max_seq_no": max(self.sequence.values(), default=-1)}, "routing": {"primary": True}}]
            return Answer(200, {"indices": {name: {"shards": {"0": copies}}}})
        if action == "_search":
            wanted = json.loads(body)
            return self._find(wanted) if "docvalue_fields" in wanted else self._search()
        if action == "_mapping" and method == "PUT":
            self.indices[name]["mappings"]["properties"] |= json.loads(body)["properties"]
            return Answer(200, {"acknowledged": True})
        if action == "_count":
            return Answer(200, {"count": len(self.documents)})
        if action == "_refresh":
            return Answer(200, {})
        if action == "_mget":
            keys = [document["_id"] for document in json.loads(body)["docs"]]
            return Answer(200, {"docs": [self._get(key) for key in keys]})
        return Answer(200, {name: self.indices[name]})

    def _get(self, key: str) -> dict[str, Any]:
        if key not in self.documents:
            return {"_id": key, "found": False}
        return {"_id": key, "found": True, "_version": self.versions.get(key, 1)}

    def _find(self, wanted: dict[str, Any]) -> Answer:
        """Answer a search by ids with the values of a field."""
        (name,) = wanted["docvalue_fields"]
        found = [self.documents[key] for key in wanted["query"]["ids"]["values"] if key in self.documents]
        hits = [{"fields": {name: [document[name]]}} if name in document else {} for document in found]
        return Answer(200, {"timed_out": False, "hits": {"hits": hits}})

    def _search(self) -> Answer:
        scan = str(len(self._scans))
        self._scans[scan] = [
            {"_id": key, "_seq_no": self.sequence.get(key, 0), "_primary_term": 1} for key in sorted(self.documents)
        ]
        return self._scroll(scan)

    def _scroll(self, scan: str) -> Answer:
        left = self._scans[scan]
        page = [left.pop(0) for _ in range(min(self.page, len(left)))]
        hits = {"total": {"value": len(self.documents)}, "hits": page}
        return Answer(200, {"_scroll_id": scan, "timed_out": False, "_shards": {"failed": 0}, "hits": hits})

    def _delete(self, action: dict[str, Any]) -> dict[str, Any]:
        key = action["delete"]["_id"]
        bad = self.on_item(key, {})
        if bad is not None:
            return {"delete": {"_id": key, **bad}}
        if self.sequence.get(key, 0) != action["delete"]["if_seq_no"]:
            error = {"type": "version_conflict_engine_exception", "reason": "required seqNo"}
            return {"delete": {"_id": key, "status": 409, "error": error}}
        self.documents.pop(key, None)
        return {"delete": {"_id": key, "status": 200, "result": "deleted"}}

    def _bulk(self, body: bytes) -> Answer:
        lines = body.decode().split("\n")
        assert lines.pop() == ""
        if lines[0].startswith('{"delete":'):
            fault = self.faults.pop(0) if self.faults else None
            return fault or Answer(200, {"items": [self._delete(json.loads(line)) for line in lines]})
        actions = [json.loads(line) for line in lines[::2]]
        ids = [next(iter(action.values()))["_id"] for action in actions]
        with self.lock:
            assert len(self.bulks) < 1_000, "the same bodies are sent for ever"
            self.bulks.append(ids)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            fault = self.faults.pop(0) if self.faults else None
        try:
            self.gate(ids)
            if len(body) > self.max_bytes:
                return Answer(413, b"")
            if fault is not None and not fault.carried_out:
                return fault
            items = [self._item(*args) for args in zip(actions, map(json.loads, lines[1::2]), lines[1::2], strict=True)]
            items = self.on_answer(items)
            errors = any("error" in next(iter(item.values())) for item in items)
            return fault or Answer(200, {"errors": errors, "items": items})
        finally:
            with self.lock:
                self.running -= 1

    def _item(self, action: dict[str, Any], document: dict[str, Any], text: str) -> dict[str, Any]:
        (kind, meta) = next(iter(action.items()))
        bad = self.on_item(meta["_id"], document)
        if bad is not None:
            return {kind: {"_id": meta["_id"], **bad}}
        with self.lock:
            self.sequence[meta["_id"]] = max(self.sequence.values(), default=-1) + 1
            self.versions[meta["_id"]] = self.versions.get(meta["_id"], 0) + 1
            if kind == "update":
                assert document["doc_as_upsert"] is True
                self.documents[meta["_id"]] = {**self.documents.get(meta["_id"], {}), **document["doc"]}
            else:
                self.documents[meta["_id"]] = document
        return {kind: {"_id": meta["_id"], "_version": 1, "result": "created", "status": 201}}
