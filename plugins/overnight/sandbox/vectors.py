"""
Embeddings without a model: lexical, deterministic, and near each other when texts share words.

Feature hashing (Weinberger et al., 2009): each word, each character n-gram of a word and each pair of neighbours is
a feature; a hash gives it a dimension and a sign. Nothing is learnt, so nothing has to be downloaded, and the same text
has the same vector on every machine.
"""

from __future__ import annotations

import math
import re
from array import array
from base64 import b64encode
from functools import lru_cache
from hashlib import blake2b

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\dA-Za-z_]+")
_COMMON_WORDS = """
a an and are as at be but by can could do does each for from had has have he her his how i if in into is it its may more
most must no none not of on one only or other our self she should so some such than that the their them then there these
they this those to true false up use used using was we were what when where which while who why will with would you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_COMMON_WEIGHT = 0.1
_GRAM_SIZES = (3, 4)
_GRAMS_WEIGHT = 0.5
_PAIR_WEIGHT = 0.6
_HALF_LIFE = 24.0
"""Words after which a word counts half as much: what a text is about is mostly said first."""
_MASK = (1 << 64) - 1
_SIGN = 1 << 63

Features = tuple[tuple[int, float], ...]


def embed(text: str, dimensions: int) -> list[float]:
    """
    Return the text's unit vector.

    :param dimensions: The vector's length, at least 1.
    """
    vector = [0.0] * dimensions
    for feature, weight in _weigh(_WORD.findall(text)).items():
        if feature & _SIGN:
            vector[feature % dimensions] += weight
        else:
            vector[feature % dimensions] -= weight
    norm = math.sqrt(sum(map(float.__mul__, vector, vector)))
    if norm == 0.0:  # no word at all: still a unit vector, as every embedding is
        vector[_hash(text) % dimensions] = norm = 1.0
    return [round(value / norm, 7) for value in vector]


def to_base64(vector: list[float]) -> str:
    """Return the vector as ``encoding_format=base64`` does: little-endian 32-bit floats."""
    floats = array("f", vector)
    if floats.itemsize != 4:  # pragma: no cover - no such platform is known
        raise NotImplementedError("this platform has no 32-bit floats")
    if not _LITTLE_ENDIAN:  # pragma: no cover - depends on the machine
        floats.byteswap()
    return b64encode(floats.tobytes()).decode("ascii")


def similarity(first: list[float], second: list[float]) -> float:
    """Return the cosine of two unit vectors."""
    return sum(map(float.__mul__, first, second))


def count_tokens(text: str) -> int:
    """Guess how many tokens a text is: four bytes each, as OpenAI's own rule of thumb has it."""
    return max(1, len(text.encode("utf-8", "surrogatepass")) // 4)


def _weigh(words: list[str]) -> dict[int, float]:
    weights: dict[int, float] = {}
    counts: dict[str, int] = {}
    previous = 0
    for position, written in enumerate(words):
        word = written.lower()
        features, whole, importance = _word(word)
        seen = counts.get(word, 0)
        counts[word] = seen + 1
        scale = _HALF_LIFE / (_HALF_LIFE + position) / (1 + seen)
        for feature, weight in features:
            weights[feature] = weights.get(feature, 0.0) + weight * scale
        if importance == 1.0:
            if previous:
                pair = (previous * 0x9E3779B97F4A7C15 + whole) & _MASK
                pair ^= pair >> 29
                weights[pair] = weights.get(pair, 0.0) + _PAIR_WEIGHT * scale
            previous = whole
    return weights


@lru_cache(maxsize=200_000)
def _word(word: str) -> tuple[Features, int, float]:
    """Return a word's features with their weights, its own hash, and how much the word counts."""
    importance = _COMMON_WEIGHT if word in _COMMON or len(word) < 2 else 1.0
    whole = _hash(word)
    features = [(whole, importance)]
    framed = f"<{word}>"
    grams = [framed[at : at + size] for size in _GRAM_SIZES for at in range(len(framed) - size + 1)]
    if importance == 1.0 and len(word) > 3:
        share = _GRAMS_WEIGHT / math.sqrt(len(grams))
        features += [(_hash("#" + gram), share) for gram in grams]
    return tuple(features), whole, importance


def _hash(feature: str) -> int:
    digest = blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


_LITTLE_ENDIAN = array("H", [1]).tobytes()[0] == 1
