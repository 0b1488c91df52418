"""Digests of what was asked, and which of them were seen: 128 bits each, in a bounded number of bytes."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Final

DIGEST_BYTES: Final = 16
"""Two of 10^12 random digests are equal with a probability of 10^-15."""

_FIRST_SLOTS: Final = 1 << 10
_SLOTS_PER_DIGEST: Final = 2


def compute_digest(data: bytes) -> bytes:
    """Return the digest of some bytes, :data:`DIGEST_BYTES` long."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def compute_digests(lines: Iterable[bytes]) -> bytes:
    """Return the digests of lines, one behind the other."""
    return b"".join([hashlib.blake2b(line, digest_size=DIGEST_BYTES).digest() for line in lines])


def take_digests(digests: bytes | bytearray, places: Sequence[int]) -> bytes | bytearray:
    """
    Return those at some places, one behind the other, of digests that lie like that.

    :param places: Rising, each once.
    """
    if len(places) == len(digests) // DIGEST_BYTES:
        return digests
    return b"".join([digests[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES] for at in places])


class DigestTable:
    """
    All digests that were added, in their order, and which of them came again: exactly, and in blocks.

    A hash table with linear probing, whose slots lead to the digests; 24 to 32 bytes each, and a third of a
    microsecond.
    """

    def __init__(self) -> None:
        self._highs, self._lows = array("Q"), array("Q")
        # Of each slot the number of its digest plus one, 0 where it is free.
        self._slots = array("I", bytes(4 * _FIRST_SLOTS))

    def __len__(self) -> int:
        """Return how many were added, those that came again included."""
        return len(self._highs)

    def add(self, digests: bytes | bytearray | memoryview) -> dict[int, int]:
        """
        Add some.

        :param digests: One behind the other.
        :return: Those that were there already, before or earlier among these: by their places among these the numbers
            they had, counted from 0 in the order in which all were added.
        """
        halves = array("Q")
        halves.frombytes(digests)
        first = len(self)
        highs, lows = self._highs, self._lows
        highs.extend(halves[::2])
        lows.extend(halves[1::2])
        self._make_room(first)
        slots, mask = self._slots, len(self._slots) - 1
        repeated: dict[int, int] = {}
        for number, high in enumerate(halves[::2], first):
            slot = high & mask
            while taken := slots[slot]:
                if highs[taken - 1] == high and lows[taken - 1] == lows[number]:
                    repeated[number - first] = taken - 1
                    break
                slot = (slot + 1) & mask
            else:
                slots[slot] = number + 1
        return repeated

    def _make_room(self, filled: int) -> None:
        """Take more slots for all digests, of which so many have theirs."""
        size = len(self._slots)
        while size < _SLOTS_PER_DIGEST * len(self):
            size *= 4
        if size == len(self._slots):
            return
        former, self._slots = self._slots, array("I", bytes(4 * size))
        if not filled:
            return
        slots, highs, mask = self._slots, self._highs, size - 1
        for taken in filter(None, former):
            slot = highs[taken - 1] & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = taken
