"""``overnight doctor``: what is wrong with a deployment, before a DAG finds out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from overnight.cli.airflow_session import airflow_session
from overnight.cli.exit_codes import INTERRUPTED, NOT_COMPLETE
from overnight.cli.output import make_console

if TYPE_CHECKING:
    from overnight.doctor.finding import CheckResult

_STYLES = {"ok": "green", "warning": "yellow", "failure": "bold red"}


def doctor(  # noqa: PLR0917 - typer calls it by name
    dags: Annotated[
        str | None, typer.Option(help="Folder of the DAG files. [default: Airflow's DAG bundles]", show_default=False)
    ] = None,
    api_url: Annotated[
        str | None,
        typer.Option(
            envvar="AIRFLOW_API_URL",
            help="Address of Airflow's API server, for triggerer and page; the database is asked without one.",
        ),
    ] = None,
    connection: Annotated[
        list[str] | None, typer.Option(help="A connection to check, beside those that are found; repeatable.")
    ] = None,
    work_uri: Annotated[
        list[str] | None, typer.Option(help="A folder of runs to check, beside those of the DAGs; repeatable.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="What each check may take.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """
    Check versions, connections, servers, Airflow's parts and the folders of runs, each on its own.

    Run it where the DAG processor runs, with its environment. Nothing is submitted or paid for; one
    small file is written to each folder of runs and deleted. No secret is printed. Exit status: 0 when nothing has
    failed (warnings do not count), 1 when a check has, 2 for a wrong option, 130 after Ctrl-C.
    """
    from rich.console import Console  # noqa: PLC0415 - --help must not wait for it

    from overnight.doctor.examination import Options, examine  # noqa: PLC0415

    options = Options(dags, api_url, tuple(connection or ()), tuple(work_uri or ()), seconds)
    try:
        with airflow_session(), Console(stderr=True).status("Checking …"):
            results = examine(options)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    has_failed = any(result.state == "failure" for result in results)
    if as_json:
        checks = [result.model_dump(mode="json") for result in results]
        typer.echo(json.dumps({"ok": not has_failed, "checks": checks}, indent=2, ensure_ascii=False))
    else:
        _print_table(results)
    if has_failed:
        raise typer.Exit(NOT_COMPLETE)


def _print_table(results: list[CheckResult]) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    out = make_console()
    table = Table("check", "", "what was found", box=None, pad_edge=False)
    table.columns[0].overflow = table.columns[2].overflow = "fold"
    table.columns[0].max_width = 24
    for result in results:
        table.add_row(Text(result.name), Text(result.state, _STYLES[result.state]), Text(result.text))
    out.print(table)
    counts = {state: sum(result.state == state for result in results) for state in _STYLES}
    out.print(f"\nok: {counts['ok']}, warnings: {counts['warning']}, failures: {counts['failure']}")
