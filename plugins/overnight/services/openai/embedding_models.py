"""What is known of OpenAI's embedding models, and the lengths of vectors that they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from overnight.errors import SpecError


class EmbeddingModel(NamedTuple):
    """
    What is known of a model.

    :param dimension: The length of its vectors when a request does not say.
    :param is_resizable: Whether a request may ask for shorter ones (``dimensions``).
    """

    dimension: int
    is_resizable: bool


MODELS: Final[Mapping[str, EmbeddingModel]] = {
    "text-embedding-3-small": EmbeddingModel(1536, True),
    "text-embedding-3-large": EmbeddingModel(3072, True),
    "text-embedding-ada-002": EmbeddingModel(1536, False),
}
"""OpenAI's own; https://developers.openai.com/api/docs/guides/embeddings. Another server may give other lengths."""


def check_dimension(model: str, dimension: int | None) -> None:
    """
    Refuse a length that a known model cannot give, on any server.

    :param dimension: What the requests ask for; ``None`` for the model's own.
    :raises SpecError: the text names what the model can give.
    """
    known = MODELS.get(model)
    if known is None or dimension is None or dimension == known.dimension:
        return
    if not known.is_resizable:
        raise SpecError(f"{model} has vectors of {known.dimension} and no others; dimension={dimension} cannot be had.")
    if dimension > known.dimension:
        raise SpecError(
            f"{model} has vectors of at most {known.dimension}; dimension={dimension} cannot be had. Ask for fewer, or "
            "name another model."
        )
