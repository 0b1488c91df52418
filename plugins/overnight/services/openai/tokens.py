"""How many tokens a request is billed for: counted with the model's own vocabulary where it is at hand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from overnight.errors import shorten
from overnight.services.openai.scan import estimate_tokens
from overnight.transport.flow import TimeIsUpError, call_within

log = logging.getLogger(__name__)

ESTIMATED: Final = "an estimate: 4 characters each, 2.5 bytes where they are not ASCII"
VOCABULARY_SECONDS: Final = 20.0
"""How long the vocabulary is waited for: tiktoken fetches it from the network once, and sets no time-out of its own."""
_MESSAGE: Final = 3
_ANSWER: Final = 3
"""What the service adds for each message and for the answer's beginning; https://github.com/openai/openai-cookbook,
examples/How_to_count_tokens_with_tiktoken.ipynb."""


class TokenCounter(NamedTuple):
    """
    A way to count.

    :param count: Tokens of a request's input, by its body.
    :param how: How they are counted, in words.
    """

    count: Callable[[Mapping[str, Any]], int]
    how: str


ESTIMATE: Final = TokenCounter(estimate_tokens, ESTIMATED)


def find_counter(model: str | None) -> TokenCounter:
    """
    Return tiktoken's counter for a model, or the estimate where it has none.

    Without the package, the model's vocabulary or the network it comes from, tokens are estimated.
    """
    encode = _load(model) if model is not None else None
    if encode is None:
        return ESTIMATE
    return TokenCounter(lambda body: _count_body(body, encode), "counted by tiktoken")


def limit_output(body: Mapping[str, Any], endpoint: str) -> int | None:
    """Return how many tokens the answer of a request has at most; ``None`` where it sets no limit."""
    if endpoint.endswith(("/embeddings", "/moderations")):
        return 0
    limit = next(
        (body[name] for name in ("max_completion_tokens", "max_output_tokens", "max_tokens") if body.get(name)), None
    )
    choices = max(body.get("n") or 1, body.get("best_of") or 1)
    prompts = body.get("prompt")
    if isinstance(choices, int) and isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):
        # A completion answers each of several prompts.
        choices *= len(prompts)
    return limit * choices if isinstance(limit, int) and isinstance(choices, int) else None


def _load(model: str) -> Callable[[str], int] | None:
    try:
        import tiktoken  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    try:
        encoding = call_within(VOCABULARY_SECONDS, partial(tiktoken.encoding_for_model, model))
    except TimeIsUpError:
        log.warning(
            "tiktoken's vocabulary of %s did not come in %.0f s, so tokens are estimated. Where there is no network, "
            "put it into TIKTOKEN_CACHE_DIR.",
            model,
            VOCABULARY_SECONDS,
        )
        return None
    except KeyError:  # no model of OpenAI's
        return None
    except Exception as error:
        log.warning("tiktoken has no vocabulary of %s, tokens are estimated: %s", model, shorten(str(error), 300))
        return None
    return lambda text: len(encoding.encode_ordinary(text))


def _count_body(body: Mapping[str, Any], encode: Callable[[str], int]) -> int:
    messages = body.get("messages")
    if isinstance(messages, list):
        return sum(_MESSAGE + _count(message, encode) for message in messages) + _ANSWER
    given = next((body[name] for name in ("input", "prompt") if body.get(name)), None)
    return _count(body.get("instructions"), encode) + _count(given, encode)


def _count(value: Any, encode: Callable[[str], int]) -> int:
    if isinstance(value, str):
        return encode(value)
    if isinstance(value, list):
        return sum(1 if isinstance(item, int) else _count(item, encode) for item in value)
    if isinstance(value, dict):
        return sum(_count(item, encode) for item in value.values())
    return 0
