"""A model that is there and not deployed."""

from __future__ import annotations

from typing import Any

import pytest

from overnight.errors import RequestRefusedError
from overnight.services.ml_commons.models import ensure_model
from overnight.transport.http import HttpCall
from unit.services.answers import Service

MODEL = {"_id": "model-1", "_source": {"connector_id": "connector-1", "model_state": "REGISTERED"}}


def run(refused: RequestRefusedError) -> Any:
    """Ensure the model at a cluster that refuses to deploy it, and where it is deployed a moment later."""

    def answer(call: HttpCall) -> Any:
        if call.path.endswith("/_deploy"):
            raise refused
        if call.path.endswith("/_search"):
            return {"hits": {"hits": [MODEL]}}
        return {"name": "m", "model_state": "DEPLOYED"}

    return Service(answer).run(ensure_model("m", "connector-1"))


def test_one_that_something_else_is_deploying_is_waited_for() -> None:
    assert run(RequestRefusedError("Document version conflict updating model-1", status=409)) == "model-1"


def test_one_that_cannot_be_deployed_is_not_waited_for() -> None:
    with pytest.raises(RequestRefusedError, match="eligible"):
        run(RequestRefusedError("No node is eligible", status=400))
