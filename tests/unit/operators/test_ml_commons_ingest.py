from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from overnight.errors import SpecError
from overnight.operators.ml_commons import MLCommonsBatchPredictOperator
from overnight.operators.ml_commons_ingest import MLCommonsBatchIngestOperator

REQUEST = {
    "index_name": "docs",
    "field_map": {"_id": "$.id", "text": "$.text"},
    "ingest_fields": ["$.lang"],
    "data_source": {"type": "s3", "source": ["s3://bucket/key.jsonl"]},
}


def _operator(**changes: Any) -> MLCommonsBatchIngestOperator:
    return MLCommonsBatchIngestOperator(task_id="ingest", request={**REQUEST, **changes})


def test_the_documented_request_becomes_the_spec_without_its_credential() -> None:
    spec = _operator().build_spec({})
    assert spec.model_dump(exclude_none=True) == {
        "index_name": "docs",
        "field_map": REQUEST["field_map"],
        "ingest_fields": ("$.lang",),
        "source_type": "s3",
        "sources": ("s3://bucket/key.jsonl",),
    }


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"credential": {"secret_key": "sssecret"}}, "holds a credential"),
        ({"field_map": {"_id": "$.id", "text": "source[1].$.text"}}, "from source"),
        ({"field_map": {"_id": "$.id", "text": 5}}, "JSONPath"),
        ({"data_source": {"type": "file", "source": ["/x"]}}, "engine='client'"),
        ({"data_source": {"type": "s3", "source": []}}, "source"),
        ({"index_name": "a,b"}, "index_name"),
    ],
)
def test_what_the_server_would_ignore_or_find_out_late_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text) as refusal:
        _operator(**changes).build_spec({})
    assert "sssecret" not in str(refusal.value)


def test_a_part_of_a_file_is_for_our_own_load() -> None:
    part = _operator(data_source={"type": "s3", "source": ["s3://bucket/key.jsonl#bytes=0-9"]})
    part.durable = False
    assert part._choice({}, part._request()).engine == "client"
    part.engine = "server"
    with pytest.raises(SpecError, match="engine='client'"):
        part._choice({}, part._request())


def test_no_template_field_can_hold_a_credential() -> None:
    operator = _operator()
    rendered = json.dumps({name: str(getattr(operator, name)) for name in operator.template_fields})
    assert "key" not in rendered.replace("s3://bucket/key.jsonl", "")


def test_half_of_the_remote_service_is_refused() -> None:
    operator = MLCommonsBatchPredictOperator(task_id="predict", model_id="m", remote_service="openai")
    with pytest.raises((SpecError, AirflowFailException), match="together"):
        operator.make_client()


@pytest.mark.parametrize("options", [{"skip_unchanged": True}, {"options": {"skip_unchanged": True}}], ids=str)
def test_the_server_writes_every_document(options: dict[str, Any]) -> None:
    operator = MLCommonsBatchIngestOperator(task_id="ingest", request=REQUEST, engine="server", **options)
    with pytest.raises(AirflowFailException, match=r"the server writes every document. .* engine='client'"):
        operator.execute({})
    chosen = MLCommonsBatchIngestOperator(task_id="ingest", request=REQUEST, durable=False, **options)
    assert chosen._choice({}, chosen._request()).engine == "client"
