"""Options that several commands have: of what is sent to OpenAI, and of a load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

IndexBody: TypeAlias = Annotated[
    Path | None, typer.Option(help="JSON file: settings and mappings to create a missing index with.")
]
AllowedFailures: TypeAlias = Annotated[
    str, typer.Option(help="Documents that may be rejected or missing: count (10), ratio (0.05) or percentage (5%).")
]
SkipUnchanged: TypeAlias = Annotated[
    bool, typer.Option("--skip-unchanged", help="Write only documents that the index does not have as they are.")
]
LoadOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="A field of LoadOptions, such as bulk_bytes=1000000; repeatable."),
]
EmbeddingModel: TypeAlias = Annotated[str, typer.Option(help="The model that embeds.")]
TextPath: TypeAlias = Annotated[str, typer.Option(help="JSONPath of the text.")]
IdPath: TypeAlias = Annotated[str, typer.Option(help="JSONPath of the id.")]
TemplateFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(help='JSON file of a request template, {"endpoint", "body", "id_path"}, in place of an embedding.'),
]
Prices: TypeAlias = Annotated[
    str | None, typer.Option(help="Prices beside those of the package: JSON, or the URI of a JSON file.")
]
