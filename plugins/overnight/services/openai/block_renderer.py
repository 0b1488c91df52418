"""From a block of documents to their requests at once: the hot path of batch input, where templates fill in texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress, islice
from operator import add
from typing import Any, Final, NamedTuple, Self, TypeAlias

import orjson
from pydantic import JsonValue

from overnight.jsonpath import get_value, parse_plain
from overnight.rejection import RejectedError
from overnight.services.openai.endpoints import check_body, find_endpoint
from overnight.services.openai.limits import Limits
from overnight.services.openai.request_columns import Request, RequestColumns
from overnight.services.openai.scan import count_embedding_inputs, estimate_texts, estimate_tokens
from overnight.services.openai.template import RequestTemplate, check_embedding_input, split_text
from overnight.services.openai.tokens import limit_output

Column: TypeAlias = Callable[[Sequence[dict[str, Any]]], Sequence[Any]]
"""Finds what is at a path in each document; something that is no text where nothing is."""

_TEXTS: Final = ("input", "messages", "prompt", "instructions")
"""Members of a body in which one text or another changes the tokens only: not what the endpoint refuses, nor how long
the answer may be."""


class MadeRequests(NamedTuple):
    """
    The requests of some documents of a block.

    :param places: Of the documents in the block, rising.
    :param ids: Of the same documents.
    """

    places: Sequence[int] = ()
    ids: Sequence[str] = ()
    requests: RequestColumns = RequestColumns()


class _Hole(NamedTuple):
    """
    A text of a body that the document decides.

    :param member: Of the body, in which it is.
    :param paths: Of the values in it.
    :param form: The text around them, with ``%s`` for each; ``None`` when the text is one value and nothing else.
    """

    member: str
    paths: Sequence[str]
    form: str | None

    def join(self, values: Sequence[Sequence[str]]) -> Sequence[str]:
        """Return the texts, by a column for each value."""
        return values[0] if self.form is None else list(map(self.form.__mod__, zip(*values, strict=True)))


class BlockRenderer:
    """
    Makes the requests of those documents of a block in which nothing is unusual: the id, and all that the template asks
    for, are texts with something in them. Each other document, good or bad, is left to the template.

    What all requests have in common is written, checked and measured once.

    :param frame: A line with ``%b`` for the id and the text of each hole.
    :param holes: In the line's order.
    :param counted: Of each, whether its tokens are the request's.
    :param sample: What each request takes, without the tokens of its holes.
    """

    def __init__(
        self,
        frame: bytes,
        id_path: str,
        holes: Sequence[_Hole],
        *,
        counted: Sequence[bool],
        sample: Request,
        limits: Limits,
    ) -> None:
        self._frame = frame
        self._columns = [_compile_column(path) for path in (id_path, *(path for hole in holes for path in hole.paths))]
        self._holes = holes
        self._counted = counted
        self._sample = sample
        self._limits = limits

    @classmethod
    def compile(cls, template: RequestTemplate, limits: Limits) -> Self | None:
        """
        Return the renderer of a template; ``None`` when each of its requests must be looked at by itself.

        :param limits: What the service takes in one batch.
        """
        endpoint = template.endpoint
        known = find_endpoint(endpoint)
        if known is not None and known.path.startswith(("/v1/images/", "/v1/videos")):
            return None
        holes: list[_Hole] = []
        try:
            members = [_encode(name) + b":" + _encode_part(name, value, holes) for name, value in template.body.items()]
        except orjson.JSONEncodeError:
            return None
        if any(hole.member not in _TEXTS for hole in holes):
            return None
        # The names and their order are those of the template's own requests.
        frame = b'{"custom_id":%b,"method":"POST","url":' + _encode(endpoint)
        frame += b',"body":{' + b",".join(members) + b"}}\n"
        # A request with other texts in its holes is refused as this one is, and takes the same of a batch but tokens.
        body = orjson.loads(frame % ((b'"x"',) * (1 + len(holes))))["body"]
        inputs = 0
        if endpoint.endswith("/embeddings"):
            inputs = count_embedding_inputs(body)
            try:
                check_embedding_input(body.get("input"))
            except RejectedError:
                return None
        if inputs > limits.embedding_inputs or any(check_body(endpoint, body, limits)):
            return None
        # As in estimate_tokens, which says 1 of the one character in a hole.
        asked = next((name for name in ("input", "messages", "prompt") if body.get(name)), "")
        counted = [hole.member in ("instructions", asked) for hole in holes]
        tokens = estimate_tokens(body) - sum(counted)
        sample = Request(b"", inputs, tokens, tokens, limit_output(body, endpoint))
        return cls(frame, template.id_path, holes, counted=counted, sample=sample, limits=limits)

    def render(self, lines: Sequence[bytes]) -> MadeRequests:
        """Return the requests of the documents in which nothing is unusual, by their lines."""
        places, documents = _parse(lines)
        columns = [column(documents) for column in self._columns]
        longest = self._limits.custom_id_chars
        if not all(map(_are_usual, columns)) or max(map(len, columns[0]), default=0) > longest:
            usual = [all(map(_is_usual, row)) and len(row[0]) <= longest for row in zip(*columns, strict=True)]
            places = list(compress(places, usual))
            columns = [list(compress(column, usual)) for column in columns]
        ids, values = columns[0], iter(columns[1:])
        texts = [hole.join(list(islice(values, len(hole.paths)))) for hole in self._holes]
        encoded = [map(orjson.dumps, column) for column in (ids, *texts)]
        made = list(map(self._frame.__mod__, zip(*encoded, strict=True)))
        # Such lines are for small limits: what is too much is said of each by itself.
        if max(map(len, made), default=0) > self._limits.bytes:
            return MadeRequests()
        return MadeRequests(places, ids, self._measure(made, texts))

    def _measure(self, lines: Sequence[bytes], texts: Sequence[Sequence[str]]) -> RequestColumns:
        count, sample = len(lines), self._sample
        tokens = [sample.tokens] * count
        for column in compress(texts, self._counted):
            tokens = list(map(add, tokens, estimate_texts(column)))
        return RequestColumns(lines, [sample.inputs] * count, tokens, tokens, [sample.billed_output] * count)


def _encode(value: JsonValue) -> bytes:
    """Return JSON as a part of a frame."""
    return orjson.dumps(value).replace(b"%", b"%%")


def _encode_part(member: str, template: JsonValue, holes: list[_Hole]) -> bytes:
    """Return a part of a body as a part of a frame, and note its holes."""
    if isinstance(template, dict):
        parts = [_encode(name) + b":" + _encode_part(member, value, holes) for name, value in template.items()]
        return b"{" + b",".join(parts) + b"}"
    if isinstance(template, list):
        return b"[" + b",".join([_encode_part(member, value, holes) for value in template]) + b"]"
    if not isinstance(template, str):
        return _encode(template)
    literals, paths = split_text(template)
    if not paths:
        return _encode(literals[0])
    form = "%s".join([literal.replace("%", "%%") for literal in literals])
    holes.append(_Hole(member, paths, None if form == "%s" else form))
    return b"%b"


def _compile_column(path: str) -> Column:
    segments = parse_plain(path)
    name = segments[0] if len(segments) == 1 else None
    if isinstance(name, str):
        return lambda documents: [document.get(name) for document in documents]
    return lambda documents: [get_value(document, segments) for document in documents]


def _parse(lines: Sequence[bytes]) -> tuple[Sequence[int], list[dict[str, Any]]]:
    """Return the documents, and their places among the lines: of those that are one."""
    try:
        documents = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        documents = list(map(_parse_one, lines))
    if set(map(type, documents)) <= {dict}:
        return range(len(lines)), documents
    places = [at for at, document in enumerate(documents) if type(document) is dict]
    return places, [documents[at] for at in places]


def _parse_one(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _are_usual(column: Sequence[Any]) -> bool:
    """Whether all values are texts with something in them."""
    return set(map(type, column)) <= {str} and all(column) and not any(map(str.isspace, column))


def _is_usual(value: Any) -> bool:
    return type(value) is str and value != "" and not value.isspace()
