"""
Real text from real files: plain text, Markdown and HTML as they are, PDF through pypdf.

Nothing is guessed or read off images. What is not text and not PDF is refused, as a file the service cannot parse is.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import html2text
from pypdf import PdfReader
from pypdf.errors import PyPdfError

PAGE_CHARS = 8_000
"""A document without pages of its own is cut into pages of about so many characters, at line ends."""


class UnreadableError(ValueError):
    """The file cannot be parsed; the text is what the job's ``error_message`` says."""


@dataclass(frozen=True)
class Page:
    """
    One page.

    :param error: Why it has no content.
    """

    text: str = ""
    markdown: str = ""
    error: str | None = None


def parse(name: str, content: bytes) -> list[Page]:
    """
    Return the pages of a document.

    :param name: Its ending says what it is; without one, text is assumed.
    :raises UnreadableError: The file is broken, or of a kind that is not read here.
    """
    kind = PurePosixPath(name).suffix.lower()
    if kind == ".pdf" or content.startswith(b"%PDF-"):
        return _pdf(content)
    text = _decode(name, content)
    if kind in (".html", ".htm", ".xhtml"):
        return _html(text)
    if kind in (".md", ".markdown"):
        return [Page(text=_plain(part), markdown=part) for part in _pages(text)]
    return [Page(text=part, markdown=part) for part in _pages(text)]


def _pdf(content: bytes) -> list[Page]:
    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableError("The PDF is protected by a password")
        sheets = list(reader.pages)
    except (PyPdfError, ValueError, KeyError, RecursionError) as error:
        raise UnreadableError(f"The PDF cannot be read: {error}") from error
    return [_sheet(sheet) for sheet in sheets]


def _sheet(sheet: Any) -> Page:
    try:
        text = sheet.extract_text()
    except Exception as error:
        return Page(error=f"The page cannot be read: {type(error).__name__}")
    return Page(text=text, markdown=text)


def _html(text: str) -> list[Page]:
    converter = html2text.HTML2Text(bodywidth=0)
    converter.unicode_snob = True
    markdown = converter.handle(text).strip()
    return [Page(text=_plain(part), markdown=part) for part in _pages(markdown)]


def _decode(name: str, content: bytes) -> str:
    if b"\0" in content[:8192] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableError(f"Unsupported file type: {PurePosixPath(name).suffix or 'binary data'}")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _pages(text: str) -> list[str]:
    pages: list[str] = []
    for sheet in text.split("\f"):
        page: list[str] = []
        length = 0
        for line in sheet.splitlines(keepends=True):
            if page and length + len(line) > PAGE_CHARS:
                pages.append("".join(page))
                page, length = [], 0
            page.append(line)
            length += len(line)
        pages.append("".join(page))
    return [page.strip() for page in pages if page.strip()] or [""]


_MARKS = (
    (re.compile(r"^#{1,6}\s+", re.MULTILINE), ""),
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),
    (re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?m)^\s{0,3}(?:```|~~~).*$\n?"), ""),
)


def _plain(markdown: str) -> str:
    """Take the commonest marks off; a text output keeps the words."""
    for mark, instead in _MARKS:
        markdown = mark.sub(instead, markdown)
    return markdown.strip()
