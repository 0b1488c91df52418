"""Which requests get a fault: drawn from the seed, so that the same requests in the same order get the same faults."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

from overnight.sandbox.emulator.faults import Fault, HttpFault, Options


def unit(seed: int, kind: str, key: str) -> float:
    """Return a number in [0, 1) that the arguments alone decide."""
    digest = blake2b(f"{seed}:{kind}:{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


class Draws:
    """
    A sequence for each fault, so that switching one on leaves the others alone.

    :param seed: The emulator's.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Start every sequence and every count of ``times`` anew."""
        self._draws: dict[str, random.Random] = {}
        self._hits: Counter[str] = Counter()

    def hits(self, kind: str, fault: Fault) -> bool:
        """Draw once: say whether the fault strikes now."""
        if not fault.share or (fault.times is not None and self._hits[kind] >= fault.times):
            return False
        draw = self._draws.setdefault(kind, random.Random(f"{self._seed}:{kind}"))  # noqa: S311 - not a secret
        if draw.random() >= fault.share:
            return False
        self._hits[kind] += 1
        return True

    def first(self, kinds: Iterable[str], faults: Options, method: str, path: str) -> str | None:
        """
        Return the first fault that hits a request, if any.

        :param kinds: The fields of ``faults`` to try, each an :class:`~overnight.sandbox.emulator.faults.HttpFault`.
        """
        for kind in kinds:
            fault: HttpFault = getattr(faults, kind)
            if fault.concerns(method, path) and self.hits(kind, fault):
                return kind
        return None
