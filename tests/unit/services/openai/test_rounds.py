from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from overnight.jobs import JobRef, JobState, ResultFile, ResultManifest
from overnight.services.openai.rounds import Round, merge_rounds
from overnight.storage import Storage
from overnight.templates.report import JobReport

REFS = [JobRef(service="openai", id=f"batch_{number}", conn_id="c") for number in range(2)]
LATER = {"code": "rate_limit_exceeded", "message": "later"}


def answer(key: str) -> dict[str, Any]:
    return {"custom_id": key, "response": {"status_code": 200, "body": {"data": [1]}}}


@pytest.mark.parametrize(
    ("usages", "total"),
    [
        ([{"input": 7, "total": 9}, {"input": 5}], {"input": 12, "total": 9}),
        # A sum that leaves a round out would be taken for what all of them used.
        ([{"input": 7, "total": 9}, {}], {}),
        ([{}, {"input": 5}], {}),
    ],
)
def test_what_all_rounds_used_is_added_up_and_not_known_if_one_does_not_say(
    tmp_path: Path, usages: list[dict[str, int]], total: dict[str, int]
) -> None:
    storage, uri = Storage(), str(tmp_path / "part.requests.jsonl")
    requests = [{"custom_id": key, "method": "POST", "url": "/v1/embeddings", "body": {}} for key in "ab"]
    (tmp_path / "part.requests.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in requests))
    outputs = {
        "openai://0": [answer("a"), {"custom_id": "b", "response": None, "error": LATER}],
        "openai://1": [answer("b")],
    }

    def chunks(wanted: str) -> Any:
        if wanted in outputs:
            return iter([b"".join(orjson.dumps(line) + b"\n" for line in outputs[wanted])])
        return iter([Path(wanted).read_bytes()])

    for number, usage in enumerate(usages):
        manifest = ResultManifest(
            ref=REFS[number],
            files=(ResultFile(kind="output", uri=f"openai://{number}"),),
            detail={"usage": usage, "model": "m-1", "seconds": 60.5},
        )
        left = Round(uri, number).collect(manifest, chunks, JobState.PARTIAL, storage, last=number == 1)
        assert left == 1 - number
    status, merged = merge_rounds(REFS, uri, storage)
    assert (status.state, status.counts.succeeded) == (JobState.SUCCEEDED, 2)
    outcome = {"ref": REFS[0].model_dump(), "status": status.model_dump(), "results": merged.model_dump()}
    report = JobReport.of(outcome)
    assert (report.usage, report.model, report.seconds) == (total, "m-1", 121.0)
