"""From one document to one request of a batch: a function that returns a prompt or a body."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import JsonValue

from overnight.errors import SpecError, shorten
from overnight.output_schema import OutputSchema
from overnight.rejection import RejectedError
from overnight.services.openai.endpoints import find_endpoint
from overnight.services.openai.structured import CHAT, build_directive
from overnight.services.openai.template import RequestTemplate

COMPARED: Final = 100
"""Documents whose request is made twice, to see that the function makes the same one."""
_MAX_TEXT: Final = 500


class RequestFunction:
    """
    Makes requests by a function, as :class:`~overnight.services.openai.template.RequestTemplate` does by placeholders.

    :param function: Takes a document, an object of its own, and returns a prompt, or a whole body. What it raises
        rejects the document. It must return the same for the same document: a retry pays for what has changed.
    :param endpoint: What every request's ``url`` says.
    :param model: What every request names; ``None`` when the bodies name it.
    :param id_path: Where a document's id is; it becomes the ``custom_id``.
    :param schema: What each answer shall be; it becomes a directive in each body.
    :param options: What else goes into each body; what the function returns comes first.
    :raises SpecError: the endpoint takes no schema, or the service does not take this one.
    :raises ValidationError: ``endpoint`` or ``id_path`` is none.
    """

    def __init__(
        self,
        function: Callable[[dict[str, Any]], str | Mapping[str, Any]],
        *,
        endpoint: str = CHAT,
        model: str | None = None,
        id_path: str = "$.id",
        schema: OutputSchema | None = None,
        options: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self._function = function
        self._common: dict[str, Any] = {**(options or {}), **({"model": model} if model is not None else {})}
        self._directive = build_directive(schema, endpoint) if schema is not None else {}
        # Ids and the check of the address are the template's.
        self._frame = RequestTemplate(endpoint=endpoint, body={"model": "-"}, id_path=id_path)
        self._rendered = 0
        self.endpoint = endpoint
        self.model = model

    def render(self, document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """
        Return a document's id and request.

        :raises RejectedError: the function raised an error, or returned neither a text nor an object.
        :raises SpecError: it makes another request the second time.
        """
        custom_id = self._frame.custom_id(document)
        self._rendered += 1
        twin = copy.deepcopy(document) if self._rendered <= COMPARED else None
        body = self._build_body(document)
        if twin is not None and self._build_body(twin) != body:
            raise SpecError(
                f"The function makes another request of the document {custom_id!r} when it is called again. A retry "
                "would pay for all of them anew: leave out times, random numbers and whatever else changes."
            )
        return custom_id, {"custom_id": custom_id, "method": "POST", "url": self.endpoint, "body": body}

    def compile(self) -> Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]:
        """Return :meth:`render`; a template compiles itself."""
        return self.render

    def _build_body(self, document: dict[str, Any]) -> dict[str, Any]:
        try:
            made: Any = self._function(document)
        except RejectedError:
            raise
        except Exception as error:
            said = shorten(str(error), _MAX_TEXT)
            raise RejectedError("function_failed", f"the function raised {type(error).__name__}: {said}") from error
        if isinstance(made, str):
            if not made.strip():
                raise RejectedError("empty", "the function returned an empty prompt")
            made = self._wrap(made)
        if not isinstance(made, Mapping):
            raise RejectedError(
                "no_request", f"the function returned {type(made).__name__}: neither a prompt nor a body"
            )
        return {**self._common, **made, **self._directive}

    def _wrap(self, prompt: str) -> dict[str, Any]:
        known = find_endpoint(self.endpoint)
        if known is None:
            raise SpecError(f"{self.endpoint} is not known, so the function must return whole bodies for it.")
        name = known.needs[0][0]
        return {name: [{"role": "user", "content": prompt}] if name == "messages" else prompt}
