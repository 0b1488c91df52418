"""From one document to one request of a batch: a template whose placeholders become JSON values, not text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Self, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PrivateAttr

from overnight.jsonpath import MISSING, get_value, parse_plain
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

    _read_id: Callable[[Any], str] = PrivateAttr()
    _render: Callable[[Any], tuple[str, dict[str, Any]]] = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Compile the paths, so that a wrong one is refused here and not at the first document."""
        del context
        self._read_id = _compile_id(self.id_path)
        self._render = _compile_request(self.endpoint, self._read_id, _compile(self.body))

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
        return self._read_id(document)

    def render(self, document: Any) -> tuple[str, dict[str, Any]]:
        """
        Return a document's id and request.

        :raises RejectedError: it lacks something that the template asks for.
        """
        return self._render(document)

    def compile(self) -> Callable[[Any], tuple[str, dict[str, Any]]]:
        """Return :meth:`render` as a plain function, for calling it very often."""
        return self._render


def split_text(template: str) -> tuple[list[str], list[str]]:
    """Return the texts around the placeholders of a text, and the paths of these: one less."""
    literals, paths = [""], []
    end = 0
    for placeholder in _HOLE.finditer(template):
        literals[-1] += template[end : placeholder.start()]
        if placeholder[1] is None:
            literals[-1] += "${"
        else:
            paths.append(placeholder[1])
            literals.append("")
        end = placeholder.end()
    literals[-1] += template[end:]
    return literals, paths


def escape(value: Any) -> Any:
    """Return JSON whose texts a template leaves as they are: ``${`` in them stands for itself."""
    if isinstance(value, dict):
        return {name: escape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [escape(part) for part in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


def _compile_id(path: str) -> Callable[[Any], str]:
    get = _compile_path(path)

    def read(document: Any) -> str:
        value = get(document)
        if type(value) is str and value:
            return value
        if value is MISSING or value is None or value == "":
            raise RejectedError("no_id", f"the document has no id at {path}")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise RejectedError("bad_id", f"the id at {path} is neither a text nor a whole number")
        return str(value)

    return read


def _compile_request(
    endpoint: str, read_id: Callable[[Any], str], fill: Fill
) -> Callable[[Any], tuple[str, dict[str, Any]]]:
    embeds = endpoint.endswith("/embeddings")

    def render(document: Any) -> tuple[str, dict[str, Any]]:
        custom_id = read_id(document)
        body = fill(document)
        if embeds:
            check_embedding_input(body.get("input"))
        return custom_id, {"custom_id": custom_id, "method": "POST", "url": endpoint, "body": body}

    return render


def _compile_path(path: str) -> Fill:
    """Return what finds the value at a path in a document, or :data:`~overnight.jsonpath.MISSING`."""
    segments = parse_plain(path)
    name = segments[0] if len(segments) == 1 else None
    if not isinstance(name, str):
        return lambda document: get_value(document, segments)
    return lambda document: document.get(name, MISSING) if type(document) is dict else get_value(document, segments)


def _compile(template: JsonValue) -> Fill:
    if isinstance(template, dict):
        return _compile_object(template)
    if isinstance(template, list):
        items = [_compile(value) for value in template]
        return lambda document: [fill(document) for fill in items]
    if isinstance(template, str) and _HOLE.search(template):
        return _compile_text(template)
    return lambda document: template  # noqa: ARG005 - a Fill


def _compile_object(template: dict[str, JsonValue]) -> Fill:
    # What no document changes is copied as it is; the others have their place among it.
    holes = [(name, _compile(value)) for name, value in template.items() if not _is_fixed(value)]

    def fill(document: Any) -> dict[str, Any]:
        filled: dict[str, Any] = template.copy()
        for name, fill_one in holes:
            filled[name] = fill_one(document)
        return filled

    return fill


def _is_fixed(template: JsonValue) -> bool:
    if isinstance(template, dict):
        return all(map(_is_fixed, template.values()))
    if isinstance(template, list):
        return all(map(_is_fixed, template))
    return not isinstance(template, str) or _HOLE.search(template) is None


def _compile_text(template: str) -> Fill:
    literals, paths = split_text(template)
    if literals == ["", ""]:
        return _compile_required(paths[0])
    pieces: list[str | Fill] = [literals[0]]
    for path, literal in zip(paths, literals[1:], strict=True):
        pieces += (_compile_required(path), literal)

    def fill(document: Any) -> str:
        return "".join(piece if isinstance(piece, str) else _as_text(piece(document)) for piece in pieces)

    return fill


def _compile_required(path: str) -> Fill:
    """Return what finds the value at a path in a document, and rejects a document that has none there."""
    get = _compile_path(path)

    def find(document: Any) -> Any:
        value = get(document)
        # Most are texts with something in them.
        if type(value) is str and value and not value.isspace():
            return value
        if value is MISSING or value is None:
            raise RejectedError("missing", f"the document has nothing at {path}")
        if value in ([], {}) or isinstance(value, str):
            raise RejectedError("empty", f"the document's value at {path} is empty")
        return value

    return find


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def check_embedding_input(value: Any) -> None:
    """
    Check what a request is to embed.

    :raises RejectedError: it is neither a text, a list of texts, nor token numbers.
    """
    if type(value) is str and value and not value.isspace():
        return
    texts = value if isinstance(value, list) else [value]
    if all(isinstance(text, str) and text and not text.isspace() for text in texts):
        return
    # Token numbers are fine, too.
    if isinstance(value, list) and all(isinstance(token, int) for token in value):
        return
    raise RejectedError("not_text", "what is to be embedded is neither a text nor a list of texts that are not empty")
