"""The whole of the load's tests runs against both lines of OpenSearch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from overnight.ingest import OpenSearchTarget


@pytest.fixture(scope="session", params=["opensearch2", "opensearch3"])
def opensearch_line(request: pytest.FixtureRequest) -> str:
    """
    Which OpenSearch: 2.19 and then 3.6.

    A fixture of its own: a parameter of ``opensearch_url`` would be one of the fixture that it overrides, too, and that
    would start its node again with each change.
    """
    line: str = request.param
    return line


@pytest.fixture(scope="session")
def opensearch_url(request: pytest.FixtureRequest, opensearch_line: str, opensearch_url: str) -> str:
    """The address of an OpenSearch node with k-NN."""
    url: str = opensearch_url if opensearch_line == "opensearch2" else request.getfixturevalue("opensearch3_url")
    return url


@pytest.fixture
def target(opensearch_url: str) -> Iterator[OpenSearchTarget]:
    with OpenSearchTarget(opensearch_url) as target:
        yield target
