"""From filesystems' errors to this package's: which store and connection, and whether a retry can help."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator
from typing import Final

from overnight.certificates import explain_tls
from overnight.errors import CredentialsError, OvernightError, SpecError, UnavailableError, shorten

_MAX_TEXT: Final = 500
_EXTRAS: Final = {"gs": "gs", "abfs": "azure"}
_DENIED_CODES: Final = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403"}
)
# Class names, so that no library of another store has to be there.
_DENIED: Final = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "ProfileNotFound",
     "DefaultCredentialsError", "RefreshError", "ClientAuthenticationError"}
)  # fmt: skip
_WRONG: Final = frozenset(
    {"ParamValidationError", "InvalidEndpointError", "InvalidRegionError", "UnknownEndpointError", "InvalidURL"}
)

_TLS: Final = frozenset({"SSLError", "ClientConnectorCertificateError", "ClientConnectorSSLError"})


class MissingFileError(SpecError, FileNotFoundError):
    """There is no such file, folder or bucket."""


class ChangedFileError(OvernightError):
    """A file was replaced while it was read. A retry reads the new one from its start."""

    retryable = True


class StorageError(OvernightError):
    """A disk or store refuses (it is full, or read-only, say)."""

    retryable = True


def to_storage_error(error: Exception, uri: str, scheme: str, bucket: str, conn_id: str | None) -> OvernightError:
    """
    Return what is raised for an error of a filesystem.

    :param uri: As it may be shown.
    :param bucket: The URI's bucket or container.
    :param conn_id: The Airflow connection in use.
    """
    if isinstance(error, OvernightError):
        return error
    access = f"the connection {conn_id!r}" if conn_id else "the credentials of the environment"
    names = {type(part).__name__ for part in _chain(error)}
    codes = {code for part in _chain(error) if (code := _get_code(part))}
    text = shorten(str(error).strip() or type(error).__name__, _MAX_TEXT)
    if (refused := _explain_tls(error, f"{uri}, with {access}")) is not None:
        return refused
    if isinstance(error, ImportError) or "No filesystem registered" in text:
        extra = _EXTRAS.get(scheme)
        install = (
            f"pip install 'airflow-provider-overnight[{extra}]'" if extra else "install the package that brings it"
        )
        return SpecError(f"{scheme}:// needs a package that is not installed here: {install}.")
    if "Protocol not known" in text:
        return SpecError(f"{uri}: nothing here reads {scheme}://. Known are s3, gs, abfs, https, openai, and paths.")
    if "NoSuchBucket" in codes or (isinstance(error, FileNotFoundError) and "bucket does not exist" in text):
        return MissingFileError(
            f"{uri}: there is no bucket {bucket!r} for {access}. Correct the name, the region or the endpoint."
        )
    if "FileExpired" in names or codes & {"PreconditionFailed", "412"}:
        return ChangedFileError(f"{uri} was replaced while it was read; start again, and the new one is read.")
    if isinstance(error, FileNotFoundError):
        return MissingFileError(f"There is no file {uri}.")
    if isinstance(error, PermissionError) or names & _DENIED or codes & _DENIED_CODES:
        owner = access if scheme != "file" else "this user"
        return CredentialsError(f"{uri}: access is denied to {owner} ({text}). Grant it, or use another connection.")
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return SpecError(f"{uri} is no file, or lies below one ({text}).")
    if names & _WRONG or (isinstance(error, OSError) and error.errno == errno.EINVAL) or isinstance(error, ValueError):
        return SpecError(f"{uri} cannot be used with {access}: {text}.")
    if scheme == "file" and isinstance(error, OSError):
        return StorageError(f"{uri}: {error.strerror or text}.")
    return UnavailableError(f"{uri} cannot be reached, or broke off, with {access}: {type(error).__name__}: {text}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    part: BaseException | None = error
    for _ in range(10):
        if part is None:
            return
        yield part
        part = part.__cause__ or part.__context__


def _explain_tls(error: Exception, what: str) -> OvernightError | None:
    # A filesystem of web addresses says of all that goes wrong that there is no file.
    of_tls = (one for one in _chain(error) if isinstance(one, ssl.SSLError) or type(one).__name__ in _TLS)
    return explain_tls(next(of_tls, None), what)


def _get_code(error: BaseException) -> str | None:
    response = getattr(error, "response", None)
    found = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return str(found) if found else None
