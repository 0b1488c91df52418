from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from http_server import Request, Server, json_answer
from overnight.doctor.cluster import check_engine, check_plugins
from overnight.doctor.dag_uses import KNN, ML_COMMONS
from overnight.doctor.finding import State
from overnight.errors import UnavailableError
from unit.doctor.conftest import SECRET

Connect = Callable[..., str]
ALL = ("opensearch-knn", "opensearch-ml", "opensearch-neural-search")
NO_HANDLER = {"error": "no handler found for uri [/_plugins/_ml/_batch_ingestion] and method [GET]"}
WRONG_METHOD = {"error": "Incorrect HTTP method for uri [/_plugins/_ml/_batch_ingestion], allowed: [POST]"}


@pytest.fixture
def cluster(connect: Connect, server: Server) -> Callable[..., str]:
    """Makes a connection to a cluster of a version and with plugins, and returns its id."""

    def make(number: str = "2.19.6", plugins: tuple[str, ...] = ALL, denied: bool = False) -> str:
        def answer(request: Request) -> Any:
            if request.path == "/_cat/plugins":
                rows = [{"component": plugin} for plugin in plugins]
                return json_answer({"error": "no permissions"}, 403) if denied else json_answer(rows)
            if request.path.endswith("_batch_ingestion"):
                has = "opensearch-ml" in plugins and number < "3"
                return json_answer(WRONG_METHOD, 405) if has else json_answer(NO_HANDLER, 400)
            return json_answer({"version": {"distribution": "opensearch", "number": number}})

        server.handler = answer
        return connect("search", "overnight_opensearch", host=server.url, login="admin")

    return make


def test_the_plugins_of_a_cluster_are_named(cluster: Callable[..., str]) -> None:
    found = check_plugins(cluster(), {KNN, ML_COMMONS})
    assert (found.state, found.text) == (State.OK, "OpenSearch 2.19.6: k-NN, ML Commons, neural search.")


def test_a_cluster_without_knn_is_found_where_a_dag_makes_vectors(cluster: Callable[..., str]) -> None:
    found = check_plugins(cluster(plugins=()), {KNN})
    assert found.state == State.FAILURE
    assert "lacks k-NN (opensearch-knn)" in found.text
    assert "bin/opensearch-plugin install" in found.text


def test_a_cluster_without_ml_commons_is_found_where_a_dag_uses_it(cluster: Callable[..., str]) -> None:
    found = check_plugins(cluster(plugins=("opensearch-knn",)), {KNN, ML_COMMONS})
    assert found.state == State.FAILURE
    assert "lacks ML Commons (opensearch-ml)" in found.text
    assert "k-NN" not in found.text


def test_what_no_dag_needs_is_no_failure(cluster: Callable[..., str]) -> None:
    assert check_plugins(cluster(plugins=()), set()).state == State.WARNING
    found = check_plugins(cluster(plugins=("opensearch-knn",)), {KNN})
    assert (found.state, "no ML Commons" in found.text) == (State.OK, True)


def test_a_user_who_may_not_see_the_plugins_is_a_warning(cluster: Callable[..., str]) -> None:
    found = check_plugins(cluster(denied=True), {KNN})
    assert found.state == State.WARNING
    assert "cluster:monitor/nodes/info" in found.text
    assert SECRET not in found.text


@pytest.mark.parametrize(
    ("number", "plugins", "engine", "why"),
    [
        ("2.19.6", ALL, "server (the cluster)", "has batch ingestion"),
        ("2.19.6", ("opensearch-knn",), "client (our load", "ML Commons is not installed"),
        ("3.6.0", ALL, "client (our load", "OpenSearch 3.0 removed it"),
        ("1.3.20", (), "client (our load", "it came with OpenSearch 2.17"),
    ],
)
def test_the_engine_that_auto_chooses_is_told_with_its_reason(
    cluster: Callable[..., str], number: str, plugins: tuple[str, ...], engine: str, why: str
) -> None:
    found = check_engine(cluster(number, plugins))
    assert found.state == State.OK
    assert f"engine='auto' chooses {engine}" in found.text
    assert why in found.text


def test_an_address_that_is_no_opensearch_is_refused(connect: Connect, server: Server) -> None:
    server.answers = [json_answer({"hello": "world"})]
    with pytest.raises(UnavailableError, match="not OpenSearch's"):
        check_plugins(connect("search", "overnight_opensearch", host=server.url), set())
