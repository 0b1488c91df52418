"""
A local replacement for Azure Blob Storage, which has no local edition among our packages.

==================================================  ======================================================
``storageConnectionString``                         documents
==================================================  ======================================================
``UseDevelopmentStorage=true``                      ``<data_dir>/blobs/<container>/``, filled through
                                                    ``PUT /_sandbox/blobs/<container>/<name>``
``BlobEndpoint=file:///folder``                     ``/folder/<container>/``
``BlobEndpoint=http://host:port;AccountName=…;      the bucket ``<container>`` of an S3 server there, with the
AccountKey=…``                                      name and the key as its credentials
``ResourceId=…``                                    as the header ``storageEndpoint`` says, which is read as a
                                                    ``BlobEndpoint``
==================================================  ======================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec import AbstractFileSystem

from overnight.sandbox.azure.errors import ApiError
from overnight.sandbox.azure.requests import connection_string

_ANY_KEY = "sandbox"


@dataclass(frozen=True)
class Container:
    """The documents of one container."""

    filesystem: AbstractFileSystem
    root: str

    def names(self) -> list[str]:
        """
        Return the documents' names, sorted.

        :raises ApiError: There is no such container, or it may not be read.
        """
        try:
            # An earlier run may have listed it.
            self.filesystem.invalidate_cache()
            if not self.filesystem.exists(self.root):
                raise ApiError("notFound", "The specified container does not exist.", target="storageContainer")
            return sorted(path[len(self.root) :].lstrip("/") for path in self.filesystem.find(self.root))
        except PermissionError as error:
            raise ApiError("forbidden", "The container may not be read.", target="storageConnectionString") from error
        except OSError as error:
            raise ApiError("fileImportFailed", "The storage account cannot be reached.", target="storage") from error

    def read(self, name: str) -> bytes:
        """Return one document."""
        content: bytes = self.filesystem.cat_file(f"{self.root}/{name}")
        return content


def open_container(headers: Mapping[str, str], blobs: Path) -> Container:
    """
    Return the container that a job's headers name.

    :param blobs: The folder of ``UseDevelopmentStorage=true``.
    :raises ApiError: The connection string leads to something that is not on this machine.
    """
    parts = connection_string(headers["storageConnectionString"])
    name = headers["storageContainer"]
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        return Container(fsspec.filesystem("file"), str(blobs / name))
    endpoint = urlsplit(headers.get("storageEndpoint", "") if "resourceid" in parts else parts.get("blobendpoint", ""))
    if endpoint.scheme == "file":
        return Container(fsspec.filesystem("file"), str(Path(unquote(endpoint.path)) / name))
    if endpoint.hostname is None or endpoint.hostname.endswith(".windows.net"):
        raise ApiError(
            "fileImportFailed",
            "The sandbox has no Azure Blob Storage. Give UseDevelopmentStorage=true, or a BlobEndpoint that is a folder"
            " (file:/…) or an S3 server.",
            target="storageConnectionString",
        )
    s3 = fsspec.filesystem(
        "s3",
        key=parts.get("accountname", _ANY_KEY),
        secret=parts.get("accountkey", _ANY_KEY),
        client_kwargs={"endpoint_url": endpoint.geturl().rstrip("/"), "region_name": "us-east-1"},
        skip_instance_cache=True,
    )
    return Container(s3, name)
