"""``overnight clean``: deletes what old runs left in a work folder."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from overnight.cli.exit_codes import INTERRUPTED, NOT_COMPLETE, REFUSED
from overnight.errors import OvernightError

if TYPE_CHECKING:
    from overnight.retention import Cleaned, CleaningPlan


def clean(  # noqa: PLR0917 - typer calls it by name
    work_uri: Annotated[str, typer.Argument(help="The work folder of pipelines (work_uri): a URI or a path.")],
    older_than: Annotated[
        str, typer.Option(help="Runs of which no file was written for so long: '30d', '6w'; 1d or more.")
    ] = "30d",
    include_unfinished: Annotated[
        bool, typer.Option(help="Also runs without a report, or whose report says that parts were not loaded.")
    ] = False,
    keep: Annotated[list[str] | None, typer.Option(help="A run that stays, as DAG/RUN; may be given again.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, and ask nothing: without --yes nothing is deleted.")
    ] = False,
) -> None:
    """
    Say what old runs left in a work folder, and delete it once that was confirmed.

    Only files that pipelines write are deleted, and only of runs that are finished. The result cache stays. Exit
    status: 0, 1 when something could not be deleted just now, 2 when it was refused: no work folder, a wrong option;
    130 after Ctrl-C.
    """
    # Imported here, as in every command: --help must not wait for what it does not need.
    from overnight.retention import Retention, make_plan  # noqa: PLC0415
    from overnight.retention import clean as carry_out  # noqa: PLC0415
    from overnight.retention.plan import parse_age  # noqa: PLC0415
    from overnight.storage import Storage  # noqa: PLC0415

    errors = Console(stderr=True, soft_wrap=True)
    storage = Storage()
    try:
        retention = Retention(
            parse_age(older_than, "--older-than"), include_unfinished=include_unfinished, keep=keep or ()
        )
        plan = make_plan(work_uri, storage, retention)
        if not as_json:
            _print_plan(plan)
        done = carry_out(plan, storage) if _may_delete(plan, dry_run=dry_run, yes=yes, ask=not as_json) else None
    except (KeyboardInterrupt, typer.Abort):
        raise typer.Exit(INTERRUPTED) from None
    except OvernightError as error:
        errors.print(f"Refused: {error}" if not error.retryable else str(error), markup=False, highlight=False)
        raise typer.Exit(NOT_COMPLETE if error.retryable else REFUSED) from None
    if as_json:
        typer.echo(json.dumps(_to_json(plan, done), indent=2))
    elif done is not None:
        typer.echo(f"Deleted {done.files:,} files ({done.bytes:,} bytes) of {done.runs:,} runs.")
        for name in done.spared:
            typer.echo(f"Kept, since it has changed meanwhile: {name}")


def _may_delete(plan: CleaningPlan, *, dry_run: bool, yes: bool, ask: bool) -> bool:
    if dry_run or not plan.old_files:
        return False
    if yes or not ask:
        return yes
    if not _is_asked():
        typer.echo("Nothing was deleted: there is nobody to ask. Give --yes.")
        return False
    return typer.confirm("Delete these files?")


def _is_asked() -> bool:
    return sys.stdin.isatty()


def _print_plan(plan: CleaningPlan) -> None:
    table = Table("kind", "files", "bytes", "to delete", "bytes to delete", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for kind in plan.kinds:
        table.add_row(kind.kind, *(f"{number:,}" for number in kind[1:]))
    Console(soft_wrap=True, highlight=False).print(table)
    for decision, count in plan.count_runs().items():
        typer.echo(f"runs, {decision}: {count:,}")
    for name in plan.old_runs:
        typer.echo(f"delete {name}")
    typer.echo(f"To delete: {plan.old_files:,} files ({plan.old_bytes:,} bytes) of {len(plan.old_runs):,} runs.")


def _to_json(plan: CleaningPlan, done: Cleaned | None) -> dict[str, Any]:
    return {
        "work_uri": plan.work_uri,
        "older_than_days": plan.retention.older_than.days,
        "kinds": [kind._asdict() for kind in plan.kinds],
        "runs": dict(plan.runs),
        "to_delete": {"files": plan.old_files, "bytes": plan.old_bytes},
        "deleted": done._asdict() if done is not None else None,
    }
