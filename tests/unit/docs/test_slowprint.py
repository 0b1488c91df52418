"""The toy service of the tutorial keeps the rules that the tutorial teaches."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from overnight.errors import CreatedUnknownError
from overnight.jobs import FailureCause, JobKey, JobState
from overnight.transport.http import HttpCall
from slowprint.service import PrintService, PrintSpec
from unit.services.answers import Service, check

KEY = JobKey(dag_id="d", task_id="t", run_id="r", fingerprint="0" * 16)
NOW = datetime.now(UTC)
SERVICE = PrintService("conn")
SPEC = PrintSpec(text_uri="s3://b/t", pages=3)


def order(name: str = KEY.name, age: timedelta = timedelta(), **more: Any) -> dict[str, Any]:
    at = (NOW - age).timestamp()
    return {
        "id": "p0",
        "name": name,
        "status": "waiting",
        "pages": 3,
        "spoiled": 0,
        "created_at": at,
        "text": "t",
        **more,
    }


def good(*orders: dict[str, Any]) -> Callable[[], Callable[[HttpCall], Any]]:
    def answer(call: HttpCall) -> Any:
        if call.method == "GET" and call.path == "orders":
            return {"orders": [] if "after" in (call.params or {}) else list(orders)}
        return orders[0]

    return lambda: answer


def test_every_verb_ends_in_a_result_or_in_a_service_error() -> None:
    verbs: dict[str, Callable[[], Any]] = {
        "find": lambda: SERVICE.find(KEY, NOW),
        "submit": lambda: SERVICE.submit(SPEC, KEY),
        "status": lambda: SERVICE.status(SERVICE.ref("p0")),
        "cancel": lambda: SERVICE.cancel(SERVICE.ref("p0")),
        "results": lambda: SERVICE.results(SERVICE.ref("p0")),
    }
    check(verbs, good(order()), seeds=range(200))


def test_find_stops_at_what_is_older_than_since_by_more_than_clocks_differ() -> None:
    service = Service(good(order(age=timedelta(minutes=30)))())
    assert service.run(SERVICE.find(KEY, NOW)) is not None
    service = Service(good(order("theirs", age=timedelta(hours=2)))())
    assert service.run(SERVICE.find(KEY, NOW)) is None
    assert service.calls == 1


def test_an_order_without_an_id_is_never_repeated() -> None:
    healthy = good()()
    service = Service(lambda call: {"thanks": True} if call.method == "POST" else healthy(call))
    with pytest.raises(CreatedUnknownError):
        service.run(SERVICE.submit(SPEC, KEY))
    assert service.seen.count("POST orders") == 1


def test_a_new_word_is_running_and_said() -> None:
    status = Service(good(order(status="drying"))()).run(SERVICE.status(SERVICE.ref("p0")))
    assert (status.state, status.raw) == (JobState.RUNNING, "drying")
    assert "'drying'" in status.warnings[0]


@pytest.mark.parametrize(
    ("reason", "cause", "words"),
    [
        (None, FailureCause.SERVICE, "order again"),
        ("ink", FailureCause.LIMITS, "Buy more ink"),
        ("gremlins", None, "not known here what 'gremlins' means"),
    ],
)
def test_a_failure_has_its_cause(reason: str | None, cause: FailureCause | None, words: str) -> None:
    status = Service(good(order(status="jammed", reason=reason))()).run(SERVICE.status(SERVICE.ref("p0")))
    assert status.cause is cause
    assert words in status.warnings[0]
