"""``overnight load``: a load from a shell."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from overnight.cli.exit_codes import INTERRUPTED, NOT_COMPLETE
from overnight.cli.files import read_json, read_pairs, read_text
from overnight.cli.opensearch import CaCerts, Password, User, Verify, make_target
from overnight.cli.options import AllowedFailures, IndexBody, LoadOption, SkipUnchanged

if TYPE_CHECKING:
    from overnight.ingest.report.load_report import Progress
    from overnight.ingest.write.opensearch_sink import OpenSearchSink


def load(  # noqa: PLR0917 - typer calls it by name
    request: Annotated[Path, typer.Argument(help="JSON file: the body of POST _plugins/_ml/_batch_ingestion.")],
    url: Annotated[str, typer.Option(envvar="OPENSEARCH_URL", help="Address of OpenSearch.")],
    user: User = None,
    password: Password = None,
    verify: Verify = True,
    ca_certs: CaCerts = None,
    mapping: IndexBody = None,
    allowed_failures: AllowedFailures = "0",
    dead_letters: Annotated[
        str | None, typer.Option(help="URI for rejected and missing documents. [default: beside the request]")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="URI for the progress; 'none' keeps none. [default: beside the request]")
    ] = None,
    skip_unchanged: SkipUnchanged = False,
    option: LoadOption = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """
    Load JSON Lines into an OpenSearch index, and report on every document.

    The sources' own variables are the usual ones: AWS_ENDPOINT_URL_S3 and the AWS credentials, OPENAI_BASE_URL and
    OPENAI_API_KEY. A load that was killed goes on where it stopped when it is started again. The report goes to stdout,
    progress to stderr. Exit status: 0 when no more was rejected or is missing than is allowed, 1 when more was, or
    the load broke off, 2 when it was refused before anything was written, 130 after Ctrl-C.
    """
    # Imported here, as in every command: --help must not wait for what it does not need.
    from overnight.cli.addresses import find_openers  # noqa: PLC0415
    from overnight.cli.load_errors import check_address, explain  # noqa: PLC0415
    from overnight.ingest.loading import load as run_load  # noqa: PLC0415
    from overnight.ingest.report.mirror_report import DeletesRefusedError  # noqa: PLC0415
    from overnight.ingest.request import IngestRequest, LoadOptions  # noqa: PLC0415
    from overnight.ingest.write.opensearch_sink import OpenSearchSink  # noqa: PLC0415
    from overnight.ingest.write.sink import VerificationError  # noqa: PLC0415

    errors = Console(stderr=True, soft_wrap=True)
    sinks: list[OpenSearchSink] = []
    kept: str | None = None
    try:
        wanted = IngestRequest.of(read_text(request))
        options = LoadOptions.of(
            {
                "allowed_failures": allowed_failures,
                "dead_letter_uri": dead_letters or f"{request}.dead-letters.jsonl",
                "checkpoint_uri": None if checkpoint == "none" else checkpoint or f"{request}.checkpoint.json",
                "create_index": read_json(mapping) if mapping is not None else None,
                "skip_unchanged": skip_unchanged,
                "progress_seconds": 0.2 if errors.is_terminal else 10.0,
                **read_pairs(option or []),
            }
        )
        kept = options.checkpoint_uri
        openers = find_openers(wanted.openai_key)
        opensearch = make_target(url, user, password, verify=verify, ca_certs=ca_certs)
        with opensearch as target, _progress(errors) as on_progress:
            check_address(target)
            sinks.append(OpenSearchSink(target))
            report = run_load(wanted, target=sinks[0], openers=openers, options=options, on_progress=on_progress)
    except KeyboardInterrupt:
        again = f"goes on where it stopped ({kept})" if kept is not None else "starts at the first line"
        errors.print(f"Stopped. The same load, started again, {again}.", markup=False, highlight=False)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            raise
        if isinstance(error, VerificationError | DeletesRefusedError) and error.report is not None:
            typer.echo(json.dumps(error.report, indent=2))
        status, text = explain(error, has_written=any(sink.has_written for sink in sinks))
        errors.print(text, markup=False, highlight=False)
        raise typer.Exit(status) from None
    try:
        typer.echo(report.model_dump_json(indent=2))
    except OSError as error:
        errors.print(
            f"The load is over, and its report could not be written to stdout: {error.strerror}.", markup=False
        )
        raise typer.Exit(NOT_COMPLETE) from None
    excess = report.excess(options.allowed_failures)
    if excess is not None:
        errors.print(excess, markup=False, highlight=False)
        raise typer.Exit(NOT_COMPLETE)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Yield what shows progress: a bar on a terminal, otherwise a line now and then."""
    if not console.is_terminal:
        yield _line
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (
        TextColumn("{task.fields[counts]}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("load", total=None, counts="starting")

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.stored_bytes, total=progress.total_bytes, counts=str(progress))

        yield show


def _line(progress: Progress) -> None:
    sys.stderr.write(f"{progress}\n")
    sys.stderr.flush()
