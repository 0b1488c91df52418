from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TypeAlias

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from overnight.compression import DamagedStreamError, recognise, uncompress
from overnight.errors import SpecError

Compress: TypeAlias = Callable[[bytes], bytes]
FORMATS: dict[str, Compress] = {
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
compressors = st.sampled_from(list(FORMATS.values()))
each = pytest.mark.parametrize("compress", FORMATS.values(), ids=FORMATS)
cuts = st.lists(st.integers(0, 1_000), max_size=6)


def chunked(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for start, end in pairwise(places):
        yield data[start:end]


@given(compressors, st.lists(st.binary(max_size=50), min_size=1, max_size=4), cuts)
def test_many_members_are_one_stream(compress: Compress, parts: list[bytes], where: list[int]) -> None:
    data = b"".join(compress(part) for part in parts)
    assert b"".join(uncompress(chunked(data, where), "a")) == b"".join(parts)


MAGIC = (b"\x1f\x8b", b"\x28\xb5", b"BZh", b"\xfd7z", b"PK", b"\x04\x22", b"\xff\x06", b"7z", b"\x89L")


@given(st.binary(max_size=50).filter(lambda data: not data.startswith(MAGIC)), cuts)
def test_what_is_not_compressed_passes_as_it_is(data: bytes, where: list[int]) -> None:
    assert b"".join(uncompress(chunked(data, where), "a")) == data


@each
def test_a_bomb_is_uncompressed_piece_by_piece(compress: Compress) -> None:
    data = compress(bytes(50_000_000))
    assert max(map(len, uncompress(iter([data]), "a"))) <= 1 << 20


@each
def test_a_cut_stream_is_an_error_and_no_shorter_file(compress: Compress) -> None:
    data = compress(random.Random(1).randbytes(10_000))
    for size in (9, 5_000, len(data) - 20):
        with pytest.raises(DamagedStreamError, match=r"^a\.jsonl: the \w+ stream is cut"):
            list(uncompress(iter([data[:-size]]), "a.jsonl"))


def test_a_damaged_stream_is_an_error() -> None:
    for compress in (gzip.compress, bz2.compress, lzma.compress):
        data = compress(random.Random(1).randbytes(10_000))
        with pytest.raises(DamagedStreamError, match="damaged"):
            list(uncompress(iter([data[:50] + b"\xff" * 50 + data[100:]]), "a"))
    with pytest.raises(DamagedStreamError, match="damaged"):
        list(uncompress(iter([gzip.compress(b"a") + b"no gzip at all"]), "a"))
    with pytest.raises(DamagedStreamError, match="is cut, or damaged by bytes behind its end"):
        list(uncompress(iter([gzip.compress(b"a") + b"no gzip"]), "a"))


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"PK\x03\x04", "a ZIP archive"), (b"\x04\x22\x4d\x18", "LZ4"), (b"\xff\x06\x00\x00sNaPpY", "Snappy")],
)
def test_what_cannot_be_read_is_named_and_what_to_do(head: bytes, name: str) -> None:
    with pytest.raises(SpecError, match=rf"^a\.jsonl is {name}.*uncompressed, or as gzip, zstd, bzip2, xz"):
        recognise(head, "a.jsonl")


@pytest.mark.parametrize("text", [b"BZhang,1\n", b"BZh", b"PK,name\n", b"7z\n", b"(\xb5\n"])
def test_text_that_begins_like_a_compressed_file_is_text(text: bytes) -> None:
    assert recognise(text, "a") is None


@each
def test_each_format_is_recognised_also_when_there_is_nothing_in_it(compress: Compress) -> None:
    assert recognise(compress(b""), "a") == recognise(compress(b"some text"), "a") is not None
