"""
``https://api.openai.com`` on this machine, for a Java process whose code has that address written into it.

The process is set to use a proxy and to trust a certificate of ours; the proxy is the server. It takes no privileged
port, and no change to the machine.
"""

from __future__ import annotations

import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from certificates import make_certificate

HOST = "api.openai.com"
PASSWORD = "changeit"


@contextmanager
def gate_to(url: str, folder: Path) -> Iterator[tuple[str, ...]]:
    """Lead calls of ``api.openai.com`` to a server, and yield the options of the Java that makes them."""
    context, truststore = _certificate(folder)
    target = urlsplit(url)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            _serve(self.request, context, (str(target.hostname), int(target.port or 80)))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield (
            "-Dhttps.proxyHost=127.0.0.1",
            f"-Dhttps.proxyPort={server.server_address[1]}",
            f"-Djavax.net.ssl.trustStore={truststore}",
            f"-Djavax.net.ssl.trustStorePassword={PASSWORD}",
        )
        server.shutdown()
        thread.join()


def _serve(client: socket.socket, context: ssl.SSLContext, target: tuple[str, int]) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        received = client.recv(4096)
        if not received:
            return
        head += received
    if not head.startswith(f"CONNECT {HOST}:443 ".encode()):
        client.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        return
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    with context.wrap_socket(client, server_side=True) as tls, socket.create_connection(target) as server:
        while True:
            ready = [tls] if tls.pending() else select.select([tls, server], [], [])[0]
            for source, sink in ((tls, server), (server, tls)):
                if source in ready:
                    received = source.recv(65536)
                    if not received:
                        return
                    sink.sendall(received)


def _certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    certificate, key = make_certificate(HOST)
    (folder / "key.pem").write_bytes(key)
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    truststore = folder / "truststore.p12"
    encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
    truststore.write_bytes(
        pkcs12.serialize_java_truststore([pkcs12.PKCS12Certificate(certificate, HOST.encode())], encryption)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context, truststore
