"""The print shop itself: a real HTTP server, so that the service below it talks to something."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest


@dataclass
class Shop:
    """The orders, and what the shop does with them."""

    url: str = ""
    orders: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    status_after_order: str = "waiting"
    capacity: int | None = None
    """How many orders may wait; one more is answered with 429."""
    lose_answers: int = 0
    """How many orders are taken without an answer."""
    clock_behind: float = 0.0
    """Seconds that the shop's clock is behind."""
    forget_polls: int = 0
    """How many polls of a single order are answered with 404."""
    hide_from_list: bool = False

    @property
    def is_full(self) -> bool:
        waiting = sum(order["status"] == "waiting" for order in self.orders)
        return self.capacity is not None and waiting >= self.capacity

    def page(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Newest first, after an order, at most so many."""
        ids = [order["id"] for order in reversed(self.orders)]
        start = ids.index(query["after"][0]) + 1 if "after" in query else 0
        return self.orders[::-1][start : start + int(query["limit"][0])] if "limit" in query else self.orders[::-1]

    def order(self, order_id: str) -> dict[str, Any] | None:
        return next((order for order in self.orders if order["id"] == order_id), None)

    def finish(self, status: str = "printed", spoiled: int = 0) -> None:
        for order in self.orders:
            if order["status"] == "waiting":
                order.update(status=status, spoiled=spoiled)


@contextmanager
def open_shop() -> Iterator[Shop]:
    shop = Shop()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            shop.requests.append(("GET", url.path))
            if self.headers.get("Authorization") != "Bearer ink":
                self.answer(401, {"message": "no such customer"})
            elif url.path == "/orders":
                self.answer(200, {"orders": [] if shop.hide_from_list else shop.page(parse_qs(url.query))})
            elif shop.forget_polls:
                shop.forget_polls -= 1
                self.answer(404, {"message": "no such order"})
            else:
                order = shop.order(self.path.rpartition("/")[2])
                self.answer(404, {"message": "no such order"}) if order is None else self.answer(200, order)

        def do_POST(self) -> None:
            shop.requests.append(("POST", self.path))
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
            if self.path == "/orders" and shop.is_full:
                self.answer(429, {"message": f"we take {shop.capacity} orders at a time"})
                return
            if self.path == "/orders":
                order = {
                    "id": f"p{len(shop.orders)}",
                    "status": shop.status_after_order,
                    "spoiled": 0,
                    "created_at": time.time() - shop.clock_behind,
                    **body,
                }
                shop.orders.append(order)
                if shop.lose_answers:
                    shop.lose_answers -= 1
                    self.answer(500, {"message": "the clerk fell asleep"})
                else:
                    self.answer(200, order)
                return
            order = shop.order(self.path.split("/")[2])
            if order is not None and order["status"] == "waiting":
                order["status"] = "withdrawn"
            self.answer(404, {"message": "no such order"}) if order is None else self.answer(200, order)

        def answer(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    shop.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield shop
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def connect(monkeypatch: pytest.MonkeyPatch, url: str, password: str = "ink") -> None:
    connection = {"conn_type": "slowprint", "host": url, "password": password}
    monkeypatch.setenv("AIRFLOW_CONN_SLOWPRINT_DEFAULT", json.dumps(connection))
