from __future__ import annotations

import pytest

from overnight.errors import SpecError
from overnight.ingest import IngestRequest, LoadOptions, OpenSearchTarget, load, replace_index
from overnight.ingest.write.index import create_index, inspect_index, swap_alias, verify
from overnight.ingest.write.names import check_new_index_name, quote_index_name
from unit.ingest.fake_opensearch import FakeOpenSearch

BAD = [
    "",
    ".",
    "..",
    "a/b",
    "../docs",
    "a\\b",
    "a*",
    "a?",
    'a"b',
    "<logs-{now/d}>",
    "a|b",
    "a b",
    "a,b",
    "a#b",
    "staging:docs",
    "docs:2024",
    "logs-2024-01-01T00:00:00",
    "logs-{{ ts }}",
    "http://host/docs",
    "_all",
    "-docs",
    "+docs",
    "docs\n",
    "docs\0",
    "é" * 128,
]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_no_index_can_have_is_refused_and_nothing_is_asked(
    name: str, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    before = dict(opensearch.indices)
    request = {"index_name": name, "field_map": {"a": "$.a"}, "data_source": {"source": ["a.jsonl"]}}
    calls = [
        lambda: load(request, target=target),
        lambda: IngestRequest.of(request),
        lambda: inspect_index(target, name),
        lambda: create_index(target, name, {}),
        lambda: verify(target, name),
        lambda: swap_alias(target, name, "docs"),
        lambda: swap_alias(target, "alias", name),
    ]
    for call in calls:
        with pytest.raises(SpecError, match="request" if not name else r"(?s)name"):
            call() if name else IngestRequest.of(request)
    assert opensearch.indices == before
    assert opensearch.requests == []


def test_a_suffix_cannot_lead_to_another_index(opensearch: FakeOpenSearch, target: OpenSearchTarget) -> None:
    request = {"index_name": "docs", "field_map": {"a": "$.a"}, "data_source": {"source": ["a.jsonl"]}}
    for suffix in ("2024-01-01T00:00", "A", "/../x"):
        with pytest.raises(SpecError, match="name of"):
            replace_index(request, suffix, target=target, options=LoadOptions(create_index={}))
    assert opensearch.requests == []


@pytest.mark.parametrize(
    ("name", "path"), [("50%", "50%25"), ("docs-2024.01", "docs-2024.01"), ("größe", "gr%C3%B6%C3%9Fe")]
)
def test_a_name_is_one_segment_of_a_path(
    name: str, path: str, opensearch: FakeOpenSearch, target: OpenSearchTarget
) -> None:
    assert quote_index_name(name) == path
    create_index(target, name, {})
    assert opensearch.requests == [f"PUT /{path}"]


def test_an_alias_may_have_upper_case_and_an_index_may_not(target: OpenSearchTarget) -> None:
    with pytest.raises(SpecError, match="lower case"):
        check_new_index_name("Docs")
    assert quote_index_name("Docs") == "Docs"
