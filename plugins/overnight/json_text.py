"""JSON inside of a string, as chat models answer: alone, or in a code fence with words around it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from overnight.errors import shorten

JsonBytes: TypeAlias = bytes | msgspec.Raw

MAX_QUOTED: Final = 200
"""Characters of a text that an error quotes."""

_text = msgspec.json.Decoder(str)
_any = msgspec.json.Decoder(msgspec.Raw)
# A fence ends at one that begins or ends a line, or with the text: inside of a JSON string there is no line's end.
_FENCED: Final = re.compile(r"```[\w+.-]*\s(.*?)(?:^[ \t]*```|```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


class InvalidJsonTextError(ValueError):
    """A text is no JSON; the message says where, and quotes its beginning."""


def read_json_text(value: JsonBytes) -> bytes:
    """
    Return the JSON that a JSON string holds, as it is written there, on one line.

    The text is the JSON itself, or has it in a code fence (the first one whose content is JSON). A value that is no
    string is returned as it is: some servers answer with the object instead of its text.

    :raises InvalidJsonTextError: the text holds no JSON.
    """
    raw = bytes(value)
    if raw[:1] != b'"':
        return raw
    text = _decode(raw)
    whole = text.strip().encode()
    fault = _find_fault(whole)
    if fault is None:
        return _on_one_line(whole)
    for candidate in _find_fenced(text):
        if _find_fault(candidate) is None:
            return _on_one_line(candidate)
    raise InvalidJsonTextError(f"no JSON ({fault}): {shorten(text.strip(), MAX_QUOTED)!r}")


def read_plain_text(raw: bytes) -> bytes | None:
    """
    Return the content of a JSON string where it is one line, which most models' answers are: JSON and nothing else.

    Whoever parses it finds out whether it is, and asks :func:`read_json_text` where it is not.

    :return: ``None`` for a text of several lines.
    :raises InvalidJsonTextError: it is no string in UTF-8.
    """
    text = _decode(raw).strip().encode()
    return None if b"\n" in text or b"\r" in text else text


def _decode(raw: bytes) -> str:
    try:
        return _text.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJsonTextError(f"no text: {error}") from None


def _find_fenced(text: str) -> Iterator[bytes]:
    for match in _FENCED.finditer(text):
        yield match[1].strip().encode()


def _find_fault(text: bytes) -> str | None:
    try:
        _any.decode(text)
    except msgspec.DecodeError as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return None


def _on_one_line(text: bytes) -> bytes:
    # Line breaks are white space here: inside of strings JSON has them escaped. In a bulk body they would end the
    # document.
    return text.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in text or b"\r" in text else text
