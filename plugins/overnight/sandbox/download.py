"""Downloads that end as exactly the bytes that were asked for, or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

from overnight.sandbox.cache import exclusive
from overnight.sandbox.errors import ChecksumError, DownloadError
from overnight.sandbox.maven import Repository

ATTEMPTS = 5
STREAMS = 8

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Pin:
    """
    One file, known before it is downloaded.

    :param path: Below the repository, and below the cache folder.
    :param size: In bytes.
    :param sha256: Hexadecimal, lower case.
    """

    path: str
    size: int
    sha256: str

    def matches(self, file: Path) -> bool:
        """Whether a file is there and holds the pinned bytes."""
        return file.is_file() and file.stat().st_size == self.size and _sha256(file) == self.sha256


class _InterruptedError(Exception):
    """The bytes stopped coming; what came is kept, and another attempt goes on behind it."""


def fetch(
    pins: Iterable[Pin],
    folder: Path,
    repository: Repository,
    *,
    console: Console | None = None,
    label: str = "Downloading",
    transport: httpx.BaseTransport | None = None,
) -> int:
    """
    Have every pinned file below ``folder``, downloading those that are missing or are not what their pin says.

    Files appear under their names only when they are whole and right; an interrupted download is taken up where it
    stopped. Processes that share the folder wait for each other.

    :param console: Where progress goes: a bar on a terminal, plain lines elsewhere. Nowhere when ``None``.
    :return: How many bytes were downloaded.
    :raises ChecksumError: The repository's bytes, fetched twice, are not the pinned ones.
    :raises DownloadError: The repository does not have a file or cannot be reached.
    """
    with exclusive(folder / ".lock"):
        missing = [pin for pin in dict.fromkeys(pins) if not pin.matches(folder / pin.path)]
        if not missing:
            return 0
        # Largest first: the long ones do not begin when all else is done.
        missing.sort(key=lambda pin: pin.size, reverse=True)
        counter = _Counter()
        cancelled = threading.Event()
        with (
            _Report(console, label, len(missing), sum(pin.size for pin in missing)) as report,
            httpx.Client(
                base_url=repository.url + "/",
                auth=repository.auth,
                timeout=httpx.Timeout(60.0, connect=10.0),
                follow_redirects=True,
                transport=transport,
                # A repository's file is the bytes as they are: a transfer encoding would break Range and sizes.
                headers={"Accept-Encoding": "identity"},
            ) as client,
            ThreadPoolExecutor(STREAMS) as pool,
        ):

            def advance(count: int) -> None:
                if cancelled.is_set():
                    raise DownloadError("Another download failed first.")
                counter.add(count)
                report.advance(count)

            futures = [pool.submit(_fetch_one, client, repository.host, pin, folder, advance) for pin in missing]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                # Ctrl-C too: the other streams end with their next chunk, not with their file.
                cancelled.set()
                pool.shutdown(cancel_futures=True)
                raise
        return counter.total


def _fetch_one(client: httpx.Client, host: str, pin: Pin, folder: Path, advance: Advance) -> None:
    target = folder / pin.path
    target.parent.mkdir(parents=True, exist_ok=True)
    # The hash in the name: what is left of another version of the file is not taken up.
    part = target.with_name(f".{target.name}.{pin.sha256[:12]}.part")
    for _ in range(2):
        _download(client, host, pin, part, advance)
        if pin.matches(part):
            part.replace(target)
            return
        got = f"{part.stat().st_size} bytes, sha256 {_sha256(part)}"
        part.unlink()
    raise ChecksumError(
        f"{host} serves {pin.path} as {got}; the lock says {pin.size} bytes, sha256 {pin.sha256}. "
        "Nothing was kept. Ask whoever runs the repository, or try another one (a mirror in ~/.m2/settings.xml)."
    )


def _download(client: httpx.Client, host: str, pin: Pin, part: Path, advance: Advance) -> None:
    retrying = Retrying(
        retry=retry_if_exception_type((_InterruptedError, httpx.TransportError)),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(multiplier=0.2, max=10.0) + wait_random(0.0, 0.2),
        reraise=True,
    )
    try:
        retrying(_download_once, client, host, pin, part, advance)
    except (_InterruptedError, httpx.TransportError) as error:
        raise DownloadError(
            f"{host} did not deliver {pin.path} in {ATTEMPTS} attempts ({type(error).__name__}: {error}). "
            "What came is kept: run it again when the network is back."
        ) from error


def _download_once(client: httpx.Client, host: str, pin: Pin, part: Path, advance: Advance) -> None:
    start = part.stat().st_size if part.exists() else 0
    if start >= pin.size:
        # Whole already, or too long; which of the two, its hash says.
        return
    with client.stream("GET", pin.path, headers={"Range": f"bytes={start}-"} if start else {}) as response:
        status = response.status_code
        if status == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            raise _InterruptedError(f"status {status}")
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise _InterruptedError("the file is shorter there than what was kept of it")
        if response.is_error:
            raise DownloadError(
                f"{host} answered {status} for {pin.path}: is it a mirror of Maven Central, and are its credentials "
                "in ~/.m2/settings.xml right?"
            )
        resumed = status == httpx.codes.PARTIAL_CONTENT and _range_start(response) == start
        if status == httpx.codes.PARTIAL_CONTENT and not resumed:
            part.unlink()
            raise _InterruptedError("another range came than was asked for")
        received = start if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            # As it comes: what a buffer held would be lost with the connection.
            for chunk in response.iter_raw():
                received += len(chunk)
                if received > pin.size:
                    # Whatever this is, it is not the pinned file, and need not fill the disk.
                    file.write(chunk)
                    return
                file.write(chunk)
                advance(len(chunk))
    if received < pin.size:
        raise _InterruptedError(f"{received} of {pin.size} bytes came")


def _range_start(response: httpx.Response) -> int | None:
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdecimal() else None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Counter:
    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.total += count


class _Report:
    """Progress for people who watch, and two lines for logs."""

    def __init__(self, console: Console | None, label: str, files: int, size: int) -> None:
        self._console = console
        self._line = f"{label}: {files} files, {decimal(size)}"
        self._progress: Progress | None = None
        if console is not None and console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                console=console,
                transient=True,
            )
            self._task = self._progress.add_task(label, total=size)

    def __enter__(self) -> Self:
        if self._console is not None:
            self._console.print(self._line, highlight=False)
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self, count: int) -> None:
        if self._progress is not None:
            self._progress.advance(self._task, count)
