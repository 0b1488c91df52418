"""What ``overnight jobs`` asks a service, and how it is shown."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from overnight.cli.addresses import OPENAI_CONN_ID, find_openai, make_openai_client
from overnight.cli.airflow_connection import refuse_connection
from overnight.cli.output import make_console
from overnight.errors import OvernightError, SpecError, UnsupportedError
from overnight.hooks.job import find_hook
from overnight.jobs.allowance import Allowance
from overnight.jobs.client import JobClient
from overnight.jobs.evaluate import evaluate
from overnight.jobs.model import JobRef, JobState, JobStatus, ListedOwnJob, ResultFile, ResultManifest
from overnight.jobs.poller import PollEnd, Poller, PollOutcome, Wait
from overnight.jobs.time_span import describe_seconds
from overnight.jobs.wait import poll, to_service_error

log = logging.getLogger(__name__)

_LISTED_DAYS: Final = 3
"""How far back the service's list is read for the time at which a job was created."""
_GOOD: Final = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED})
_STYLES: Final = {
    JobState.SUCCEEDED: "green",
    JobState.PARTIAL: "yellow",
    JobState.FAILED: "bold red",
    JobState.EXPIRED: "bold red",
    JobState.CANCELLED: "dim",
}


class JobView(BaseModel):
    """
    One job as it is shown.

    :param created_at: Where the service's list says it.
    :param files: With the results, of a job that is over.
    """

    ref: JobRef
    status: JobStatus
    created_at: datetime | None = None
    task: str = ""
    console_url: str | None = None
    files: tuple[ResultFile, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Whether it ended, or is about to end, otherwise than with success."""
        return self.status.state not in _GOOD

    def describe(self) -> Iterator[str]:
        """Yield the job in words, one fact a line."""
        status = self.status
        yield f"job: {self.ref.service} {self.ref.id}"
        yield f"connection: {self.ref.conn_id}"
        yield f"state: {status.state}" + (f" ({status.raw})" if status.raw != status.state else "")
        if self.task:
            yield f"task: {self.task}"
        for name, count in status.counts.model_dump().items():
            if count is not None:
                yield f"{name}: {count:,}"
        if (share := status.get_share_done()) is not None:
            yield f"done: {share:.0%}"
        if self.created_at is not None:
            yield f"created: {_describe_moment(self.created_at)} ({_describe_age(self.created_at)} ago)"
        if status.results_expire_at is not None:
            yield f"results expire: {_describe_moment(status.results_expire_at)}"
        if status.cause is not None:
            yield f"cause: {status.cause}"
        yield from (f"error: {error}" for error in status.errors)
        yield from (f"warning: {warning}" for warning in status.warnings)
        yield from (f"{file.kind}: {file.uri}" for file in self.files)
        if self.console_url:
            yield f"page: {self.console_url}"


@dataclass(frozen=True)
class WaitOutcome:
    """
    How a wait ended.

    :param status: ``None`` when the job did not end, or nobody knows.
    :param error: Why it is no success; ``None`` when it is one.
    :param refused: Whether the service refuses to say, or does not know the job.
    """

    status: JobStatus | None
    error: str | None
    refused: bool = False


class RemoteJob:
    """A job and the client of its service."""

    def __init__(self, ref: JobRef, client: JobClient[Any]) -> None:
        self.ref = ref
        self._client = client

    def status(self) -> JobStatus:
        """Return the job's status; a 404 is confirmed first."""
        status: JobStatus = self._client.run(poll(self._client.service, self.ref))
        return status

    def cancel(self) -> JobStatus:
        """Ask for the job's end, and return its status then."""
        status: JobStatus = self._client.run(self._client.service.cancel(self.ref))
        return status

    def look(self) -> JobView:
        """Return all that is shown of the job."""
        status = self.status()
        listed = self._find_listed()
        return JobView(
            ref=self.ref,
            status=status,
            created_at=listed.created_at if listed is not None else None,
            task=listed.task if listed is not None else "",
            console_url=self._client.service.console_url(self.ref),
            files=self._find_files(status),
        )

    def to_json(self, status: JobStatus) -> str:
        """Return reference and status as one JSON object."""
        view = JobView(ref=self.ref, status=status, console_url=self._client.service.console_url(self.ref))
        return view.model_dump_json(indent=2, include={"ref", "status", "console_url"})

    def wait(self, console: Console, *, interval: float, timeout: float | None, allowed_failures: str) -> WaitOutcome:
        """
        Poll the job until it ends, or the time is over; what passes by itself ends no wait.

        :param interval: Seconds between two polls.
        :param timeout: Seconds; ``None``: no end.
        :raises SpecError: ``allowed_failures`` is none.
        """
        allowed = Allowance.parse(allowed_failures)
        deadline = time.time() + timeout if timeout is not None else None
        poller = Poller(self.ref, poll_interval=interval, deadline=deadline)
        with _show_progress(console, self.ref) as show:
            while isinstance(step := self._poll(poller, show), Wait):
                time.sleep(step.seconds)
        if step.end is PollEnd.DEADLINE:
            return WaitOutcome(None, f"{self.ref} is not over after {timeout:g} s; it runs on at the service.")
        if step.status is None:
            return WaitOutcome(None, step.message, refused=step.end in (PollEnd.REFUSED, PollEnd.UNKNOWN))
        error = evaluate(self.ref, step, allowed).error
        state = step.status.state
        return WaitOutcome(
            step.status,
            None if error is None else f"{self.ref} is {state}; allowed_failures={allowed} does not let that pass.",
        )

    def _poll(self, poller: Poller, show: _Display) -> Wait | PollOutcome:
        try:
            status = self.status()
        except Exception as error:  # the poller decides which of them end the wait
            mended = to_service_error(self.ref, error)
            step = poller.on_error(mended, time.time())
            if isinstance(step, Wait):
                show.failed(str(mended))
            return step
        show.update(status)
        return poller.on_status(status, time.time())

    def _find_listed(self) -> ListedOwnJob | None:
        since = datetime.now(UTC) - timedelta(days=_LISTED_DAYS)
        try:
            listed = self._client.run(self._client.service.list_own(since))
        except OvernightError as error:
            log.debug("The list was not read: %s", error)
            return None
        return next((job for job in listed if job.ref.id == self.ref.id), None)

    def _find_files(self, status: JobStatus) -> tuple[ResultFile, ...]:
        if not status.state.is_terminal or status.state is JobState.FAILED:
            return ()
        try:
            manifest: ResultManifest = self._client.run(self._client.service.results(self.ref))
        except OvernightError as error:
            log.debug("Where the results are was not said: %s", error)
            return ()
        return manifest.files


class _Display:
    """A bar on a terminal; otherwise a line when something changed."""

    def __init__(self, console: Console, ref: JobRef, bar: Progress | None) -> None:
        self._console = console
        self._ref = ref
        self._bar = bar
        self._task: TaskID | None = None
        self._said = ""

    def update(self, status: JobStatus) -> None:
        """Show a status."""
        if self._bar is None:
            if status.state.is_terminal:
                return  # the end is said on stdout
            self._say(f"{self._ref} is {status.describe()}.")
            return
        total = float(status.counts.total or 0) or (1.0 if status.progress is not None else None)
        done = (status.get_share_done() or 0.0) * (total or 1.0)
        if self._task is None:
            self._task = self._bar.add_task("job", total=None, state="", rate="")
        self._bar.update(self._task, completed=done, total=total, state=str(status.state))
        speed = self._bar.tasks[0].speed
        if speed and status.counts.total:
            self._bar.update(self._task, rate=f"{status.counts.total:,} items, {speed:,.1f}/s")
        elif status.counts.total:
            self._bar.update(self._task, rate=f"{status.counts.total:,} items")

    def failed(self, text: str) -> None:
        """Say that a poll failed."""
        self._say(f"The poll failed: {text}")

    def _say(self, text: str) -> None:
        if text != self._said:
            self._console.print(text, markup=False)
        self._said = text


@contextmanager
def _show_progress(console: Console, ref: JobRef) -> Iterator[_Display]:
    if not console.is_terminal:
        yield _Display(console, ref, None)
        return
    columns = (
        TextColumn("{task.fields[state]}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    # The counts of a service change every few minutes; by default the rate is of the last 30 s.
    with Progress(*columns, console=console, transient=True, speed_estimate_period=3600) as bar:
        yield _Display(console, ref, bar)


@contextmanager
def open_job(words: Sequence[str], conn_id: str | None) -> Iterator[RemoteJob]:
    """
    Yield the job that a command line names, with a client of its service.

    :param words: Service and id, or one JSON.
    :raises SpecError: they name no job, or the connection is none.
    """
    if len(words) == 1:
        ref = JobRef.read(words[0])
        service, job_id, conn_id = ref.service, ref.id, conn_id or ref.conn_id
    elif len(words) == 2:
        service, job_id = words
    else:
        raise SpecError(f"{' '.join(words)!r} is no job. Give a service and an id, such as: openai batch_123.")
    with _open_client(service, conn_id) as client:
        yield RemoteJob(client.service.ref(job_id), client)


def list_own(service: str, conn_id: str | None, days: float, *, unfinished: bool = False) -> list[ListedOwnJob]:
    """
    Return the jobs of ours that a service lists, the newest first; with what it says of each that is over.

    :raises UnsupportedError: the service does not tell whose a job is.
    """
    since = datetime.now(UTC) - timedelta(days=days)
    with _open_client(service, conn_id) as client:
        try:
            found = client.run(client.service.list_own(since))
        except UnsupportedError as error:
            raise UnsupportedError(f"{error} `overnight jobs show {service} ID` shows one.") from error
    kept = [job for job in found if not (unfinished and job.status.state.is_terminal)]
    return sorted(kept, key=lambda job: job.created_at or since, reverse=True)


def print_jobs(jobs: Sequence[ListedOwnJob]) -> None:
    """Print a table of jobs to stdout, 80 characters wide where that is no terminal."""
    table = Table("id", "state", "items", "done", "created", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.no_wrap = True
    for name in (2, 3):
        table.columns[name].justify = "right"
    for job in jobs:
        status, share = job.status, job.status.get_share_done()
        table.add_row(
            Text(job.ref.id),
            Text(status.state, _STYLES.get(status.state, "")),
            f"{status.counts.total:,}" if status.counts.total is not None else "",
            f"{share:.0%}" if share is not None else "",
            f"{_describe_age(job.created_at)} ago" if job.created_at is not None else "",
        )
    make_console().print(table)


def _describe_moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _describe_age(moment: datetime) -> str:
    return describe_seconds((datetime.now(UTC) - moment).total_seconds())


@contextmanager
def _open_client(service: str, conn_id: str | None) -> Iterator[JobClient[Any]]:
    hook = find_hook(service, conn_id)
    with _connect(service, hook) as client:
        yield client


def _connect(service: str, hook: Any) -> AbstractContextManager[JobClient[Any]]:
    try:
        return hook.client()  # type: ignore[no-any-return]
    except AirflowException as error:
        # As `overnight run` submits its jobs.
        connection = find_openai(os.environ) if (service, hook.conn_id) == ("openai", OPENAI_CONN_ID) else None
        if connection is not None and isinstance(error, AirflowNotFoundException):
            return make_openai_client(connection)
        raise refuse_connection(hook.conn_id, error) from None
