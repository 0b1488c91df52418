"""What a service takes in one batch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """
    What the service takes in one batch. Servers differ, so every number is a setting.

    The defaults are OpenAI's, from https://developers.openai.com/api/reference/resources/batches/methods/create
    and the batch guide.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int = Field(default=50_000, ge=1)
    """Lines of one input file."""
    bytes: int = Field(default=200_000_000, ge=1)
    """Bytes of one input file."""
    embedding_inputs: int = Field(default=50_000, ge=1)
    """Texts to embed in all requests of a batch together."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens of all requests of a batch together, by
    :func:`~overnight.services.openai.scan.estimate_tokens`; ``None`` for any number. A batch that is
    larger than the model's queue never gets in. A single request may be over it: it cannot be cut."""
    images_per_request: int = Field(default=10, ge=1)
    """``n`` of a request for images."""
    image_prompt_chars: int = Field(default=32_000, ge=1)
    """Of a prompt for images, as OpenAI's models of the present take it."""
    custom_id_chars: int = Field(default=512, ge=1)
    metadata_pairs: int = Field(default=16, ge=0)
    metadata_key_chars: int = Field(default=64, ge=1)
    metadata_value_chars: int = Field(default=512, ge=1)
