"""For any model of nested lists, unions and optionals: what a service answers is, validated, what the index holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import UUID

import httpx
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, create_model

from overnight.ingest import LoadOptions, OpenSearchTarget, load
from overnight.output_schema import OutputSchema
from overnight.sandbox.openai.chat import completion_text
from overnight.services.openai.input import RequestTemplate
from overnight.services.openai.structured import build_strict_schema
from overnight.templates.openai_batch_extract_to_index import OpenAIBatchExtractToIndexConfig
from patience import PATIENCE

MODELS = 80
INSTANCES = 2
"""Answers of each model; one more is the emulator's."""
TEXT = "Delete 3 directory trees; path must point to a directory. See also os.rmdir(), since 3.5."


class Color(Enum):
    RED = "red"
    NUMBER = 5


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Kind(NamedTuple):
    """A type, and values of it."""

    annotation: Any
    values: st.SearchStrategy[Any]


LEAVES = [
    Kind(str, st.text(max_size=40) | st.text(alphabet="ab", min_size=300, max_size=400)),
    Kind(int, st.integers(-(2**70), 2**70)),
    Kind(float, st.floats(allow_nan=False, allow_infinity=False)),
    Kind(bool, st.booleans()),
    Kind(date, st.dates()),
    Kind(datetime, st.datetimes(timezones=st.none() | st.timezones())),
    Kind(time, st.times()),
    Kind(UUID, st.uuids()),
    Kind(Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    Kind(Literal["a", "b"], st.sampled_from("ab")),
    Kind(Literal[1, "x"] | None, st.sampled_from([1, "x", None])),
    Kind(Color, st.sampled_from(Color)),
    Kind(
        Tree,
        st.recursive(
            st.builds(Tree, name=st.text()), lambda some: st.builds(Tree, children=st.lists(some)), max_leaves=4
        ),
    ),
]
ALIASES = ["name", "a b", "it's", "x.y", "ü", "_id", "0", "json()"]
NUMBERS = count()


def make_model(kinds: dict[str, Kind], aliases: dict[str, str], prefix: str = "") -> Kind:
    name = f"Model{next(NUMBERS)}"
    fields: Any = {
        field: (kind.annotation, Field(alias=prefix + aliases.get(field, field))) for field, kind in kinds.items()
    }
    model = create_model(name, __module__=__name__, __config__={"populate_by_name": True}, **fields)
    # What a worker imports.
    setattr(sys.modules[__name__], name, model)
    return Kind(
        model, st.fixed_dictionaries({field: kind.values for field, kind in kinds.items()}).map(lambda v: model(**v))
    )


def nest(kinds: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    names = st.sampled_from(["first", "second", "third"])
    return (
        kinds.map(lambda kind: Kind(list[kind.annotation], st.lists(kind.values, max_size=3)))  # type: ignore[name-defined]
        | kinds.map(lambda kind: Kind(kind.annotation | None, st.none() | kind.values))
        | st.tuples(kinds, kinds).map(
            lambda two: Kind(two[0].annotation | two[1].annotation, two[0].values | two[1].values)
        )
        | st.builds(
            make_model,
            st.dictionaries(names, kinds, min_size=1),
            st.dictionaries(names, st.sampled_from(ALIASES), max_size=1),
        )
    )


def roots() -> st.SearchStrategy[Kind]:
    kinds = st.recursive(st.sampled_from(LEAVES), nest, max_leaves=5)
    names = st.dictionaries(st.sampled_from(["first", "second", "third"]), kinds, min_size=1)
    aliases = st.dictionaries(st.just("first"), st.sampled_from([alias for alias in ALIASES if "." not in alias]))
    # All of them share one index.
    return st.builds(lambda k, a: make_model(k, a, prefix=f"m{next(NUMBERS)} "), names, aliases)


class Case(NamedTuple):
    """A model's config, and by id the answers to be loaded."""

    config: OpenAIBatchExtractToIndexConfig
    answers: dict[str, str]


def make_case(number: int, model: type[BaseModel], instances: list[BaseModel], index_name: str) -> Case:
    config = OpenAIBatchExtractToIndexConfig(
        input_uri="in",
        work_uri="work",
        index_name=index_name,
        instruction="Say what it is.",
        output_type=f"{__name__}:{model.__name__}",
        nested_lists=bool(number % 2),
    )
    schema = OutputSchema.parse(model)
    validator = Draft202012Validator(build_strict_schema(schema))
    answers = [instance.model_dump_json(by_alias=True) for instance in instances]
    for answer in answers:
        assert schema.check(answer.encode()) is None
        # What the model says of itself, the directive lets the service answer.
        assert validator.is_valid(json.loads(answer)), (validator.schema, answer)
    body = RequestTemplate.model_validate(config.request_template()).render({"id": "x", "text": TEXT})[1]["body"]
    answer, is_complete = completion_text(body["messages"], body["response_format"], max_tokens=100_000)
    assert is_complete
    # The emulator finds no text for a regular expression (those of a Decimal).
    if b'"pattern"' not in orjson.dumps(body):
        assert schema.check(answer.encode()) is None, (body["response_format"], answer)
        answers.append(answer)
    return Case(config, {f"{number}-{place}": answer for place, answer in enumerate(answers)})


def make_result(custom_id: str, answer: str, *, fenced: bool) -> bytes:
    content = f"Here it is:\n```json\n{answer}\n```" if fenced else answer
    choice = {"message": {"role": "assistant", "content": content, "refusal": None}, "finish_reason": "stop"}
    return (
        orjson.dumps({"custom_id": custom_id, "response": {"status_code": 200, "body": {"choices": [choice]}}}) + b"\n"
    )


def expect(case: Case) -> Iterator[tuple[str, Any]]:
    """Yield the dump of each model that was answered with; of the emulator's answers, what they are."""
    model = getattr(sys.modules[__name__], str(case.config.output_type).partition(":")[2])
    for place, (name, answer) in enumerate(case.answers.items()):
        instance = model.model_validate_json(answer)
        yield name, instance.model_dump(mode="json", by_alias=True) if place < INSTANCES else json.loads(answer)


def test_the_index_holds_what_the_model_is(opensearch_url: str, index_name: str, tmp_path: Path) -> None:
    cases: list[Case] = []

    @settings(max_examples=MODELS, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(roots(), st.data())
    def collect(kind: Kind, data: st.DataObject) -> None:
        instances = [data.draw(kind.values) for _ in range(INSTANCES)]
        cases.append(make_case(len(cases), kind.annotation, instances, index_name))

    collect()
    assert len(cases) >= MODELS
    properties = {
        name: part for case in cases for name, part in case.config.build_index()["mappings"]["properties"].items()
    }
    limits = {
        "index.mapping.total_fields.limit": 20_000,
        "index.mapping.nested_fields.limit": 5_000,
        "number_of_replicas": 0,
    }
    index = {"settings": limits, "mappings": {"dynamic": "strict", "properties": properties}}
    httpx.put(f"{opensearch_url}/{index_name}", json=index, timeout=PATIENCE).raise_for_status()
    with OpenSearchTarget(opensearch_url) as target:
        for number, case in enumerate(cases):
            documents, results = tmp_path / f"{number}.documents.jsonl", tmp_path / f"{number}.results.jsonl"
            documents.write_bytes(b"".join(orjson.dumps({"id": key, "text": TEXT}) + b"\n" for key in case.answers))
            results.write_bytes(
                b"".join(make_result(*pair, fenced=bool(n % 2)) for n, pair in enumerate(case.answers.items()))
            )
            sources = {"source": [str(documents), str(results)]}
            report = load(
                {"index_name": index_name, "data_source": sources, **case.config.joined_fields()},
                target=target,
                options=LoadOptions.of(
                    {
                        **case.config.load_options(),
                        "format": (None, "openai"),
                        "write": "index",
                        "refresh": False,
                        "verify": False,
                        "dead_letter_uri": str(tmp_path / "rejected.jsonl"),
                    }
                ),
            )
            letters = (tmp_path / "rejected.jsonl").read_text() if report.rejected else ""
            assert report.indexed == len(case.answers), (letters, case.config.build_index())
    keys = [key for case in cases for key in case.answers]
    got = httpx.post(f"{opensearch_url}/{index_name}/_mget", json={"ids": keys}, timeout=PATIENCE).raise_for_status()
    sources_by_id = {found["_id"]: found["_source"] for found in got.json()["docs"]}
    for case in cases:
        for key, dumped in expect(case):
            found = sources_by_id[key]
            assert found.pop("text") == TEXT
            assert found == dumped
