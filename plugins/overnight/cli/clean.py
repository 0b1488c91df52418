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
    from overnight.retention import CacheCleaned, CachePlan, Cleaned, CleaningPlan


def clean(  # noqa: PLR0917 - typer calls it by name
    work_uri: Annotated[
        str,
        typer.Argument(
            help="The work folder of pipelines (work_uri), or of one overnight run (--work): a URI or a path."
        ),
    ],
    older_than: Annotated[
        str, typer.Option(help="Runs of which no file was written for so long: '30d', '6w'; 1d or more.")
    ] = "30d",
    include_unfinished: Annotated[
        bool, typer.Option(help="Also runs without a report, or whose report says that parts were not loaded.")
    ] = False,
    cache_older_than: Annotated[
        str | None,
        typer.Option(help="Also answers of the result cache that were added so long ago: '365d', '52w'."),
    ] = None,
    cache_grace: Annotated[
        str,
        typer.Option(help="How long such answers can still be read by runs that have looked them up; 3d or more."),
    ] = "7d",
    cache_uri: Annotated[
        str | None, typer.Option(help="The cache's folder, when it is not WORK_URI/cache (cache_uri).")
    ] = None,
    keep: Annotated[list[str] | None, typer.Option(help="A run that stays, as DAG/RUN; may be given again.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, and ask nothing: without --yes nothing is deleted.")
    ] = False,
) -> None:
    """
    Say what old runs left in a work folder, and delete it once that was confirmed.

    Only files that pipelines write are deleted, and only of runs that are finished. The result cache stays, unless
    --cache-older-than is given: its files are first marked, and deleted by a later clean after --cache-grace. Exit
    status: 0, 1 when something could not be deleted just now, 2 when it was refused: no work folder, a wrong option;
    130 after Ctrl-C.
    """
    # Imported here, as in every command: --help must not wait for what it does not need.
    from overnight.cache import locate_cache  # noqa: PLC0415
    from overnight.retention import CacheRetention, Retention, clean_cache, make_plan, plan_cache  # noqa: PLC0415
    from overnight.retention import clean as carry_out  # noqa: PLC0415
    from overnight.storage import Storage  # noqa: PLC0415
    from overnight.validation import parse_age  # noqa: PLC0415

    errors = Console(stderr=True, soft_wrap=True)
    storage = Storage()
    try:
        retention = Retention(
            parse_age(older_than, "--older-than"), include_unfinished=include_unfinished, keep=keep or ()
        )
        cache_retention = CacheRetention.parse(cache_older_than, cache_grace, cache_uri)
        plan = make_plan(work_uri, storage, retention)
        cache = None
        if cache_retention is not None:
            cache = plan_cache(locate_cache(plan.work_uri, cache_uri), storage, cache_retention)
        if not as_json:
            _print_plan(plan)
            if cache is not None:
                _print_cache(cache)
        done = cache_done = None
        has_work = bool(plan.old_files) or (cache is not None and not cache.is_idle)
        if has_work and _may_delete(dry_run=dry_run, yes=yes, ask=not as_json):
            done = carry_out(plan, storage)
            cache_done = clean_cache(cache, storage) if cache is not None else None
    except (KeyboardInterrupt, typer.Abort):
        raise typer.Exit(INTERRUPTED) from None
    except OvernightError as error:
        errors.print(f"Refused: {error}" if not error.retryable else str(error), markup=False, highlight=False)
        raise typer.Exit(NOT_COMPLETE if error.retryable else REFUSED) from None
    if as_json:
        found = {**_to_json(plan, done), "cache": _to_cache_json(cache, cache_done)}
        typer.echo(json.dumps(found, indent=2))
    elif done is not None:
        typer.echo(f"Deleted {done.files:,} files ({done.bytes:,} bytes) of {done.runs:,} runs.")
        for name in done.spared:
            typer.echo(f"Kept, since it has changed meanwhile: {_show_run(plan, name)}")
        if cache_done is not None:
            typer.echo(
                f"Cache: {cache_done.entries:,} answers have expired; deleted {cache_done.files:,} files "
                f"({cache_done.bytes:,} bytes)."
            )


def _may_delete(*, dry_run: bool, yes: bool, ask: bool) -> bool:
    if dry_run:
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
        typer.echo(f"delete {_show_run(plan, name)}")
    typer.echo(f"To delete: {plan.old_files:,} files ({plan.old_bytes:,} bytes) of {len(plan.old_runs):,} runs.")


def _show_run(plan: CleaningPlan, name: str) -> str:
    from overnight.retention.layout import OWN  # noqa: PLC0415

    return plan.work_uri if name == OWN else name


def _print_cache(plan: CachePlan) -> None:
    numbers = plan.measure()
    for name, what in (
        ("files", "of answers"),
        ("expired", f"have expired ({plan.entries:,} answers)"),
        ("waiting", "have expired before and wait for the end of the grace period"),
        ("to_delete", "to delete"),
    ):
        files, size = numbers[name]["files"], numbers[name]["bytes"]
        typer.echo(f"cache: {files:,} files ({size:,} bytes) {what}")


def _to_cache_json(plan: CachePlan | None, done: CacheCleaned | None) -> dict[str, Any] | None:
    if plan is None:
        return None
    return {
        "cache_uri": plan.uri,
        "older_than_days": plan.retention.older_than.days,
        "grace_days": plan.retention.grace.days,
        "entries": plan.entries,
        **plan.measure(),
        "deleted": done._asdict() if done is not None else None,
    }


def _to_json(plan: CleaningPlan, done: Cleaned | None) -> dict[str, Any]:
    return {
        "work_uri": plan.work_uri,
        "older_than_days": plan.retention.older_than.days,
        "kinds": [kind._asdict() for kind in plan.kinds],
        "runs": dict(plan.runs),
        "to_delete": {"files": plan.old_files, "bytes": plan.old_bytes},
        "deleted": done._asdict() if done is not None else None,
    }
