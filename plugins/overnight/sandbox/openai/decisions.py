"""Which requests, batches and lines get a fault."""

from __future__ import annotations

import re

from overnight.sandbox.emulator.draws import Draws, unit
from overnight.sandbox.openai.batches import Fate
from overnight.sandbox.openai.settings import Faults, LineFault

HTTP_FAULTS = (
    "timeout",
    "rate_limited",
    "server_error",
    "server_error_after",
    "lost_answer",
    "lost_create",
    "cut_body",
    "broken_json",
)
_FATES: tuple[tuple[str, Fate], ...] = (("batch_failed", "fail"), ("batch_expired", "expire"), ("batch_stuck", "stick"))
_CREATE = ("POST", "/v1/batches")


def line_fault(fault: LineFault, seed: int, kind: str, key: str, custom_id: str) -> bool:
    """Say whether a line is hit, however often and in whatever order that is asked."""
    if not fault.share or unit(seed, kind, key) >= fault.share:
        return False
    return not fault.custom_id or re.search(fault.custom_id, custom_id) is not None


class Decisions(Draws):
    """The draws for requests and batches."""

    def http(self, faults: Faults, method: str, path: str) -> str | None:
        """Return the fault that hits a request, if any."""
        kinds = (kind for kind in HTTP_FAULTS if kind != "lost_create" or (method, path) == _CREATE)
        return self.first(kinds, faults, method, path)

    def fate(self, faults: Faults) -> Fate:
        """Return what becomes of a batch that is created now."""
        return next((fate for kind, fate in _FATES if self.hits(kind, getattr(faults, kind))), "normal")
