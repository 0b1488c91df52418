"""A node's folder, put together from the artifacts of a lock."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path, PurePosixPath

from rich.console import Console

from overnight.sandbox.cache import cache_dir
from overnight.sandbox.download import fetch
from overnight.sandbox.errors import SandboxError
from overnight.sandbox.maven import central
from overnight.sandbox.opensearch.access import open_up
from overnight.sandbox.opensearch.lock import Artifact, Lock, dump
from overnight.sandbox.opensearch.modules import modules

# The node wants bin/ to exist, and nothing in it.
PARTS = ("bin", "lib", "modules", "plugins")
STAMP = ".assembled"


def assemble(lock: Lock, home: Path, *, ml_commons: bool, console: Console | None = None) -> int:
    """
    Have ``lib/``, ``modules/`` and ``plugins/`` of a node below ``home``; what is there and right is left alone.

    :param console: Where download progress goes.
    :return: How many bytes were downloaded; 0 when the cache had everything.
    :raises SandboxError: A download failed, or ``home`` holds something else.
    """
    artifacts = lock.select(ml_commons=ml_commons)
    stamp = hashlib.sha256(dump(lock) + b"ml-commons" * ml_commons + repr(modules(lock.major)).encode())
    if (home / STAMP).is_file() and (home / STAMP).read_text() == stamp.hexdigest():
        return 0
    if home.is_dir() and not (home / STAMP).is_file() and any((home / part).exists() for part in PARTS):
        raise SandboxError(f"{home} holds an unfinished node or something else: delete it or choose another folder.")
    cache = cache_dir() / "maven"
    label = f"Downloading OpenSearch {lock.opensearch}"
    downloaded = fetch((artifact.pin for artifact in artifacts), cache, central(), console=console, label=label)
    home.mkdir(parents=True, exist_ok=True)
    (home / STAMP).write_text("unfinished")
    for part in PARTS:
        shutil.rmtree(home / part, ignore_errors=True)
        (home / part).mkdir()
    for artifact in artifacts:
        for name in artifact.to:
            _place(artifact, cache, home / name)
    for module in modules(lock.major):
        folder = home / "modules" / module.name
        _write(folder / "plugin-descriptor.properties", module.descriptor(lock.opensearch))
        policy = module.policy()
        if policy is not None:
            _write(folder / "plugin-security.policy", policy)
    for part in PARTS:
        open_up(home / part)
    (home / STAMP).write_text(stamp.hexdigest())
    return downloaded


def _place(artifact: Artifact, cache: Path, folder: Path) -> None:
    source = cache / artifact.pin.path
    folder.mkdir(parents=True, exist_ok=True)
    if artifact.extension == "zip":
        _unpack(source, folder)
        return
    # A copy, not a link: the cache stays as it is whatever becomes of the node.
    shutil.copyfile(source, folder / source.name)


def _unpack(source: Path, folder: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            if member.is_dir() or not _wanted(path):
                continue
            if path.is_absolute() or ".." in path.parts:
                raise SandboxError(f"{source.name} wants to be unpacked outside its folder: {member.filename}")
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as stream, target.open("wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)


def _wanted(path: PurePosixPath) -> bool:
    # 304 of the ML plugin's 375 MB, for graphics cards only.
    return not path.name.startswith("onnxruntime_gpu")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
