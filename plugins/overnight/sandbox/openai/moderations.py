"""The moderation endpoint without a model: categories are found by words, and the same text has the same result."""

from __future__ import annotations

import re
from typing import Any, Final

from overnight.sandbox.openai.call import Answer, Call
from overnight.sandbox.openai.errors import ApiError, missing_parameter
from overnight.sandbox.vectors import count_tokens

MODERATION_MODEL: Final = "omni-moderation-latest"
"""The default of the endpoint, the only one whose requests need no model."""

_WORDS: Final[dict[str, str]] = {
    "harassment": "idiot stupid loser pathetic",
    "harassment/threatening": "threaten regret",
    "hate": "hate vermin subhuman",
    "hate/threatening": "exterminate",
    "illicit": "smuggle counterfeit launder",
    "illicit/violent": "bomb explosive",
    "self-harm": "suicide overdose",
    "self-harm/instructions": "overdose",
    "self-harm/intent": "suicide",
    "sexual": "nude explicit",
    "sexual/minors": "underage",
    "violence": "kill murder attack stab shoot",
    "violence/graphic": "blood gore mutilate",
}
_WORD: Final = re.compile(r"[a-z]+")
_LEAST: Final = 0.0001
_FLAGGED: Final = 0.5


def moderate(call: Call) -> Answer:
    """
    Classify every text of a request; parts of texts and images, of which the images are not looked at, are one result.

    :raises ApiError: the service would refuse it.
    """
    texts = _read_texts(call.body)
    shown = {
        "id": f"modr-{call.digest}",
        "model": call.name,
        "results": [_classify(text) for text in texts],
    }
    return Answer(shown, sum(map(count_tokens, texts)))


def _classify(text: str) -> dict[str, Any]:
    words = _WORD.findall(text.lower())
    scores = {}
    for category, marks in _WORDS.items():
        hits = sum(words.count(mark) for mark in marks.split())
        scores[category] = round(max(_LEAST, 1 - 0.4 / hits), 4) if hits else _LEAST
    flags = {category: score >= _FLAGGED for category, score in scores.items()}
    return {
        "flagged": any(flags.values()),
        "categories": flags,
        "category_scores": scores,
        "category_applied_input_types": {category: ["text"] for category in _WORDS},
    }


def _read_texts(body: dict[str, Any]) -> list[str]:
    given = body.get("input")
    if given is None:
        raise missing_parameter("input")
    items = given if isinstance(given, list) else [given]
    if items and all(isinstance(item, str) for item in items):
        return items
    texts = []
    for item in items:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "text" and isinstance(item.get("text"), str):
            texts.append(item["text"])
        elif kind != "image_url":
            raise ApiError(400, "'$.input' is invalid. Please check the API reference.", param="input")
    if not items:
        raise ApiError(400, "Invalid 'input': input cannot be empty.", param="input")
    return ["\n".join(texts)]
