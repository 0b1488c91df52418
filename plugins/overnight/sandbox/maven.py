"""Maven repositories as Maven's own settings name them: coordinates, mirrors and credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

# The file is the user's own, as trusted as the account that reads it.
from xml.etree import ElementTree as ET

from overnight.sandbox.errors import SandboxError

CENTRAL = "https://repo.maven.apache.org/maven2"


@dataclass(frozen=True)
class Repository:
    """
    Where artifacts come from.

    :param url: Base address, without a slash at its end.
    :param auth: User name and password, where the repository wants them.
    """

    url: str
    auth: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """The host to name in a message: never the credentials that an address can carry."""
        return urlsplit(self.url).hostname or self.url


def repository_path(group: str, artifact: str, version: str, extension: str) -> str:
    """Return an artifact's path below a repository (Maven's default layout)."""
    return f"{group.replace('.', '/')}/{artifact}/{version}/{artifact}-{version}.{extension}"


def central(
    settings: Path | None = None, environ: Mapping[str, str] = os.environ, home: Path | None = None
) -> Repository:
    """
    Return Maven Central, or the mirror that the user's Maven settings put in its place.

    :param settings: The settings file, by default ``~/.m2/settings.xml``; it need not exist. Its ``<mirrors>`` and
        ``<servers>`` are read (https://maven.apache.org/settings.html), with ``${env.NAME}`` and ``${user.home}``.
    :raises SandboxError: The file is not XML, or the mirror's password is encrypted, which only Maven can read.
    """
    home = home or Path.home()
    path = settings or home / ".m2" / "settings.xml"
    if not path.is_file():
        return Repository(CENTRAL)
    try:
        root = ET.fromstring(path.read_text("utf-8"))  # noqa: S314
    except ET.ParseError as error:
        raise SandboxError(f"Maven's settings file {path} is not XML: {error}. Mend it or move it away.") from error

    def text(element: ET.Element, tag: str) -> str:
        return _interpolate((element.findtext(f"{{*}}{tag}") or "").strip(), environ, home)

    mirrors = root.findall("{*}mirrors/{*}mirror")
    # Maven prefers a mirror that names the repository to one that has it by a pattern.
    mirrors.sort(key=lambda mirror: text(mirror, "mirrorOf") != "central")
    for mirror in mirrors:
        if _mirrors_central(text(mirror, "mirrorOf")):
            identity = text(mirror, "id")
            break
    else:
        return Repository(CENTRAL)
    url = text(mirror, "url").rstrip("/")
    for server in root.findall("{*}servers/{*}server"):
        if text(server, "id") == identity and (name := text(server, "username")):
            password = text(server, "password")
            if re.fullmatch(r"\{.+\}", password):
                raise SandboxError(
                    f"The password of server {identity!r} in {path} is encrypted, which only Maven can read: "
                    "give it as ${env.NAME} instead."
                )
            return Repository(url, (name, password))
    return Repository(url)


def _mirrors_central(pattern: str) -> bool:
    parts = {part.strip() for part in pattern.split(",")}
    return not parts.isdisjoint({"*", "central", "external:*"}) and "!central" not in parts


def _interpolate(text: str, environ: Mapping[str, str], home: Path) -> str:
    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "user.home":
            return str(home)
        return environ.get(name.removeprefix("env."), match.group(0))

    return re.sub(r"\$\{(user\.home|env\.[^}]+)\}", value, text)
