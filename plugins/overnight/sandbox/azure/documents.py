"""From a file to chunks of its text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import PurePosixPath
from typing import Final

import html2text
from pypdf import PdfReader
from pypdf.errors import PyPdfError

READABLE: Final = (".txt", ".md", ".html", ".htm", ".pdf")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


class UnreadableError(Exception):
    """A file has no text that the emulator can get at."""


def text_of(name: str, content: bytes) -> str:
    """
    Return the text of a document.

    :param name: Its suffix says what it is.
    :raises UnreadableError: It is of no readable kind, or damaged, or empty.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in READABLE:
        raise UnreadableError(f"the format is not supported (here: {', '.join(READABLE)})")
    try:
        text = _pdf(content) if suffix == ".pdf" else content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError("it is not UTF-8 text") from error
    if suffix in (".html", ".htm"):
        converter = html2text.HTML2Text(bodywidth=0)
        converter.ignore_links = converter.ignore_images = True
        text = converter.handle(text)
    if not text.strip():
        raise UnreadableError("it has no text")
    return text


def title_of(name: str, text: str) -> str:
    """Return the first heading of a text, or the file's name."""
    heading = _HEADING.search(text) if PurePosixPath(name).suffix.lower() != ".txt" else None
    return heading[1] if heading is not None else PurePosixPath(name).name


def chunks_of(text: str, size: int) -> Iterator[str]:
    """
    Yield a text in pieces of at most ``size`` tokens.

    A word or a punctuation mark is a token here; the service's own tokens are somewhat shorter.
    """
    spans = [found.span() for found in _TOKEN.finditer(text)]
    for first in range(0, len(spans), size):
        last = min(first + size, len(spans)) - 1
        yield text[spans[first][0] : spans[last][1]]


def _pdf(content: bytes) -> str:
    try:
        return "\n\n".join(page.extract_text() for page in PdfReader(BytesIO(content)).pages)
    except (PyPdfError, ValueError, KeyError) as error:
        raise UnreadableError("it is not a PDF, or a damaged one") from error
