"""
Why a model's answer is not what was asked for: cut off at its limit, refused, or filtered.

API: https://platform.openai.com/docs/api-reference/chat/object (``finish_reason``, ``refusal``) and
…/api-reference/responses/object (``status``, ``incomplete_details``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from overnight.errors import shorten
from overnight.jsonpath import get_value
from overnight.rejection import Rejection

TRUNCATED: Final = "truncated"
REFUSED: Final = "refused"
FILTERED: Final = "content_filter"
INCOMPLETE: Final = "incomplete"

_LIMITS: Final = frozenset({"length", "max_output_tokens", "max_tokens"})
_MAX_TEXT: Final = 500


def explain_answer(line: bytes) -> Rejection | None:
    """
    Return why the answer in a result line is incomplete; ``None`` where it ended as it should.

    :param line: A line of a chat, a completion or a response, whose ``response.body`` is an object.
    """
    try:
        line_value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    body = get_value(line_value, ("response", "body"))
    refusal = next(_find_refusals(body), None)
    if refusal is not None:
        return Rejection(REFUSED, f"the model refused: {shorten(refusal, _MAX_TEXT)}")
    # A chat has it with each choice; a response has one for all of its output.
    reasons = [get_value(body, ("choices", 0, "finish_reason")), get_value(body, ("incomplete_details", "reason"))]
    reason = next((reason for reason in reasons if isinstance(reason, str)), None)
    if reason in _LIMITS:
        return Rejection(
            TRUNCATED,
            f"the answer was cut off at its limit of output ({reason}); raise max_completion_tokens (of responses: "
            "max_output_tokens) in the request",
        )
    if reason == FILTERED:
        return Rejection(FILTERED, "the service's content filter left the answer out")
    if get_value(body, ("status",)) == INCOMPLETE:
        return Rejection(
            INCOMPLETE, f"the response is incomplete: {shorten(reason or 'no reason is given', _MAX_TEXT)}"
        )
    return None


def _find_refusals(body: Any) -> Iterator[str]:
    refusals = [get_value(body, ("choices", 0, "message", "refusal"))]
    for item in _get_list(body, "output"):
        refusals += [get_value(part, ("refusal",)) for part in _get_list(item, "content")]
    yield from (text for text in refusals if isinstance(text, str) and text)


def _get_list(value: Any, name: str) -> list[Any]:
    found = get_value(value, (name,))
    return found if isinstance(found, list) else []
