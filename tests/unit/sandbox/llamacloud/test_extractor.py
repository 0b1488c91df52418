from __future__ import annotations

from typing import Any

import pytest

from overnight.sandbox.llamacloud.extractor import describe_fields, extract

TEXT = """# Invoice of the month

Invoice number: 4711
**Total amount:** 1,234.50 EUR
Paid = yes
Issued: on 2026-11-23, a Monday
Status: it is OPEN for now
Tags: red, green; blue
Items:
- one thing
- another thing

Seller name: The Seller
"""


def one(name: str, schema: dict[str, Any]) -> Any:
    return extract(TEXT, {"type": "object", "properties": {name: schema}})[name]


@pytest.mark.parametrize(
    ("name", "schema", "value"),
    [
        ("invoice_number", {"type": "integer"}, 4711),
        ("invoice_number", {"type": "string"}, "4711"),
        ("invoiceNo", {"type": "integer", "title": "Invoice number"}, 4711),
        ("total_amount", {"type": "number"}, 1234.5),
        ("paid", {"type": "boolean"}, True),
        ("issued", {"type": "string", "format": "date"}, "2026-11-23"),
        ("status", {"type": "string", "enum": ["closed", "open"]}, "open"),
        ("tags", {"type": "array", "items": {"type": "string"}}, ["red", "green", "blue"]),
        ("items", {"type": "array", "items": {"type": "string"}}, ["one thing", "another thing"]),
        ("title", {"type": "string"}, "Invoice of the month"),
        (
            "seller",
            {"type": "object", "properties": {"seller_name": {"type": "string"}}},
            {"seller_name": "The Seller"},
        ),
        ("paid", {"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
        ("paid", {"type": ["null", "boolean"]}, True),
        ("absent", {"type": "string"}, None),
        ("absent", {"type": "array", "items": {"type": "string"}}, None),
        ("status", {"type": "integer"}, None),
        ("status", {"type": "boolean"}, None),
    ],
)
def test_a_field_is_read_where_the_text_names_it(name: str, schema: dict[str, Any], value: Any) -> None:
    assert one(name, schema) == value


def test_a_word_in_the_middle_of_a_line_is_no_label() -> None:
    assert extract("the number of it: 5", {"properties": {"number": {"type": "integer"}}}) == {"number": None}


def test_a_citation_is_the_line_and_a_confidence_is_the_same_every_time() -> None:
    schema = {
        "properties": {
            "total_amount": {"type": "number"},
            "title": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "seller": {"type": "object", "properties": {"seller_name": {"type": "string"}}},
            "absent": {"type": "string"},
        }
    }
    pages = [(1, "# A letter"), (3, TEXT)]
    found = extract("\n".join(text for _, text in pages), schema)
    described = describe_fields(pages, found, schema, cite=True, score=True)
    assert described.keys() == found.keys() - {"absent"}
    assert described["total_amount"]["citation"] == [{"page": 3, "matching_text": "**Total amount:** 1,234.50 EUR"}]
    assert 0.8 <= described["total_amount"]["confidence"] <= 1
    assert described["title"]["citation"] == [{"page": 1, "matching_text": "A letter"}]
    assert [entry["citation"][0]["page"] for entry in described["tags"]] == [3, 3, 3]
    assert described["seller"]["seller_name"]["citation"][0]["matching_text"] == "Seller name: The Seller"
    assert described == describe_fields(pages, found, schema, cite=True, score=True)
    assert describe_fields(pages, found, schema, cite=False, score=True)["title"].keys() == {
        "confidence", "extraction_confidence", "parsing_confidence",
    }  # fmt: skip
