from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from overnight.sandbox.documents import PAGE_CHARS, Page, UnreadableError, parse


def pdf(*texts: str) -> bytes:
    """A PDF of one page a text, made by hand: pypdf writes pages, not words."""
    writer = PdfWriter()
    for text in texts:
        page = writer.add_blank_page(width=300, height=100)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 10 50 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    kept = io.BytesIO()
    writer.write(kept)
    return kept.getvalue()


def test_the_words_of_a_pdf_are_read_page_by_page() -> None:
    pages = parse("report.pdf", pdf("Hello from page one", "and page two"))
    assert [page.text.strip() for page in pages] == ["Hello from page one", "and page two"]


def test_html_becomes_markdown_and_its_words_alone_text() -> None:
    (page,) = parse("a.html", b"<h1>Title</h1><p>A <a href='http://x'>link</a> &amp; more</p><script>no()</script>")
    assert page.markdown == "# Title\n\nA [link](http://x) & more"
    assert page.text == "Title\n\nA link & more"


def test_markdown_is_kept_and_loses_its_marks_as_text() -> None:
    (page,) = parse("a.md", b"## Head\n\nSome **bold** words and [a link](http://x).\n")
    assert page.markdown == "## Head\n\nSome **bold** words and [a link](http://x)."
    assert page.text == "Head\n\nSome bold words and a link."


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("LICENSE", b"Permission is granted", "Permission is granted"),
        ("utf8.txt", "\ufeffä€".encode(), "ä€"),
        ("utf16.txt", "ä€".encode("utf-16"), "ä€"),
        ("latin.txt", "ä".encode("latin-1"), "ä"),
    ],
)
def test_text_is_text_whatever_its_encoding(name: str, content: bytes, text: str) -> None:
    assert parse(name, content) == [Page(text=text, markdown=text)]


@pytest.mark.parametrize(
    ("name", "content"), [("a.docx", b"PK\x03\x04\0\0"), ("a.pdf", b"no PDF at all"), ("a.pdf", b"%PDF-1.7 cut")]
)
def test_what_cannot_be_read_is_refused(name: str, content: bytes) -> None:
    with pytest.raises(UnreadableError):
        parse(name, content)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=300), max_size=200))
def test_pages_lose_nothing_of_a_text(lines: list[str]) -> None:
    text = "\n".join(lines)
    pages = parse("a.txt", text.encode())
    assert "".join("".join(page.text.split()) for page in pages) == "".join(text.split())
    assert all(len(page.text) <= PAGE_CHARS for page in pages)


def test_form_feeds_are_pages() -> None:
    assert [page.text for page in parse("a.txt", b"one\ftwo\fthree\ffour")] == ["one", "two", "three", "four"]
