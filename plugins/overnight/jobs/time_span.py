"""Time spans in words."""

from __future__ import annotations


def describe_seconds(seconds: float) -> str:
    """Return a time span in its largest two units: ``3 d 4 h``, ``5 min 10 s``."""
    left, parts = int(max(seconds, 0)), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
