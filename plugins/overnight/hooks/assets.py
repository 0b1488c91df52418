"""Indices as Airflow's assets: a DAG is scheduled on the index that another one has loaded into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from airflow.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from airflow.sdk import Context

LOADED_INDICES: Final = "overnight"
"""The alias of all indices that the templates load into."""


def build_index_asset(url: str, index_name: str) -> Asset:
    """
    Return the asset of an index, such as a DAG's ``schedule`` names it.

    :param url: Of the cluster, as the connection has it: ``https://search.example.com:9200``. A user and password in it
        are left out.
    :param index_name: The index or alias that is loaded into.
    """
    return Asset(f"{name_cluster(url)}/{index_name}")


def name_cluster(url: str) -> str:
    """Return ``opensearch://host:port``, and the path of the cluster's address if it has one."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"opensearch://{parts.hostname}:{port}{parts.path.rstrip('/')}"


def add_index_event(
    context: Context, outlets: Sequence[Any], url: str, index_name: str, extra: Mapping[str, Any]
) -> None:
    """
    Add an event of an index to those of a task, where its outlets have the alias :data:`LOADED_INDICES`.

    :param url: Of the cluster.
    :param extra: JSON that goes with the event.
    """
    for outlet in outlets:
        if isinstance(outlet, AssetAlias) and outlet.name == LOADED_INDICES:
            context["outlet_events"][outlet].add(build_index_asset(url, index_name), extra=dict(extra))
