from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from overnight.ingest import OpenSearchTarget
from unit.ingest.clock import Clock
from unit.ingest.fake_opensearch import FakeOpenSearch


@pytest.fixture
def opensearch() -> Iterator[FakeOpenSearch]:
    fake = FakeOpenSearch()
    fake.create("docs")
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.server.shutdown()
        fake.server.server_close()
        thread.join()


@pytest.fixture
def target(opensearch: FakeOpenSearch) -> Iterator[OpenSearchTarget]:
    # Without TLS, and so without the tenth of a second that it takes to read the certificates for it.
    with OpenSearchTarget(opensearch.url, verify=False) as target:
        yield target


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)
