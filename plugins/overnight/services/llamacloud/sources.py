"""The files of a job before they are at the service: found, checked, and each with an identity of its own."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import basename
from typing import Any, Final

import orjson

from overnight.errors import SpecError
from overnight.services.llamacloud.answers import get_files_path, list_all
from overnight.services.llamacloud.choices import JobType, MetadataValue
from overnight.services.llamacloud.spec import Limits
from overnight.services.tags import TAG_PREFIX
from overnight.storage import Storage, StoredFile
from overnight.transport.flow import Flow

URI_TAG: Final = f"{TAG_PREFIX}uri"
VERSION_TAG: Final = f"{TAG_PREFIX}version"
SIZE_TAG: Final = f"{TAG_PREFIX}bytes"
FILE_TAG: Final = f"{TAG_PREFIX}directory_file"
"""The file of the user's own directory that a file of ours refers to."""

log = logging.getLogger(__name__)

_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class SourceFile:
    """
    One file that a job works on.

    :param unique_id: What it is called in our directory: the same on every try while the file stays the same, so that
        a file which is there already is not sent again.
    :param name: Shown to people, and where the service reads the file's type from.
    :param metadata: Ours and the user's.
    :param uri: Where to upload it from; or
    :param file_id: the file at the service that it refers to.
    """

    unique_id: str
    name: str
    metadata: Mapping[str, MetadataValue] = field(repr=False)
    uri: str | None = None
    file_id: str | None = None


def digest(files: Iterable[SourceFile]) -> str:
    """Return what changes when a file is added, taken away or changed."""
    return hashlib.sha256("\n".join(file.unique_id for file in files).encode()).hexdigest()


def stored_files(
    patterns: Sequence[str],
    storage: Storage,
    *,
    job_type: JobType,
    limits: Limits,
    metadata: Mapping[str, MetadataValue],
) -> list[SourceFile]:
    """
    Find the files of a disk or an object store, sorted by address.

    :raises SpecError: nothing matches a pattern, or a file is empty or larger than the service takes; each is named.
    """
    found: dict[str, StoredFile] = {}
    for pattern in patterns:
        listing = storage.list_files(pattern)
        if not listing.files:
            raise SpecError(
                f"No file matches {pattern!r}; check the address and the connection's rights. {listing.remark}".rstrip()
            )
        if listing.ignored:
            log.info("%s: %s", pattern, listing.remark)
        found |= {file.uri: file for file in listing.files}
    largest = limits.file_bytes(job_type)
    bad = [
        f"{file.uri} is empty" if not file.size else f"{file.uri} has {file.size:,} bytes"
        for file in found.values()
        if file.size is not None and not 0 < file.size <= largest
    ]
    if bad:
        more = f", and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise SpecError(
            f"{len(bad)} of {len(found)} files cannot be sent: {'; '.join(bad[:_NAMED])}{more}. {job_type} takes files "
            f"of 1 to {largest:,} bytes; leave these out of the sources. Nothing was submitted."
        )
    return [_stored(file, metadata) for _, file in sorted(found.items())]


def directory_files(
    directory_id: str, *, limits: Limits, metadata: Mapping[str, MetadataValue]
) -> Flow[list[SourceFile]]:
    """
    Find the files of a directory at the service, sorted by id.

    :raises SpecError: there are none, or one has no content yet.
    :raises NotFoundError: there is no such directory.
    """
    listed = yield from list_all(get_files_path(directory_id), {})
    if not listed:
        raise SpecError(f"The directory {directory_id} has no files. Nothing was submitted.")
    if len(listed) > limits.files_per_batch * limits.batches:
        raise too_many(len(listed), limits)
    unready = [str(file.get("display_name")) for file in listed if not file.get("file_id")]
    if unready:
        raise SpecError(
            f"{len(unready)} files of the directory {directory_id} have no content yet "
            f"({', '.join(unready[:_NAMED])}); submit once it is synced. Nothing was submitted."
        )
    return [_referred(file, metadata) for file in sorted(listed, key=lambda file: str(file["id"]))]


def too_many(count: int, limits: Limits) -> SpecError:
    """Return the refusal of more files than one job may have."""
    most = limits.files_per_batch * limits.batches
    return SpecError(
        f"{count:,} files are more than the {most:,} of one job ({limits.batches} batches). Give the task fewer at a "
        "time, for example by mapping it over prefixes. Nothing was submitted."
    )


def _stored(file: StoredFile, metadata: Mapping[str, MetadataValue]) -> SourceFile:
    version = file.version or None
    ours: dict[str, MetadataValue] = {URI_TAG: file.uri, SIZE_TAG: file.size, VERSION_TAG: version}
    return SourceFile(_identity(file.uri, file.size, version), basename(file.uri), {**metadata, **ours}, uri=file.uri)


def _referred(file: Mapping[str, Any], metadata: Mapping[str, MetadataValue]) -> SourceFile:
    there = file.get("metadata")
    own = (
        {key: value for key, value in there.items() if not key.startswith(TAG_PREFIX)}
        if isinstance(there, dict)
        else {}
    )
    file_id, name = str(file["file_id"]), str(file.get("display_name") or file["id"])
    ours: dict[str, MetadataValue] = {FILE_TAG: str(file["id"])}
    return SourceFile(_identity(str(file["id"]), file_id), name, {**own, **metadata, **ours}, file_id=file_id)


def _identity(*parts: object) -> str:
    return f"overnight-{hashlib.sha256(orjson.dumps(parts)).hexdigest()[:32]}"
