"""From one document to one request of a batch: a template whose placeholders become JSON values, not text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Self, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PrivateAttr

from overnight.jsonpath import MISSING, Segment, get_value, parse_plain
from overnight.rejection import RejectedError

EMBEDDINGS: Final = "/v1/embeddings"
CHAT: Final = "/v1/chat/completions"

Fill: TypeAlias = Callable[[Any], Any]

# ``$${`` stands for a ``${`` that is meant as it is.
_HOLE = re.compile(r"\$\$\{|\$\{([^{}]+)\}")


class RequestTemplate(BaseModel):
    """
    A batch request with placeholders.

    A text in ``body`` may hold ``${path}``, a plain JSONPath into the document (``${$.text}``, ``${meta.tags[0]}``,
    ``${$['a b']}``). A text that is nothing but one placeholder becomes the document's value with its own type;
    placeholders inside a longer text become text. What a document holds is never read as a template or as JSON syntax,
    so no document can change the request around it. ``$${`` is a literal ``${``.

    .. code-block:: python

        RequestTemplate(
            endpoint="/v1/chat/completions",
            id_path="$.sku",
            body={"model": "m", "messages": [{"role": "user", "content": "Describe ${title} in ${language}."}]},
        )

    :param endpoint: What every request's ``url`` says.
    :param body: The request's body.
    :param id_path: Where a document's id is; it becomes the ``custom_id``. A text or a whole number.
    :raises ValidationError: a path has filters, wildcards or slices, which could match many values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str = Field(pattern=r"^/[A-Za-z0-9._/-]+$")
    body: dict[str, JsonValue] = Field(min_length=1)
    id_path: str = "$.id"

    _id_segments: tuple[Segment, ...] = PrivateAttr()
    _fill: Fill = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Compile the paths, so that a wrong one is refused here and not at the first document."""
        del context
        self._id_segments = parse_plain(self.id_path)
        self._fill = _compile(self.body)

    @classmethod
    def embeddings(
        cls,
        model: str,
        *,
        text_path: str = "$.text",
        id_path: str = "$.id",
        dimensions: int | None = None,
        endpoint: str = EMBEDDINGS,
    ) -> Self:
        """
        Return a template that embeds one text of every document.

        :param dimensions: Length of the vectors, for models that can shorten them.
        """
        body: dict[str, JsonValue] = {"model": model, "input": f"${{{text_path}}}", "encoding_format": "float"}
        if dimensions is not None:
            body["dimensions"] = dimensions
        return cls(endpoint=endpoint, body=body, id_path=id_path)

    @classmethod
    def chat(
        cls,
        model: str,
        *,
        prompt: str,
        system: str | None = None,
        id_path: str = "$.id",
        endpoint: str = CHAT,
        options: Mapping[str, JsonValue] | None = None,
    ) -> Self:
        """
        Return a template that asks a model about every document.

        :param prompt: The user's message, with ``${path}`` placeholders.
        :param system: The system message; it may have placeholders, too.
        :param options: What else goes into the body (``temperature``, ``response_format`` …).
        """
        messages: list[JsonValue] = [{"role": "user", "content": prompt}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        return cls(endpoint=endpoint, body={**(options or {}), "model": model, "messages": messages}, id_path=id_path)

    @property
    def model(self) -> str | None:
        """The model that every request names; ``None`` when the documents name it."""
        model = self.body.get("model")
        return model if isinstance(model, str) and not _HOLE.search(model) else None

    def custom_id(self, document: Any) -> str:
        """
        Return a document's id.

        :raises RejectedError: it has none, or one that is neither text nor a whole number.
        """
        value = get_value(document, self._id_segments)
        if value is MISSING or value is None or value == "":
            raise RejectedError("no_id", f"the document has no id at {self.id_path}")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise RejectedError("bad_id", f"the id at {self.id_path} is neither a text nor a whole number")
        return str(value)

    def render(self, document: Any) -> tuple[str, dict[str, Any]]:
        """
        Return a document's id and request.

        :raises RejectedError: it lacks something that the template asks for.
        """
        custom_id = self.custom_id(document)
        body = self._fill(document)
        if self.endpoint.endswith("/embeddings"):
            _check_embedding_input(body.get("input"))
        return custom_id, {"custom_id": custom_id, "method": "POST", "url": self.endpoint, "body": body}


def escape(value: Any) -> Any:
    """Return JSON whose texts a template leaves as they are: ``${`` in them stands for itself."""
    if isinstance(value, dict):
        return {name: escape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [escape(part) for part in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


def _compile(template: JsonValue) -> Fill:
    if isinstance(template, dict):
        fields = {name: _compile(value) for name, value in template.items()}
        return lambda document: {name: fill(document) for name, fill in fields.items()}
    if isinstance(template, list):
        items = [_compile(value) for value in template]
        return lambda document: [fill(document) for fill in items]
    if isinstance(template, str) and _HOLE.search(template):
        return _compile_text(template)
    return lambda document: template  # noqa: ARG005 - a Fill


def _compile_text(template: str) -> Fill:
    whole = _HOLE.fullmatch(template)
    if whole is not None and whole[1] is not None:
        path, segments = whole[1], parse_plain(whole[1])
        return lambda document: _required(document, segments, path)
    pieces: list[str | tuple[str, tuple[Segment, ...]]] = []
    end = 0
    for placeholder in _HOLE.finditer(template):
        pieces.append(template[end : placeholder.start()])
        pieces.append((placeholder[1], parse_plain(placeholder[1])) if placeholder[1] is not None else "${")
        end = placeholder.end()
    pieces.append(template[end:])

    def fill(document: Any) -> str:
        return "".join(
            piece if isinstance(piece, str) else _as_text(_required(document, piece[1], piece[0])) for piece in pieces
        )

    return fill


def _required(document: Any, segments: tuple[Segment, ...], path: str) -> Any:
    value = get_value(document, segments)
    if value is MISSING or value is None:
        raise RejectedError("missing", f"the document has nothing at {path}")
    if value in ("", [], {}) or (isinstance(value, str) and not value.strip()):
        raise RejectedError("empty", f"the document's value at {path} is empty")
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _check_embedding_input(value: Any) -> None:
    texts = value if isinstance(value, list) else [value]
    if all(isinstance(text, str) and text.strip() for text in texts):
        return
    # Token numbers are fine, too.
    if isinstance(value, list) and all(isinstance(token, int) for token in value):
        return
    raise RejectedError("not_text", "what is to be embedded is neither a text nor a list of texts that are not empty")
