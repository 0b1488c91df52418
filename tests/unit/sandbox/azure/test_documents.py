from __future__ import annotations

import re
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfWriter

from overnight.sandbox.azure.documents import read_document, split_text
from overnight.sandbox.documents import UnreadableError

TOKEN = re.compile(r"\w+|[^\w\s]")


@given(st.text(), st.integers(1, 20))
def test_chunks_hold_every_token_once_and_no_more_than_asked(text: str, size: int) -> None:
    chunks = list(split_text(text, size))
    assert [token for chunk in chunks for token in TOKEN.findall(chunk)] == TOKEN.findall(text)
    assert all(len(TOKEN.findall(chunk)) == size for chunk in chunks[:-1])
    assert all(chunk in text for chunk in chunks)


def test_html_is_read_as_its_text() -> None:
    page = b"<html><head><style>p{}</style></head><body><h1>Title</h1><p>One <a href='x'>two</a></p></body></html>"
    title, text = read_document("a.HTML", page)
    assert text.split() == ["Title", "One", "two"]
    assert title == "Title"


def test_markdown_and_plain_text_are_read_as_they_are() -> None:
    assert read_document("a.md", b"\xef\xbb\xbf# \xc3\x9cber\n\nuns") == ("Über", "Über\n\nuns")
    assert read_document("deep/a.txt", b"# no heading") == ("a.txt", "# no heading")


def test_a_pdf_is_read(one_page_pdf: bytes) -> None:
    assert "searchable by morning" in read_document("a.pdf", one_page_pdf).text


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.docx", b"x", "not supported"),
        ("a", b"x", "not supported"),
        ("a.txt", b"\x00\x01\x02", "nsupported"),
        ("a.md", b" \n", "no text"),
        ("a.pdf", b"no pdf", "PDF cannot be read"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, content: bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        read_document(name, content)


def test_a_pdf_without_text_has_none() -> None:
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    written = BytesIO()
    writer.write(written)
    with pytest.raises(UnreadableError, match="no text"):
        read_document("a.pdf", written.getvalue())


@pytest.fixture
def one_page_pdf() -> bytes:
    content = b"BT /F1 12 Tf 10 50 Td (searchable by morning) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 4 0 R /Resources 6 0 R >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Font << /F1 5 0 R >> >>",
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer << /Size 7 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % len(body)
    return body + b"xref\n0 7\n0000000000 65535 f \n" + table + trailer
