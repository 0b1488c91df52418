"""The assets of indices: one URI for one index, and nothing secret in it."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import Asset, AssetAlias

from overnight.hooks.assets import LOADED_INDICES, add_index_event, build_index_asset


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("http://search:9200", "opensearch://search:9200/docs"),
        ("https://search.example.com", "opensearch://search.example.com:443/docs"),
        ("http://search", "opensearch://search:80/docs"),
        ("https://user:secret@search:9200/prefix/", "opensearch://search:9200/prefix/docs"),
    ],
)
def test_an_index_has_one_uri(url: str, uri: str) -> None:
    assert build_index_asset(url, "docs").uri == uri


class Events:
    def __init__(self) -> None:
        self.added: list[tuple[Any, dict[str, Any]]] = []

    def __getitem__(self, key: Any) -> Events:
        return self

    def add(self, asset: Asset, extra: dict[str, Any]) -> None:
        self.added.append((asset, extra))


def test_an_event_is_added_for_the_templates_alias_alone() -> None:
    events = Events()
    context: Any = {"outlet_events": events}
    where = "http://search:9200", "docs"
    add_index_event(context, [Asset("s3://bucket/x"), AssetAlias("mine")], *where, {"documents": 1})
    assert events.added == []
    add_index_event(context, [AssetAlias(LOADED_INDICES)], *where, {"documents": 1})
    assert events.added == [(build_index_asset(*where), {"documents": 1})]
