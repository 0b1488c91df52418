"""Files wherever they are: one place that turns a URI and a set of filesystems into streams."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any, cast
from urllib.parse import urlsplit

import fsspec
from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Storage:
    """
    Object stores and local disks behind URIs (``s3://``, ``https://``, ``file://`` or a plain path).

    :param connectors: By protocol, what makes a filesystem with its credentials, when it is first needed (a hook makes
        it from a connection). A protocol that is not listed is opened with fsspec's defaults, which read the usual
        environment variables.
    """

    connectors: Mapping[str, Callable[[], AbstractFileSystem]] = field(default_factory=dict)
    _connected: dict[str, AbstractFileSystem] = field(default_factory=dict, init=False, repr=False, compare=False)

    def resolve(self, uri: str) -> tuple[AbstractFileSystem, str]:
        """Return the filesystem of a URI and the path on it."""
        protocol = get_scheme(uri)
        if protocol not in self.connectors:
            filesystem, path = fsspec.url_to_fs(uri)
            return filesystem, cast("str", path)
        if protocol not in self._connected:
            self._connected[protocol] = self.connectors[protocol]()
        filesystem = self._connected[protocol]
        return filesystem, cast("str", filesystem._strip_protocol(uri))

    def open(self, uri: str, mode: str = "rb", **options: Any) -> IO[Any]:
        """Open a file; the parent folder is made when writing."""
        filesystem, path = self.resolve(uri)
        if "w" in mode or "a" in mode:
            filesystem.makedirs(filesystem._parent(path), exist_ok=True)
        file = filesystem.open(path, mode, **options)
        if mode == "rb" and isinstance(file, AbstractBufferedFile):
            # fsspec's own buffer cannot read a line up to a limit.
            return io.BufferedReader(file, READ_BYTES)
        return cast("IO[Any]", file)

    def exists(self, uri: str) -> bool:
        """Whether a file or folder is there."""
        filesystem, path = self.resolve(uri)
        return bool(filesystem.exists(path))

    def size(self, uri: str) -> int | None:
        """Return a file's size in bytes, or ``None`` where the server does not say."""
        filesystem, path = self.resolve(uri)
        size = filesystem.size(path)
        return int(size) if size is not None else None

    def glob(self, pattern: str) -> Iterator[str]:
        """Yield, sorted, the URIs of the files that match a glob or lie below a prefix ending in ``/``."""
        filesystem, path = self.resolve(pattern)
        # Another process may have written there since fsspec last listed it.
        filesystem.invalidate_cache()
        found = filesystem.find(path) if pattern.endswith("/") else filesystem.glob(path)
        for name in sorted(found):
            yield str(filesystem.unstrip_protocol(name))

    def modified(self, pattern: str) -> dict[str, datetime]:
        """Return when each file of a glob or prefix was last written, by URI and sorted; a missing folder has none."""
        filesystem, path = self.resolve(pattern)
        filesystem.invalidate_cache()
        listed = filesystem.find(path, detail=True) if pattern.endswith("/") else filesystem.glob(path, detail=True)
        return {
            str(filesystem.unstrip_protocol(name)): filesystem.modified(name)
            if info.get("LastModified") is None
            else info["LastModified"]
            for name, info in sorted(listed.items())
            if info["type"] == "file"
        }

    def matching(self, pattern: str) -> list[str]:
        """Return the URIs that a glob or a prefix ending in ``/`` stands for; any other URI stands for itself."""
        if pattern.endswith("/") or any(character in pattern for character in "*?["):
            return list(self.glob(pattern))
        return [pattern]

    def delete(self, uri: str) -> None:
        """Delete one file, if it is there."""
        filesystem, path = self.resolve(uri)
        if filesystem.exists(path):
            filesystem.rm_file(path)


def get_scheme(uri: str) -> str:
    """Return a URI's scheme in lower case, ``file`` for a plain path."""
    scheme = urlsplit(uri).scheme.lower()
    # A Windows drive letter is not a scheme.
    return scheme if len(scheme) > 1 else "file"
