"""What `make up` starts, all of it, for a browser: once, with two users whose roles differ."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from patience import PATIENCE
from system.console import Console

MAIN = ("openai_batch_to_index", "s3_sagemaker_to_index")
"""The DAGs whose forms are clicked through; the others are triggered through the API."""
PROJECT = Path(__file__).parents[2]
START_SECONDS = 900.0
STEP_SECONDS = 300.0
"""Nothing is asserted on time: a busy machine is slow, and a page that never comes must end somewhere."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(1800))


@dataclass(frozen=True)
class Up:
    """A `make up` that runs: its Airflow's address and the passwords of its users."""

    url: str
    passwords: dict[str, str]

    @cached_property
    def console(self) -> Console:
        """Airflow's API, for the admin."""
        return Console(self.url, ("admin", self.passwords["admin"]))


def form_defaults(console: Console, dag_id: str) -> dict[str, Any]:
    """Return what the UI sends when a DAG is triggered as its form is."""
    return {name: param["value"] for name, param in console.get(f"/dags/{dag_id}/details")["params"].items()}


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    log = folder / "up.log"
    command = [sys.executable, "-m", "overnight.sandbox.up", "--project", str(PROJECT), "--folder", str(folder)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--users", "admin:admin,viewer:viewer"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not (found := re.search(r"Airflow: (http://\S+),", log.read_text())):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"make up did not start:\n{log.read_text()[-4000:]}")
                time.sleep(0.5)
            passwords = folder / ".airflow" / "simple_auth_manager_passwords.json.generated"
            yield Up(found.group(1), json.loads(passwords.read_text()))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("There is no Chromium: install Debian's package chromium.")
    with sync_playwright() as playwright:
        # Its own five seconds are not enough for a page of a busy Airflow.
        expect.set_options(timeout=STEP_SECONDS * 1000)
        # Started by root, as in containers, it runs only without its own sandbox.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def as_user(up: Up, chromium: Browser) -> Iterator[Callable[[str], Page]]:
    """Return a page of a user who has logged in."""
    contexts = []

    def log_in(name: str) -> Page:
        context = chromium.new_context(base_url=up.url, viewport={"width": 1400, "height": 900})
        contexts.append(context)
        context.set_default_timeout(STEP_SECONDS * 1000)
        page = context.new_page()
        page.goto("/auth/login")
        page.get_by_label("Username").fill(name)
        page.locator("input[type=password]").fill(up.passwords[name])
        page.get_by_role("button", name=re.compile("sign in|login|log in", re.IGNORECASE)).click()
        page.wait_for_url(lambda address: "/auth/login" not in address)
        return page

    yield log_in
    for context in contexts:
        context.close()
