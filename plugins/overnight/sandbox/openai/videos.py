"""The video endpoint without a renderer: the object that describes a video, which is complete at once."""

from __future__ import annotations

from typing import Final

from overnight.sandbox.openai.call import Answer, Call
from overnight.sandbox.openai.errors import ApiError, invalid_type, invalid_value, missing_parameter
from overnight.sandbox.vectors import count_tokens

_SECONDS: Final = ["4", "8", "12"]
_SIZES: Final = ["720x1280", "1280x720", "1024x1792", "1792x1024"]
_LIFETIME: Final = 86_400
"""Seconds for which a video of a batch can be downloaded."""


def render_video(call: Call) -> Answer:
    """
    Describe the video that a prompt asks for. There is nothing to download.

    :raises ApiError: the service would refuse it.
    """
    body = call.body
    prompt = body.get("prompt")
    if prompt is None:
        raise missing_parameter("prompt")
    if not isinstance(prompt, str):
        raise invalid_type("prompt", "string", prompt)
    reference = body.get("input_reference")
    if reference is not None and not (isinstance(reference, dict) and {"file_id", "image_url"} & reference.keys()):
        raise ApiError(
            400, "Invalid 'input_reference': expected an object with file_id or image_url.", param="input_reference"
        )
    seconds, size = str(body.get("seconds", _SECONDS[0])), body.get("size", _SIZES[0])
    if seconds not in _SECONDS:
        raise invalid_value("seconds", seconds, _SECONDS)
    if size not in _SIZES:
        raise invalid_value("size", size, _SIZES)
    shown = {
        "id": f"video_{call.digest}",
        "object": "video",
        "created_at": call.now,
        "completed_at": call.now,
        "expires_at": call.now + _LIFETIME,
        "status": "completed",
        "progress": 100,
        "error": None,
        "model": call.name,
        "prompt": prompt,
        "remixed_from_video_id": None,
        "seconds": seconds,
        "size": size,
    }
    return Answer(shown, count_tokens(prompt))
