"""What a user chooses for a job and its results. A DAG's file needs no more of what carries it out."""

from __future__ import annotations

from typing import Literal, TypeAlias

Content: TypeAlias = Literal["markdown", "text"]
JobType: TypeAlias = Literal["parse_v2", "extract_v2"]
MetadataValue: TypeAlias = str | int | float | bool | list[str] | None
Region: TypeAlias = Literal["na", "eu"]
