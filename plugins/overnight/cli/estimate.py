"""``overnight estimate``: what documents would cost, before there is a DAG."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from overnight.cli.exit_codes import INTERRUPTED, NOT_COMPLETE, REFUSED
from overnight.cli.files import read_json
from overnight.cli.options import EmbeddingModel, IdPath, Prices, TemplateFile, TextPath
from overnight.errors import OvernightError, SpecError, shorten

if TYPE_CHECKING:
    from overnight.costs.estimate import CostEstimate
    from overnight.services.openai.cached_answers import CachedService
    from overnight.services.openai.input import RequestTemplate


def estimate(  # noqa: PLR0917 - typer calls it by name
    documents: Annotated[
        list[str], typer.Argument(help="JSONL, CSV or Parquet files: URIs, globs, or prefixes ending in '/'.")
    ],
    model: EmbeddingModel = "text-embedding-3-small",
    text_path: TextPath = "$.text",
    id_path: IdPath = "$.id",
    template: TemplateFile = None,
    prices: Prices = None,
    max_cost: Annotated[str | None, typer.Option(help="Exit with 1 above this: '5 USD', or '20000000 tokens'.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """
    Say what it would cost to send documents in OpenAI batches. Nothing is sent.

    The lines are those that a pipeline's step prepare logs. The requests are written to a temporary folder and deleted.
    Exit status: 0, 1 when it is above --max-cost (also when the price is not known) or a file could not be read just
    now, 2 when it was refused: a bad document, no document, a wrong option; 130 after Ctrl-C.
    """
    # Imported here, as in every command: --help must not wait for what it does not need.
    from overnight.services.openai.input import RequestTemplate  # noqa: PLC0415

    errors = Console(stderr=True, soft_wrap=True)
    try:
        embedding = RequestTemplate.embeddings(model, text_path=text_path, id_path=id_path)
        found = measure(documents, read_template(template) or embedding, prices)
        typer.echo(found.model_dump_json(indent=2) if as_json else "\n".join(found.describe()))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except OvernightError as error:
        errors.print(f"Refused: {error}" if not error.retryable else str(error), markup=False, highlight=False)
        raise typer.Exit(NOT_COMPLETE if error.retryable else REFUSED) from None
    try:
        found.check(max_cost=max_cost)
    except SpecError as error:
        errors.print(str(error), markup=False, highlight=False)
        raise typer.Exit(NOT_COMPLETE) from None


def measure(
    documents: list[str], template: RequestTemplate, prices: str | None, cache: CachedService | None = None
) -> CostEstimate:
    """
    Return what documents would cost.

    :param cache: Of answers that are not paid for again; it is left as it is.
    :raises SpecError: there are none, or one is no document.
    """
    from overnight.costs.prices import PriceTable  # noqa: PLC0415
    from overnight.services.openai.preparation import prepare_input  # noqa: PLC0415
    from overnight.storage import Storage  # noqa: PLC0415

    storage = Storage()
    table = PriceTable.of(prices, storage)
    listing = storage.match_files(documents)
    if not listing.files:
        raise SpecError(f"No file matches {shorten(', '.join(documents), 500)}. {listing.remark}".rstrip())
    with tempfile.TemporaryDirectory(prefix="overnight-estimate-") as folder:
        uris = [file.uri for file in listing.files]
        prepared = prepare_input(uris, template, folder, storage=storage, prices=table, cache=cache, mode="read")
    if not prepared.built.documents:
        raise SpecError(f"There is no document in {shorten(', '.join(documents), 500)}.")
    return prepared.estimate


def read_template(path: Path | None) -> RequestTemplate | None:
    """
    Return the request template in a JSON file; ``None`` without one.

    :raises SpecError: the file holds none.
    """
    if path is None:
        return None
    from overnight.services.openai.input import RequestTemplate  # noqa: PLC0415
    from overnight.validation import parse_parameter  # noqa: PLC0415

    return parse_parameter(RequestTemplate, read_json(path), "template")
