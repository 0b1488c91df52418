"""Every service on this machine, for demos and for testing one's own DAGs: ``overnight sandbox up``."""

DEFAULT_OPENSEARCH = "2.19.6"
"""The newest 2.x with all its plugins on Maven Central, and the last line with ``_batch_ingestion``."""
