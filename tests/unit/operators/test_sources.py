"""Results that the service no longer has are refused before a load begins."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from overnight.errors import SpecError
from overnight.operators.sources import to_uris

REF = {"service": "openai", "id": "batch_1", "conn_id": "c"}
AT_SERVICE = "openai://file-out"


def job(expire_in: timedelta | None, uri: str = AT_SERVICE) -> dict[str, Any]:
    expire_at = (datetime.now(UTC) + expire_in).isoformat() if expire_in is not None else None
    return {
        "ref": REF,
        "status": {"state": "succeeded", "raw": "completed", "results_expire_at": expire_at},
        "results": {"ref": REF, "files": [{"kind": "output", "uri": uri}]},
    }


def test_results_that_have_expired_are_refused_with_what_to_clear() -> None:
    with pytest.raises(SpecError, match=r"kept the results of .*batch_1.* until \d{4}-.* UTC\. Clear the job's task"):
        to_uris(job(timedelta(seconds=-1)))


@pytest.mark.parametrize("expire_in", [None, timedelta(days=2)])
def test_results_that_are_kept_are_loaded_without_a_word(
    expire_in: timedelta | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert to_uris(job(expire_in)) == [AT_SERVICE]
    assert caplog.records == []


def test_results_that_expire_soon_are_loaded_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert to_uris(job(timedelta(minutes=30))) == [AT_SERVICE]
    assert "deletes the results of" in caplog.text


def test_what_was_written_down_outlives_the_service(tmp_path: Any) -> None:
    own = str(tmp_path / "succeeded.jsonl")
    assert to_uris(job(timedelta(days=-1), own)) == [own]
    assert to_uris({**job(None), "status": None}) == [AT_SERVICE]
