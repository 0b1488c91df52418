"""S3 on this machine: moto's server, in a process of its own, which can keep its objects on the disk between runs."""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from overnight.sandbox.process import LOCALHOST, Launch

if TYPE_CHECKING:
    from moto.s3.models import S3Backend

KEPT: Final = "objects.tar"
"""The file with all buckets and objects, written when the server stops."""


def launch(folder: Path, port: int, *, keep: bool = False) -> Launch:
    """
    Return how to start the server.

    Its objects live in its memory; those of more than a few MB lie in unnamed temporary files.

    :param keep: Write them to the folder when the server is stopped, and take up again what is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://{LOCALHOST}:{port}"
    kept = ("--keep", str(folder / KEPT)) if keep else ()
    return Launch(
        name="s3",
        argv=(sys.executable, "-m", "overnight.sandbox.s3", "--port", str(port), *kept),
        url=url,
        health=f"{url}/moto-api/data.json",
        cwd=folder,
        log=folder / "s3.log",
        # A request is a line of its log otherwise, and a load makes many thousands.
        environ={"MOTO_PORT": str(port), "TMPDIR": str(folder)},
    )


def save(backend: S3Backend, file: Path) -> None:
    """
    Write every bucket and the newest version of every object to a file, in place of the one before.

    :param backend: moto's.
    """
    partial = file.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:
        for bucket in backend.buckets.values():
            folder = tarfile.TarInfo(bucket.name)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            for name, key in bucket.keys.items():
                content = key.value
                entry = tarfile.TarInfo(f"{bucket.name}/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    partial.replace(file)


def restore(backend: S3Backend, file: Path, region: str = "us-east-1") -> None:
    """
    Put back what :func:`save` wrote; nothing where there is no such file.

    :param region: Of the buckets.
    """
    if not file.exists():
        return
    with tarfile.open(file) as archive:
        for entry in archive:
            bucket, _, name = entry.name.partition("/")
            content = archive.extractfile(entry)
            if content is None:
                backend.create_bucket(bucket, region)
            else:
                backend.put_object(bucket, name, content.read())


def main() -> None:
    """Serve S3 until SIGTERM or Ctrl-C."""
    from moto.core.models import DEFAULT_ACCOUNT_ID  # noqa: PLC0415 - the launcher must not import moto
    from moto.s3.models import s3_backends  # noqa: PLC0415
    from moto.server import main as serve  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", required=True)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    if arguments.keep is not None:
        restore(backend, arguments.keep)
    try:
        # It turns both signals into SystemExit.
        serve(["-H", LOCALHOST, "-p", arguments.port])
    finally:
        if arguments.keep is not None:
            save(backend, arguments.keep)


if __name__ == "__main__":
    main()
