"""The image endpoints without a model: a PNG of coloured squares that is the same for the same prompt."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from hashlib import blake2b
from typing import Any, Final

from overnight.sandbox.openai.call import Answer, Call
from overnight.sandbox.openai.errors import ApiError, invalid_type, invalid_value, missing_parameter
from overnight.sandbox.vectors import count_tokens

_SIZES: Final = {"1024x1024": (1024, 1024), "1024x1536": (1024, 1536), "1536x1024": (1536, 1024)}
_TOKENS: Final = {"low": 272, "medium": 1056, "high": 4160}
"""Of an image of 1024 by 1024 pixels, as OpenAI lists them for gpt-image-1."""
_PROMPT_CHARS: Final = 32_000
_MAX_IMAGES: Final = 10
_MAX_INPUT_IMAGES: Final = 16
_INPUT_IMAGE_TOKENS: Final = 194
_SQUARES: Final = 8


def generate_image(call: Call) -> Answer:
    """
    Draw what a prompt asks for.

    :raises ApiError: the service would refuse it.
    """
    return _draw(call, 0)


def edit_image(call: Call) -> Answer:
    """
    Draw another image from those that ``images`` references; a request in JSON has no uploads.

    :raises ApiError: the service would refuse it.
    """
    images = call.body.get("images")
    if images is None:
        raise missing_parameter("images")
    if not isinstance(images, list):
        raise invalid_type("images", "array", images)
    if not 1 <= len(images) <= _MAX_INPUT_IMAGES:
        message = f"Invalid 'images': expected an array of 1 to {_MAX_INPUT_IMAGES} images, but got {len(images)}."
        raise ApiError(400, message, param="images")
    for index, image in enumerate(images):
        if not isinstance(image, dict) or not ({"file_id", "image_url"} & image.keys()):
            raise missing_parameter(f"images[{index}].image_url")
    return _draw(call, len(images))


def _draw(call: Call, input_images: int) -> Answer:
    body = call.body
    prompt = body.get("prompt")
    if prompt is None:
        raise missing_parameter("prompt")
    if not isinstance(prompt, str):
        raise invalid_type("prompt", "string", prompt)
    if len(prompt) > _PROMPT_CHARS:
        message = f"Invalid 'prompt': string too long. Expected a string with maximum length {_PROMPT_CHARS}."
        raise ApiError(400, message, param="prompt", code="string_above_max_length")
    size = _choose(body, "size", [*_SIZES, "auto"])
    quality = _choose(body, "quality", [*_TOKENS, "auto"])
    _choose(body, "output_format", ["png"])
    background = _choose(body, "background", ["opaque", "transparent", "auto"])
    size = "1024x1024" if size == "auto" else size
    quality = "high" if quality == "auto" else quality
    count = call.whole("n", 1, _MAX_IMAGES, 1)
    width, height = _SIZES[size]
    data = [
        {"b64_json": b64encode(make_png(f"{call.digest}:{index}", width, height)).decode()} for index in range(count)
    ]
    text, image = count_tokens(prompt), input_images * _INPUT_IMAGE_TOKENS
    written = _TOKENS[quality] * width * height // (1024 * 1024) * count
    usage = {
        "input_tokens": text + image,
        "input_tokens_details": {"text_tokens": text, "image_tokens": image},
        "output_tokens": written,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": written},
        "total_tokens": text + image + written,
    }
    shown = {
        "created": call.now,
        "background": "opaque" if background == "auto" else background,
        "data": data,
        "output_format": "png",
        "quality": quality,
        "size": size,
        "usage": usage,
    }
    return Answer(shown, text + image, written)


def make_png(seed: str, width: int, height: int) -> bytes:
    """Return an image of 8 by 8 squares in the colours that follow from a text; some kilobytes."""
    colours = blake2b(seed.encode(), digest_size=48).digest()
    squares = blake2b(f"{seed}:squares".encode(), digest_size=_SQUARES * _SQUARES).digest()
    rows = []
    for row in range(_SQUARES):
        marks = squares[row * _SQUARES : (row + 1) * _SQUARES]
        pixels = b"".join(bytes([mark % 16]) * (width // _SQUARES) for mark in marks)
        rows.append((b"\0" + pixels) * (height // _SQUARES))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (b"IHDR", header), (b"PLTE", colours), (b"IDAT", zlib.compress(b"".join(rows), 1)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_pack(kind, content) for kind, content in chunks)


def _pack(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _choose(body: dict[str, Any], name: str, supported: list[str]) -> str:
    value = body.get(name)
    if value is None:
        return supported[-1]
    if value not in supported:
        raise invalid_value(name, value, supported)
    return str(value)
