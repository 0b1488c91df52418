from __future__ import annotations

import pytest

from overnight.errors import SpecError
from overnight.services.openai.spec import OpenAIBatchSpec
from overnight.services.tags import refuse_own_tags
from overnight.validation import parse_parameter


def test_a_users_tags_are_taken_as_they_are() -> None:
    tags = {"team": "search", "overnight": "yes"}
    assert refuse_own_tags(tags) is tags


def test_a_tag_of_overnights_own_is_refused_before_anything_is_sent() -> None:
    batch = {"input_file_id": "file-1", "endpoint": "/v1/embeddings", "metadata": {"overnight_name": "x"}}
    with pytest.raises(SpecError, match="metadata keys that begin with 'overnight_' are Overnight's own"):
        parse_parameter(OpenAIBatchSpec, batch, "batch")
