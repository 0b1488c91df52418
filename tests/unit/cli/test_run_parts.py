"""What the load of a part of ``overnight run`` is told; tests/unit/cli/test_run.py has what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from overnight.cli.run_parts import PartLoader, PartRun, ReusedRun
from overnight.cli.run_progress import RunDisplay
from overnight.cli.run_request import RunRequest
from overnight.ingest.report.load_report import LoadReport
from overnight.jobs import JobCounts, JobRef, JobState, JobStatus, ResultFile, ResultManifest
from overnight.jobs.attach import Conclusion
from overnight.services.openai.input import BuiltInput, ReusedPart, build
from overnight.services.openai.result_cache import ResultCache
from overnight.services.openai.template import RequestTemplate
from overnight.storage import Storage

TEMPLATE = RequestTemplate.embeddings("m")
FIELDS = {"field_map": {"_id": "source[0].$.id", "v": "source[1].$.response.body.data[0].embedding"}}
REF = JobRef(service="openai", id="batch_1", conn_id="openai_default")
DONE = JobStatus(state=JobState.SUCCEEDED, raw="completed")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The loads that were asked for."""
    asked: list[dict[str, Any]] = []

    def load(request: Any, **arguments: Any) -> LoadReport:
        asked.append({"request": request, **arguments})
        return LoadReport(index="docs", submitted=1, indexed=1)

    monkeypatch.setattr("overnight.cli.run_parts.load", load)
    return asked


def make_loader(folder: Path, **changes: Any) -> PartLoader:
    cache = ResultCache("write", f"{folder}/cache")
    request = RunRequest(documents=["d"], index="docs", template=TEMPLATE, fields=FIELDS, cache=cache, **changes)
    unused = cast("Any", None)
    return PartLoader(request, connect=unused, target=unused, storage=Storage(), display=RunDisplay(Console()))


def make_part(folder: Path) -> PartRun:
    built: BuiltInput = build([{"id": "a", "text": "b"}], TEMPLATE, str(folder), storage=Storage())
    repeats = {"repeated": 2, "repeated_uri": f"{folder}/r", "repeated_documents_uri": f"{folder}/rd"}
    counts = JobCounts(total=1, succeeded=1, failed=0)
    files = (ResultFile(kind="output", uri="openai://file-1"),)
    unused = cast("Any", None)
    run = PartRun(built.parts[0].model_copy(update=repeats), unused, unused, unused, name="the batch")
    run.conclusion = Conclusion(REF, DONE, ResultManifest(ref=REF, files=files, counts=counts))
    return run


def test_a_part_with_repeated_requests_must_have_a_result_for_each_document(
    tmp_path: Path, loads: list[dict[str, Any]]
) -> None:
    run = make_part(tmp_path)
    make_loader(tmp_path).load_results(run)
    (asked,) = loads
    assert asked["options"].result_counts == (None, 3)
    documents, results = map(list, asked["request"].data_source.source)
    assert documents == [run.part.documents_uri, f"{tmp_path}/rd"]
    assert results == ["openai://file-1", f"repeated://{tmp_path}/r"]
    assert run.accepted


def test_a_format_of_the_users_own_has_no_count(tmp_path: Path, loads: list[dict[str, Any]]) -> None:
    make_loader(tmp_path, load_options={"format": [None, None]}).load_results(make_part(tmp_path))
    assert not loads[0]["options"].result_counts


def test_answers_from_the_cache_are_looked_at_as_files_are(tmp_path: Path, loads: list[dict[str, Any]]) -> None:
    uri = f"{tmp_path}/reused.jsonl"
    Path(uri).write_text("{}")
    part = ReusedPart(uri=uri, documents_uri="d", dead_letter_uri="l", checkpoint_uri="c", documents=7)
    make_loader(tmp_path).load_reused(ReusedRun(part, name="reused answers"))
    (asked,) = loads
    assert asked["options"].result_counts == (None, 7)
    before = asked["looks"]["reused"](f"reused://{uri}")
    Path(uri).write_text("others")
    assert asked["looks"]["reused"](f"reused://{uri}") != before
