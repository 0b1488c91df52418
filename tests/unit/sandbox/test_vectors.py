from __future__ import annotations

import math
import struct
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.sandbox.vectors import count_tokens, embed, similarity, to_base64

PINNED = [-0.4440519, 0.5586952, -0.0023638, 0.7004798]


@given(st.text(), st.integers(min_value=1, max_value=300))
def test_every_text_has_a_unit_vector_of_the_length_asked_for(text, dimensions):
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-5)
    assert vector == embed(text, dimensions)


@given(st.lists(st.floats(min_value=-1, max_value=1, width=32), min_size=1, max_size=50))
def test_base64_holds_little_endian_32_bit_floats(vector):
    assert list(struct.unpack(f"<{len(vector)}f", b64decode(to_base64(vector)))) == vector


@pytest.mark.parametrize(
    ("question", "near", "far"),
    [
        ("delete a directory tree", "Recursively delete a directory tree.", "Return the square root of a number."),
        ("reading files", "read a file", "write a letter"),
        ("parse HTML", "class HTMLParser: a parser for HTML", "class JSONEncoder: an encoder for JSON"),
        ("ein rotes Auto fährt", "das rote Auto fährt schnell", "die Katze schläft im Haus"),
    ],
)
def test_texts_that_share_words_are_near_each_other(question, near, far):
    vector = embed(question, 384)
    assert similarity(vector, embed(near, 384)) > similarity(vector, embed(far, 384)) + 0.1


def test_vectors_are_the_same_on_every_machine():
    assert embed("recursively delete a directory tree", 4) == pytest.approx(PINNED, abs=1e-6)


def test_a_token_is_four_bytes():
    assert count_tokens("x" * 400) == 100
    assert count_tokens("") == 1
