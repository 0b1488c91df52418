"""
The requests and answers in the pages of ``tests/seeds``, read out of their text.

A page has them as an HTTP request line with a JSON body below it, as a ``curl`` command, or as JSON alone.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("seeds")
_LINE = re.compile(r"^(GET|POST|PUT|DELETE) (/\S+|https?://\S+)$", re.MULTILINE)
_CURL = re.compile(r"^curl .*?-d '[^']*'", re.MULTILINE | re.DOTALL)
_OBJECT = re.compile(r"^\{$", re.MULTILINE)


@dataclass(frozen=True)
class Request:
    """One request of a page; its body is the page's own text."""

    method: str
    target: str
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """Return the decoded body."""
        assert self.body is not None, f"{self.method} {self.target} has no body"
        return json.loads(self.body)


def read_page(number: str) -> str:
    """Return the text of the page with a number, such as ``000``."""
    (path,) = FOLDER.glob(f"{number}_*.txt")
    return path.read_text(encoding="utf-8")


def requests(page: str) -> list[Request]:
    """Return the requests that a page shows as a request line, with the JSON object below it where there is one."""
    found = []
    for match in _LINE.finditer(page):
        rest = page[match.end() :].lstrip()
        body = rest[: json.JSONDecoder().raw_decode(rest)[1]] if rest.startswith("{") else None
        found.append(Request(match[1], match[2], body))
    return found


def curls(page: str, environment: Mapping[str, str]) -> list[Request]:
    """Return the requests that a page shows as ``curl`` commands, with their variables filled in."""
    found = []
    for match in _CURL.finditer(page):
        method, target, body, headers = "POST", "", None, {}
        words = iter(shlex.split(match[0].replace("\\\n", " "))[1:])
        for word in words:
            if word == "-X":
                method = next(words)
            elif word == "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = re.sub(r"\$(\w+)", lambda variable: environment[variable[1]], value)
            elif word == "-d":
                body = next(words)
            else:
                target = word
        found.append(Request(method, target, body, headers))
    return found


def answers(page: str) -> list[Any]:
    """Return the JSON objects that stand in a page without a request line above them."""
    bodies = {request.body for request in requests(page)}
    found = []
    for match in _OBJECT.finditer(page):
        text = page[match.start() :]
        value, end = json.JSONDecoder().raw_decode(text)
        if text[:end] not in bodies:
            found.append(value)
    return found


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return a text with its placeholders (``<your …>``) filled in, as the page asks its reader to."""
    for name, value in values.items():
        assert name in text, f"the page has no {name}"
        text = text.replace(name, value)
    assert "<your" not in text
    return text
