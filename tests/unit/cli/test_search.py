from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import overnight
from http_server import Answer, Request, Server, json_answer
from overnight.cli.app import app


def make_mapping(**method: Any) -> dict[str, Any]:
    vectors = {"type": "knn_vector", "dimension": 3, **({"method": {"name": "hnsw", **method}} if method else {})}
    return {"docs-1": {"mappings": {"properties": {"text": {"type": "text"}, "v": vectors}}}}


VECTORS = make_mapping(engine="lucene")
WORDS = {"docs-1": {"mappings": {"properties": {"text": {"type": "text"}}}}}
LONG = "shutil.rmtree(path)\nRecursively delete a directory tree. " + "And more of it. " * 20


@pytest.fixture
def cluster(server: Server) -> Server:
    """An OpenSearch with vectors and an OpenAI, at one address."""
    server.handler = answer_with(VECTORS)
    return server


def answer_with(mapping: dict[str, Any], hits: int = 1) -> Any:
    def answer(request: Request) -> Answer:
        if request.path.endswith("/_mapping"):
            return json_answer(mapping) if "docs" in request.path else json_answer({"error": "no such index"}, 404)
        if request.path.endswith("/embeddings"):
            return json_answer({"data": [{"embedding": [0.5, 0.25, 0.0]}]})
        source = {"text": LONG, "kind": "function [red]"}
        found = [{"_id": "shutil.rmtree", "_score": 0.91, "_source": source}] * hits
        return json_answer({"hits": {"hits": found}})

    return answer


def run(server: Server, *arguments: str, **variables: str) -> Any:
    env = {"OPENSEARCH_URL": server.url, "OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "sk-1", **variables}
    return CliRunner().invoke(app, ["search", *arguments], env=env)


def test_the_text_is_embedded_as_long_as_the_index_has_it_and_the_nearest_are_shown(cluster: Server) -> None:
    found = run(cluster, "docs", "delete a folder", "--size", "3")
    assert found.exit_code == 0, found.output
    embedded = json.loads(next(request.body for request in cluster.requests if request.path.endswith("embeddings")))
    assert embedded == {"model": "text-embedding-3-small", "input": "delete a folder", "dimensions": 3}
    searched = json.loads(cluster.requests[-1].body)
    nearest = {"vector": [0.5, 0.25, 0.0], "k": 10_000, "filter": {"match_all": {}}}
    assert searched["query"] == {"knn": {"v": nearest}}
    assert (searched["size"], searched["_source"]) == (3, {"excludes": ["overnight_digest", "v"]})
    assert "shutil.rmtree" in found.stdout
    assert "0.910" in found.stdout


@pytest.mark.parametrize("mapping", [make_mapping(), make_mapping(engine="nmslib"), make_mapping(engine="faiss")])
def test_an_engine_that_may_refuse_a_filter_gets_none(mapping: dict[str, Any], cluster: Server) -> None:
    cluster.handler = answer_with(mapping)
    assert run(cluster, "docs", "delete a folder").exit_code == 0
    searched = json.loads(cluster.requests[-1].body)
    assert searched["query"] == {"knn": {"v": {"vector": [0.5, 0.25, 0.0], "k": 10_000}}}


def test_a_line_has_at_most_80_characters_where_there_is_no_terminal(cluster: Server) -> None:
    lines = run(cluster, "docs", "delete a folder").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].endswith("…")


def test_json_has_all_of_each_document_but_its_vector(cluster: Server) -> None:
    (hit,) = json.loads(run(cluster, "docs", "delete a folder", "--json").stdout)
    assert hit == {"id": "shutil.rmtree", "score": 0.91, "text": LONG, "fields": {"kind": "function [red]"}}


@pytest.mark.parametrize(("mapping", "arguments"), [(WORDS, ()), (VECTORS, ("--words",))])
def test_words_are_searched_for_where_there_are_no_vectors_or_none_are_wanted(
    mapping: dict[str, Any], arguments: tuple[str, ...], cluster: Server
) -> None:
    cluster.handler = answer_with(mapping)
    assert run(cluster, "docs", "delete a folder", *arguments).exit_code == 0
    assert json.loads(cluster.requests[-1].body)["query"] == {"simple_query_string": {"query": "delete a folder"}}
    assert not [request for request in cluster.requests if request.path.endswith("embeddings")]


def test_nothing_found_ends_with_1(cluster: Server) -> None:
    cluster.handler = answer_with(VECTORS, hits=0)
    found = run(cluster, "docs", "delete a folder")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "Nothing was found." in found.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing", "delete"), "There is no index 'nothing'"),
        (("docs", "  "), "The text to search for is empty"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_2(arguments: tuple[str, ...], said: str, cluster: Server) -> None:
    found = run(cluster, *arguments)
    assert (found.exit_code, found.stdout) == (2, "")
    assert said in found.stderr


def test_without_any_address_the_remedy_is_named(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["search", "docs", "x", "--dir", str(tmp_path)], env={"OPENSEARCH_URL": ""})
    assert found.exit_code == 2
    assert "Give --url, or set OPENSEARCH_URL" in found.stderr


def test_without_a_key_the_remedy_is_named_and_no_key_is_in_it(cluster: Server) -> None:
    found = run(cluster, "docs", "x", OPENAI_API_KEY="", OPENAI_BASE_URL="")
    assert found.exit_code == 2
    assert "OPENAI_API_KEY" in found.stderr


def test_the_version_is_the_packages() -> None:
    found = CliRunner().invoke(app, ["--version"])
    assert (found.exit_code, found.stdout) == (0, f"overnight {overnight.__version__}\n")
