"""
A backfill of ten days, three runs at a time, through one queue that holds less than they need.

Then the same backfill once more over the completed runs. What became of both is read from the service's own records and
from the index.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from overnight.sandbox.opensearch import Node
from overnight.sandbox.process import free_port
from overnight.sandbox.services import SERVICES, running
from system.accounts import Account
from system.bench.connections import counts
from system.bench.store import Store, lines
from system.console import Console, Run, eventually
from system.pipeline import Documents

from .dags.ten_days import BATCH, BUDGET, DAG, DAYS, FIRST, INDEX, TOKENS
from .deployment import deployed

EACH = 2 * BATCH
"""Documents of a day, which become two batches."""
AT_ONCE = 3
"""Runs, which want more batches at a time than the budget holds."""
PARTS = ("scheduler", "dag-processor", "triggerer-1", "worker-1")


@dataclass(frozen=True)
class Filled:
    """A backfill, after its end."""

    runs: list[Run]
    batches: list[dict[str, Any]]
    """Those that it added at the service, in any order."""
    created: list[int]
    """The status of each call that creates a batch."""
    indexed: dict[str, str]
    """By id, the texts in the index."""


@dataclass(frozen=True)
class Backfills:
    """Both, and what they were given."""

    wanted: dict[str, str]
    once: Filled
    again: Filled
    peak: int
    """Tokens that were in the service's queue at most."""


@pytest.fixture(scope="module")
def backfills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backfills]:
    folder = tmp_path_factory.mktemp("backfill")
    account = Account("quick", folder / "account", "sk-planted-for-a-backfill")
    node = Node(home=folder / "opensearch" / "node", port=free_port(), short_lived=True)
    port = free_port()
    environment = {
        **SERVICES["s3"].environment(port),
        **SERVICES["opensearch"].environment(node.port),
        "AIRFLOW_CONN_OPENAI_DEFAULT": account.connection,
    }
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        stack.callback(node.remove)
        booting = pool.submit(node.__enter__)
        stack.enter_context(running("s3", folder, port=port))
        stack.callback(account.stop)
        account.start()
        documents = Documents(environment)
        wanted = put_days(environment)
        booting.result()
        dags = Path(__file__).parent / "dags"
        console = stack.enter_context(deployed(folder, environment, dags=dags, parts=PARTS)).console
        console.unpause(DAG)
        once = fill(console, account, documents, reprocess="none")
        again = fill(console, account, documents, reprocess="completed")
        yield Backfills(wanted, once, again, account.queue()["peak"])


def put_days(environment: dict[str, str]) -> dict[str, str]:
    """Write other documents for each day, and return the texts of all by id."""
    wanted = {}
    for number in range(DAYS):
        day = FIRST + timedelta(days=number)
        texts = {f"{day}-{each}": f"{each} of {day} ".ljust(4 * TOKENS, "x") for each in range(EACH)}
        body = lines({"id": name, "text": text} for name, text in texts.items())
        Store(environment, f"documents/{day}").put("documents.jsonl", body)
        wanted |= texts
    return wanted


def fill(console: Console, account: Account, documents: Documents, *, reprocess: str) -> Filled:
    """Carry a backfill out."""
    former = {batch["id"] for batch in account.batches(DAG)}
    calls = len(account.requests())
    last = FIRST + timedelta(days=DAYS - 1)
    body = {
        "dag_id": DAG,
        "from_date": f"{FIRST}T00:00:00Z",
        "to_date": f"{last}T00:00:00Z",
        "max_active_runs": AT_ONCE,
        "reprocess_behavior": reprocess,
    }
    backfill = console.post("/backfills", body)["id"]
    # One run after the other is waited for: each alone is something that happens soon.
    for done in range(1, DAYS + 1):
        eventually(partial(has_ended, console, done), why=f"{done} runs of the backfill with {reprocess} end")
    eventually(lambda: console.get(f"/backfills/{backfill}")["completed_at"], why="the backfill ends")
    requests = account.requests()[calls:]
    return Filled(
        [Run(console, DAG, run["dag_run_id"]) for run in list_runs(console)],
        [batch for batch in account.batches(DAG) if batch["id"] not in former],
        [seen["status"] for seen in requests if (seen["method"], seen["path"]) == ("POST", "/v1/batches")],
        {name: document["text"] for name, document in documents.indexed(INDEX).items()},
    )


def list_runs(console: Console) -> list[dict[str, Any]]:
    return list(console.get(f"/dags/{DAG}/dagRuns", limit=100)["dag_runs"])


def has_ended(console: Console, count: int) -> bool:
    return sum(run["state"] in {"success", "failed"} for run in list_runs(console)) >= count


def days() -> set[date]:
    return {FIRST + timedelta(days=number) for number in range(DAYS)}


@pytest.mark.parametrize("which", ["once", "again"])
def test_each_day_has_a_report_of_its_own_documents(backfills: Backfills, which: str) -> None:
    filled: Filled = getattr(backfills, which)
    facts = [run.facts() for run in filled.runs]
    assert [fact["state"] for fact in facts] == ["success"] * DAYS
    assert {date.fromisoformat(fact["logical_date"][:10]) for fact in facts} == days()
    assert [counts(run.xcom("report")) for run in filled.runs] == [(EACH, EACH, 0, 0)] * DAYS


def test_all_days_are_one_set_of_documents_and_the_same_after_the_second_backfill(backfills: Backfills) -> None:
    assert backfills.once.indexed == backfills.wanted
    assert backfills.again.indexed == backfills.wanted


@pytest.mark.parametrize("which", ["once", "again"])
def test_each_backfill_pays_for_each_document_once(backfills: Backfills, which: str) -> None:
    filled: Filled = getattr(backfills, which)
    assert filled.created == [200] * (DAYS * EACH // BATCH)
    assert [batch["status"] for batch in filled.batches] == ["completed"] * len(filled.created)
    assert sum(batch["request_counts"]["completed"] for batch in filled.batches) == DAYS * EACH


def test_the_queue_is_never_over_the_budget(backfills: Backfills) -> None:
    """Three runs may want more than it holds; all of them, and both backfills, ask one governor."""
    assert BATCH * TOKENS <= backfills.peak <= BUDGET < AT_ONCE * EACH * TOKENS
