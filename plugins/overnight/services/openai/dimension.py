"""How long the vectors of an embedding model are: known, or found out with one request before a batch is paid for."""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from overnight.errors import (
    CredentialsError,
    NotFoundError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    shorten,
)
from overnight.services.openai.causes import get_cause
from overnight.services.openai.connection import DEFAULT_BASE_URL
from overnight.services.openai.embedding_models import MODELS, EmbeddingModel, check_dimension
from overnight.transport.flow import Flow, bound
from overnight.transport.http import HttpCall, Retry

__all__ = ["MODELS", "EmbeddingModel", "check_dimension", "find_dimension", "measure_vectors", "read_length"]

log = logging.getLogger(__name__)

PROBE_SECONDS: Final = 60.0
"""How long the probe may take before it is given up."""
PROBE_TEXT: Final = "overnight"

_AZURE: Final = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_VERSION: Final = re.compile(r"^/v\d+(?=/)")


def find_dimension(base_url: str, endpoint: str, body: Mapping[str, Any], *, probe: bool = True) -> Flow[int | None]:
    """
    Return the length of the vectors that requests with this body get; ``None`` where nobody says.

    OpenAI's own models are known. Of others, and of other servers, the length is found with one request to the
    synchronous endpoint, which costs what a few words cost.

    :param base_url: Of the server.
    :param endpoint: ``/v1/embeddings``, or what the server has.
    :param body: Of a request, with its input filled in.
    :param probe: ``False``: send nothing; the length is what the body asks for, if it does.
    :raises SpecError: the server refuses such a request, or gives vectors of another length than the body asks for.
    :raises CredentialsError: the server refuses the key.
    """
    asked = body.get("dimensions")
    known = MODELS.get(str(body.get("model")))
    if known is not None and base_url.rstrip("/") == DEFAULT_BASE_URL:
        return asked if isinstance(asked, int) else known.dimension
    if not probe:
        return asked if isinstance(asked, int) else None
    call = HttpCall("POST", _VERSION.sub("", endpoint).lstrip("/"), json=body, retry=Retry.SAFE)
    try:
        answer = yield from bound(_send(call), PROBE_SECONDS)
    except ServiceError as error:
        if _is_final(error, base_url):
            raise SpecError(
                f"The service refuses one request such as the batches would have: {error} Nothing was paid. Mend the "
                "request, or set probe to false to send the batches all the same."
            ) from error
        if isinstance(error, CredentialsError) and error.status == 401:
            raise
        log.warning("How long the model's vectors are could not be found out with one request: %s", error)
        return asked if isinstance(asked, int) else None
    length = read_length(answer)
    if length is None:
        log.warning("The answer to one request of %s has no vector; how long they are is not known.", endpoint)
        return asked if isinstance(asked, int) else None
    if isinstance(asked, int) and length != asked:
        raise SpecError(
            f"The requests ask for vectors of {asked}, and the server gives vectors of {length}. Nothing was paid. "
            f"Leave the dimension out, or make it {length}."
        )
    return length


def measure_vectors(
    base_url: str, endpoint: str, body: Mapping[str, Any], *, dimension: int | None = None, probe: bool = True
) -> Flow[int | None]:
    """
    Return the length of the vectors that a template's requests get, before they are paid for; ``None`` if unknown.

    :param body: Of the template. One with placeholders beside its input cannot be sent, so it is not probed.
    :param dimension: What the user expects.
    :raises SpecError: as :func:`find_dimension` does; or the vectors will have another length.
    """
    is_whole = not any("${" in str(value) for name, value in body.items() if name != "input")
    sent = {**body, "input": PROBE_TEXT}
    length = yield from find_dimension(base_url, endpoint, sent, probe=probe and is_whole)
    if length is not None and dimension is not None and length != dimension:
        raise SpecError(
            f"dimension is {dimension}, and the vectors of {body.get('model')} will have the length {length}. Nothing "
            "was paid."
        )
    return length


def read_length(answer: Any) -> int | None:
    """Return the length of the first vector of an embeddings answer; ``None`` when there is none."""
    data = answer.get("data") if isinstance(answer, dict) else None
    first = data[0] if isinstance(data, list) and data else None
    vector = first.get("embedding") if isinstance(first, dict) else None
    if isinstance(vector, list):
        return len(vector) or None
    if isinstance(vector, str):
        try:
            # Little-endian float32, as encoding_format="base64" has it.
            return len(base64.b64decode(vector, validate=True)) // 4 or None
        except (binascii.Error, ValueError):
            return None
    return None


def _send(call: HttpCall) -> Flow[Any]:
    answer = yield call
    if isinstance(answer, dict) and answer.get("error"):
        raise RequestRefusedError(shorten(str(answer["error"])), status=200)
    return answer


def _is_final(error: ServiceError, base_url: str) -> bool:
    """Whether a batch of such requests would fail, too."""
    if (urlsplit(base_url).hostname or "").endswith(_AZURE):
        # A deployment for batches takes no other requests.
        return False
    if isinstance(error, NotFoundError):
        # Without a code that is known, it is the endpoint that is not there, as on servers for batches only.
        return get_cause(error.code) is not None
    return isinstance(error, RequestRefusedError)
