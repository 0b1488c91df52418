from __future__ import annotations

import pytest

from overnight.errors import SpecError
from overnight.services.openai.embedding_models import check_dimension


@pytest.mark.parametrize(
    ("model", "dimension"),
    [("text-embedding-3-small", 1537), ("text-embedding-3-large", 3073), ("text-embedding-ada-002", 512)],
)
def test_a_length_that_a_model_cannot_give_is_refused(model: str, dimension: int) -> None:
    with pytest.raises(SpecError, match=f"{model} has vectors of"):
        check_dimension(model, dimension)


@pytest.mark.parametrize(
    ("model", "dimension"),
    [("text-embedding-3-small", 512), ("text-embedding-ada-002", 1536), ("m", 99), ("text-embedding-3-large", None)],
)
def test_a_length_that_a_model_may_give_is_not(model: str, dimension: int | None) -> None:
    check_dimension(model, dimension)
