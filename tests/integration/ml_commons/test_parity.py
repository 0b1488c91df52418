"""
The same request through the real plugin and through our load: equal documents, or a difference that is documented.

The differences are those of ``docs/ml-commons.md``, "Where our load differs". The plugin reads the cases with one
source from S3, and those with several from OpenAI: of several S3 sources it reads the first only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import pytest

from overnight.hooks.ml_commons import MLCommonsIngestHook
from overnight.hooks.openai import OpenAIHook
from overnight.hooks.opensearch import OpenSearchHook
from overnight.hooks.storage import connected_storage
from overnight.ingest import LoadOptions, LoadReport, load
from overnight.jobs import FailureCause, JobKey, JobState, JobStatus
from overnight.services.ml_commons.ingest.spec import MLCommonsIngestSpec
from overnight.services.openai.service import content

from .cases import JOIN_KINDS, KINDS, Case, cases
from .conftest import REGION, Cluster, wait

SEED = 20261123
SINGLES = 175
JOINS = 30
WAVE = 60
_OURS = re.compile(r"c\d{3}-")
CASES = list(cases(SEED, SINGLES, JOINS))


@dataclass
class Outcome:
    """What became of one case on both ways; documents by id, or a list where ids are made up."""

    case: Case
    server: JobStatus
    server_documents: Any
    report: LoadReport
    client_documents: Any


def _exact(value: Any) -> str:
    # Unlike ``==``, which takes 1, 1.0 and True for the same; unlike the text, which differs in the order of names.
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _index(cluster: Cluster) -> str:
    # What is compared are the documents, not what the types of one make of the next.
    return cluster.index({"enabled": False})


def _by_case(cluster: Cluster, index: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, source in cluster.documents(index).items():
        # Ids begin with the name of their case, but for those that are made up.
        case = name[:4] if _OURS.match(name) else source["case"]
        found.setdefault(case, {})[name] = source
    return found


def _documents(case: Case, found: dict[str, Any]) -> Any:
    return sorted(map(_exact, found.values())) if case.kind == "no id" else found


def _sources(cluster: Cluster, openai_url: str, case: Case) -> list[str]:
    if len(case.files) == 1:
        return [cluster.put(f"{case.name}/{number}.jsonl", lines) for number, lines in enumerate(case.files)]
    ids = []
    for lines in case.files:
        file = ("in.jsonl", "".join(f"{line}\n" for line in lines).encode())
        headers = {"Authorization": "Bearer sandbox"}
        form = {"purpose": "user_data"}
        answer = httpx.post(f"{openai_url}/files", headers=headers, data=form, files={"file": file})
        ids.append(str(answer.raise_for_status().json()["id"]))
    return ids


def _run(cluster: Cluster, openai_url: str, chosen: list[Case]) -> Iterator[Outcome]:
    server_index, client_index = _index(cluster), _index(cluster)
    states: dict[int, JobStatus] = {}
    reports: dict[int, LoadReport] = {}
    storage, target = connected_storage(), OpenSearchHook().target()

    def read_openai(uri: str, start: int) -> Iterator[bytes]:
        return content(openai.transport, uri.removeprefix("openai://"), start)  # type: ignore[arg-type]

    with MLCommonsIngestHook().client() as client, OpenAIHook().client() as openai:
        for start in range(0, len(chosen), WAVE):
            refs = {}
            for case in chosen[start : start + WAVE]:
                sources = _sources(cluster, openai_url, case)
                source_type: Literal["openAI", "s3"] = "openAI" if len(case.files) > 1 else "s3"
                spec = MLCommonsIngestSpec(
                    index_name=server_index,
                    field_map=case.field_map,
                    ingest_fields=tuple(case.ingest_fields),
                    source_type=source_type,
                    sources=tuple(sources),
                )
                key = JobKey(dag_id="d", task_id=case.name, run_id="r", fingerprint="0" * 16)
                refs[case.number] = client.run(client.service.submit(spec, key))
                request = case.request(client_index, sources, source_type)
                reports[case.number] = load(
                    request,
                    target=target,
                    storage=storage,
                    openers={"openai": read_openai},
                    options=LoadOptions(refresh=False, **case.options),
                )
            states |= {number: wait(client, ref) for number, ref in refs.items()}
    target.close()
    servers, clients = _by_case(cluster, server_index), _by_case(cluster, client_index)
    for case in chosen:
        yield Outcome(
            case,
            states[case.number],
            _documents(case, servers.get(case.name, {})),
            reports[case.number],
            _documents(case, clients.get(case.name, {})),
        )


@pytest.fixture(scope="module")
def outcomes(ml_url: str, s3_endpoint: str, openai_url: str) -> Iterator[dict[int, Outcome]]:
    extra = {"endpoint_url": s3_endpoint, "region_name": REGION}
    connections: dict[str, dict[str, Any]] = {
        "opensearch_default": {"conn_type": "opensearch", "host": ml_url},
        "aws_default": {"conn_type": "aws", "login": "sandbox", "password": "sandbox", "extra": extra},
        "openai_default": {"conn_type": "overnight_openai", "host": openai_url, "password": "sandbox"},
    }
    with pytest.MonkeyPatch.context() as patch, Cluster(ml_url, s3_endpoint) as cluster:
        for conn_id, fields in connections.items():
            patch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        yield {outcome.case.number: outcome for outcome in _run(cluster, openai_url, CASES)}


def test_there_are_at_least_200_cases_of_every_kind() -> None:
    assert len(CASES) >= 200
    assert {case.kind for case in CASES} == {*KINDS, *JOIN_KINDS}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.kind}".replace(" ", "-"))
def test_both_ways_give_the_same_documents(outcomes: dict[int, Outcome], case: Case) -> None:
    outcome = outcomes[case.number]
    report = outcome.report
    if case.fails:
        _check_difference(outcome)
        return
    assert outcome.server.state is JobState.SUCCEEDED, f"{outcome.server.describe()} {case.field_map}"
    expected, empty = outcome.server_documents, 0
    if case.kind == "partnerless":
        # Of an id that is only in a source from which nothing is mapped, the plugin makes a document without fields.
        expected = {name: document for name, document in expected.items() if document}
        empty = len(outcome.server_documents) - len(expected)
    assert _exact(outcome.client_documents) == _exact(expected)
    assert (report.rejected, report.missing) == (0, empty)
    if case.kind != "duplicate":
        assert report.indexed == len(outcome.client_documents)


def _check_difference(outcome: Outcome) -> None:
    """Check that where the plugin fails, ours does what the documentation says of it."""
    case, report = outcome.case, outcome.report
    lines = case.files[0]
    assert outcome.server.state is JobState.FAILED
    assert outcome.server.cause is FailureCause.INPUT
    if case.kind == "bracket":
        assert report.indexed == len(lines)
        assert {document["bracket"] for document in outcome.client_documents.values()} == {
            json.loads(line)["id"] for line in lines
        }
        return
    # One line is bad, and it alone is rejected; a blank line is skipped.
    reasons = {"missing": {"missing_value": 1}, "not json": {"invalid_line": 1}, "blank": {}}[case.kind]
    assert (report.rejected, report.indexed, report.missing) == (len(reasons), len(lines) - 1, 0)
    assert report.reasons == reasons
    good = [json.loads(line) for line in lines if line.startswith('{"')]
    if case.kind == "missing":
        good = [document for document in good if "only" in document]
    assert sorted(outcome.client_documents) == sorted(document["id"] for document in good)
    for document in good:
        assert outcome.client_documents[document["id"]]["case"] == document["case"]
