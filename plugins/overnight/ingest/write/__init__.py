"""From documents to an index: _bulk bodies, retries, checkpoints, settings."""
