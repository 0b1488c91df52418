from __future__ import annotations

from unit.ingest.conftest import opensearch

__all__ = ["opensearch"]
