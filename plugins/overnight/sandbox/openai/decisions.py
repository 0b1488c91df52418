"""Who is hit by a fault: drawn from the seed, so that the same requests in the same order go wrong in the same way."""

from __future__ import annotations

import random
import re
from collections import Counter
from hashlib import blake2b

from overnight.sandbox.openai.batches import Fate
from overnight.sandbox.openai.settings import BatchFault, Faults, HttpFault, LineFault

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


def unit(seed: int, kind: str, key: str) -> float:
    """Return a number in [0, 1) that the arguments alone decide."""
    digest = blake2b(f"{seed}:{kind}:{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def line_fault(fault: LineFault, seed: int, kind: str, key: str, custom_id: str) -> bool:
    """Say whether a line is hit, however often and in whatever order that is asked."""
    if not fault.share or unit(seed, kind, key) >= fault.share:
        return False
    return not fault.custom_id or re.search(fault.custom_id, custom_id) is not None


class Decisions:
    """
    The draws for requests and batches: a sequence for each fault, so that switching one on leaves the others alone.

    :param seed: The emulator's.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Start every sequence and every count of ``times`` anew."""
        self._draws: dict[str, random.Random] = {}
        self._hits: Counter[str] = Counter()

    def http(self, faults: Faults, method: str, path: str) -> str | None:
        """Return the fault that hits a request, if any."""
        for kind in HTTP_FAULTS:
            fault: HttpFault = getattr(faults, kind)
            if not fault.share or (fault.methods and method not in fault.methods):
                continue
            if fault.path and re.search(fault.path, path) is None:
                continue
            if kind == "lost_create" and (method, path) != ("POST", "/v1/batches"):
                continue
            if self._hit(kind, fault):
                return kind
        return None

    def fate(self, faults: Faults) -> Fate:
        """Return what becomes of a batch that is created now."""
        for kind, fate in _FATES:
            if self._hit(kind, getattr(faults, kind)):
                return fate
        return "normal"

    def _hit(self, kind: str, fault: HttpFault | BatchFault) -> bool:
        if not fault.share or (fault.times is not None and self._hits[kind] >= fault.times):
            return False
        draw = self._draws.setdefault(kind, random.Random(f"{self._seed}:{kind}"))  # noqa: S311 - not a secret
        if draw.random() >= fault.share:
            return False
        self._hits[kind] += 1
        return True
