"""``overnight load``: a load from a shell."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from overnight.errors import (
    CredentialsError,
    NotFoundError,
    OvernightError,
    ProxyUnavailableError,
    ServiceError,
    SpecError,
    TransientError,
    UnavailableError,
    UnknownHostError,
    shorten,
)
from overnight.ingest.loading import load as run_load
from overnight.ingest.read.openers import OPENAI_URL, openai_opener
from overnight.ingest.report.load_report import Progress
from overnight.ingest.report.mirror_report import DeletesRefusedError
from overnight.ingest.request import IngestRequest, LoadOptions
from overnight.ingest.write.bulk import IndexRefusedError
from overnight.ingest.write.opensearch_sink import OpenSearchSink
from overnight.ingest.write.sink import VerificationError
from overnight.ingest.write.target import OpenSearchTarget
from overnight.transport.http import HttpCall, Retry

NOT_COMPLETE = 1
REFUSED = 2
INTERRUPTED = 130
"""As a shell has it for a command that Ctrl-C ended."""
_ANSWER_WITHIN = 30.0
"""Seconds that the first call may take: an address where nobody answers is wrong more often than slow."""


def load(  # noqa: PLR0917 - typer calls it by name
    request: Annotated[Path, typer.Argument(help="JSON file: the body of POST _plugins/_ml/_batch_ingestion.")],
    url: Annotated[str, typer.Option(envvar="OPENSEARCH_URL", help="Address of OpenSearch.")],
    user: Annotated[str | None, typer.Option(envvar="OPENSEARCH_USER")] = None,
    password: Annotated[
        str | None, typer.Option(envvar="OPENSEARCH_PASSWORD", help="Better given by the environment variable.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Check OpenSearch's certificate.")] = True,
    ca_certs: Annotated[Path | None, typer.Option(help="CA bundle for OpenSearch's certificate.")] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="JSON file: settings and mappings to create a missing index with.")
    ] = None,
    allowed_failures: Annotated[
        str,
        typer.Option(help="Documents that may be rejected or missing: count (10), ratio (0.05) or percentage (5%)."),
    ] = "0",
    dead_letters: Annotated[
        str | None, typer.Option(help="URI for rejected and missing documents. [default: beside the request]")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="URI for the progress; 'none' keeps none. [default: beside the request]")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="A field of LoadOptions, such as bulk_bytes=1000000; repeatable."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """
    Load JSON Lines into an OpenSearch index, and report on every document.

    The sources' own variables are the usual ones: AWS_ENDPOINT_URL_S3 and the AWS credentials, OPENAI_BASE_URL and
    OPENAI_API_KEY. A load that was killed goes on where it stopped when it is started again. The report goes to stdout,
    progress to stderr. Exit status: 0 when no more was rejected or is missing than is allowed, 1 when more was, or
    the load broke off, 2 when it was refused before anything was written, 130 after Ctrl-C.
    """
    errors = Console(stderr=True, soft_wrap=True)
    sinks: list[OpenSearchSink] = []
    kept: str | None = None
    try:
        wanted = IngestRequest.of(_read(request))
        options = LoadOptions.of(
            {
                "allowed_failures": allowed_failures,
                "dead_letter_uri": dead_letters or f"{request}.dead-letters.jsonl",
                "checkpoint_uri": None if checkpoint == "none" else checkpoint or f"{request}.checkpoint.json",
                "create_index": _parse_json(mapping) if mapping is not None else None,
                "progress_seconds": 0.2 if errors.is_terminal else 10.0,
                **_pairs(option or []),
            }
        )
        kept = options.checkpoint_uri
        auth = (user, password or "") if user else None
        trust = str(ca_certs) if ca_certs is not None else verify
        key = os.environ.get("OPENAI_API_KEY") or wanted.openai_key
        base_url = os.environ.get("OPENAI_BASE_URL")
        openers = {"openai": openai_opener(key, base_url or OPENAI_URL)} if key or base_url else {}
        with OpenSearchTarget(url, auth=auth, verify=trust) as target, _progress(errors) as on_progress:
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


def check_address(target: OpenSearchTarget) -> None:
    """
    Ask once what is at the address, without the patience that a load has with an OpenSearch.

    :raises SpecError: the proxy or nothing answers there, or something else than OpenSearch does.
    :raises RequestRefusedError: it cannot be asked (a certificate that is not trusted, say).
    """
    what = f"{target.url} (--url, or OPENSEARCH_URL)"
    try:
        answer = target.transport.send(HttpCall("GET", "", retry=Retry.NEVER, timeout=_ANSWER_WITHIN))
    except ProxyUnavailableError as error:
        raise SpecError(str(error)) from error
    except UnavailableError as error:
        if error.status is None:
            raise SpecError(f"Nothing answers at {what}: {error}") from error
        if error.status < httpx.codes.INTERNAL_SERVER_ERROR:
            raise SpecError(f"What answers at {what} is no OpenSearch: {error}") from error
        return  # busy or starting
    except (CredentialsError, NotFoundError, TransientError):
        return  # not allowed to ask that; the load's own calls will say more
    if not isinstance(answer, dict) or "version" not in answer:
        raise SpecError(f"What answers at {what} is no OpenSearch.")


def explain(error: Exception, *, has_written: bool) -> tuple[int, str]:
    """
    Return the exit status for an error and its message.

    :param has_written: Whether a document was written before the error.
    """
    if isinstance(error, SpecError):
        return REFUSED, f"Refused: {error}"
    if isinstance(error, VerificationError | DeletesRefusedError):
        return NOT_COMPLETE, str(error)
    if isinstance(error, IndexRefusedError) and has_written:
        return NOT_COMPLETE, f"{error} Then start the same load again to go on where it stopped."
    if isinstance(error, UnknownHostError | ProxyUnavailableError) and not has_written:
        return REFUSED, f"Refused: {error} Nothing was written."
    if isinstance(error, OvernightError):
        if error.retryable:
            return NOT_COMPLETE, f"{error} Start the same load again to go on where it stopped."
        if isinstance(error, ServiceError) and not has_written:
            return REFUSED, f"Refused: {error} Nothing was written."
        return NOT_COMPLETE, str(error)
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return NOT_COMPLETE, f"{named}{error.strerror or shorten(str(error))}."
    return NOT_COMPLETE, (
        f"Something failed that should not: {type(error).__name__}: {shorten(str(error))}. With --debug the load shows "
        "where; please report it."
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 (byte {error.start} is not). Save it as UTF-8.") from error


def _parse_json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"{path} is not JSON: {error}.") from error


def _pairs(options: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals:
            raise SpecError(f"--option {text!r}: write NAME=VALUE.")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    return given


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Yield what shows progress: a bar on a terminal, otherwise a line now and then."""
    if not console.is_terminal:
        yield _line
        return
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
