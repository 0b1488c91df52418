"""Requests made a block at once: the same as those that the template makes one by one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overnight.services.openai.block_renderer import BlockRenderer
from overnight.services.openai.choices import OnBadDocument
from overnight.services.openai.input import InputError, Limits, RequestTemplate, build
from overnight.services.openai.scan import estimate_tokens
from overnight.services.openai.tokens import TokenCounter

ONE_BY_ONE = TokenCounter(partial(estimate_tokens), "the same estimate, which looks at each request")

AT_ONCE = {
    "one text": RequestTemplate.embeddings("m"),
    "paths": RequestTemplate.embeddings("m", text_path="$.meta.tags[0]", id_path="$.meta.key", dimensions=3),
    "several inputs": RequestTemplate(
        endpoint="/v1/embeddings", body={"model": "m", "input": ["${text}", "100%", "${title}"]}
    ),
    "messages": RequestTemplate.chat(
        "m",
        prompt="100% of ${title} in ${$.meta.lang}, %s and $${text}: ${text}",
        system="${title}",
        options={"max_tokens": 5, "n": 2, "temperature": 0.5, "metadata": {"%": "%b $${"}},
    ),
    "no hole": RequestTemplate.chat("m", prompt="Say something."),
    "instructions": RequestTemplate(
        endpoint="/v1/responses", body={"model": "m", "input": "${text}", "instructions": "Be ${title}."}
    ),
    "prompts": RequestTemplate(
        endpoint="/v1/completions", body={"model": "m", "prompt": ["é ${text}", "b"], "max_tokens": 7}
    ),
    "what is not counted": RequestTemplate(
        endpoint="/v1/responses", body={"model": "m", "input": "${text}", "prompt": {"variables": {"a": "${title}"}}}
    ),
    "no model": RequestTemplate(endpoint="/v1/moderations", body={"input": "${text}"}),
    "a server's own": RequestTemplate(endpoint="/v1/rerank", body={"prompt": "${text}"}),
}
ONE_AT_A_TIME = {
    "a model of the document": RequestTemplate.embeddings("${title}"),
    "a limit of the document": RequestTemplate.chat("m", prompt="${text}", options={"max_tokens": "${title}"}),
    "images": RequestTemplate(endpoint="/v1/images/generations", body={"model": "m", "prompt": "${text}"}),
    "videos": RequestTemplate(endpoint="/v1/videos", body={"model": "m", "prompt": "${text}"}),
    "refused": RequestTemplate.chat("m", prompt="${text}", options={"stream": True}),
    "nothing to embed": RequestTemplate(endpoint="/v1/embeddings", body={"model": "m", "input": 1.5}),
    "no prompt": RequestTemplate(endpoint="/v1/chat/completions", body={"model": "m", "input": "${text}"}),
}

TEXTS = st.one_of(
    st.sampled_from(["", " ", "a", "b", "a%b ${text} $${", '"\\\n\x7f', "é 語 😀" * 9, "x" * 60]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
VALUES = st.one_of(TEXTS, TEXTS, TEXTS, st.sampled_from([None, True, 7, 1.5, [], {}, ["t"], [1, 2], {"a": "b"}]))
METAS = st.fixed_dictionaries({}, optional={"key": VALUES, "lang": VALUES, "tags": st.lists(VALUES, max_size=2)})
DOCUMENTS = st.fixed_dictionaries({"id": VALUES, "text": VALUES, "title": VALUES}, optional={"meta": METAS}).map(
    orjson.dumps
)
LINES = st.one_of(
    DOCUMENTS,
    DOCUMENTS,
    DOCUMENTS,
    st.sampled_from([b"", b" ", b"[1]", b'"a"', b"null", b"{", b'{"id": "\\ud800"}', b'{"id":"a","id":"b"}', b"\xff"]),
)
LIMITS = st.sampled_from(
    [
        Limits(),
        Limits(requests=2),
        Limits(bytes=220),
        Limits(tokens=9),
        Limits(embedding_inputs=3),
        Limits(embedding_inputs=1),
        Limits(custom_id_chars=2),
    ]
)


@settings(max_examples=300)
@given(
    st.sampled_from(list(AT_ONCE.values()) + list(ONE_AT_A_TIME.values())),
    st.lists(LINES, max_size=12),
    LIMITS,
    st.sampled_from(["fail", "reject"]),
)
def test_requests_made_at_once_are_those_made_one_by_one(
    tmp_path_factory: pytest.TempPathFactory,
    template: RequestTemplate,
    lines: list[bytes],
    limits: Limits,
    on_bad: OnBadDocument,
) -> None:
    folder = tmp_path_factory.mktemp("input")

    def build_all(**others: Any) -> object:
        target = folder / "out"
        target.mkdir(exist_ok=True)
        try:
            built = build(lines, template, str(target), limits=limits, on_bad=on_bad, **others)
        except InputError as error:
            return str(error), sorted(target.iterdir())
        return built, {path.name: path.read_bytes() for path in sorted(target.iterdir())}

    assert build_all() == build_all(counter=ONE_BY_ONE)


@pytest.mark.parametrize("template", AT_ONCE.values(), ids=AT_ONCE)
def test_usual_documents_are_made_at_once_and_others_left(template: RequestTemplate) -> None:
    renderer = BlockRenderer.compile(template, Limits())
    assert renderer is not None
    usual = {"id": "a", "text": "t", "title": "T", "meta": {"key": "a", "lang": "en", "tags": ["t"]}}
    lines = [orjson.dumps(one) for one in (usual, {**usual, "id": None, "meta": None}, [usual], usual)]
    made = renderer.render([*lines, b"{"])
    assert list(made.places) == [0, 3]
    assert list(made.ids) == ["a", "a"]
    assert orjson.loads(made.requests.lines[0]) == template.render(usual)[1]


@pytest.mark.parametrize("template", ONE_AT_A_TIME.values(), ids=ONE_AT_A_TIME)
def test_a_template_whose_requests_differ_in_more_than_texts_has_no_renderer(template: RequestTemplate) -> None:
    assert BlockRenderer.compile(template, Limits()) is None


def test_a_block_with_a_request_over_the_limit_is_left_as_a_whole(tmp_path: Path) -> None:
    template, limits = RequestTemplate.embeddings("m"), Limits(bytes=200)
    renderer = BlockRenderer.compile(template, limits)
    assert renderer is not None
    lines = [orjson.dumps({"id": name, "text": "t" * size}) for name, size in (("a", 1), ("b", 200), ("c", 1))]
    assert not renderer.render(lines).places
    built = build(lines, template, str(tmp_path), limits=limits, on_bad="reject")
    assert (built.requests, built.rejected) == (2, 1)


@pytest.mark.parametrize("unusual", [" ", "", None, 7, True, ["t"], {}])
@pytest.mark.parametrize("name", ["id", "text"])
def test_a_document_without_a_text_where_one_is_needed_is_left(name: str, unusual: Any) -> None:
    renderer = BlockRenderer.compile(RequestTemplate.embeddings("m"), Limits())
    assert renderer is not None
    assert not renderer.render([orjson.dumps({"id": "a", "text": "t", name: unusual})]).places


def test_a_template_whose_every_request_is_over_a_limit_has_no_renderer() -> None:
    assert BlockRenderer.compile(AT_ONCE["several inputs"], Limits(embedding_inputs=2)) is None
