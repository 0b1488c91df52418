"""A local HTTP server that answers as a test says, down to the broken connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass
class Request:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """``sent``: how many bytes of the body arrive before the connection breaks; ``drop``: break it at once."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None
    drop: bool = False
    hang_up_after: bool = False


def json_answer(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, orjson.dumps(value), {name.replace("_", "-"): text for name, text in headers.items()})


class Server:
    """Answers the requests in turn, the last answer for ever; or by a function."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: list[Answer] = [Answer()]
        self.handler: Callable[[Request], Answer] | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                path, _, query = self.path.partition("?")
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, path, query, headers, self.rfile.read(length))
                server.requests.append(request)
                self.answer(server.answer(request))

            do_GET = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815

            def answer(self, answer: Answer) -> None:
                if answer.drop:
                    self.hang_up()
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body if answer.sent is None else answer.body[: answer.sent])
                if answer.sent is not None or answer.hang_up_after:
                    self.hang_up()

            def hang_up(self) -> None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that goes away is part of many tests

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def answer(self, request: Request) -> Answer:
        if self.handler is not None:
            return self.handler(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
