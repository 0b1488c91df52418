"""What Airflow's processes send to StatsD."""

from __future__ import annotations

import socket
import threading
from collections import Counter

from overnight.sandbox.process import LOCALHOST

BUFFER = 8 * 2**20


class StatsD:
    """A server that counts the datagrams that it is sent, by metric."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.bind((LOCALHOST, 0))
        self.port: int = self._socket.getsockname()[1]
        self.seen: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def environment(self) -> dict[str, str]:
        """Return what makes an Airflow send its metrics here."""
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": LOCALHOST,
            "AIRFLOW__METRICS__STATSD_PORT": str(self.port),
        }

    def close(self) -> None:
        """Stop listening."""
        self._socket.sendto(b"", (LOCALHOST, self.port))
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while datagram := self._socket.recv(65_536):
            for line in datagram.decode().splitlines():
                name, _, value = line.partition(":")
                self.seen[name] += int(float(value.partition("|")[0])) if value.endswith("|c") else 1
