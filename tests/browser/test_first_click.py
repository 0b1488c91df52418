"""From `make up` to a search hit with a mouse: forms as they are, the page, a cancel, and who may not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import FrameLocator, Page, expect

from pictures import FIRST_FORM, FIRST_MINUTES, animate, note_digest
from system.console import Console, Run, eventually

from .conftest import MAIN, Up, form_defaults

PICTURES = os.environ.get("OVERNIGHT_SCREENSHOTS")
"""The folder for the pictures of the docs; none are taken without it."""


def take(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png")
        note_digest(Path(PICTURES), name)


class Recording:
    """Screenshots of a page, for one animated picture; none are taken without a folder for them."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._frames: list[tuple[bytes, float]] = []

    def add(self, seconds: float = 3.0) -> None:
        if PICTURES:
            usual = self._page.viewport_size
            # Of the size at which a README shows it, so that its text is as large as on the screen.
            self._page.set_viewport_size({"width": 1000, "height": 700})
            self._frames.append((self._page.screenshot(), seconds))
            self._page.set_viewport_size(usual or {"width": 1400, "height": 900})

    def write(self, name: str) -> None:
        if PICTURES:
            animate(Path(PICTURES), name, self._frames)


@contextmanager
def slow_batches(console: Console, lines_per_second: float) -> Iterator[str]:
    """Have OpenAI's batches take their time, and return the emulator's address."""
    emulator = console.get("/connections/openai_default")["host"].removesuffix("/v1")
    pace = f"{emulator}/_sandbox/pace"
    usual = httpx.get(pace).raise_for_status().json()
    httpx.patch(pace, json={"lines_per_second": lines_per_second}).raise_for_status()
    try:
        yield emulator
    finally:
        httpx.put(pace, json=usual).raise_for_status()


def trigger(page: Page, dag_id: str, recording: Recording | None = None) -> dict[str, Any]:
    """Trigger a DAG as its form is, and return what was sent and the run's id, as ``dag_run_id``."""
    page.goto(f"/dags/{dag_id}")
    page.get_by_role("button", name="Trigger Dag").click()
    form = page.get_by_role("dialog")
    expect(form.get_by_text("Run Parameters")).to_be_visible()
    take(page, f"form-{dag_id}")
    if recording:
        recording.add()
    with page.expect_response(
        lambda answer: answer.url.endswith("/dagRuns") and answer.request.method == "POST"
    ) as sent:
        form.get_by_role("button", name="Trigger", exact=True).click()
    return {**sent.value.request.post_data_json, "dag_run_id": sent.value.json()["dag_run_id"]}


def find_batch(run: Run) -> dict[str, Any]:
    return next((task for task in run.tasks() if task["task_id"] == "batch.embed" and task["state"]), {})


def wait_for_batch(run: Run) -> None:
    eventually(lambda: find_batch(run).get("state") in ("deferred", "failed"), why=f"{run.run_id} has a batch")


def open_page(page: Page, path: str = "") -> FrameLocator:
    page.goto(f"/plugin/overnight{path}")
    return page.frame_locator("iframe[title=Overnight]")


def test_the_forms_run_green_as_they_are_and_the_page_leads_to_a_hit(up: Up, as_user: Callable[[str], Page]) -> None:
    page = as_user("admin")
    recording = Recording(page)
    with slow_batches(up.console, 1):
        sent = {dag_id: trigger(page, dag_id, recording if dag_id == FIRST_FORM else None) for dag_id in MAIN}
        # The page follows the jobs that it lists and lists none that come later.
        wait_for_batch(Run(up.console, FIRST_FORM, sent[FIRST_FORM]["dag_run_id"]))
        overnight = open_page(page)
        expect(overnight.locator("[data-state]", has_text="running").first).to_be_visible()
        recording.add()
    # The other DAGs are triggered with the same, without a browser.
    for dag_id in MAIN:
        assert sent[dag_id]["conf"] == form_defaults(up.console, dag_id)
        assert sent[dag_id]["logical_date"]
    runs = {dag_id: Run(up.console, dag_id, sent[dag_id]["dag_run_id"]) for dag_id in MAIN}
    assert {dag_id: run.finish() for dag_id, run in runs.items()} == dict.fromkeys(MAIN, "success")
    overnight = open_page(page)
    expect(overnight.locator("[data-state]", has_text="succeeded").first).to_be_visible()
    take(page, "jobs")
    recording.add()
    overnight.get_by_role("link", name=runs[FIRST_FORM].run_id).first.click()
    expect(overnight.get_by_role("heading", name=FIRST_FORM)).to_be_visible()
    recording.add()
    overnight.get_by_placeholder("in plain words").fill("recursively delete a directory tree")
    recording.add(1.5)
    overnight.get_by_role("button", name="Search").click()
    expect(overnight.get_by_text("shutil.rmtree", exact=True)).to_be_visible()
    take(page, "run")
    recording.add(5.0)
    recording.write(FIRST_MINUTES)


def test_a_job_is_cancelled_from_the_page_and_not_by_a_viewer(up: Up, as_user: Callable[[str], Page]) -> None:
    # A batch that takes longer than anybody waits.
    with slow_batches(up.console, 0.01) as emulator:
        _cancel(up.console, emulator, as_user)


def _cancel(console: Console, emulator: str, as_user: Callable[[str], Page]) -> None:
    admin = as_user("admin")
    run_id = trigger(admin, FIRST_FORM)["dag_run_id"]
    run = Run(console, FIRST_FORM, run_id)
    wait_for_batch(run)
    row = open_page(as_viewer := as_user("viewer")).locator("tr", has_text=run_id)
    row.get_by_role("button").click()
    row.get_by_role("button", name="Cancel the job?").click()
    expect(as_viewer.frame_locator("iframe[title=Overnight]").get_by_role("status")).to_contain_text(
        "You may not do that"
    )
    assert find_batch(run)["state"] == "deferred"
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
    assert find_batch(run)["state"] == "failed"
