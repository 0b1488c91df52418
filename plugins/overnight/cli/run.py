"""``overnight run``: documents, OpenAI batches, an index, from a shell."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from overnight.cli.airflow_session import airflow_session
from overnight.cli.estimate import measure, read_template
from overnight.cli.exit_codes import INTERRUPTED, NOT_COMPLETE, REFUSED
from overnight.cli.files import read_json, read_pairs
from overnight.cli.opensearch import CaCerts, Password, User, Verify, make_target
from overnight.cli.options import (
    AllowedFailures,
    EmbeddingModel,
    IdPath,
    IndexBody,
    LoadOption,
    Prices,
    SkipUnchanged,
    TemplateFile,
    TextPath,
)
from overnight.errors import OvernightError, SpecError, shorten

if TYPE_CHECKING:
    from overnight.cli.openai_run import OpenAIRun
    from overnight.cli.run_request import RunRequest
    from overnight.costs.estimate import CostEstimate
    from overnight.services.openai.connection import OpenAIConnection
    from overnight.services.openai.result_cache import ResultCache
    from overnight.templates.report import PipelineReport


def run(  # noqa: PLR0917 - typer calls it by name
    documents: Annotated[
        list[str], typer.Argument(help="JSONL, CSV or Parquet files: URIs, globs, or prefixes ending in '/'.")
    ],
    index: Annotated[str, typer.Option(help="The index or alias that is loaded into.")],
    work: Annotated[
        str, typer.Option(help="A folder, as a URI, of this run's own. Started again with it, the run goes on.")
    ],
    url: Annotated[
        str | None, typer.Option(envvar="OPENSEARCH_URL", help="Address of OpenSearch. --dry-run needs none.")
    ] = None,
    user: User = None,
    password: Password = None,
    verify: Verify = True,
    ca_certs: CaCerts = None,
    conn_id: Annotated[
        str | None,
        typer.Option(
            "--conn-id", help="An OpenAI connection of Airflow's. [default: OPENAI_API_KEY and OPENAI_BASE_URL]"
        ),
    ] = None,
    model: EmbeddingModel = "text-embedding-3-small",
    dimension: Annotated[
        int | None, typer.Option(min=1, max=16_000, help="Length of the vectors. [default: the model's own]")
    ] = None,
    text_path: TextPath = "$.text",
    id_path: IdPath = "$.id",
    template: TemplateFile = None,
    field_map: Annotated[
        Path | None,
        typer.Option(
            help="JSON file: field of the index to JSONPath; source[0] is the document, source[1] its answer. "
            "[default: text and embedding]"
        ),
    ] = None,
    ingest_field: Annotated[
        list[str] | None, typer.Option(help="JSONPath of one more field of the documents to index; repeatable.")
    ] = None,
    mapping: IndexBody = None,
    cache: Annotated[
        str | None,
        typer.Option(
            help="Of answers that were paid for: 'write', 'read' (adds none), 'refresh' (asks again), or 'off'. "
            "[default: write with --cache-uri]"
        ),
    ] = None,
    cache_uri: Annotated[
        str | None, typer.Option(help="The cache's folder; runs and pipelines may share it. Not within --work.")
    ] = None,
    cache_older_than: Annotated[
        str | None,
        typer.Option(
            help="What cleans of the cache are given: '365d'. Answers older than half of it that the run uses are "
            "written again, and so expire later."
        ),
    ] = None,
    batch_requests: Annotated[
        int, typer.Option(min=1, max=50_000, help="More documents than this become several batches.")
    ] = 50_000,
    on_bad_document: Annotated[
        str, typer.Option(help="Of documents that cannot be sent: 'fail', or 'reject' them and go on.")
    ] = "fail",
    allowed_failures: AllowedFailures = "0",
    prices: Prices = None,
    max_cost: Annotated[
        str | None, typer.Option(help="Refuse above this before an upload: '5 USD', or '20000000 tokens'.")
    ] = None,
    max_tokens: Annotated[str | None, typer.Option(help="Refuse more tokens than this before an upload.")] = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 30.0,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which to stop waiting; the jobs run on.")
    ] = None,
    skip_unchanged: SkipUnchanged = False,
    option: LoadOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """
    Send documents in OpenAI batches and load them with the answers into an index, without Airflow.

    OpenAI is reached by OPENAI_API_KEY and OPENAI_BASE_URL, or by an Airflow connection (--conn-id). The run is kept in
    the folder --work: killed at any moment and started again with the same documents, it goes on with the jobs that it
    has, and nothing is paid twice. Ctrl-C and --timeout end the waiting, not the jobs. Exit status: 0 when no more was
    rejected or is missing than is allowed, 1 when more was, a job failed, it is above --max-cost in a --dry-run, or the
    run broke off, 2 when it was refused before anything was submitted, 130 after Ctrl-C.
    """
    # Imported here, as in every command: --help must not wait for what it does not need.
    from overnight.cache import parse_cache_age  # noqa: PLC0415
    from overnight.services.openai.input import RequestTemplate  # noqa: PLC0415
    from overnight.services.openai.result_cache import ResultCache  # noqa: PLC0415

    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    started: list[OpenAIRun] = []
    session: AbstractContextManager[None] = airflow_session() if conn_id else nullcontext()
    try:
        result_cache = ResultCache.parse(cache, cache_uri)
        cache_age = parse_cache_age(cache_older_than)
        own = read_template(template)
        wanted = own or RequestTemplate.embeddings(
            model, text_path=text_path, id_path=id_path, dimensions=_get_asked(model, dimension)
        )
        if dry_run:
            with session:
                found = _measure(documents, wanted, prices, result_cache, conn_id)
            _show_estimate(found, max_cost, max_tokens, as_json=as_json, errors=errors)
            return
        request = _build_request(
            documents,
            index,
            wanted,
            given=read_json(field_map) if field_map is not None else None,
            ingest_fields=ingest_field or [],
            text_path=text_path,
            dimension=dimension,
            index_body=read_json(mapping) if mapping is not None else None,
            conn_id=conn_id,
            cache=result_cache,
            cache_older_than=cache_age,
            prices=prices,
            max_cost=max_cost,
            max_tokens=max_tokens,
            on_bad_document=on_bad_document,
            allowed_failures=allowed_failures,
            limits={"requests": batch_requests},
            interval=interval,
            timeout=timeout,
            load_options={
                "skip_unchanged": skip_unchanged,
                "progress_seconds": 0.2 if errors.is_terminal else 10.0,
                **read_pairs(option or []),
            },
        )
        with session, make_target(_require(url), user, password, verify=verify, ca_certs=ca_certs) as target:
            report, uri = _carry_out(request, target, work, errors, started)
    except KeyboardInterrupt:
        errors.print(_describe_stop("Stopped.", started, work), markup=False)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug or isinstance(error, typer.Exit):
            raise
        status, text = _explain(error, started, work)
        errors.print(text, markup=False)
        raise typer.Exit(status) from None
    typer.echo(report.model_dump_json(indent=2) if as_json else "\n".join(report.describe()))
    errors.print(f"The report is {uri}.", markup=False)
    if report.failed_parts:
        errors.print(
            f"{len(report.failed_parts)} of {len(report.parts)} parts were not loaded as they should be. The same run, "
            f"started again with --work {work}, goes on with what is there.",
            markup=False,
        )
        raise typer.Exit(NOT_COMPLETE)


def _require(url: str | None) -> str:
    if url is None:
        raise SpecError("Give --url, or set OPENSEARCH_URL.")
    return url


def _measure(
    documents: list[str], template: Any, prices: str | None, cache: ResultCache, conn_id: str | None
) -> CostEstimate:
    """Return what would be paid for; the cache is read, and no server is asked."""
    if cache.mode in ("off", "refresh"):
        return measure(documents, template, prices)
    from overnight.cache import open_cache  # noqa: PLC0415
    from overnight.services.openai.cached_answers import CachedService  # noqa: PLC0415
    from overnight.services.openai.connection import OpenAIConnection  # noqa: PLC0415
    from overnight.storage import Storage  # noqa: PLC0415

    connection = _find_openai(conn_id) or OpenAIConnection(auth_style="none")
    with connection.transport() as transport:
        service = CachedService(open_cache(cache.uri, Storage()), transport.base_url)
    return measure(documents, template, prices, service)


def _find_openai(conn_id: str | None) -> OpenAIConnection | None:
    """Return the connection of Airflow, or of the environment; ``None`` when that has none."""
    if conn_id:
        from overnight.cli.airflow_connection import find_openai_connection  # noqa: PLC0415

        return find_openai_connection(conn_id)
    from overnight.cli.addresses import find_openai  # noqa: PLC0415

    return find_openai(os.environ)


def _show_estimate(
    found: CostEstimate, max_cost: str | None, max_tokens: str | None, *, as_json: bool, errors: Console
) -> None:
    typer.echo(found.model_dump_json(indent=2) if as_json else "\n".join(found.describe()))
    try:
        found.check(max_cost=max_cost, max_tokens=max_tokens)
    except SpecError as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(NOT_COMPLETE) from None


def _get_asked(model: str, dimension: int | None) -> int | None:
    """Return the length that the requests ask for: of a model that is known to have one only, none."""
    from overnight.services.openai.dimension import MODELS, check_dimension  # noqa: PLC0415

    check_dimension(model, dimension)
    known = MODELS.get(model)
    return dimension if known is None or known.is_resizable else None


def _build_request(
    documents: list[str],
    index: str,
    template: Any,
    *,
    given: Any,
    ingest_fields: list[str],
    text_path: str,
    limits: dict[str, int],
    on_bad_document: str,
    **others: Any,
) -> RunRequest:
    from overnight.cli.run_request import RunRequest  # noqa: PLC0415
    from overnight.services.openai.joined_fields import EMBEDDING_FIELDS, join_fields  # noqa: PLC0415
    from overnight.services.openai.limits import Limits  # noqa: PLC0415

    if given is not None and not isinstance(given, dict):
        raise SpecError("--field-map holds no JSON object. Give field of the index to JSONPath.")
    if on_bad_document not in ("fail", "reject"):
        raise SpecError(f"--on-bad-document {shorten(on_bad_document, 100)!r}: give 'fail' or 'reject'.")
    request = RunRequest(
        documents=documents,
        index=index,
        template=template,
        fields=join_fields(
            given, ingest_fields, id_path=template.id_path, text_path=text_path, answer=EMBEDDING_FIELDS
        ),
        given_field_map=given,
        limits=Limits(**limits),
        on_bad_document="reject" if on_bad_document == "reject" else "fail",
        **others,
    )
    request.check()
    return request


def _carry_out(
    request: RunRequest, target: Any, work: str, errors: Console, started: list[OpenAIRun]
) -> tuple[PipelineReport, str]:
    """Return the report and its URI; ``started`` gets the run, for what is said when it breaks off."""
    from overnight.cli.load_errors import check_address  # noqa: PLC0415
    from overnight.cli.openai_run import OpenAIRun  # noqa: PLC0415
    from overnight.cli.run_progress import RunDisplay  # noqa: PLC0415
    from overnight.cli.work_folder import WorkFolder  # noqa: PLC0415
    from overnight.storage import Storage  # noqa: PLC0415

    connection = _find_openai(request.conn_id)
    if connection is None:
        raise SpecError("Set OPENAI_API_KEY, and OPENAI_BASE_URL for another server, or give --conn-id.")
    check_address(target)
    storage = Storage()
    folder = WorkFolder(work, storage)
    with folder.claim() as run_id, RunDisplay(errors) as display:
        one = OpenAIRun(
            request,
            folder,
            run_id,
            connection=connection,
            target=target,
            storage=storage,
            display=display,
        )
        started.append(one)
        report = one.carry_out()
        return report, folder.write_report(report.model_dump_json(indent=2))


def _describe_stop(why: str, started: list[OpenAIRun], work: str) -> str:
    """Say what runs on, how to go on, and how to end it."""
    from overnight.cli.addresses import OPENAI_CONN_ID  # noqa: PLC0415

    unfinished = [job for run in started for job in run.unfinished]
    jobs = [job.id for job in unfinished]
    if not jobs:
        return f"{why} The same run, started again with --work {work}, goes on."
    count = "One job runs" if len(jobs) == 1 else f"{len(jobs)} jobs run"
    shown = ", ".join(jobs[:5]) + (" …" if len(jobs) > 5 else "")
    conn_id = unfinished[0].conn_id
    named = f" --conn-id {conn_id}" if conn_id != OPENAI_CONN_ID else ""
    return (
        f"{why} {count} on at the service: {shown}. The same run, started again with --work {work}, goes on with "
        f"what is there and pays nothing again; `overnight jobs cancel openai {jobs[0]}{named}` ends a job."
    )


def _explain(error: Exception, started: list[OpenAIRun], work: str) -> tuple[int, str]:
    """Return the exit status for an error, and its message."""
    from overnight.cli.load_errors import explain  # noqa: PLC0415
    from overnight.cli.openai_run import WaitTimeoutError  # noqa: PLC0415

    if isinstance(error, WaitTimeoutError) or (
        isinstance(error, OvernightError) and any(run.has_submitted for run in started)
    ):
        return NOT_COMPLETE, _describe_stop(str(error), started, work)
    if isinstance(error, OvernightError):
        if error.retryable:
            return NOT_COMPLETE, f"{error} Nothing was submitted. Start the same run again."
        return REFUSED, f"Refused: {error}"
    return explain(error, has_written=False)
