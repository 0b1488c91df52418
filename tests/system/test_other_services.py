"""The pipelines through ML Commons, LlamaCloud and Azure OpenAI, each to its index."""

from __future__ import annotations

import httpx

from overnight.sandbox.corpus import files
from overnight.sandbox.services import KEY

from .bench.connections import counts
from .bench.store import indexed
from .conftest import Services
from .console import Run
from .other_services import PARSED, World


def states(run: Run) -> list[tuple[str, str]]:
    return [(task["task_id"], task["state"]) for task in run.tasks()]


def texts(services: Services) -> dict[str, tuple[str, str]]:
    """Return which file each chunk of the index is from, and what it says."""
    found = indexed(services.environment["OPENSEARCH_URL"], "parsed")
    return {name: (document["source_uri"], document["text"]) for name, document in found.items()}


def test_azure_ingests_every_file_of_the_container(world: World) -> None:
    run = world.ingesting
    assert run.finish() == "success", states(run)
    report = run.xcom("report")
    assert (report["state"], report["documents"], report["failed_chunks"]) == ("succeeded", PARSED, 0)
    url = f"{world.azure.url}/indexes/{report['index']}/docs/$count"
    version = {"api-version": "2023-11-01"}
    counted = httpx.get(url, params=version, headers={"api-key": KEY}, trust_env=False).raise_for_status()
    assert int(counted.text.strip("\ufeff")) == report["chunks"] >= PARSED


def test_the_files_that_can_be_parsed_are_indexed_and_a_second_run_changes_nothing(
    world: World, services: Services
) -> None:
    first = world.parsing
    assert first.finish() == "success", states(first)
    second = world.parse()

    parsed = first.xcom("parse")["status"]
    assert (parsed["state"], parsed["counts"]) == ("partial", {"total": PARSED + 1, "succeeded": PARSED, "failed": 1})
    report = first.xcom("report")
    chunks = first.xcom("chunk")["chunks"]
    assert counts(report) == (chunks, chunks, 0, 0)
    before = texts(services)
    assert len(before) == chunks
    sources = {source.rpartition("/")[2] for source, _ in before.values()}
    assert sources == files(PARSED).keys()

    assert second.finish() == "success", states(second)
    assert counts(second.xcom("report")) == counts(report)
    assert second.xcom("parse")["ref"]["id"] != first.xcom("parse")["ref"]["id"]
    assert texts(services) == before


def test_the_cluster_predicts_and_ingests_by_itself(world: World) -> None:
    run = world.predicting
    assert run.finish() == "success", states(run)
    (job,) = world.sagemaker.jobs()
    assert job["TransformJobStatus"] == "Completed"
    assert run.xcom("transform")["ref"]["service"] == "ml_commons_predict"
    loads = [run.xcom("load", map_index=number) for number in range(2)]
    assert [load["engine"] for load in loads] == ["server", "server"]
    assert counts(run.xcom("report")) == (40, 40, 0, 0)
    found = indexed(world.node.url, "predicted")
    shown = {name: (document["text"], document["signature"]) for name, document in found.items()}
    assert shown == {name: (document["text"], document["signature"]) for name, document in world.predicted.items()}
    assert {len(document["embedding"]) for document in found.values()} == {384}
