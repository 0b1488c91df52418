"""What ``overnight load`` says of an error, and the one question it asks before it loads."""

from __future__ import annotations

import httpx

from overnight.cli.exit_codes import NOT_COMPLETE, REFUSED
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
from overnight.ingest.report.mirror_report import DeletesRefusedError
from overnight.ingest.write.bulk import IndexRefusedError
from overnight.ingest.write.sink import VerificationError
from overnight.ingest.write.target import OpenSearchTarget
from overnight.transport.http import HttpCall, Retry

_ANSWER_WITHIN = 30.0
"""Seconds that the first call may take: an address where nobody answers is wrong more often than slow."""


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


def explain_unwritten(error: Exception) -> tuple[int, str]:
    """Return the exit status for an error of a command that writes nothing, and its message."""
    if isinstance(error, OvernightError):
        refused = not error.retryable
        return (REFUSED, f"Refused: {error}") if refused else (NOT_COMPLETE, str(error))
    return explain(error, has_written=False)
