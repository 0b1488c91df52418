"""``overnight dead-letters``: the documents that are not in the index, why, and those that can be loaded again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from overnight.cli.exit_codes import NOT_COMPLETE
from overnight.cli.files import read_pairs
from overnight.cli.opensearch import CaCerts, Password, User, Verify, make_target
from overnight.cli.output import make_console
from overnight.cli.refusals import refusals

if TYPE_CHECKING:
    from overnight.ingest.dead_letter_retry import DeadLetterGroup

app = typer.Typer(help="The documents of a load or a run that are not in the index.", no_args_is_help=True)

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="Dead-letter files (URIs, globs), or the report.json of a run or a load, which names them.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_errors = Console(stderr=True, soft_wrap=True, highlight=False)


@app.command()
def show(files: Files, as_json: AsJson = False) -> None:
    """
    Count the documents by reason, and say what can be done about each.

    Object stores take the credentials of the environment. Exit status: 0, also when there are no records; 1 when a file
    could not be read just now, 2 when one is no dead-letter file or not there, 130 after Ctrl-C.
    """
    with refusals(_errors):
        from overnight.ingest.dead_letter_retry import find_dead_letters, group, read_all  # noqa: PLC0415
        from overnight.storage import Storage  # noqa: PLC0415

        storage = Storage()
        uris, _ = find_dead_letters(files, storage)
        groups = group(read_all(uris, storage))
    if as_json:
        typer.echo(json.dumps([_to_json(one) for one in groups], indent=2, ensure_ascii=False))
    elif groups:
        _print_groups(groups)
    else:
        _errors.print("There are no records.")


@app.command()
def retry(  # noqa: PLR0917 - typer calls it by name
    files: Files,
    url: Annotated[str, typer.Option(envvar="OPENSEARCH_URL", help="Address of OpenSearch.")],
    index: Annotated[
        str | None, typer.Option(help="Where they are written. [default: the index in the report]")
    ] = None,
    user: User = None,
    password: Password = None,
    verify: Verify = True,
    ca_certs: CaCerts = None,
    left: Annotated[
        str | None, typer.Option(help="URI for what is still not in the index. [default: beside the first file]")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="A field of LoadOptions, such as write=index; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Load the documents again that OpenSearch refused, once the index takes them.

    A document is written as it was sent then: what was loaded under its id since is overwritten. What was rejected
    before it became a document (a bad line, an error of the AI service, a missing row) is not in the file; the command
    says what to do about it. Exit status: 0 when all are in the index, 1 when some are not, or the load broke off, 2
    when it was refused before anything was written, 130 after Ctrl-C.
    """
    with refusals(_errors):
        from overnight.cli.load_errors import check_address, explain  # noqa: PLC0415
        from overnight.ingest.dead_letter_retry import find_dead_letters, retry_dead_letters  # noqa: PLC0415
        from overnight.ingest.request import LoadOptions  # noqa: PLC0415
        from overnight.ingest.write.opensearch_sink import OpenSearchSink  # noqa: PLC0415
        from overnight.storage import Storage  # noqa: PLC0415

        storage = Storage()
        uris, named = find_dead_letters(files, storage)
        if not uris:
            _errors.print("There are no records.")
            raise typer.Exit
        goal = _choose_index(index, named)
        options = LoadOptions.of({"dead_letter_uri": left or f"{uris[0]}.left.jsonl", **read_pairs(option or [])})
        with make_target(url, user, password, verify=verify, ca_certs=ca_certs) as target:
            check_address(target)
            sink = OpenSearchSink(target)
            try:
                done = retry_dead_letters(uris, goal, target=sink, options=options, storage=storage)
            except KeyboardInterrupt:
                _errors.print("Stopped. The files are as they were; the same command, started again, begins anew.")
                raise
            except Exception as error:
                status, text = explain(error, has_written=sink.has_written)
                _errors.print(text, markup=False)
                raise typer.Exit(status) from None
    if as_json:
        said = {
            "report": done.report.model_dump(mode="json") if done.report is not None else None,
            "not_loaded": [_to_json(one) for one in done.not_loaded],
            "left_uri": done.left_uri,
        }
        typer.echo(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        if done.report is not None:
            typer.echo(
                f"indexed: {done.report.indexed:,}\nrefused again: {done.report.rejected + done.report.dropped:,}"
            )
            for code, count in done.report.reasons.items():
                typer.echo(f"  {code}: {count:,}")
        typer.echo(f"not loaded: {sum(one.count for one in done.not_loaded):,}")
        if done.not_loaded:
            _print_groups(done.not_loaded)
        if done.left_uri is not None:
            typer.echo(f"left: {done.left_uri}")
    if done.left_uri is not None:
        raise typer.Exit(NOT_COMPLETE)


def _choose_index(given: str | None, named: set[str]) -> str:
    from overnight.errors import SpecError  # noqa: PLC0415

    if given is not None:
        return given
    if len(named) != 1:
        found = f"the reports name several: {', '.join(sorted(named))}" if named else "a dead-letter file names none"
        raise SpecError(f"Give --index: {found}.")
    return next(iter(named))


def _to_json(one: DeadLetterGroup) -> dict[str, Any]:
    return {
        "outcome": one.outcome,
        "code": one.code,
        "count": one.count,
        "can_be_loaded": one.remedy is None,
        "remedy": one.remedy,
        "reason": one.reason,
        "places": one.places,
    }


def _print_groups(groups: list[DeadLetterGroup]) -> None:
    """Print each group: a line of counts, the first reason and place, and what to do."""
    from rich.padding import Padding  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    out = make_console()
    for one in groups:
        out.print(Text.assemble((f"{one.count:,}", "bold"), f" {one.outcome}: {one.code}"))
        remedy = one.remedy or "They can be loaded again: overnight dead-letters retry."
        for text, style in ((f"{one.places[0]}: {one.reason}", "dim"), (remedy, "")):
            out.print(Padding(Text(text, style, overflow="fold"), (0, 0, 0, 2)))
