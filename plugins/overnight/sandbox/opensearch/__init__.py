"""A real OpenSearch node: pinned artifacts from Maven Central, Java from PyPI, nothing to install."""

from overnight.sandbox.opensearch.lock import versions
from overnight.sandbox.opensearch.node import Node, remove_home

__all__ = ["Node", "remove_home", "versions"]
