"""
What an error code of the ingestion jobs means: one table, for refused calls and for failed jobs.

Codes of 2023-10-01-preview: https://learn.microsoft.com/rest/api/azureopenai/ingestion-jobs/create.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from overnight.errors import (
    CredentialsError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    TransientError,
    UnavailableError,
)
from overnight.jobs.cause import Cause, find_cause
from overnight.jobs.model import FailureCause
from overnight.transport.errors import add_remedy, read_error

MAX_DETAILS: Final = 10
"""How many details of an error are quoted."""

CAUSES: Final[Mapping[str, Cause]] = {
    "conflict": Cause(
        FailureCause.INPUT,
        False,
        "Something of this name is in use: look for an index or indexer named after the job in the search service.",
    ),
    "contentfilter": Cause(
        FailureCause.INPUT, False, "The safety system refuses the content; take it out of the container."
    ),
    "fileimportfailed": Cause(
        FailureCause.INPUT,
        False,
        "A document could not be read: check its format, and that the connection's storage credentials may read it.",
    ),
    "forbidden": Cause(
        FailureCause.CREDENTIALS,
        False,
        "Give the key, or the managed identity, of the connection its role at Azure OpenAI, the search "
        "service and the storage account.",
    ),
    "internalfailure": Cause(FailureCause.SERVICE, True, "The service broke; a retry may succeed."),
    "invalidpayload": Cause(
        FailureCause.INPUT,
        False,
        "Check the operator's parameters and the connection's fields against the Ingestion Jobs reference.",
    ),
    "itemdoesalreadyexist": Cause(
        FailureCause.INPUT,
        False,
        "Delete the index or indexer named after the job from the search service, and clear the task.",
    ),
    "jsonlvalidationfailed": Cause(FailureCause.INPUT, False, "Mend the JSON Lines in the container."),
    "notfound": Cause(
        FailureCause.INPUT,
        False,
        "Check the endpoint, the storage container, the search service and the embedding deployment of the connection.",
    ),
    "quotaexceeded": Cause(
        FailureCause.LIMITS,
        False,
        "No waiting mends it: raise the embedding deployment's quota or the search service's tier, or ingest less.",
    ),
    "serviceunavailable": Cause(FailureCause.SERVICE, True, "The service is down for now; a retry may succeed."),
    "toomanyrequests": Cause(
        FailureCause.SERVICE, True, "The account's rate limit is reached; a retry after a while may succeed."
    ),
    "unauthorized": Cause(
        FailureCause.CREDENTIALS, False, "Check the API key in the connection, and that it belongs to the endpoint."
    ),
    "unexpectedentitystate": Cause(
        FailureCause.INPUT,
        False,
        "A resource is not in a state that allows this: see whether the search service and the storage "
        "account are running, and clear the task.",
    ),
}
"""By lower-case code."""

_KINDS: Final[Mapping[str, type[ServiceError]]] = {
    "forbidden": CredentialsError,
    "internalfailure": UnavailableError,
    "notfound": NotFoundError,
    "serviceunavailable": UnavailableError,
    "toomanyrequests": RateLimitedError,
    "unauthorized": CredentialsError,
}
"""The exception of a call that is refused with a code; :class:`RequestRefusedError` for the others."""

_GATEWAY: Final = {
    "401": "unauthorized",
    "403": "forbidden",
    "404": "notfound",
    "408": "serviceunavailable",
    "429": "toomanyrequests",
    "500": "internalfailure",
    "502": "serviceunavailable",
    "503": "serviceunavailable",
    "504": "serviceunavailable",
}
"""The gateway in front of the service puts the status where the code belongs."""

FINAL_CODES: Final = frozenset({"quotaExceeded", "QuotaExceeded"})
"""Codes that no waiting mends even when they come with a 429 or 503; later previews capitalise them."""
THROTTLED_CODES: Final = frozenset({"tooManyRequests", "TooManyRequests"})
"""Codes that say "not carried out, try later", whatever the status."""


def get_cause(code: str | None) -> Cause | None:
    """Return what a code means, whatever its case; ``None`` for one that is not in the table."""
    return find_cause(CAUSES, [normalise(code)])


def normalise(code: str | None) -> str:
    """Return a code as the table has it."""
    lower = (code or "").casefold()
    return _GATEWAY.get(lower, lower)


def explain(error: ServiceError) -> ServiceError:
    """Return the error that the service's code asks for, whatever status came with it, with its remedy."""
    known = get_cause(error.code)
    if known is None:
        return error
    text = add_remedy(str(error), known.remedy)
    kind = _KINDS.get(normalise(error.code), RequestRefusedError)
    if issubclass(kind, TransientError):
        wait = error.retry_after if isinstance(error, TransientError) else None
        return kind(text, status=error.status, code=error.code, retry_after=wait)
    return kind(text, status=404 if kind is NotFoundError else error.status, code=error.code)


def is_taken(error: ServiceError) -> bool:
    """Whether a refusal says that the job's id is in use: by the job that a try without an answer created, perhaps."""
    return error.status == 409 or normalise(error.code) in ("conflict", "itemdoesalreadyexist")


def read_azure_error(body: Any) -> tuple[str | None, str] | None:
    """
    Read ``{"error": {"code", "message", "target", "details", "innererror"}}``.

    The parameter at fault stands in ``target`` or in a detail, seldom in the message.
    """
    read = read_error(body)
    if read is None:
        return None
    code, message = read
    error = body.get("error", body)
    if not isinstance(error, dict):
        return read
    parts = [message, *(f"target {target!r}" for target in [error.get("target")] if isinstance(target, str) and target)]
    details = error.get("details")
    for detail in (details if isinstance(details, list) else [])[:MAX_DETAILS]:
        if isinstance(detail, dict):
            texts = [str(detail[name]) for name in ("code", "target", "message") if detail.get(name)]
            parts += [": ".join(texts)] if texts else []
    return code, "; ".join(dict.fromkeys(part.rstrip(".") for part in parts if part))
