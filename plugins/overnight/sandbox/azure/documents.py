"""From a file to chunks of its text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from overnight.sandbox.documents import UnreadableError, parse

READABLE: Final = (".txt", ".md", ".html", ".htm", ".pdf")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


class Document(NamedTuple):
    """
    The words of a file.

    :param title: The first heading, or the file's name.
    """

    title: str
    text: str


def read_document(name: str, content: bytes) -> Document:
    """
    Return a document's words.

    :param name: Its suffix says what it is.
    :raises UnreadableError: It is of no readable kind, or damaged, or empty.
    """
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if suffix not in READABLE:
        raise UnreadableError(f"the format is not supported (here: {', '.join(READABLE)})")
    pages = parse(name, content)
    text = "\n\n".join(page.text for page in pages).strip()
    if not text:
        raise UnreadableError("it has no text")
    heading = None if suffix == ".txt" else _HEADING.search("\n\n".join(page.markdown for page in pages))
    return Document(heading[1] if heading is not None else path.name, text)


def split_text(text: str, size: int) -> Iterator[str]:
    """
    Yield a text in pieces of at most ``size`` tokens.

    A word or a punctuation mark is a token here; the service's own tokens are somewhat shorter.
    """
    spans = [found.span() for found in _TOKEN.finditer(text)]
    for first in range(0, len(spans), size):
        last = min(first + size, len(spans)) - 1
        yield text[spans[first][0] : spans[last][1]]
