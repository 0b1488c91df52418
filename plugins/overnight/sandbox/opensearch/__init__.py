"""A real OpenSearch node: pinned artifacts from Maven Central, Java from PyPI, nothing to install."""

from overnight.sandbox.opensearch.lock import DEFAULT_VERSION, versions
from overnight.sandbox.opensearch.node import Node, remove_home

__all__ = ["DEFAULT_VERSION", "Node", "remove_home", "versions"]
