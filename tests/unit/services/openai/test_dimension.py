from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from overnight.errors import (
    CredentialsError,
    NotFoundError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    UnavailableError,
    UnsupportedError,
)
from overnight.services.openai.dimension import find_dimension, read_length
from overnight.transport.http import HttpCall
from unit.services.answers import Service

OPENAI = "https://api.openai.com/v1"
OTHER = "http://vllm.example:8000/v1"
AZURE = "https://r.openai.azure.com/openai/v1"


def vector(length: int) -> dict[str, Any]:
    return {"data": [{"embedding": [0.5] * length}]}


def find(base_url: str, answer: Any, *, endpoint: str = "/v1/embeddings", probe: bool = True, **body: Any) -> Any:
    calls: list[HttpCall] = []

    def reply(call: Any) -> Any:
        calls.append(call.call)
        if isinstance(answer, ServiceError):
            raise answer
        return answer

    body = {"model": "m", "input": "x", **body}
    return Service(reply).run(find_dimension(base_url, endpoint, body, probe=probe)), calls


@pytest.mark.parametrize(
    ("model", "length"),
    [("text-embedding-3-small", 1536), ("text-embedding-3-large", 3072), ("text-embedding-ada-002", 1536)],
)
def test_openais_own_models_are_known_without_a_request(model: str, length: int) -> None:
    assert find(OPENAI, None, model=model) == (length, [])


def test_a_known_model_that_is_asked_for_shorter_vectors_gives_them() -> None:
    assert find(OPENAI, None, model="text-embedding-3-small", dimensions=256) == (256, [])


@pytest.mark.parametrize(("base_url", "model"), [(OPENAI, "m"), (OTHER, "m"), (OTHER, "text-embedding-3-small")])
def test_another_model_or_server_is_asked_with_one_request(base_url: str, model: str) -> None:
    length, (call,) = find(base_url, vector(768), model=model)
    assert (length, call.method, call.path) == (768, "POST", "embeddings")
    assert call.json == {"model": model, "input": "x"}


def test_the_version_in_an_endpoint_is_the_address_own() -> None:
    _, (call,) = find(OTHER, vector(8), endpoint="/v4/more/embeddings")
    assert call.path == "more/embeddings"


def test_without_the_probe_nothing_is_sent() -> None:
    assert find(OTHER, None, probe=False) == (None, [])
    assert find(OTHER, None, probe=False, dimensions=8) == (8, [])


def test_a_server_that_ignores_the_length_that_is_asked_for_is_found_out() -> None:
    with pytest.raises(SpecError, match="ask for vectors of 256, and the server gives vectors of 768. Nothing was"):
        find(OTHER, vector(768), dimensions=256)


@pytest.mark.parametrize(
    "refusal",
    [
        RequestRefusedError("no", status=400),
        NotFoundError("no such model", status=404, code="model_not_found"),
    ],
)
def test_what_a_batch_would_be_refused_for_is_refused_at_once(refusal: ServiceError) -> None:
    with pytest.raises(SpecError, match=r"refuses one request .* set probe to false"):
        find(OTHER, refusal)
    with pytest.raises(SpecError, match="no"):
        find(OTHER, {"error": {"message": "no"}})


def test_a_wrong_key_is_found_at_once() -> None:
    with pytest.raises(CredentialsError):
        find(OTHER, CredentialsError("no", status=401))


@pytest.mark.parametrize(
    ("base_url", "answer"),
    [
        (OTHER, NotFoundError("no such endpoint", status=404)),
        (OTHER, UnsupportedError("no", status=405)),
        (OTHER, UnavailableError("slow")),
        (OTHER, CredentialsError("a key for batches only", status=403)),
        (AZURE, NotFoundError("a deployment for batches", status=404, code="DeploymentNotFound")),
        (AZURE, RequestRefusedError("a deployment for batches", status=400)),
        (OTHER, None),
        (OTHER, {"data": None}),
        (OTHER, {"data": [None]}),
        (OTHER, {"data": [{"embedding": "?"}]}),
        (OTHER, {"data": [{"embedding": []}]}),
    ],
)
def test_what_says_nothing_of_batches_stops_none(base_url: str, answer: Any) -> None:
    assert find(base_url, answer)[0] is None
    assert find(base_url, answer, dimensions=8)[0] == 8


def test_vectors_in_base64_are_measured() -> None:
    packed = base64.b64encode(struct.pack("<3f", 1, 2, 3)).decode()
    assert read_length({"data": [{"embedding": packed}]}) == 3
