"""No value of a job's headers leaves them: not into a log, an XCom, a trigger, a rendered template or an error."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any, get_args

import pytest

from overnight.errors import OvernightError
from overnight.hooks.azure_ingestion import AzureIngestionExtra, AzureIngestionHook
from overnight.jobs import JobKey
from overnight.jobs.allowance import Allowance
from overnight.jobs.evaluate import evaluate
from overnight.jobs.poller import PollEnd, PollOutcome
from overnight.sandbox.airflow import Airflow, DagRun
from overnight.sandbox.azure.errors import Code
from overnight.services.azure_ingestion.answers import list_jobs
from overnight.services.azure_ingestion.spec import AzureIngestionSpec
from overnight.triggers.job import JobTrigger, to_event

# Every value in the connection has one of these in it, and nothing else has.
CREDENTIAL = "planted-"
ANY_HEADER = ("planted-", "unhidden-")

DAG = '''
"""An Airflow dag."""
from datetime import timedelta
from overnight.templates.azure_ingestion_job import azure_ingestion_job

dag = azure_ingestion_job("ingestion", deferrable={deferrable}, default_args={{"retries": 0}})
'''


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, migrated_airflow: Airflow) -> Path:
    """A folder with an Airflow in it."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    migrated_airflow.copy(home / "home")
    return home


def run(azure: Any, home: Path, *, deferrable: bool) -> DagRun:
    (home / "dags" / "ingestion.py").write_text(DAG.format(deferrable=deferrable))
    airflow = Airflow(home / "home", home / "dags", variables=azure.variables())
    return airflow.run_dag("ingestion", {"poll_seconds": 0.1}, xcoms={"ingest": "return_value"}, log=home / "run.log")


def leaks(folder: Path, words: tuple[str, ...]) -> list[str]:
    """Return where in Airflow's files, its database among them, a word is."""
    found = []
    for file in folder.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        found += [
            f"{file.relative_to(folder)}: {content[content.index(word.encode()) - 100 :][:200]!r}"
            for word in words
            if word.encode() in content
        ]
    return found


@pytest.mark.parametrize("deferrable", [True, False])
def test_airflow_keeps_no_header_of_a_job_that_succeeds(azure: Any, home: Path, deferrable: bool) -> None:
    done = run(azure, home, deferrable=deferrable)
    assert done.state == "success", (home / "run.log").read_text()[-3000:]
    assert done.xcoms["ingest"]["status"]["state"] == "succeeded"
    assert done.xcoms["ingest"]["results"]["detail"]["index"] in (home / "run.log").read_text()
    assert leaks(home, ANY_HEADER) == []


def test_airflow_keeps_no_credential_that_the_service_repeats(azure: Any, home: Path) -> None:
    azure.set("faults", job_failed=1, job_failed_code="forbidden", repeat_credentials=True)
    done = run(azure, home, deferrable=True)
    assert done.state == "failed"
    log = (home / "run.log").read_text()
    assert "The job had" in log
    assert "unhidden-container" in log
    assert leaks(home, (CREDENTIAL,)) == []


@pytest.mark.parametrize("code", get_args(Code))
def test_no_error_and_no_log_quotes_a_credential_that_a_refusal_repeats(
    azure: Any, key: JobKey, caplog: pytest.LogCaptureFixture, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overnight.services.create.LOOKUP_WAITS", (0.01,))
    azure.set(
        "faults", refused={"share": 1, "methods": ["PUT"]}, refused_code=code, retry_after=0, repeat_credentials=True
    )
    with caplog.at_level(logging.DEBUG), azure.client() as client, pytest.raises(OvernightError) as caught:
        client.run(client.service.submit(AzureIngestionSpec(), key))
    assert "The request had" in str(caught.value)
    assert "***" in str(caught.value)
    message = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    for hidden in (caught.value.__context__, caught.value.__cause__):
        message += f"{hidden!r}{hidden}"
    assert CREDENTIAL not in message


def test_no_status_and_no_verdict_quotes_a_credential_that_a_job_repeats(azure: Any, key: JobKey) -> None:
    azure.set("faults", job_failed=1, repeat_credentials=True)
    with azure.client() as client:
        ref = client.run(client.service.submit(AzureIngestionSpec(), key))
        status = azure.wait(ref)
        results = client.run(client.service.results(ref))
    assert "***" in status.errors[0].message
    assert "***" in status.warnings[0]
    over = PollOutcome(PollEnd.ENDED, status)
    message = status.model_dump_json() + status.describe() + results.model_dump_json()
    message += f"{to_event(over)}{evaluate(ref, over, Allowance(count=0)).error}"
    assert CREDENTIAL not in message


def test_a_trigger_is_stored_without_any_header(azure: Any, key: JobKey) -> None:
    with azure.client() as client:
        ref = client.run(client.service.submit(AzureIngestionSpec(), key))
    trigger = JobTrigger(ref=ref.model_dump(mode="json"), poll_interval=1)
    assert not any(word in f"{trigger.serialize()}{trigger!r}{vars(trigger)}" for word in ANY_HEADER)


def test_no_repr_and_no_spec_shows_a_credential(azure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in azure.variables().items():
        monkeypatch.setenv(name, value)
    hook = AzureIngestionHook()
    with hook.client() as client:
        shown = repr([client, client.service, client.service.account, client.transport, vars(hook), hook])
    extra = {name: value for name, value in azure.facts.items() if name != "api_key"}
    shown += repr(AzureIngestionExtra.model_validate(extra))
    assert CREDENTIAL not in shown
    assert hook.test_connection()[0]


def test_a_connection_that_is_wrong_is_not_quoted(azure: Any) -> None:
    with pytest.raises(ValueError, match="storage_connection_string") as caught:
        AzureIngestionExtra.model_validate({**azure.facts, "storage_connection_string": ["planted-list"]})
    assert CREDENTIAL not in str(caught.value)


def test_a_wrong_key_that_the_service_repeats_is_not_quoted(azure: Any) -> None:
    azure.set("faults", repeat_credentials=True)
    with (
        azure.client(api_key="planted-wrong-key") as client,
        pytest.raises(OvernightError, match=r"The key was \*\*\*") as caught,
    ):
        client.run(list_jobs())
    assert CREDENTIAL not in str(caught.value)
