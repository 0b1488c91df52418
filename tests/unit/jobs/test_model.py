from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import SpecError
from overnight.jobs import JobError, JobRef, JobState, ResultFile, ResultManifest

refs = st.builds(JobRef, service=st.text(min_size=1), id=st.text(min_size=1), conn_id=st.text(min_size=1))


@given(refs)
def test_a_reference_is_read_from_every_form_that_airflow_hands_over(ref: JobRef):
    dumped = ref.model_dump(mode="json")
    outcome = {"ref": dumped, "status": None}
    for form in (ref, dumped, outcome, str(dumped), str(outcome), json.dumps(outcome)):
        assert JobRef.read(form) == ref


@pytest.mark.parametrize("value", [None, "", "batch_1", 3, {}, {"ref": None}, {"service": "openai"}, "[1, 2]"])
def test_anything_else_is_refused_with_a_remedy(value):
    with pytest.raises(SpecError, match="XCom of the task that submitted it"):
        JobRef.read(value)


def test_a_state_is_terminal_or_live_and_never_both():
    live = {JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING}
    assert {state for state in JobState if not state.is_terminal} == live


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (JobError(message="bad"), "bad"),
        (JobError(message="bad", code="e1"), "[e1] bad"),
        (JobError(message="bad", code="e1", line=0), "line 0: [e1] bad"),
        (JobError(message="bad", line=7, param="input"), "line 7: bad"),
    ],
)
def test_an_error_is_shown_with_its_line_and_code(error: JobError, text: str) -> None:
    assert str(error) == text


def test_the_files_of_one_kind_keep_their_order() -> None:
    files = (
        ResultFile(kind="output", uri="s3://b/2"),
        ResultFile(kind="error", uri="s3://b/e"),
        ResultFile(kind="output", uri="s3://b/1"),
    )
    manifest = ResultManifest(ref=JobRef(service="s", id="i", conn_id="c"), files=files)
    assert manifest.uris("output") == ["s3://b/2", "s3://b/1"]
    assert manifest.uris("error") == ["s3://b/e"]
    assert manifest.uris("input") == []
