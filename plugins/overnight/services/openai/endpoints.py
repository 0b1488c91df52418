"""
What each endpoint of the Batch API takes in a request, and where its answer stands in a result line.

Source: https://developers.openai.com/api/reference/resources/batches/methods/create and the reference of each endpoint.
A compatible server may have others; their requests are sent as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from overnight.rejection import Rejection

if TYPE_CHECKING:
    from overnight.services.openai.limits import Limits


class Endpoint(NamedTuple):
    """
    An endpoint.

    :param path: As OpenAI has it; a server may have something else before the last parts.
    :param needs: What a request's body has: of the names in each tuple at least one, with something in it.
    :param answer_path: The JSONPath of the answer in a result line.
    :param takes_schema: Whether the answer's text can be asked for as JSON of a schema.
    :param has_default_model: Whether a request may leave the model out.
    """

    path: str
    needs: tuple[tuple[str, ...], ...]
    answer_path: str
    takes_schema: bool = False
    has_default_model: bool = False


ENDPOINTS: Final = (
    Endpoint(
        "/v1/responses",
        (("input", "prompt", "conversation", "previous_response_id"),),
        "$.response.body.output[?(@.type=='message')].content[?(@.type=='output_text')].text",
        takes_schema=True,
    ),
    Endpoint("/v1/chat/completions", (("messages",),), "$.response.body.choices[0].message.content", takes_schema=True),
    Endpoint("/v1/embeddings", (("input",),), "$.response.body.data[0].embedding"),
    Endpoint("/v1/completions", (("prompt",),), "$.response.body.choices[0].text"),
    Endpoint("/v1/moderations", (("input",),), "$.response.body.results[0]", has_default_model=True),
    Endpoint("/v1/images/generations", (("prompt",),), "$.response.body.data[0].b64_json"),
    Endpoint("/v1/images/edits", (("prompt",), ("images", "image")), "$.response.body.data[0].b64_json"),
    Endpoint("/v1/videos", (("prompt",),), "$.response.body.id"),
)
"""All that a batch can be for. ``chat/completions`` stands before ``completions``, whose end it shares."""

_EMPTY: Final[tuple[object, ...]] = (None, "", [], {})


@lru_cache(maxsize=64)
def find_endpoint(path: str) -> Endpoint | None:
    """Return what is known of an endpoint, by the end of its path; ``None`` of another server's own."""
    return next((known for known in ENDPOINTS if path.endswith(known.path.removeprefix("/v1"))), None)


def check_body(path: str, body: Mapping[str, Any], limits: Limits) -> Iterator[Rejection]:
    """
    Yield what is wrong with a request's body that the service would refuse, or whose answer would be of no use.

    :param path: Of the endpoint.
    """
    if body.get("stream"):
        yield Rejection("stream", "body.stream cannot be used in a batch")
    known = find_endpoint(path)
    if known is None:
        return
    for names in known.needs:
        for name in names:
            if body.get(name) not in _EMPTY:
                break
        else:
            yield Rejection(names[0], f"body.{' or body.'.join(names)} is missing or empty; {path} needs it")
    if "/images/" in known.path:
        yield from _check_image(body, limits)
    if known.path == "/v1/images/edits":
        yield from _check_references(body)
    if known.path == "/v1/videos" and not _is_reference(body.get("input_reference", {"file_id": ""})):
        yield Rejection(
            "input_reference",
            "body.input_reference must be an object with file_id or image_url: a batch's requests have no uploads",
        )


def _check_image(body: Mapping[str, Any], limits: Limits) -> Iterator[Rejection]:
    prompt, count = body.get("prompt"), body.get("n")
    if isinstance(prompt, str) and len(prompt) > limits.image_prompt_chars:
        yield Rejection("prompt_long", f"body.prompt is longer than {limits.image_prompt_chars:,} characters")
    if isinstance(count, int) and not 1 <= count <= limits.images_per_request:
        yield Rejection("n", f"body.n must be 1 to {limits.images_per_request} images, not {count}")
    if body.get("response_format") == "url":
        yield Rejection(
            "response_format",
            "body.response_format is 'url', which is gone an hour after the image was made; use 'b64_json', or leave "
            "it out where the model knows no other",
        )


def _check_references(body: Mapping[str, Any]) -> Iterator[Rejection]:
    images = body.get("images")
    if isinstance(images, list) and not all(map(_is_reference, images)):
        yield Rejection(
            "images", "body.images must be objects with file_id or image_url: a batch's requests have no uploads"
        )


def _is_reference(value: Any) -> bool:
    return isinstance(value, Mapping) and not value.keys().isdisjoint(("file_id", "image_url"))
