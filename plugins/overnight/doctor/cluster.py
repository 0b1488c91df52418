"""What an OpenSearch cluster can do: its version, its plugins, and who carries a batch ingestion out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from overnight.doctor.dag_uses import KNN, ML_COMMONS
from overnight.doctor.finding import Finding, fail, ok, warn
from overnight.errors import CredentialsError, ServiceError
from overnight.hooks.opensearch import OpenSearchHook
from overnight.services.ml_commons.connection import transport as ml_transport
from overnight.services.ml_commons.ingest.engine import choose_engine, has_endpoint
from overnight.transport.http import HttpCall, send_once

_PLUGINS: Final = {
    "opensearch-knn": "k-NN",
    "opensearch-ml": "ML Commons",
    "opensearch-neural-search": "neural search",
}
_NEEDED: Final = {KNN: "opensearch-knn", ML_COMMONS: "opensearch-ml"}
_WITHOUT: Final = {
    "opensearch-knn": "k-NN (opensearch-knn), so no index of vectors can be made",
    "opensearch-ml": "ML Commons (opensearch-ml), so there is no batch predict in the cluster",
}
_EXAMPLE: Final = "s3://bucket/documents.jsonl"
"""The request that the server carries out, wherever it carries out any: one plain object."""


def check_plugins(conn_id: str, needs: Collection[str]) -> Finding:
    """
    Ask a cluster for its plugins.

    :param needs: What the DAGs need of them.
    """
    config = OpenSearchHook(conn_id).get_config()
    with config.transport(attempts=1) as transport:
        version = transport.run(config.version())
        if config.is_serverless:
            return warn(f"{version} has no plugins, and a load needs more than it has. Load into a domain instead.")
        call = HttpCall("GET", "_cat/plugins", params={"format": "json", "h": "component"})
        try:
            answer: Any = transport.send(call)
        except CredentialsError:
            return warn(
                f"{version} answers, but not which plugins it has: its user lacks cluster:monitor/nodes/info. Grant it "
                "to see them here; a load does not need it."
            )
    rows = answer if isinstance(answer, list) else []
    found = {str(row.get("component")) for row in rows if isinstance(row, dict)}
    lacks = " and ".join(_WITHOUT[plugin] for need, plugin in _NEEDED.items() if need in needs and plugin not in found)
    remedy = "Install it on every node (bin/opensearch-plugin install), or use a cluster that has it."
    if lacks:
        return fail(f"{version} lacks {lacks}, and a DAG here needs it. {remedy}")
    if _NEEDED[KNN] not in found:
        return warn(f"{version} lacks {_WITHOUT[_NEEDED[KNN]]}; no DAG that was read here makes one. {remedy}")
    names = ", ".join(name if plugin in found else f"no {name}" for plugin, name in _PLUGINS.items())
    return ok(f"{version}: {names}.")


def check_engine(conn_id: str) -> Finding:
    """Say what ``engine="auto"`` of the batch ingestion chooses on a cluster for one plain object in S3, and why."""
    config = OpenSearchHook(conn_id).get_config()
    with config.transport(attempts=1) as transport:
        version = transport.run(config.version())
    has = False
    if not config.is_serverless:
        with ml_transport(config, attempts=1) as transport:
            try:
                has = transport.run(send_once(has_endpoint()))
            except ServiceError as error:
                return warn(f"What engine='auto' chooses cannot be seen: {error}")
    choice = choose_engine("auto", version, "s3", [_EXAMPLE], endpoint=has)
    who = "the cluster" if choice.engine == "server" else "our load on the Airflow worker"
    return ok(f"engine='auto' chooses {choice.engine} ({who}): {choice.why}.")
