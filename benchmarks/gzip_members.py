"""
Read a gzip file of many small members, as log shippers write them, and compare with Python's own gzip.

``python benchmarks/gzip_members.py [members]``; inflating must take time in proportion to the members, not to their
square.
"""

from __future__ import annotations

import gzip
import io
import sys
import time
from collections.abc import Callable

from overnight.compression import uncompress

LINE = b'{"id":"%d","text":"a short line of a log"}\n'
CHUNK = 1 << 20


def measure(read: Callable[[bytes], int], data: bytes) -> tuple[float, int]:
    """Return seconds and bytes."""
    began = time.perf_counter()
    size = read(data)
    return time.perf_counter() - began, size


def read_here(data: bytes) -> int:
    """Return how many bytes this package reads."""
    pieces = (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))
    return sum(map(len, uncompress(pieces, "a")))


def read_with_gzip(data: bytes) -> int:
    """Return how many bytes Python's gzip reads."""
    return len(gzip.GzipFile(fileobj=io.BytesIO(data)).read())


def main() -> None:
    """Print seconds for half of the members and for all of them."""
    members = int(sys.argv[1]) if len(sys.argv) > 1 else 120_000
    for count in (members // 2, members):
        data = b"".join(gzip.compress(LINE % number, mtime=0) for number in range(count))
        ours, size = measure(read_here, data)
        theirs, same = measure(read_with_gzip, data)
        assert size == same
        print(f"{count:,} members, {len(data):,} bytes: {ours:.2f} s, Python's gzip {theirs:.2f} s")


if __name__ == "__main__":
    main()
