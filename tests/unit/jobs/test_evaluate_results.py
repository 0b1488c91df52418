from __future__ import annotations

import pytest

from overnight.errors import JobFailedError
from overnight.jobs import JobCounts, JobRef, ResultManifest
from overnight.jobs.allowance import Allowance
from overnight.jobs.evaluate import evaluate_results

REF = JobRef(service="s", id="j", conn_id="c")


@pytest.mark.parametrize(
    ("total", "succeeded", "allowed", "is_accepted"),
    [(3, 3, 0, True), (3, 2, 0, False), (3, 0, 0, False), (3, 2, 1, True), (3, 0, "50%", False), (3, None, 0, True)],
)
def test_what_was_collected_is_judged_by_allowed_failures(
    total: int, succeeded: int | None, allowed: int | str, is_accepted: bool
) -> None:
    results = ResultManifest(ref=REF, counts=JobCounts(total=total, succeeded=succeeded))
    evaluation = evaluate_results(REF, results, Allowance.parse(allowed))
    assert (evaluation.error is None) is is_accepted
    if evaluation.error is not None:
        assert isinstance(evaluation.error, JobFailedError)
        assert f"of {succeeded} of its {total} items" in str(evaluation.error)
        # What was collected is paid for: the next run attaches to it.
        assert not evaluation.releases_job


def test_results_that_are_not_counted_are_not_judged() -> None:
    assert evaluate_results(REF, ResultManifest(ref=REF), Allowance.parse(0)).error is None
