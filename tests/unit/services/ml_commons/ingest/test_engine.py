from __future__ import annotations

from typing import Any

import pytest

from overnight.errors import CredentialsError, SpecError
from overnight.services.ml_commons.ingest.engine import ASSUMED_LIMIT, SourceFile, choose_engine, find_limit
from overnight.transport.opensearch import ServerVersion


def _version(number: str, distribution: str = "opensearch") -> ServerVersion:
    return ServerVersion(distribution, number)


S3 = ("s3://bucket/key.jsonl",)


@pytest.mark.parametrize(
    ("version", "source_type", "sources", "engine", "why"),
    [
        (_version("2.19.6"), "s3", S3, "server", "OpenSearch 2.19.6 has batch ingestion"),
        (_version("2.17.0"), "s3", S3, "server", "2.17.0"),
        (_version("2.17.0"), "s3", S3 * 2, "client", "broken in OpenSearch 2.17.0"),
        (_version("2.18.0"), "s3", S3 * 2, "client", "Connection pool shut down"),
        (_version("2.18.0"), "openAI", ("file-1", "file-2"), "server", "2.18.0"),
        (_version("2.19.0"), "openAI", ("file-1", "file-2"), "server", "2.19.0"),
        (_version("2.19.0"), "s3", S3 * 2, "client", "Connection pool shut down"),
        (_version("2.16.0"), "s3", S3, "client", "came with OpenSearch 2.17"),
        (_version("1.3.20"), "s3", S3, "client", "came with OpenSearch 2.17"),
        (_version("3.0.0"), "s3", S3, "client", "3.0 removed it"),
        (_version("3.6.0"), "openAI", ("file-1",), "client", "3.0 removed it"),
        (_version("", "serverless"), "s3", S3, "client", "Serverless has no"),
        (_version("7.10.2", "elasticsearch"), "s3", S3, "client", "Elasticsearch 7.10.2 has no"),
        (_version("2.19.6"), "file", ("/x",), "client", "not file"),
        (_version("2.19.6"), None, ("/x",), "client", "mixed kinds"),
        (_version("2.19.6"), "s3", ("s3://bucket/*.jsonl",), "client", "globs"),
        (_version("2.19.6"), "s3", ("s3://bucket/folder/",), "client", "prefixes"),
        (_version("2.19.6"), "openAI", (("file-1", "file-2"),), "client", "lists of files"),
    ],
)
def test_the_engine_that_is_right_is_chosen_and_says_why(
    version: ServerVersion, source_type: Any, sources: Any, engine: str, why: str
) -> None:
    choice = choose_engine("auto", version, source_type, sources)
    assert choice.engine == engine
    assert why in choice.why
    assert choose_engine("client", version, source_type, sources).engine == "client"
    if engine == "client":
        with pytest.raises(SpecError, match="engine='client' or 'auto'"):
            choose_engine("server", version, source_type, sources)
    else:
        assert choose_engine("server", version, source_type, sources).engine == "server"


def test_a_server_without_the_plugin_and_a_path_it_fails_for_go_to_the_client() -> None:
    version = _version("2.19.6")
    assert "not installed" in choose_engine("auto", version, "s3", S3, endpoint=False).why
    assert choose_engine("auto", version, "s3", S3, paths=["source[0].$['a']"]).engine == "client"
    assert choose_engine("auto", version, "s3", S3, paths=["$['a']", "source[0].$.a['$x']"]).engine == "server"


@pytest.mark.parametrize(
    ("number", "changes", "why"),
    [
        ("2.17.0", {"has_connector": True}, "OpenSearch 2.17.0 knows no connector_id"),
        ("2.18.0", {"has_connector": True}, "knows no connector_id"),
        ("2.19.6", {"has_connector": True}, None),
        ("2.19.6", {"has_routing": True}, "'_routing' as a field"),
        (
            "2.19.6",
            {"look": lambda: [SourceFile("s3://b/k", size=5), SourceFile("s3://b/z", "gzip")]},
            "s3://b/z is gzip",
        ),
        (
            "2.19.6",
            {"look": lambda: [SourceFile("s3://b/k", has_mark=True)]},
            "s3://b/k, which starts with a byte order",
        ),
        ("2.19.6", {"look": lambda: [SourceFile("s3://b/k", size=50_000_000)]}, None),
        ("2.19.6", {"look": lambda: [SourceFile("a", size=50_000_000), SourceFile("b", size=1)]}, "50,000,001 bytes"),
        ("2.19.6", {"look": lambda: [SourceFile("a", size=501)], "limit": lambda: 1_000}, "up to 500 are left to it"),
        ("2.19.6", {"look": lambda: [SourceFile("a")], "limit": lambda: 0}, None),
    ],
)
def test_what_the_server_is_recorded_to_fail_at_goes_to_the_client(
    number: str, changes: dict[str, Any], why: str | None
) -> None:
    choice = choose_engine("auto", _version(number), "s3", S3, **changes)
    assert choice.engine == ("server" if why is None else "client")
    assert (why or "carries out rightly") in choice.why
    if why is not None:
        with pytest.raises(SpecError, match="engine='server' cannot carry out"):
            choose_engine("server", _version(number), "s3", S3, **changes)


def test_files_are_looked_at_only_where_the_server_is_possible() -> None:
    def look() -> list[SourceFile]:
        raise AssertionError("looked")

    assert choose_engine("auto", _version("3.6.0"), "s3", S3, look=look).engine == "client"
    assert choose_engine("client", _version("2.19.6"), "s3", S3, look=look).engine == "client"


def _node(limit: Any) -> dict[str, Any]:
    return {"indexing_pressure": {"memory": {"limit_in_bytes": limit}}}


@pytest.mark.parametrize(
    ("answer", "limit"),
    [
        ({"nodes": {"a": _node(300), "b": _node(200)}}, 200),
        ({"nodes": {"a": _node("x"), "b": _node(200), "c": {}, "d": None}}, 200),
        ({"nodes": {}}, ASSUMED_LIMIT),
        ({"nodes": None}, ASSUMED_LIMIT),
        ([], ASSUMED_LIMIT),
        (None, ASSUMED_LIMIT),
        (CredentialsError("no permissions"), ASSUMED_LIMIT),
    ],
)
def test_the_smallest_node_decides_how_much_is_too_much(answer: Any, limit: int) -> None:
    flow = find_limit()
    assert next(flow).path == "_nodes/stats/indexing_pressure"
    with pytest.raises(StopIteration) as ended:
        flow.throw(answer) if isinstance(answer, Exception) else flow.send(answer)
    assert ended.value.value == limit
