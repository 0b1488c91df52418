"""A soak that ends clean means something only if the checks notice what must not be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from soak.checks import (
    FoundJob,
    WantedJob,
    check_chunks,
    check_creations,
    check_documents,
    check_empty,
    check_jobs,
    check_log,
    check_report,
)

WANTED = [WantedJob("openai", "a" * 20, "soak_openai 1", "batch.embed[0]")]
DONE = FoundJob("openai", "batch_1", "a" * 20, "completed", is_over=True, is_good=True)
COUNTS = {"submitted": 10, "indexed": 7, "dropped": 0, "rejected": 2, "missing": 1}


def test_one_good_job_for_each_that_is_wanted_is_clean() -> None:
    assert check_jobs(WANTED, [DONE]) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "wants 1 job and has 0: none"),
        ([DONE, replace(DONE, id="batch_2")], "wants 1 job and has 2: batch_1 (completed), batch_2 (completed)"),
        ([DONE, replace(DONE, id="batch_2", tag="b" * 20)], "batch_2 (completed) is nobody's"),
        ([DONE, replace(DONE, id="batch_2", tag=None)], "batch_2 (completed) is nobody's"),
        ([replace(DONE, state="in_progress", is_over=False, is_good=False)], "batch_1 still runs (in_progress)"),
        ([replace(DONE, state="cancelled", is_good=False)], "batch_1 ended cancelled"),
        ([replace(DONE, service="azure")], "wants 1 job and has 0"),
    ],
)
def test_a_job_too_many_too_few_or_unfinished_is_noticed(found: list[FoundJob], said: str) -> None:
    assert any(said in violation.text for violation in check_jobs(WANTED, found))


def test_a_creation_that_was_carried_out_counts_although_its_answer_was_lost() -> None:
    lost, refused = {"number": 1, "status": 200, "fault": "lost_answer"}, {"number": 2, "status": None, "fault": "x"}
    assert check_creations("openai", 1, [lost, refused]) == []
    (violation,) = check_creations("openai", 1, [lost, refused, {"number": 3, "status": 200, "fault": None}])
    assert violation.text == "openai: 2 creating calls were carried out and 1 jobs are wanted"


def test_a_log_that_lost_its_beginning_is_no_evidence() -> None:
    assert check_log("openai", [{"number": 1}, {"number": 2}]) == []
    assert len(check_log("openai", [{"number": 3}])) == 1


@pytest.mark.parametrize(
    ("indexed", "said"),
    [
        ({"a": "A"}, "lacks 1 documents: b"),
        ({"a": "A", "b": "B", "c": "C"}, "has beside what was wanted 1 documents: c"),
        ({"a": "A", "b": "other"}, "has the wrong text for 1 documents: b"),
    ],
)
def test_a_document_lost_added_or_changed_is_noticed(indexed: dict[str, str], said: str) -> None:
    wanted = {"a": "A", "b": "B"}
    assert check_documents("run", wanted, wanted) == []
    (violation,) = check_documents("run", wanted, indexed)
    assert said in violation.text


def test_a_report_that_says_the_truth_is_clean() -> None:
    assert check_report("run", {**COUNTS, "bytes": 5}, COUNTS, COUNTS) == []


def test_a_report_that_is_wrong_or_does_not_add_up_is_noticed() -> None:
    wrong = {**COUNTS, "indexed": 8}
    assert [violation.text for violation in check_report("run", wrong, COUNTS, COUNTS)] == [
        f"the XCom of run says {wrong}; right is {COUNTS}",
        "the report of run: 10 submitted are not 11",
    ]
    assert len(check_report("run", COUNTS, wrong, COUNTS)) == 1


@pytest.mark.parametrize(
    "chunks",
    [
        [("x", 0, 2)],
        [("x", 0, 2), ("x", 1, 2), ("y", 0, 1)],
        [("x", 0, 2), ("x", 0, 2), ("x", 1, 2)],
        [("x", 0, -1), ("x", 2, -1)],
        [],
    ],
)
def test_a_chunk_or_a_file_that_is_lost_or_twice_is_noticed(chunks: list[tuple[str, int, int]]) -> None:
    assert check_chunks("run", {"x"}, [("x", 1, 2), ("x", 0, 2)]) == []
    assert check_chunks("run", {"x"}, chunks) != []


@pytest.mark.parametrize(
    "report",
    [
        {"empty": 0, "empty_ids": []},
        {"empty": 1, "empty_ids": ["y"]},
        {"empty": 2, "empty_ids": ["x", "y"]},
    ],
)
def test_a_file_without_text_that_nobody_named_is_noticed(report: dict[str, Any]) -> None:
    assert check_empty("run", {"x"}, {"empty": 1, "empty_ids": ["x"]}) == []
    assert check_empty("run", {"x"}, report) != []
