from __future__ import annotations

from typing import Any

import pytest

from overnight.sandbox.llamacloud.extractor import extract

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
