from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from airflow.sdk import DAG, BaseOperator, XComArg
from airflow.sdk.exceptions import AirflowFailException
from hypothesis import given
from hypothesis import strategies as st

from overnight.costs.estimate import CostEstimate, Workload
from overnight.costs.prices import PriceTable
from overnight.costs.spending import CostBudget, Spending, read_record
from overnight.ingest import LoadReport, MirrorReport
from overnight.jobs import JobState
from overnight.storage import Storage
from overnight.templates.report import Excluded, PartReport, PipelineReport
from overnight.templates.report_operator import PipelineReportOperator

COUNT = st.integers(0, 1_000)
CODES = st.sampled_from(["bad_line", "no_row", "mapper_parsing_exception"])


@st.composite
def loads(draw: st.DrawFn) -> LoadReport:
    indexed, unchanged, rejected, missing = draw(COUNT), draw(COUNT), draw(COUNT), draw(COUNT)
    return LoadReport(
        index="docs",
        submitted=indexed + unchanged + rejected + missing,
        indexed=indexed,
        unchanged=unchanged,
        rejected=rejected,
        missing=missing,
        bytes=draw(COUNT),
        seconds=draw(st.floats(0, 100)),
        reasons=draw(st.dictionaries(CODES, st.integers(1, 9))),
        dead_letter_uri=draw(st.none() | st.just("s3://bucket/dead.jsonl")),
    )


PARTS = st.lists(
    st.builds(PartReport, submitted=COUNT, reused=COUNT, load=st.none() | loads(), accepted=st.booleans()), max_size=8
)
EXCLUDED = st.none() | st.builds(Excluded, count=COUNT, uri=st.none() | st.just("s3://bucket/left-out.jsonl"))


@given(PARTS, EXCLUDED, EXCLUDED)
def test_whatever_became_of_the_parts_the_counts_add_up(
    parts: list[PartReport], unsent: Excluded | None, absent: Excluded | None
) -> None:
    report = PipelineReport.of(parts, not_sent=unsent, without_result=absent)
    outcomes = report.indexed + report.unchanged + report.rejected + report.missing
    assert report.submitted + report.reused == outcomes
    assert report.in_index == report.indexed + report.unchanged
    assert report.reused == sum(part.reused for part in parts)
    assert report.repeated <= report.reused
    assert report.not_sent <= report.rejected
    assert report.without_result <= report.missing
    excluded = (unsent.count if unsent else 0) + (absent.count if absent else 0)
    # Nobody's documents are lost: a part has at least those that it was given.
    assert report.submitted >= excluded + sum(part.submitted for part in parts)
    assert report.indexed == sum(part.load.indexed for part in parts if part.load)
    assert report.failed_parts == tuple(number for number, part in enumerate(parts) if not part.accepted)
    assert all(count > 0 for count in report.reasons.values())
    assert None not in report.dead_letter_uris


@given(PARTS, EXCLUDED)
def test_a_report_can_be_written_and_read_again(parts: list[PartReport], unsent: Excluded | None) -> None:
    report = PipelineReport.of(parts, not_sent=unsent)
    assert PipelineReport.model_validate_json(report.model_dump_json()) == report


def test_a_part_without_a_load_is_missing_as_a_whole() -> None:
    report = PipelineReport.of([PartReport(submitted=7)])
    assert (report.submitted, report.indexed, report.missing, report.failed_parts) == (7, 0, 7, (0,))


def test_what_a_load_does_not_speak_of_is_missing() -> None:
    load = LoadReport(index="docs", submitted=6, indexed=5, rejected=1)
    report = PipelineReport.of([PartReport(submitted=10, load=load, accepted=True)])
    assert (report.submitted, report.indexed, report.rejected, report.missing) == (10, 5, 1, 4)


def test_unchanged_documents_are_a_number_of_their_own() -> None:
    load = LoadReport(index="docs", submitted=10, indexed=2, unchanged=7, rejected=1)
    report = PipelineReport.of([PartReport(submitted=10, load=load, accepted=True)])
    assert (report.submitted, report.indexed, report.unchanged, report.missing, report.in_index) == (10, 2, 7, 0, 9)
    assert "unchanged: 7" in list(report.describe())
    assert report.model_dump(mode="json")["in_index"] == 9  # what the index is verified by


# --- The step ------------------------------------------------------------------------------------------------------


class Pulled:
    """The XComs of a run, by task, map index and key."""

    def __init__(self, parts: list[int] | None) -> None:
        self.pushed: dict[str, Any] = {}
        self._values: dict[tuple[str, int | None, str], Any] = {}
        if parts is not None:
            self.put("plan", [{"requests": count} for count in parts])

    def put(self, task_id: str, value: Any, *, number: int | None = None, key: str = "return_value") -> None:
        self._values[task_id, number, key] = value

    def load(self, number: int, indexed: int, *, rejected: int = 0, accepted: bool = True) -> None:
        report = LoadReport(index="docs", submitted=indexed + rejected, indexed=indexed, rejected=rejected)
        self.put("load", report.model_dump(mode="json"), number=number, key="return_value" if accepted else "report")

    @property
    def context(self) -> Any:
        def pull(*, task_ids: str, map_indexes: int | None = None, key: str = "return_value") -> Any:
            return self._values.get((task_ids, map_indexes, key))

        def push(*, key: str, value: Any) -> None:
            self.pushed[key] = value

        ti = SimpleNamespace(xcom_pull=pull, xcom_push=push)
        return {"ti": ti, "dag": SimpleNamespace(dag_id="nightly"), "run_id": "manual__1"}


with DAG("nightly"):
    PLAN, EMBED, LOAD = (BaseOperator(task_id=name) for name in ("plan", "embed", "load"))


def run(xcoms: Pulled, folder: Path, **options: Any) -> dict[str, Any]:
    operator = PipelineReportOperator(
        task_id="report", parts=PLAN.output, loads=LOAD.output, target=str(folder / "run"), **options
    )
    return operator.execute(xcoms.context)


def test_the_report_is_the_xcom_and_a_file_with_the_parts(tmp_path: Path) -> None:
    xcoms = Pulled([3, 4])
    xcoms.load(0, 3)
    xcoms.load(1, 3, rejected=1)
    summary = run(xcoms, tmp_path)
    assert (summary["submitted"], summary["indexed"], summary["rejected"], summary["missing"]) == (7, 6, 1, 0)
    assert "parts" not in summary
    assert xcoms.pushed["report"] == summary
    written = orjson.loads((tmp_path / "run" / "report.json").read_bytes())
    assert summary["uri"] == str(tmp_path / "run" / "report.json")
    assert [part["load"]["indexed"] for part in written["parts"]] == [3, 3]
    assert summary["page"] == str(tmp_path / "run" / "report.html")
    assert "nightly, manual__1" in (tmp_path / "run" / "report.html").read_text()


def test_of_a_part_that_does_not_say_its_size_only_its_load_knows(tmp_path: Path) -> None:
    xcoms = Pulled(None)
    xcoms.put("plan", [{"request": {}}, {"request": {}}])  # shards
    xcoms.load(0, 3)
    xcoms.load(1, 3, rejected=1)
    assert run(xcoms, tmp_path)["submitted"] == 7


def test_a_part_that_failed_fails_the_run_for_good_and_the_report_is_there_all_the_same(tmp_path: Path) -> None:
    xcoms = Pulled([3, 4, 5])
    xcoms.load(0, 3)
    xcoms.load(1, 1, rejected=3, accepted=False)
    with pytest.raises(AirflowFailException, match="2 of 3 parts were not loaded: 1, 2"):
        run(xcoms, tmp_path)
    report = xcoms.pushed["report"]
    assert (report["submitted"], report["indexed"], report["rejected"], report["missing"]) == (12, 4, 3, 5)
    assert report["failed_parts"] == [1, 2]
    assert (tmp_path / "run" / "report.json").exists()


def test_an_ingestion_in_the_cluster_has_indexed_all_of_its_part(tmp_path: Path) -> None:
    xcoms = Pulled([3, 4])
    xcoms.put("load", {"engine": "server", "ref": {}, "status": {}, "results": None}, number=0)
    ours = LoadReport(index="docs", submitted=4, indexed=4, bytes=99)
    xcoms.put("load", {"engine": "client", "report": ours.model_dump(mode="json")}, number=1)
    summary = run(xcoms, tmp_path)
    assert (summary["submitted"], summary["indexed"], summary["bytes"]) == (7, 7, 99)


def test_documents_that_no_part_has_are_in_the_report(tmp_path: Path) -> None:
    xcoms = Pulled([3])
    xcoms.load(0, 3)
    xcoms.put("plan", {"count": 2, "uri": "s3://b/refused.jsonl", "further": 1}, key="rejected")
    xcoms.put("plan", {"count": 5, "uri": "s3://b/missing.jsonl"}, key="missing")
    summary = run(xcoms, tmp_path, not_sent=XComArg(PLAN, key="rejected"), without_result=XComArg(PLAN, key="missing"))
    assert (summary["submitted"], summary["indexed"], summary["rejected"], summary["missing"]) == (10, 3, 2, 5)
    assert summary["reasons"] == {"not_sent": 2, "without_result": 5}
    assert summary["dead_letter_uris"] == ["s3://b/refused.jsonl", "s3://b/missing.jsonl"]


def outcome(job_id: str, state: str, **detail: Any) -> dict[str, Any]:
    ref = {"service": "openai", "id": job_id, "conn_id": "openai_default"}
    counts = {"total": 20, "succeeded": 18, "failed": 2}
    status = {"state": state, "raw": state, "counts": counts, "errors": [{"message": "too long", "line": 3}]}
    files = [{"kind": "error", "uri": f"openai://file-{job_id}"}]
    return {"ref": ref, "status": status, "results": {"ref": ref, "files": files, "detail": detail}}


def test_a_part_that_never_got_to_its_load_says_why_and_the_jobs_are_in_the_report(
    tmp_path: Path,
) -> None:
    xcoms = Pulled([3, 20, 5, 7])
    xcoms.load(0, 3)
    usage = {"input": 1_000, "total": 1_200, "details": {"cached": 1}, "odd": None}
    xcoms.put("embed", outcome("b0", "succeeded", model="m-1", usage=usage, seconds=90), number=0)
    xcoms.put("embed", outcome("b1", "partial", model="m-1", usage={"input": 500}), number=1)
    xcoms.put("embed", outcome("b2", "succeeded"), number=2)
    with pytest.raises(AirflowFailException, match="3 of 4 parts were not loaded"):
        run(xcoms, tmp_path, jobs=EMBED.output, index_name="docs")
    report = xcoms.pushed["report"]
    assert (report["submitted"], report["indexed"], report["missing"]) == (35, 3, 32)
    assert report["reasons"] == {"job_partial": 20, "not_loaded": 12}
    assert (report["index"], report["models"], report["usage"]) == ("docs", ["m-1"], {"input": 1_500, "total": 1_200})
    written = orjson.loads((tmp_path / "run" / "report.json").read_bytes())
    assert [(job["id"], job["seconds"], job["error_uris"]) for job in written["jobs"]] == [
        ("b0", 90.0, []),
        ("b1", None, ["openai://file-b1"]),
        ("b2", None, []),
    ]
    assert "line 3: too long" in written["jobs"][1]["error"]
    page = (tmp_path / "run" / "report.html").read_text()
    for shown in ("job_partial", "openai://file-b1", "usage, input", "1,500", "docs", "line 3: too long"):
        assert shown in page
    lines = list(PipelineReport.model_validate(written).describe())
    for line in ("submitted: 35", "missing: 32", "  job_partial: 20", "model: m-1", "usage, input: 1,500"):
        assert line in lines


def queued(state: str | None, seconds: float, reason: str) -> dict[str, Any]:
    return {"service": "openai", "name": "overnight-1", "state": state, "seconds": seconds, "reason": reason}


def test_a_job_that_waited_for_room_says_why_and_so_does_one_that_was_never_submitted(tmp_path: Path) -> None:
    xcoms = Pulled([3, 20])
    xcoms.load(0, 3)
    xcoms.put("embed", outcome("b0", "succeeded"), number=0)
    xcoms.put("embed", queued(None, 4_000, "Limit: 3,000,000 enqueued tokens"), number=0, key="queued")
    xcoms.put("embed", queued("queued", 86_400, "no room until now (queue_deadline)"), number=1, key="queued")
    with pytest.raises(AirflowFailException, match="1 of 2 parts were not loaded"):
        run(xcoms, tmp_path, jobs=EMBED.output)
    assert xcoms.pushed["report"]["reasons"] == {"job_queued": 20}
    written = orjson.loads((tmp_path / "run" / "report.json").read_bytes())
    assert [(job["id"], job["state"], job["queued_seconds"]) for job in written["jobs"]] == [
        ("b0", "succeeded", 4_000.0),
        ("overnight-1", "queued", 86_400.0),
    ]
    page = (tmp_path / "run" / "report.html").read_text()
    lines = list(PipelineReport.model_validate(written).describe())
    waited = "queued here for 4,000 s: Limit: 3,000,000 enqueued tokens"
    refused = "queued: no room until now (queue_deadline)"
    assert waited in page
    assert refused in page
    assert f"  {waited}" in lines
    assert f"job: openai overnight-1, {refused}" in lines


def test_one_job_of_all_parts_is_in_the_report_once(tmp_path: Path) -> None:
    xcoms = Pulled([3, 4])
    xcoms.load(0, 3)
    xcoms.load(1, 4)
    xcoms.put("embed", outcome("t0", "succeeded", model="m"))
    assert run(xcoms, tmp_path, jobs=EMBED.output)["models"] == ["m"]
    written = orjson.loads((tmp_path / "run" / "report.json").read_bytes())
    assert [job["id"] for job in written["jobs"]] == ["t0"]


def test_no_parts_at_all_are_complete(tmp_path: Path) -> None:
    summary = run(Pulled([]), tmp_path)
    assert (summary["submitted"], summary["failed_parts"]) == (0, [])


def test_a_run_that_never_got_to_its_parts_has_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(AirflowFailException, match="plan made no parts"):
        run(Pulled(None), tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "parts",
    ["s3://b/parts", {"requests": 1}, 3, [None], ["s3://b/part"], [[1]], [{"requests": "many"}], [{"requests": None}]],
    ids=str,
)
def test_an_xcom_that_is_no_list_of_parts_is_named(tmp_path: Path, parts: Any) -> None:
    xcoms = Pulled(None)
    xcoms.put("plan", parts)
    with pytest.raises(AirflowFailException, match="parts|submitted"):
        run(xcoms, tmp_path)


@pytest.mark.parametrize("load", [[], "a text", 3, {}, {"report": None}, {"engine": "client"}, {"ref": {}}], ids=str)
def test_an_xcom_that_is_no_load_is_named(tmp_path: Path, load: Any) -> None:
    xcoms = Pulled([3])
    xcoms.put("load", load, number=0)
    with pytest.raises(AirflowFailException, match="load|LoadReport"):
        run(xcoms, tmp_path)


@pytest.mark.parametrize(
    "job", [{"ref": None}, {"ref": {}}, {"ref": "a text"}, {"ref": {"id": 1}, "status": 3}], ids=str
)
def test_an_xcom_that_is_no_job_is_named(tmp_path: Path, job: Any) -> None:
    xcoms = Pulled([3])
    xcoms.load(0, 3)
    xcoms.put("embed", job, number=0)
    with pytest.raises(AirflowFailException, match="ref of a job's XCom"):
        run(xcoms, tmp_path, jobs=EMBED.output)


@pytest.mark.parametrize("left_out", [[], "a text", {"count": "many"}], ids=str)
def test_an_xcom_that_is_no_count_of_what_was_left_out_is_named(tmp_path: Path, left_out: Any) -> None:
    xcoms = Pulled([3])
    xcoms.load(0, 3)
    xcoms.put("plan", left_out, key="missing")
    with pytest.raises(AirflowFailException, match="XCom of a step before"):
        run(xcoms, tmp_path, without_result=XComArg(PLAN, key="missing"))


@pytest.mark.parametrize("target", [None, 3, [], {"uri": "a"}], ids=str)
def test_a_target_that_is_no_text_is_named(tmp_path: Path, target: Any) -> None:
    task = PipelineReportOperator(task_id="report", parts=PLAN.output, loads=LOAD.output, target="t")
    task.target = target
    with pytest.raises(AirflowFailException, match="target="):
        task.execute(Pulled([]).context)


# --- What was not sent ----------------------------------------------------------------------------------------------

USED = {"model": "text-embedding-3-small", "answers": 5, "input": 600_000, "output": 0}
REUSED = XComArg(PLAN, key="reused")
LOAD_REUSED = BaseOperator(task_id="reused.load")


def test_documents_that_were_not_sent_are_a_column_of_their_own_with_what_they_saved(tmp_path: Path) -> None:
    xcoms = Pulled(None)
    xcoms.put("plan", [{"requests": 3, "repeated": 2}, {"requests": 4, "repeated": 0}])
    xcoms.put("plan", [{"documents": 10}, {"documents": 6}], key="reused")
    xcoms.load(0, 5)
    xcoms.load(1, 4)
    for number, indexed in enumerate((10, 6)):
        report = LoadReport(index="docs", submitted=indexed, indexed=indexed)
        xcoms.put("reused.load", report.model_dump(mode="json"), number=number)
        xcoms.put("reused.load", [USED], number=number, key="reused")
    xcoms.put("load", [{**USED, "input": 300_000}], number=0, key="reused")
    summary = run(xcoms, tmp_path, reused=REUSED, reused_loads=LOAD_REUSED.output)
    assert (summary["submitted"], summary["reused"], summary["repeated"], summary["indexed"]) == (7, 18, 2, 25)
    assert (summary["saved"]["input"], summary["saved"]["cost"], summary["saved"]["currency"]) == (
        1_500_000, "0.015", "USD",
    )  # fmt: skip
    page = (tmp_path / "run" / "report.html").read_text()
    assert "reused, from another document" in page
    assert "0.015 USD" in page
    written = orjson.loads((tmp_path / "run" / "report.json").read_bytes())
    assert [(part["submitted"], part["reused"]) for part in written["parts"]] == [(3, 2), (4, 0), (0, 10), (0, 6)]
    lines = list(PipelineReport.model_validate(written).describe())
    for line in ("submitted: 7", "reused: 18", "reused, from another document of this run: 2", "saved: 0.015 USD"):
        assert line in lines


def test_a_reused_part_that_was_not_loaded_is_missing_and_fails_the_run(tmp_path: Path) -> None:
    xcoms = Pulled([3])
    xcoms.load(0, 3)
    xcoms.put("plan", [{"documents": 10}], key="reused")
    with pytest.raises(AirflowFailException, match="1 of 2 parts were not loaded: 1"):
        run(xcoms, tmp_path, reused=REUSED, reused_loads=LOAD_REUSED.output)
    report = xcoms.pushed["report"]
    assert (report["submitted"], report["reused"], report["missing"], report["saved"]) == (3, 10, 10, None)
    assert report["reasons"] == {"not_loaded": 10}


def test_prices_that_are_given_are_those_of_what_was_saved(tmp_path: Path) -> None:
    xcoms = Pulled([])
    xcoms.put("plan", [{"documents": 5}], key="reused")
    report = LoadReport(index="docs", submitted=5, indexed=5)
    xcoms.put("reused.load", report.model_dump(mode="json"), number=0)
    xcoms.put("reused.load", [{**USED, "model": "mine"}], number=0, key="reused")
    options = {"reused": REUSED, "reused_loads": LOAD_REUSED.output}
    summary = run(xcoms, tmp_path, **options)
    assert (summary["submitted"], summary["reused"], summary["saved"]["cost"]) == (0, 5, None)
    assert "no price of the model 'mine' is known" in summary["saved"]["unknown"]
    summary = run(xcoms, tmp_path, prices={"models": {"mine": {"input": 1}}}, **options)
    assert summary["saved"]["cost"] == "0.3"


# --- Deletes --------------------------------------------------------------------------------------------------------

with DAG("mirrored"):
    MIRROR = BaseOperator(task_id="mirror")

FOUND = MirrorReport(index="docs", in_source=3, in_index=9, not_indexed=0, extra=6, deleted=6, max_deletes="100 %")


def test_deletes_are_a_number_of_their_own(tmp_path: Path) -> None:
    xcoms = Pulled([3])
    xcoms.load(0, 3)
    xcoms.put("mirror", {"sync": "mirror", **FOUND.model_dump(mode="json")})
    found = run(xcoms, tmp_path, mirror=MIRROR.output)
    assert (found["submitted"], found["indexed"], found["deleted"]) == (3, 3, 6)
    written = orjson.loads((tmp_path / "run" / "report.json").read_bytes())
    assert (written["deleted"], written["mirror"]["extra"]) == (6, 6)
    assert "<th>deleted" in (tmp_path / "run" / "report.html").read_text()


def test_without_the_option_there_are_none(tmp_path: Path) -> None:
    xcoms = Pulled([3])
    xcoms.load(0, 3)
    xcoms.put("mirror", {"sync": "upsert"})
    found = run(xcoms, tmp_path, mirror=MIRROR.output)
    assert (found["deleted"], found["mirror"]) == (0, None)
    assert "<th>deleted" not in (tmp_path / "run" / "report.html").read_text()


def test_deletes_that_were_refused_are_reported_and_fail_it(tmp_path: Path) -> None:
    xcoms = Pulled([3])
    xcoms.load(0, 3)
    refused = FOUND.model_copy(update={"deleted": 0, "refusal": "more than max_deletes"})
    xcoms.put("mirror", refused.model_dump(mode="json"), key="report")
    with pytest.raises(AirflowFailException, match="mirror did not delete what the source no longer has"):
        run(xcoms, tmp_path, mirror=MIRROR.output)
    assert xcoms.pushed["report"]["mirror"]["refusal"] == "more than max_deletes"
    assert "more than max_deletes" in (tmp_path / "run" / "report.html").read_text()


def test_deletes_that_never_ended_fail_it(tmp_path: Path) -> None:
    xcoms = Pulled([])
    with pytest.raises(AirflowFailException, match="clear it"):
        run(xcoms, tmp_path, mirror=MIRROR.output)


def test_a_run_that_was_not_approved_fails_with_that_reason_alone(tmp_path: Path) -> None:
    xcoms = Pulled([3, 4])
    xcoms.put("approve", "ada rejected it.", key="refused")
    with DAG("asking"):
        approve = BaseOperator(task_id="approve")
    with pytest.raises(AirflowFailException, match=r"^Nothing was submitted\. ada rejected it\.$"):
        run(xcoms, tmp_path, approval=approve.output)
    report = xcoms.pushed["report"]
    assert (report["refused"], report["missing"], report["reasons"]) == ("ada rejected it.", 7, {"not_approved": 7})
    assert "ada rejected it." in (tmp_path / "run" / "report.html").read_text()


def test_a_run_that_was_approved_is_reported_as_any_other(tmp_path: Path) -> None:
    xcoms = Pulled([3])
    xcoms.load(0, 3)
    with DAG("asking"):
        approve = BaseOperator(task_id="approve")
    assert run(xcoms, tmp_path, approval=approve.output)["refused"] == ""


# --- Costs ---------------------------------------------------------------------------------------------------------


def put_job(
    xcoms: Pulled,
    number: int,
    usage: dict[str, int] | None,
    state: str = "SUCCEEDED",
    counts: dict[str, int] | None = None,
) -> dict[str, Any]:
    outcome: dict[str, Any] = {
        "ref": {"service": "openai", "id": f"batch_{number}", "conn_id": "c"},
        "status": {"state": JobState[state].value, "raw": "x", "counts": counts or {}},
        "results": {
            "ref": {"service": "openai", "id": f"batch_{number}", "conn_id": "c"},
            "files": [],
            "detail": {"model": "gpt-4o-mini", **({"usage": usage} if usage else {})},
        },
    }
    xcoms.put("embed", outcome, number=number)
    return outcome


def run_priced(xcoms: Pulled, folder: Path) -> dict[str, Any]:
    estimated = Workload(requests=7, bytes=1, parts=2, model="mine", input=9_000_000, output=0, counted="by hand")
    prices = {"models": {"mine": {"input": "2", "output": "4"}}}
    found = CostEstimate.of(estimated, PriceTable.of(prices))
    xcoms.put("plan", found.model_dump(mode="json"), key="estimate")
    spending = Spending(str(folder / "spending"), CostBudget.parse("10 USD/month"))
    uri = spending.reserve(("nightly", "manual__1"), found)
    xcoms.put("approve", {"asked": False, "by": None, "spending_uri": uri})
    with DAG("priced"):
        approve = BaseOperator(task_id="approve")
    given = {"jobs": EMBED.output, "approval": approve.output, "estimate": XComArg(PLAN, key="estimate")}
    report = run(xcoms, folder, prices=prices, aws_conn_id=None, **given)
    return {**report, "record": read_record(uri, Storage())}


def test_the_cost_of_the_jobs_is_beside_the_estimate_and_replaces_it_in_the_budget(tmp_path: Path) -> None:
    xcoms = Pulled([3, 4])
    for number, count in enumerate((3, 4)):
        xcoms.load(number, count)
        put_job(xcoms, number, {"input": 1_000_000, "output": 500_000, "total": 1_500_000})
    report = run_priced(xcoms, tmp_path)
    # The model that answered has a price of its own in the package's table.
    assert [float(report[name]["cost"]) for name in ("estimate", "cost")] == [9, 0.45]
    assert {name: float(job.cost) for name, job in report["record"].jobs.items()} == {
        "batch_0": 0.225,
        "batch_1": 0.225,
    }
    assert float(report["record"].total.cost) == 0.45
    page = (tmp_path / "run" / "report.html").read_text()
    assert "9.00 USD" in page
    assert "0.45 USD" in page


@pytest.mark.parametrize("usage", [None, {"input": 0, "output": 0, "total": 0}, {"total": 7}])
def test_a_budget_keeps_the_estimate_until_the_cost_of_every_job_is_known(
    tmp_path: Path, usage: dict[str, int] | None
) -> None:
    xcoms = Pulled([3, 4])
    for number, count in enumerate((3, 4)):
        xcoms.load(number, count)
        put_job(xcoms, number, {"input": 1_000_000} if number else usage)
    report = run_priced(xcoms, tmp_path)
    assert report["cost"]["cost"] is None
    assert report["cost"]["unknown"] == "the answers do not say what was used for them"
    assert "unknown: the answers do not say" in (tmp_path / "run" / "report.html").read_text()
    assert report["record"].total.cost == 9


@pytest.mark.parametrize(("state", "counts"), [("FAILED", {}), ("EXPIRED", {"total": 3, "succeeded": 0, "failed": 0})])
def test_a_batch_that_was_refused_as_a_whole_or_has_no_answer_costs_nothing(
    tmp_path: Path, state: str, counts: dict[str, int]
) -> None:
    xcoms = Pulled([3])
    put_job(xcoms, 0, None, state, counts)
    with pytest.raises(AirflowFailException):
        run_priced(xcoms, tmp_path)
    (path,) = (tmp_path / "spending").rglob("*.json")
    assert read_record(str(path), Storage()).total.cost == 0


@pytest.mark.parametrize("is_queued", [False, True])
def test_a_lost_further_round_does_not_make_the_rounds_before_it_free(tmp_path: Path, is_queued: bool) -> None:
    xcoms = Pulled([3])
    outcome = put_job(xcoms, 0, None, "FAILED")
    if is_queued:
        queued = {"service": "openai", "name": "round", "state": "QUEUED", "seconds": 5.0, "reason": "no room"}
        xcoms.put("embed", None, number=0)
        xcoms.put("embed", {**queued, "former_rounds": 1}, number=0, key="queued")
    else:
        xcoms.put("embed", {**outcome, "former_rounds": 1}, number=0)
    with pytest.raises(AirflowFailException):
        run_priced(xcoms, tmp_path)
    (path,) = (tmp_path / "spending").rglob("*.json")
    assert read_record(str(path), Storage()).total.cost == 9
