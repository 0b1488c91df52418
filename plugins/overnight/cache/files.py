"""The files of a cache: immutable Parquet, each put whole under a name of its own, and checked when it is read."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as arrow
from pyarrow import parquet

from overnight.cache.digests import DIGEST_BYTES
from overnight.errors import OvernightError
from overnight.storage import Storage, redact
from overnight.storage_errors import MissingFileError

FORMAT: Final = "v1"
"""The format of everything below the folder of this name. Another format has another folder, and reads nothing here."""
SUFFIX: Final = ".parquet"
MARK: Final = ".unneeded"
"""Behind the name of a file in which nothing is looked up any more. It is written beside the file."""
DIGEST: Final = arrow.binary(DIGEST_BYTES)


class DamagedCacheError(OvernightError):
    """A file of a cache is not what was written; nothing was taken from it."""


def make_name() -> str:
    """Return a new file's name, which no other writer has; names sort by the time they were made."""
    return f"{time.time_ns():020d}-{secrets.token_hex(6)}"


def get_time(name: str) -> int:
    """Return when a file's name was made, in milliseconds since 1970."""
    return int(name.partition("-")[0]) // 1_000_000


class Files:
    """
    The files of one folder of a cache, by name.

    :param uri: The folder.
    :param schema: What each of its files has: the footer that says it has no checksum.
    """

    def __init__(self, storage: Storage, uri: str, schema: arrow.Schema) -> None:
        self._storage = storage
        self._uri = uri.rstrip("/")
        self._schema = schema

    def list_names(self) -> list[str]:
        """Return the names of the files that are there, the oldest first; those that are marked as unneeded not."""
        try:
            listing = self._storage.list_files(f"{self._uri}/*")
        except MissingFileError:
            return []
        found = [file.uri.rpartition("/")[2] for file in listing.files]
        marked = {name.removesuffix(MARK) for name in found if name.endswith(MARK)}
        names = [name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX)]
        return [name for name in names if name not in marked]

    def build_uri(self, name: str) -> str:
        """Return the address of a file."""
        return f"{self._uri}/{name}{SUFFIX}"

    def put(self, name: str, data: arrow.Buffer) -> None:
        """Write a file, which is there with all its bytes or not at all."""
        self._storage.put(self.build_uri(name), data.to_pybytes())

    def mark(self, name: str) -> None:
        """Mark a file as unneeded: :meth:`list_names` leaves it out, and who knows its name can still open it."""
        self._storage.put(f"{self._uri}/{name}{MARK}", b"{}")

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        self._storage.delete(self.build_uri(name))

    def delete_marked(self, name: str) -> None:
        """Delete a file that is marked, and then its mark: a file that is there is never without the mark it had."""
        self.delete(name)
        self._storage.delete(f"{self._uri}/{name}{MARK}")

    @contextmanager
    def open(self, name: str) -> Iterator[parquet.ParquetFile]:
        """
        Open a file; the checksum of each of its pages is checked when it is read.

        :raises MissingFileError: it is not there (any more).
        :raises DamagedCacheError: it is something else than what was written; also while it is read.
        """
        uri = self.build_uri(name)
        try:
            with self._storage.open(uri) as file:
                found = parquet.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)
                if not found.schema_arrow.equals(self._schema, check_metadata=False):
                    raise arrow.ArrowInvalid(f"its columns are {found.schema_arrow.names}")
                yield found
        except MissingFileError:
            raise
        except (arrow.ArrowException, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DamagedCacheError(
                f"{redact(uri)} is damaged ({error}), so no answer was taken from the cache. Delete that file; what it "
                "held is paid for again by the next run."
            ) from error


def open_writer(
    sink: arrow.BufferOutputStream, schema: arrow.Schema, *, compress: tuple[str, ...] = ()
) -> parquet.ParquetWriter:
    """
    Return a writer of a cache's file.

    :param compress: The columns that are compressed; digests cannot be.
    """
    return parquet.ParquetWriter(
        sink,
        schema,
        compression={name: "zstd" if name in compress else "none" for name in schema.names},
        use_dictionary=["file"] if "file" in schema.names else False,
        write_page_checksum=True,
        write_statistics=False,
    )
