"""What a user chooses for a batch and its connection. A DAG's file needs no more of what carries it out."""

from __future__ import annotations

from typing import Literal, TypeAlias

CacheMode: TypeAlias = Literal["off", "read", "write", "refresh"]
"""
What a run does with its cache. ``write`` takes what is there and adds what was paid for, ``read`` adds nothing,
``refresh`` pays for everything again and replaces what is there, ``off`` neither reads nor adds.
"""

OnBadDocument: TypeAlias = Literal["fail", "reject"]
"""Fail for the whole input, naming every bad line, or write the rejected documents to a file of their own."""

AuthStyle: TypeAlias = Literal["bearer", "api-key", "none"]
"""``Authorization: Bearer …``, Azure's ``api-key: …``, or nothing (a server inside one's own network)."""
