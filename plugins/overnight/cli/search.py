"""``overnight search``: what an index answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from overnight.cli.exit_codes import REFUSED
from overnight.cli.opensearch import Password, User, Verify, make_target
from overnight.cli.output import make_console

NOT_FOUND = 1


def search(  # noqa: PLR0917 - typer calls it by name
    index: Annotated[str, typer.Argument(help="The index or alias.")],
    text: Annotated[str, typer.Argument(help="What to search for, in plain words.")],
    url: Annotated[
        str | None,
        typer.Option(envvar="OPENSEARCH_URL", help="Address of OpenSearch; that of the sandbox when left out."),
    ] = None,
    user: User = None,
    password: Password = None,
    verify: Verify = True,
    model: Annotated[
        str, typer.Option(help="What the index's vectors were made with; the text is embedded with it, too.")
    ] = "text-embedding-3-small",
    words: Annotated[bool, typer.Option("--words", help="Search for the words, not for the nearest vectors.")] = False,
    size: Annotated[int, typer.Option(min=1, max=100, help="How many documents at most.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    folder: Annotated[Path, typer.Option("--dir", help="Where the sandbox keeps its files.")] = Path(".sandbox"),
) -> None:
    """
    Search an index, by the vectors it has or by its words.

    The text is embedded by one request to OPENAI_BASE_URL with OPENAI_API_KEY. In a folder in which `make up` or
    `overnight sandbox up` runs, both addresses are the sandbox's when none is given. Exit status: 0 when something was
    found, 1 when nothing was or a server did not answer, 2 when the search was refused.
    """
    # Imported here, as in every command: --help must not wait for what it does not need.
    from rich.markup import escape  # noqa: PLC0415

    from overnight.cli.addresses import find_addresses  # noqa: PLC0415
    from overnight.errors import OvernightError, SpecError  # noqa: PLC0415
    from overnight.ingest.search import search as find  # noqa: PLC0415
    from overnight.services.openai.embed import embed  # noqa: PLC0415

    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        addresses = find_addresses(url, folder)
        with make_target(addresses.opensearch_url, user, password, verify=verify) as target:
            hits = find(
                target,
                index,
                text,
                embed=None if words else lambda text, length: addresses.run_openai(embed(text, model, length)),
                size=size,
            )
    except OvernightError as error:
        errors.print(str(error), markup=False)
        raise typer.Exit(REFUSED if isinstance(error, SpecError) else NOT_FOUND) from None
    if as_json:
        typer.echo(json.dumps([hit.model_dump() for hit in hits], indent=2, ensure_ascii=False))
    else:
        out = make_console()
        width = out.width
        for hit in hits:
            out.print(f"[bold]{escape(hit.id)}[/bold]  [dim]{hit.score:.3f}[/dim]", soft_wrap=True)
            text = " ".join(hit.text.split())
            out.print(f"  {escape(text[: width - 3] + '…' if len(text) > width - 2 else text)}", soft_wrap=True)
    if not hits:
        errors.print("Nothing was found.")
        raise typer.Exit(NOT_FOUND)
