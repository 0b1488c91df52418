"""``overnight sandbox``: every service on this machine, started and stopped together."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from overnight.sandbox import DEFAULT_OPENSEARCH
from overnight.sandbox.errors import MissingExtraError, SandboxError

app = typer.Typer(
    help="A real OpenSearch, an S3, and emulators of the services, on this machine.", no_args_is_help=True
)

Folder = Annotated[Path, typer.Option("--dir", help="Where the services keep their files.")]

# Results go to stdout, for `eval`; everything for people goes to stderr.
_console = Console(stderr=True, soft_wrap=True)


@app.command()
def up(
    only: Annotated[str | None, typer.Option(help="Services to start, separated by commas; all when left out.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once everything is ready.")] = False,
    ml_commons: Annotated[
        bool, typer.Option("--ml-commons", help="OpenSearch with ML Commons (375 MB more to download).")
    ] = False,
    opensearch_version: Annotated[str, typer.Option(help="One that has a lock.")] = DEFAULT_OPENSEARCH,
    folder: Folder = Path(".sandbox"),
) -> None:
    """Start the services; stay until Ctrl-C, which stops them, unless detached."""
    with _refusals():
        from overnight.sandbox.services import SERVICES, select  # noqa: PLC0415
        from overnight.sandbox.supervisor import Sandbox  # noqa: PLC0415

        names = [name.strip() for name in only.split(",")] if only else list(SERVICES)
        services = select(names)
        sandbox = Sandbox(folder, console=_console)
        sandbox.up(
            services,
            ml_commons=ml_commons,
            opensearch_version=opensearch_version,
            stay=not detach,
        )


@app.command()
def down(
    purge: Annotated[bool, typer.Option("--purge", help="Delete the services' files too.")] = False,
    folder: Folder = Path(".sandbox"),
) -> None:
    """Stop everything that was started."""
    with _refusals():
        from overnight.sandbox.supervisor import Sandbox  # noqa: PLC0415

        sandbox = Sandbox(folder)
        stopped = sandbox.down()
        if purge:
            sandbox.purge()
        _console.print(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")


@app.command()
def status(
    folder: Folder = Path(".sandbox"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what runs; the exit status is 0 when everything that was started does, else 1."""
    with _refusals():
        from overnight.sandbox.supervisor import Sandbox  # noqa: PLC0415

        found = Sandbox(folder).status()
    rows = [
        {
            "service": entry.service.name,
            "state": "running" if entry.alive else "ended",
            "address": entry.service.url,
            "pid": entry.service.process.pid,
            "log": entry.service.log,
        }
        for entry in found
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif rows:
        table = Table(*rows[0], box=None)
        for row in rows:
            table.add_row(*map(str, row.values()))
        out = Console()
        # Whole lines for a pipe; on a terminal the table fits its width.
        Console(width=None if out.is_terminal else 500).print(table)
    else:
        _console.print("Nothing is running.")
    if not found or not all(entry.alive for entry in found):
        raise typer.Exit(1)


@app.command()
def env(
    export: Annotated[bool, typer.Option("--export", help="Write `export` before each line.")] = False,
    folder: Folder = Path(".sandbox"),
) -> None:
    """Print the variables that point clients and Airflow at what runs, for `eval "$(overnight sandbox env)"`."""
    with _refusals():
        from overnight.sandbox.supervisor import Sandbox, export_lines  # noqa: PLC0415

        for line in export_lines(Sandbox(folder).environment(), export=export):
            sys.stdout.write(line + "\n")


@app.command()
def lock(
    version: Annotated[str, typer.Argument(help="The OpenSearch version, as on Maven Central.")],
    output: Annotated[
        Path | None, typer.Option(help="The lock file to write; one that `up` finds when left out.")
    ] = None,
) -> None:
    """Resolve and hash everything that a node of another OpenSearch version is made of."""
    with _refusals():
        from overnight.sandbox.services import require  # noqa: PLC0415

        require("jgo", "platformdirs")
        from overnight.sandbox.opensearch.lock import dump, made_here  # noqa: PLC0415
        from overnight.sandbox.opensearch.resolve import resolve  # noqa: PLC0415

        made = resolve(version, console=_console)
        target = output or made_here() / f"{version}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(dump(made))
        size = sum(artifact.size for artifact in made.artifacts) / 1e6
        _console.print(f"{target}: {len(made.artifacts)} artifacts, {size:.0f} MB")


@contextmanager
def _refusals() -> Iterator[None]:
    """End with a sentence instead of a traceback: status 2 without the extra, 1 for everything else."""
    try:
        yield
    except SandboxError as error:
        _console.print(str(error), highlight=False, markup=False)
        raise typer.Exit(2 if isinstance(error, MissingExtraError) else 1) from None
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("overnight"):
            raise
        _console.print(str(MissingExtraError((error.name,))), highlight=False, markup=False)
        raise typer.Exit(2) from None
