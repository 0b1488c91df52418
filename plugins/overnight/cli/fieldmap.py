"""``overnight fieldmap``: what a field map makes of the first lines of a source. Nothing is written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from overnight.cli.exit_codes import NOT_COMPLETE
from overnight.cli.files import read_pairs, read_text
from overnight.cli.output import make_console
from overnight.cli.refusals import refusals

if TYPE_CHECKING:
    from overnight.ingest.map.trial import DocumentTrial, FieldMapTrial, SourceTrial

app = typer.Typer(help="What a field map makes of the first lines of its sources.", no_args_is_help=True)

_OTHERS = 60
"""Characters of a line that are not the example's."""

Request = Annotated[Path, typer.Argument(help="JSON file: the request that `overnight load` takes.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="A field of LoadOptions, such as missing_path=omit; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_errors = Console(stderr=True, soft_wrap=True, highlight=False)


@app.command()
def explain(
    request: Request,
    lines: Annotated[int, typer.Option(min=1, max=1_000_000, help="Lines of each source to read.")] = 100,
    option: Options = None,
    as_json: AsJson = False,
) -> None:
    """
    Say of each path how it is read, how many lines have a value there, and give an example.

    The lane of a path is fast (with all the others in one pass), text (out of a string that holds JSON) or general
    (evaluated on its own: filters, wildcards, slices). Exit status: 0, 1 when a path found nothing, a source is empty,
    or could not be read just now, 2 when the request is refused, 130 after Ctrl-C.
    """
    with refusals(_errors):
        sources = _open(request, option).explain(lines)
    if as_json:
        typer.echo(json.dumps([asdict(source) for source in sources], indent=2, ensure_ascii=False))
    else:
        for source in sources:
            _print_source(source)
    silent = [one for source in sources for one in source.fields if not one.found]
    for one in silent:
        where = f"in {sources[one.source].lines:,} lines of source[{one.source}]"
        _errors.print(f"{one.path} found nothing for {one.field!r} {where}.", markup=False)
    if silent:
        raise typer.Exit(NOT_COMPLETE)


@app.command("try")
def try_map(
    request: Request,
    lines: Annotated[int, typer.Option(min=1, max=10_000, help="Lines to read.")] = 5,
    option: Options = None,
    as_json: AsJson = False,
) -> None:
    """
    Print the documents that the first lines become, one JSON a line, and why a line becomes none.

    In a join the lines are those of the first source with fields; rows of the others are looked for in their first
    100,000 lines. Exit status: 0, 1 when a line gives no document, there is no line, or a source could not be read just
    now, 2 when the request is refused, 130 after Ctrl-C.
    """
    with refusals(_errors):
        found = list(_open(request, option).documents(lines))
    if as_json:
        typer.echo(json.dumps([_to_json(one) for one in found], indent=2, ensure_ascii=False))
    else:
        for one in found:
            _print_document(one)
    if not found:
        _errors.print("There is no line.")
    if not found or any(one.code is not None for one in found):
        raise typer.Exit(NOT_COMPLETE)


def _open(request: Path, option: list[str] | None) -> FieldMapTrial:
    from overnight.cli.addresses import find_openers  # noqa: PLC0415
    from overnight.ingest.loading import make_reader  # noqa: PLC0415
    from overnight.ingest.map.trial import FieldMapTrial, make_check  # noqa: PLC0415
    from overnight.ingest.request import IngestRequest, LoadOptions  # noqa: PLC0415
    from overnight.storage import Storage  # noqa: PLC0415

    wanted = IngestRequest.of(read_text(request))
    options = LoadOptions.of(read_pairs(option or []))
    reader = make_reader(wanted, Storage(), find_openers(wanted.openai_key), {}, options)
    return FieldMapTrial(wanted, reader, options, make_check(options))


def _print_source(source: SourceTrial) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    out = make_console()
    how = "many lines at once" if source.by_block else "line by line: a path is not in the fast lane"
    out.print(f"source[{source.source}] {source.uri}", markup=False, soft_wrap=True)
    out.print(f"{source.lines:,} lines read, {how}", markup=False, soft_wrap=True)
    for code, count in source.rejected.items():
        out.print(f"{count:,} of them give no document: {code}", markup=False, soft_wrap=True)
    table = Table("field", "path", "lane", "found", "example", box=None, pad_edge=False)
    for name in (0, 1):
        table.columns[name].overflow = "fold"
    table.columns[2].no_wrap = table.columns[3].no_wrap = table.columns[4].no_wrap = True
    table.columns[3].justify = "right"
    most = max(out.width - _OTHERS, _OTHERS // 3)
    for one in source.fields:
        style = "" if one.found else "bold red"
        example = one.example or ""
        shown = Text(example if len(example) <= most else f"{example[: most - 1]}…")
        table.add_row(Text(one.field), Text(one.path), one.lane, Text(f"{one.found:,}", style), shown)
    out.print(table)
    out.print()


def _print_document(one: DocumentTrial) -> None:
    if one.code is not None:
        _errors.print(f"{one.uri}, line {one.line}: {one.code}: {one.reason}", markup=False)
        return
    given = {"_id": one.id, "_routing": one.routing}
    named = {name: value for name, value in given.items() if value is not None}
    typer.echo(json.dumps({**named, **one.document}, ensure_ascii=False))


def _to_json(one: DocumentTrial) -> dict[str, object]:
    return {name: value for name, value in asdict(one).items() if value is not None}
