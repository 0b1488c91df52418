"""How long a test waits for what must happen."""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 900.0
"""Seconds. It ends what hangs, and nothing else: a machine that is busy may be ten times slower than usual."""
