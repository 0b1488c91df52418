"""What the cluster reads the sources with, and how each version of it takes that."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Final

from overnight.errors import SpecError
from overnight.services.ml_commons.ingest.engine import SWAPPED_SINCE, UNTIL
from overnight.transport.opensearch import ServerVersion

log = logging.getLogger(__name__)

_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")


@dataclass(frozen=True)
class S3Credential:
    """
    What the cluster reads S3 with.

    :param session_token: Of temporary credentials; they must outlive the ingestion.
    """

    access_key: str
    secret_key: str
    region: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return f"S3Credential(region={self.region!r})"


@dataclass(frozen=True)
class OpenAICredential:
    """The key that the cluster reads OpenAI's files with."""

    key: str

    def __repr__(self) -> str:
        return "OpenAICredential()"


Credential = S3Credential | OpenAICredential


def on_the_wire(credential: Credential, version: ServerVersion) -> dict[str, str]:
    """
    Write a credential as the server reads it.

    From 2.19.0 on the plugin passes region and session token on in swapped order, so that the request as it is
    documented always fails with ``region must not be null``. There the two trade places; without a token the region
    stands in its place alone. 2.17 and 2.18 read what is documented.

    :raises SpecError: there is no region, or one that cannot be.
    """
    if isinstance(credential, OpenAICredential):
        return {"openAI_key": credential.key}
    if not _REGION.fullmatch(credential.region):
        raise SpecError(
            f"The S3 region {credential.region!r} is not a region such as us-east-1; put region_name into the AWS "
            "connection's extra."
        )
    wire = {"access_key": credential.access_key, "secret_key": credential.secret_key}
    region, token = credential.region, credential.session_token
    if SWAPPED_SINCE <= version.release < UNTIL:
        log.info(
            "%s swaps region and session_token of an S3 ingestion, so they are sent the other way round: the region as "
            "session_token%s.",
            version,
            ", the token as region" if token else ", and no region",
        )
        return {**wire, "session_token": region, **({"region": token} if token else {})}
    return {**wire, "region": region, **({"session_token": token} if token else {})}
