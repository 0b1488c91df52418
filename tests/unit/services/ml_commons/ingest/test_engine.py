from __future__ import annotations

from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.services.ml_commons.ingest.engine import choose_engine
from overnight.transport.opensearch import ServerVersion


def _version(number: str, distribution: str = "opensearch") -> ServerVersion:
    return ServerVersion(distribution, number)


S3 = ("s3://bucket/key.jsonl",)


@pytest.mark.parametrize(
    ("version", "source_type", "sources", "engine", "why"),
    [
        (_version("2.19.6"), "s3", S3, "server", "OpenSearch 2.19.6 has batch ingestion"),
        (_version("2.17.0"), "s3", S3 * 2, "server", "2.17.0"),
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
