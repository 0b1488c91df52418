"""From `make up` to a search hit with a mouse: forms as they are, the page, a cancel, and who may not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import FrameLocator, Page, expect

from pictures import note_digest

from .conftest import STEP_SECONDS, Up

MAIN = ("openai_batch_to_index", "s3_sagemaker_to_index")
PICTURES = os.environ.get("OVERNIGHT_SCREENSHOTS")
"""The folder for the pictures of the docs; none are taken without it."""


def take(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png")
        note_digest(Path(PICTURES), name)


def trigger(page: Page, dag_id: str) -> str:
    """Trigger a DAG as its form is, and return the run's id."""
    page.goto(f"/dags/{dag_id}")
    page.get_by_role("button", name="Trigger Dag").click()
    form = page.get_by_role("dialog")
    expect(form.get_by_text("Run Parameters")).to_be_visible()
    take(page, f"form-{dag_id}")
    with page.expect_response(
        lambda answer: answer.url.endswith("/dagRuns") and answer.request.method == "POST"
    ) as sent:
        form.get_by_role("button", name="Trigger", exact=True).click()
    run_id: str = sent.value.json()["dag_run_id"]
    return run_id


def api(page: Page, path: str) -> Any:
    return page.request.get(f"/api/v2{path}").json()


def wait_for(page: Page, dag_id: str, run_id: str) -> str:
    state = ""
    waited = 0.0
    while state not in ("success", "failed") and waited < 2 * STEP_SECONDS:
        page.wait_for_timeout(1_000)
        waited += 1
        state = api(page, f"/dags/{dag_id}/dagRuns/{run_id}")["state"]
    return state


def open_page(page: Page, path: str = "") -> FrameLocator:
    page.goto(f"/plugin/overnight{path}")
    return page.frame_locator("iframe[title=Overnight]")


def test_the_forms_run_green_as_they_are_and_the_page_leads_to_a_hit(up: Up, as_user: Callable[[str], Page]) -> None:
    page = as_user("admin")
    runs = {dag_id: trigger(page, dag_id) for dag_id in MAIN}
    assert {dag_id: wait_for(page, dag_id, run_id) for dag_id, run_id in runs.items()} == dict.fromkeys(MAIN, "success")
    overnight = open_page(page)
    expect(overnight.locator("[data-state]", has_text="succeeded").first).to_be_visible()
    take(page, "jobs")
    overnight.get_by_role("link", name=runs["openai_batch_to_index"]).first.click()
    expect(overnight.get_by_role("heading", name="openai_batch_to_index")).to_be_visible()
    overnight.get_by_placeholder("in plain words").fill("recursively delete a directory tree")
    overnight.get_by_role("button", name="Search").click()
    expect(overnight.get_by_text("shutil.rmtree", exact=True)).to_be_visible()
    take(page, "run")


def test_a_job_is_cancelled_from_the_page_and_not_by_a_viewer(up: Up, as_user: Callable[[str], Page]) -> None:
    admin = as_user("admin")
    # A batch that takes longer than anybody waits.
    emulator = api(admin, "/connections/openai_default")["host"].removesuffix("/v1")
    httpx.put(f"{emulator}/_sandbox/pace", json={"lines_per_second": 0.01}).raise_for_status()
    run_id = trigger(admin, "openai_batch_to_index")
    place = f"/dags/openai_batch_to_index/dagRuns/{run_id}/taskInstances"

    def find_task() -> dict[str, Any]:
        return next(
            (
                task
                for task in api(admin, place)["task_instances"]
                if task["task_id"] == "batch.embed" and task["state"]
            ),
            {},
        )

    while find_task().get("state") not in ("deferred", "failed"):
        admin.wait_for_timeout(1_000)
    row = open_page(as_viewer := as_user("viewer")).locator("tr", has_text=run_id)
    row.get_by_role("button").click()
    row.get_by_role("button", name="Cancel the job?").click()
    expect(as_viewer.frame_locator("iframe[title=Overnight]").get_by_role("status")).to_contain_text(
        "You may not do that"
    )
    assert find_task()["state"] == "deferred"
    row = open_page(admin).locator("tr", has_text=run_id)
    expect(row.locator("[data-state]")).to_have_text("running")
    row.get_by_role("button").click()
    row.get_by_role("button", name="Cancel the job?").click()
    expect(admin.frame_locator("iframe[title=Overnight]").get_by_role("status")).to_contain_text(
        "Asked for the cancellation"
    )
    batches = httpx.get(f"{emulator}/v1/batches", headers={"Authorization": "Bearer sandbox"})
    while batches.json()["data"][0]["status"] not in ("cancelling", "cancelled"):
        admin.wait_for_timeout(1_000)
        batches = httpx.get(f"{emulator}/v1/batches", headers={"Authorization": "Bearer sandbox"})
    assert find_task()["state"] == "failed"
