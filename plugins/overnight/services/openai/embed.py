"""One embedding, from the synchronous endpoint: what a search needs, of which nothing is batched."""

from __future__ import annotations

from overnight.errors import RequestRefusedError
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall, Retry


def embed(text: str, model: str, dimension: int | None = None) -> Flow[list[float]]:
    """
    Return the vector of a text.

    :param dimension: What the request asks for; ``None`` for a model that has one only.
    :raises RequestRefusedError: the answer has no vector.
    """
    body = {"model": model, "input": text, **({"dimensions": dimension} if dimension is not None else {})}
    answer = yield HttpCall("POST", "embeddings", json=body, retry=Retry.SAFE)
    try:
        vector = [float(number) for number in answer["data"][0]["embedding"]]
    except (KeyError, IndexError, TypeError, ValueError):
        raise RequestRefusedError(f"The answer to one request of embeddings of {model!r} has no vector.") from None
    return vector
