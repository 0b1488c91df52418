"""The whole of the load's tests runs against both lines of OpenSearch."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", params=["opensearch2", "opensearch3"])
def opensearch_url(request: pytest.FixtureRequest, opensearch_url: str) -> str:
    """The address of an OpenSearch node with k-NN, 2.19 and then 3.6."""
    url: str = opensearch_url if request.param == "opensearch2" else request.getfixturevalue("opensearch3_url")
    return url
