"""Digests of what was asked, and which of them were seen: 128 bits each, in a bounded number of bytes."""

from __future__ import annotations

import hashlib
from array import array
from typing import Final

DIGEST_BYTES: Final = 16
"""Two of 10^12 random digests are equal with a probability of 10^-15."""

_FILLED: Final = 2 / 3
_FIRST_SLOTS: Final = 1 << 10


def compute_digest(data: bytes) -> bytes:
    """Return the digest of some bytes, :data:`DIGEST_BYTES` long."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


class DigestTable:
    """
    Digests, each with a number: a ``dict[bytes, int]`` in a fifth of its memory.

    A hash table with linear probing in three arrays; 20 bytes a slot, of which up to two thirds are filled.
    """

    def __init__(self) -> None:
        self._count = 0
        self._make(_FIRST_SLOTS)

    def __len__(self) -> int:
        return self._count

    def setdefault(self, digest: bytes, number: int) -> int:
        """
        Return the number that a digest has; a new one gets ``number``.

        :param number: From 0 to 2^32 - 2.
        """
        high, low = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
        slot = self._find(high, low)
        if self._numbers[slot]:
            return self._numbers[slot] - 1
        self._fill(slot, high, low, number + 1)
        self._count += 1
        if self._count > len(self._numbers) * _FILLED:
            self._grow()
        return number

    def _make(self, slots: int) -> None:
        self._mask = slots - 1
        self._highs, self._lows = (array("Q", bytes(8 * slots)) for _ in range(2))
        self._numbers = array("I", bytes(4 * slots))

    def _find(self, high: int, low: int) -> int:
        """Return the slot of a digest, or the empty one where it belongs."""
        numbers, highs, lows, mask = self._numbers, self._highs, self._lows, self._mask
        slot = high & mask
        while numbers[slot] and (highs[slot] != high or lows[slot] != low):
            slot = (slot + 1) & mask
        return slot

    def _fill(self, slot: int, high: int, low: int, number: int) -> None:
        self._highs[slot], self._lows[slot], self._numbers[slot] = high, low, number

    def _grow(self) -> None:
        highs, lows, numbers = self._highs, self._lows, self._numbers
        self._make(2 * len(numbers))
        for high, low, number in zip(highs, lows, numbers, strict=True):
            if number:
                self._fill(self._find(high, low), high, low, number)
