"""The page's app over a database and Airflow's simple auth manager: who sees and does what."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.common.db.common import _get_session
from airflow.api_fastapi.core_api.security import get_user
from airflow.models.base import Base
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from fastapi.testclient import TestClient
from sqlalchemy import Table, create_engine, insert
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from overnight.jobs import JobKey, JobRecord, JobRef, JobState, JobStatus
from overnight.jobs.model import JobCounts
from overnight.pages import access
from overnight.pages.app import HEADERS, create_app
from slowprint.server import Shop

RUN = "manual__2026-01-05T00:00:00+00:00"
NOW = datetime.now(UTC)
HOSTILE = "<script>alert(1)</script>"


class World:
    """Airflow's database, in memory."""

    def __init__(self) -> None:
        self.engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        Base.metadata.create_all(self.engine)
        self.dag_run_ids: dict[str, int] = {}

    def insert(self, model: Any, **values: Any) -> None:
        table: Table = model.__table__
        with self.engine.begin() as connection:
            connection.execute(insert(table).values(**values))

    def add_task(self, dag_id: str, *, state: str = "deferred", record: JobRecord, task_id: str = "embed") -> None:
        run = self.dag_run_ids.setdefault(dag_id, len(self.dag_run_ids) + 1)
        self.insert(
            TaskInstance,
            id=uuid.uuid4(), dag_id=dag_id, run_id=RUN, task_id=task_id, map_index=-1, state=state, pool="default_pool",
        )  # fmt: skip
        self.insert(
            TaskStateStoreModel,
            dag_run_id=run, dag_id=dag_id, run_id=RUN, task_id=task_id, map_index=-1, key="overnight_job",
            value=record.model_dump_json(), updated_at=NOW,
        )  # fmt: skip

    def add_xcom(self, dag_id: str, key: str, value: Any, task_id: str = "embed") -> None:
        run = self.dag_run_ids.setdefault(dag_id, len(self.dag_run_ids) + 1)
        self.insert(
            XComModel,
            dag_run_id=run, dag_id=dag_id, run_id=RUN, task_id=task_id, map_index=-1, key=key, value=json.dumps(value),
            timestamp=NOW,
        )  # fmt: skip


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def browse(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], TestClient]:
    """Return a browser of a user with a role."""
    monkeypatch.setattr(access, "get_auth_manager", SimpleAuthManager)

    def session() -> Iterator[Session]:
        with Session(world.engine) as session:
            yield session

    def as_role(role: str) -> TestClient:
        app = create_app()
        app.dependency_overrides[_get_session] = session
        app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(username=role, role=role)
        return TestClient(app)

    return as_role


def ref(job_id: str = "p0", conn_id: str = "slowprint_default") -> JobRef:
    return JobRef(service="slowprint", id=job_id, conn_id=conn_id)


def record(of: JobRef | None = None) -> JobRecord:
    key = JobKey(dag_id="d", task_id="embed", run_id=RUN, map_index=-1, generation=0, fingerprint="f" * 16)
    job = of or ref()
    return JobRecord.attached(job, key, NOW - timedelta(minutes=90))


PLACE = {"dag_id": "nightly", "run_id": RUN, "task_id": "embed", "map_index": -1, "key": "overnight_job"}


def test_a_job_is_shown_with_its_task_age_and_state(world: World, browse: Callable[[str], TestClient]) -> None:
    world.add_task("nightly", record=record(), state="success")
    status = JobStatus(state=JobState.PARTIAL, raw="done", counts=JobCounts(total=1_200, succeeded=1_100, failed=100))
    world.add_xcom("nightly", "return_value", {"ref": ref().model_dump(), "status": status.model_dump(mode="json")})
    page = browse("viewer").get("/")
    assert page.status_code == 200
    for text in ("partial", "1200/1200 items", "100 failed", "slowprint", "p0", "nightly", "1 h 3", "embed"):
        assert text in page.text
    assert "data-cancel" not in page.text


@pytest.mark.parametrize(
    ("usage", "is_shown"),
    [
        ({"input": 1_000_000, "total": 1_000_000}, True),
        ({"input": 0, "output": 0, "total": 0}, False),
        ({"total": 7}, False),
        ({}, False),
        (None, False),
    ],
)
def test_the_cost_of_a_job_is_shown_where_its_service_says_what_it_used(
    world: World, browse: Callable[[str], TestClient], usage: object, is_shown: bool
) -> None:
    world.add_task("nightly", record=record(), state="success")
    detail = {"model": "text-embedding-3-small", "usage": usage}
    results = {"ref": ref().model_dump(), "files": [], "detail": detail}
    world.add_xcom("nightly", "return_value", {"ref": ref().model_dump(), "status": None, "results": results})
    page = browse("viewer").get("/").text
    assert ("0.01 USD" in page, "USD" in page) == (is_shown, is_shown)


def test_a_job_that_waits_for_room_says_why(world: World, browse: Callable[[str], TestClient]) -> None:
    from overnight.jobs.queue import QueueRequest

    waiting = record().model_copy(
        update={
            "ref": None,
            "submitted_at": None,
            "queued": QueueRequest.model_validate(
                {"service": "slowprint", "conn_id": "slowprint_default", "queue": "", "name": "n",
                 "amount": {"jobs": 1}, "since": NOW, "reason": "the shop is full"}
            ),
        }
    )  # fmt: skip
    world.add_task("nightly", record=waiting)
    page = browse("viewer").get("/").text
    assert "queued here" in page
    assert "the shop is full" in page


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        ({}, {"nightly", "weekly"}),
        ({"dag_id": "weekly"}, {"weekly"}),
        ({"state": "failed"}, set()),
        ({"state": "unknown"}, {"nightly", "weekly"}),
        ({"service": "openai"}, set()),
        ({"text": "job-OF-weekly"}, {"weekly"}),
    ],
)
def test_filters_choose(
    filters: dict[str, str], shown: set[str], world: World, browse: Callable[[str], TestClient]
) -> None:
    for dag_id in ("nightly", "weekly"):
        world.add_task(dag_id, record=record(ref(f"job-of-{dag_id}")))
    page = browse("viewer").get("/", params=filters).text
    assert {dag_id for dag_id in ("nightly", "weekly") if f"job-of-{dag_id}" in page} == shown


def test_what_others_wrote_is_text_and_the_page_runs_nothing_but_its_own_script(
    world: World, browse: Callable[[str], TestClient]
) -> None:
    world.add_task("nightly", record=record(ref(HOSTILE)), task_id="embed")
    status = JobStatus(state=JobState.FAILED, raw=HOSTILE)
    world.add_xcom(
        "nightly", "return_value", {"ref": ref(HOSTILE).model_dump(), "status": status.model_dump(mode="json")}
    )
    page = browse("viewer").get("/", params={"text": HOSTILE})
    assert HOSTILE not in page.text
    assert "&lt;script&gt;" in page.text
    assert page.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_a_user_without_a_role_sees_no_job_and_no_run(world: World, browse: Callable[[str], TestClient]) -> None:
    world.add_task("nightly", record=record())
    client = browse("")
    assert "p0" not in client.get("/").text
    assert client.get("/run", params={"dag_id": "nightly", "run_id": RUN}).status_code == 403
    assert client.get("/status", params=PLACE).status_code == 403


def test_the_service_is_asked_about_a_job_that_is_not_over(
    world: World, browse: Callable[[str], TestClient], shop: Shop
) -> None:
    shop.orders.append({"id": "p0", "status": "waiting", "spoiled": 0, "created_at": 0, "copies": 3, "name": "n"})
    world.add_task("nightly", record=record())
    answer = browse("viewer").get("/status", params=PLACE)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["state"], answer.json()["is_over"]) == ("queued", False)


def test_a_viewer_cannot_cancel_and_the_service_is_not_asked(
    world: World, browse: Callable[[str], TestClient], shop: Shop
) -> None:
    shop.orders.append({"id": "p0", "status": "waiting", "spoiled": 0, "created_at": 0, "copies": 3, "name": "n"})
    world.add_task("nightly", record=record(), state="success")
    assert browse("viewer").post("/cancel", json=PLACE).status_code == 403
    assert shop.requests == []
    assert shop.orders[0]["status"] == "waiting"


def test_a_user_cancels_a_job_that_no_task_waits_for(
    world: World, browse: Callable[[str], TestClient], shop: Shop
) -> None:
    shop.orders.append({"id": "p0", "status": "waiting", "spoiled": 0, "created_at": 0, "copies": 3, "name": "n"})
    world.add_task("nightly", record=record(), state="success")
    answer = browse("user").post("/cancel", json=PLACE)
    assert answer.status_code == 200, answer.text
    assert shop.orders[0]["status"] == "withdrawn"


def test_a_job_that_a_task_waits_for_is_not_cancelled_behind_its_back(
    world: World, browse: Callable[[str], TestClient], shop: Shop
) -> None:
    shop.orders.append({"id": "p0", "status": "waiting", "spoiled": 0, "created_at": 0, "copies": 3, "name": "n"})
    world.add_task("nightly", record=record(), state="deferred")
    assert browse("admin").post("/cancel", json=PLACE).status_code == 409
    assert shop.orders[0]["status"] == "waiting"


def test_a_form_of_another_site_cannot_cancel(world: World, browse: Callable[[str], TestClient], shop: Shop) -> None:
    world.add_task("nightly", record=record(), state="success")
    body = json.dumps(PLACE)
    answer = browse("admin").post("/cancel", content=body, headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    assert shop.requests == []


@pytest.fixture
def reported(world: World, tmp_path: Path) -> World:
    """A run with a report and a file of documents that were not indexed."""
    letter = {"outcome": "rejected", "uri": "s3://b/a.jsonl", "source": 0, "line": 21, "offset": 5, "code": "not_json",
              "reason": f"the line is not JSON {HOSTILE}", "id": "doc-7"}  # fmt: skip
    (tmp_path / "rejected.jsonl").write_bytes(orjson.dumps(letter) + b"\n")
    report = {
        "index": "documents", "submitted": 3_561, "indexed": 1_249, "unchanged": 2_311, "rejected": 1, "missing": 0,
        "reasons": {"not_json": 1}, "dead_letter_uris": [str(tmp_path / "rejected.jsonl")],
        "page": "x/report.html", "uri": "x/report.json",
    }  # fmt: skip
    world.add_xcom("nightly", "report", report, "report")
    return world


def test_a_runs_report_names_each_document_that_was_not_indexed(
    reported: World, browse: Callable[[str], TestClient]
) -> None:
    page = browse("viewer").get("/run", params={"dag_id": "nightly", "run_id": RUN})
    assert page.status_code == 200
    for text in ("3,561", "1,249", "unchanged", "2,311", "not_json", "doc-7", "the line is not JSON", "rejected.jsonl"):
        assert text in page.text
    assert HOSTILE not in page.text


def test_its_file_is_downloaded_by_number_and_no_other_file_is(
    reported: World, browse: Callable[[str], TestClient]
) -> None:
    client = browse("viewer")
    place = {"dag_id": "nightly", "run_id": RUN}
    file = client.get("/run/dead-letters", params={**place, "number": 0})
    assert orjson.loads(file.content)["id"] == "doc-7"
    assert file.headers["Content-Disposition"].startswith("attachment")
    assert client.get("/run/dead-letters", params={**place, "number": 1}).status_code == 404
    assert client.get("/run/dead-letters", params={**place, "number": -1}).status_code == 422
    assert browse("").get("/run/dead-letters", params={**place, "number": 0}).status_code == 403


def test_a_file_that_was_deleted_is_not_found(
    reported: World, browse: Callable[[str], TestClient], tmp_path: Path
) -> None:
    (tmp_path / "rejected.jsonl").unlink()
    place = {"dag_id": "nightly", "run_id": RUN}
    assert browse("viewer").get("/run/dead-letters", params={**place, "number": 0}).status_code == 404
    assert browse("viewer").get("/run", params=place).status_code == 200


def test_a_run_without_a_report_says_so(world: World, browse: Callable[[str], TestClient]) -> None:
    assert "no report yet" in browse("viewer").get("/run", params={"dag_id": "nightly", "run_id": RUN}).text


def test_its_script_and_style_are_files_of_their_own(browse: Callable[[str], TestClient]) -> None:
    client = browse("viewer")
    page = client.get("/").text
    for name in ("overnight.js", "overnight.css"):
        assert f"./static/{name}" in page
        assert client.get(f"/static/{name}").status_code == 200
    assert " onclick" not in page
    assert "style=" not in page
