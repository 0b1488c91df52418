"""``overnight jobs``: the remote jobs of a service, through an Airflow connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from overnight.cli.airflow_session import airflow_session
from overnight.cli.exit_codes import INTERRUPTED, NOT_COMPLETE, REFUSED
from overnight.errors import OvernightError

app = typer.Typer(
    help="The remote jobs of a service, through an Airflow connection.",
    no_args_is_help=True,
    epilog="A job is named as SERVICE ID --conn-id CONNECTION, or by its reference as JSON, as an XCom has it.",
)

Job = Annotated[list[str], typer.Argument(metavar="SERVICE ID", help="Or one JSON: the XCom of the job's task.")]
ConnId = Annotated[
    str | None,
    typer.Option("--conn-id", help="The Airflow connection. [default: the service's, such as openai_default]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_errors = Console(stderr=True, soft_wrap=True, highlight=False)


@app.command("list")
def list_jobs(
    service: Annotated[str, typer.Argument(help="openai, sagemaker, llamacloud, azure_ingestion, ml_commons_predict.")],
    conn_id: ConnId = None,
    days: Annotated[float, typer.Option(min=0, max=365, help="Jobs that were created in the last so many days.")] = 2,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Only jobs that are not over.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    List the jobs that the service has of Overnight, the newest first.

    The jobs of other programs are left out. Exit status: 0, also when there are none; 1 when the service could not be
    asked just now; 2 when it refused, or the connection cannot be used.
    """
    with _refusals():
        from overnight.cli.remote_jobs import list_own, print_jobs  # noqa: PLC0415

        jobs = list_own(service, conn_id, days, unfinished=unfinished)
        if as_json:
            typer.echo(json.dumps([job.model_dump(mode="json") for job in jobs], indent=2, ensure_ascii=False))
        elif jobs:
            print_jobs(jobs)
        else:
            _errors.print(f"{service} lists no such job of Overnight's.")


@app.command()
def show(job: Job, conn_id: ConnId = None, as_json: AsJson = False) -> None:
    """
    Show one job: state, counts, times, errors, files of results, and its page at the service.

    Exit status: 0 when it runs, waits or succeeded; 1 when it ended otherwise, or could not be asked for just now; 2
    when the service refuses or does not know it.
    """
    with _refusals():
        from overnight.cli.remote_jobs import open_job  # noqa: PLC0415

        with open_job(job, conn_id) as found:
            view = found.look()
        if as_json:
            typer.echo(view.model_dump_json(indent=2))
        else:
            typer.echo("\n".join(view.describe()))
        if view.has_failed:
            raise typer.Exit(NOT_COMPLETE)


@app.command()
def wait(  # noqa: PLR0917 - typer calls it by name
    job: Job,
    conn_id: ConnId = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 30.0,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which to stop waiting; the job runs on.")
    ] = None,
    allowed_failures: Annotated[
        str, typer.Option(help="Items that may have failed: count (10), ratio (0.05) or percentage (5%).")
    ] = "0",
    as_json: AsJson = False,
) -> None:
    """
    Wait for the end of a job. Ctrl-C ends the waiting, not the job.

    Exit status: 0 when no more items failed than are allowed; 1 when more did, the job failed, was cancelled or
    expired, or the waiting ended before it; 2 when the service refuses or does not know it; 130 after Ctrl-C.
    """
    with _refusals():
        from overnight.cli.remote_jobs import open_job  # noqa: PLC0415

        with open_job(job, conn_id) as found:
            try:
                outcome = found.wait(_errors, interval=interval, timeout=timeout, allowed_failures=allowed_failures)
            except KeyboardInterrupt:
                _errors.print(f"Stopped waiting. {found.ref} runs on at the service.", markup=False)
                raise typer.Exit(INTERRUPTED) from None
            if outcome.error is not None:
                _errors.print(f"Refused: {outcome.error}" if outcome.refused else outcome.error, markup=False)
            if outcome.status is not None:
                typer.echo(found.to_json(outcome.status) if as_json else f"{found.ref} is {outcome.status.describe()}.")
        if outcome.error is not None:
            raise typer.Exit(REFUSED if outcome.refused else NOT_COMPLETE)


@app.command()
def cancel(
    job: Job,
    conn_id: ConnId = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Ask the service to end a job. What it finished until then stays, and is billed.

    A task of Airflow that waits for the job fails, and its retry submits the work again. Exit status: 0 when the
    job is over or being cancelled; 1 when the question was answered with no, or the service could not be asked just
    now; 2 when the service cannot cancel it, refuses, or does not know it.
    """
    with _refusals():
        from overnight.cli.remote_jobs import open_job  # noqa: PLC0415

        if as_json and not yes:
            _errors.print("Refused: with --json nobody is asked; give --yes, too. Nothing was cancelled.")
            raise typer.Exit(REFUSED)
        with open_job(job, conn_id) as found:
            if not yes:
                _errors.print(f"{found.ref} is {found.status().describe()}.", markup=False)
                if not typer.confirm("Cancel it?", err=True):
                    raise typer.Exit(NOT_COMPLETE)
            status = found.cancel()
            typer.echo(found.to_json(status) if as_json else f"{found.ref} is {status.describe()}.")


@contextmanager
def _refusals() -> Iterator[None]:
    """End with a sentence instead of a traceback."""
    try:
        with airflow_session():
            yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except OvernightError as error:
        _errors.print(str(error) if error.retryable else f"Refused: {error}", markup=False)
        raise typer.Exit(NOT_COMPLETE if error.retryable else REFUSED) from None
