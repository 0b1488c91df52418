"""What a user chooses for a batch ingestion. A DAG's file needs no more of what carries it out."""

from __future__ import annotations

from typing import Literal, TypeAlias

Engine: TypeAlias = Literal["auto", "server", "client"]
"""Where a batch ingestion is carried out: in the cluster, or by our own load on the Airflow worker."""
