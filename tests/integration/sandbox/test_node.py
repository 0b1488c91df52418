from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from overnight.sandbox.opensearch import Node
from patience import PATIENCE


@pytest.fixture(params=["2.19.6", "3.6.0"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    node = Node(request.param, home=tmp_path / "node", short_lived=True)
    yield node
    node.remove()


def java_of(node: Node) -> list[psutil.Process]:
    """Every process of this machine that runs the node's folder, whoever started it."""
    home = f"-Dopensearch.path.home={node.home.resolve()}"
    return [process for process in psutil.process_iter(["cmdline"]) if home in (process.info["cmdline"] or ())]


def test_a_node_boots_unprivileged_ends_on_sigterm_keeps_its_documents_and_leaves_no_process(node: Node) -> None:
    with node:
        (process,) = java_of(node)
        assert os.geteuid() != 0 or process.uids().real == process.uids().effective == 65534
        assert 0 not in process.uids()
        assert httpx.get(node.url).json()["version"]["number"] == node.version
        plugins = httpx.get(f"{node.url}/_cat/plugins", params={"format": "json"}).json()
        assert {plugin["component"] for plugin in plugins} == {"opensearch-job-scheduler", "opensearch-knn"}
        httpx.put(f"{node.url}/kept/_doc/1?refresh=true", json={"n": 1}, timeout=PATIENCE).raise_for_status()
    assert java_of(node) == []
    # It ended by itself: stop() sends SIGKILL after 15 s. Without its policy netty4 takes 50 s.
    assert "closed" in node.log.read_text().splitlines()[-1]
    with node:
        assert httpx.get(f"{node.url}/kept/_count", timeout=PATIENCE).json()["count"] == 1
    home = node.home.resolve()
    node.remove()
    assert java_of(node) == []
    assert not home.exists()
