"""Lock files: the artifacts that a node of one version is made of, by coordinate, size and hash."""

from __future__ import annotations

import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import msgspec

from overnight.sandbox.cache import cache_dir
from overnight.sandbox.download import Pin
from overnight.sandbox.errors import SandboxError
from overnight.sandbox.maven import repository_path

ML_PLUGIN = "plugins/opensearch-ml-plugin"

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
_Folder = Annotated[str, msgspec.Meta(pattern=r"^(lib|(modules|plugins)/[a-z0-9][a-z0-9-]*)$")]


class Artifact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    One file of a node.

    :param to: The node's folders that it belongs into; a plugin's zip is unpacked there.
    :param size: In bytes.
    """

    group: _Name
    artifact: _Name
    version: _Name
    extension: Annotated[str, msgspec.Meta(pattern=r"^(jar|zip)$")]
    to: Annotated[tuple[_Folder, ...], msgspec.Meta(min_length=1)]
    size: Annotated[int, msgspec.Meta(gt=0)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]

    @property
    def pin(self) -> Pin:
        """What to download, and what it must turn out to be."""
        path = repository_path(self.group, self.artifact, self.version, self.extension)
        return Pin(path, self.size, self.sha256)


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Everything a node of one version is made of.

    :param opensearch: The version.
    """

    opensearch: _Name
    artifacts: tuple[Artifact, ...]

    def select(self, *, ml_commons: bool) -> tuple[Artifact, ...]:
        """Return the artifacts of a node with or without ML Commons, which is five sixths of the bytes."""
        if ml_commons:
            return self.artifacts
        return tuple(artifact for artifact in self.artifacts if artifact.to != (ML_PLUGIN,))

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.opensearch.partition(".")[0])


def parse(data: bytes) -> Lock:
    """
    Read a lock file.

    :raises SandboxError: It is not one; the text names the field.
    """
    try:
        return msgspec.json.decode(data, type=Lock)
    except msgspec.DecodeError as error:
        raise SandboxError(f"This is not a lock of an OpenSearch node: {error}") from error


def dump(lock: Lock) -> bytes:
    """Write a lock file, one artifact a line, so that a diff shows what changed."""
    lines = ",\n".join("  " + msgspec.json.encode(artifact).decode() for artifact in lock.artifacts)
    return f'{{"opensearch": "{lock.opensearch}", "artifacts": [\n{lines}\n]}}\n'.encode()


def versions() -> tuple[str, ...]:
    """Return the versions that have a lock, in the package or made on this machine, oldest first."""
    names = {entry.name for folder in (_packaged(), made_here()) if folder.is_dir() for entry in folder.iterdir()}
    found = {name.removesuffix(".json") for name in names if name.endswith(".json")}
    return tuple(sorted(found, key=lambda version: [int(number) for number in re.findall(r"\d+", version)]))


def load(version: str) -> Lock:
    """
    Return the lock of a version; the package's own comes before one made on this machine.

    :raises SandboxError: There is none.
    """
    if version not in versions():
        raise SandboxError(
            f"The sandbox has no OpenSearch {version}; it has {', '.join(versions())}. "
            f"Add it with  overnight sandbox lock {version}"
        )
    file = _packaged().joinpath(f"{version}.json")
    if not file.is_file():
        file = made_here() / f"{version}.json"
    return parse(file.read_bytes())


def made_here() -> Path:
    """Return the folder of the locks that ``overnight sandbox lock`` made on this machine."""
    return cache_dir() / "locks"


def _packaged() -> Traversable:
    return resources.files(__package__).joinpath("locks")
