"""The options by which commands reach an OpenSearch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from overnight.ingest.write.target import OpenSearchTarget

User: TypeAlias = Annotated[str | None, typer.Option(envvar="OPENSEARCH_USER")]
Password: TypeAlias = Annotated[
    str | None, typer.Option(envvar="OPENSEARCH_PASSWORD", help="Better given by the environment variable.")
]
Verify: TypeAlias = Annotated[bool, typer.Option(help="Check OpenSearch's certificate.")]
CaCerts: TypeAlias = Annotated[Path | None, typer.Option(help="CA bundle for OpenSearch's certificate.")]


def make_target(
    url: str, user: str | None, password: str | None, *, verify: bool, ca_certs: Path | None = None
) -> OpenSearchTarget:
    """
    Return the OpenSearch that the options name; nothing is sent.

    :raises SpecError: the address is none.
    """
    from overnight.ingest.write.target import OpenSearchTarget  # noqa: PLC0415

    auth = (user, password or "") if user else None
    return OpenSearchTarget(url, auth=auth, verify=str(ca_certs) if ca_certs is not None else verify)
