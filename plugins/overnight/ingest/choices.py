"""What a user chooses for a load. A DAG's file needs no more of it."""

from __future__ import annotations

from typing import Literal, TypeAlias

Sync: TypeAlias = Literal["upsert", "mirror", "preview"]
"""Whether documents that the source no longer has are left, deleted, or only named."""
