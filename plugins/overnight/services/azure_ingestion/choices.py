"""What a user chooses for a job and its connection. A DAG's file needs no more of what carries it out."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

API_VERSION: Final = "2023-10-01-preview"
"""The one that a connection has which names none."""

CompletionAction: TypeAlias = Literal["cleanUpAssets", "keepAllAssets"]
"""Whether the service deletes its intermediate assets at the end of a job."""
