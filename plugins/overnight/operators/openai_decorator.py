"""``@task.openai_batch_input``: batch input by a function from one document to its prompt."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, determine_kwargs, task_decorator_factory
from airflow.sdk.definitions._internal.types import SET_DURING_EXECUTION
from airflow.sdk.definitions.context import context_merge
from pydantic import BaseModel

from overnight.errors import SpecError
from overnight.operators.openai import OpenAIBatchInputOperator
from overnight.services.openai.template import CHAT

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.services.openai.request_function import RequestFunction


# A cache recognises a line by the template that made its request; a function has nothing to be recognised by.
_SET_HERE = frozenset({"documents", "template", "cache", "cache_uri", "conn_id"})


class OpenAIBatchFunctionInputOperator(DecoratedOperator, OpenAIBatchInputOperator):
    """
    Turn documents into batch input by a function, called in the worker with one document after the other.

    The first argument of the call says where the documents are (``documents`` of
    :class:`~overnight.operators.openai.OpenAIBatchInputOperator`), and the function gets each of them in its place;
    all other arguments are passed on as they are. It returns a prompt or a whole request body.

    :param python_callable: The function. It must return the same for the same document, which is held for the first
        100: a retry pays for what has changed. What it raises rejects the document.
    :param model: What every request names; ``None`` when the bodies name it.
    :param endpoint: ``/v1/chat/completions``, or any other that a batch can be for.
    :param id_path: Where a document's id is.
    :param output_type: What each answer shall be: a type, its import path, or a JSON Schema. Left out, it is what the
        function's return annotation says beside the text: ``-> Annotated[str, Review]``.
    :param options: What else goes into each body (``temperature`` …).
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        "model",
        "endpoint",
        "options",
        *(name for name in OpenAIBatchInputOperator.template_fields if name not in _SET_HERE),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {**DecoratedOperator.template_fields_renderers}
    custom_operator_name = "@task.openai_batch_input"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        model: str | None = None,
        endpoint: str = CHAT,
        id_path: str = "$.id",
        output_type: type | str | Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if unknown := sorted(kwargs.keys() & _SET_HERE):
            raise ValueError(f"{', '.join(unknown)} cannot be given to @task.openai_batch_input.")
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            documents=SET_DURING_EXECUTION,
            template={},
            **kwargs,
        )
        self.model = model
        self.endpoint = endpoint
        self.id_path = id_path
        self.output_type = output_type
        self.options = options

    def execute(self, context: Context) -> Any:
        """Write the parts and return what they are."""
        context_merge(context, self.op_kwargs)
        signature = inspect.signature(self.python_callable)
        named = determine_kwargs(self.python_callable, self.op_args, context)
        arguments = signature.bind(*self.op_args, **named).arguments
        first = next(iter(signature.parameters))
        self.documents = arguments.pop(first)
        self._function = functools.partial(_call_with_document, self.python_callable, first, arguments)
        return super().execute(context)

    def build_template(self) -> RequestFunction:
        """
        Return how a document becomes a request.

        :raises SpecError: the type of the answers is none, or the service does not take it.
        """
        from overnight.output_schema import OutputSchema  # noqa: PLC0415 - not at parse
        from overnight.services.openai.request_function import RequestFunction  # noqa: PLC0415 - not at parse

        answer = self.output_type if self.output_type is not None else find_answer_type(self.python_callable)
        return RequestFunction(
            self._function,
            endpoint=self.endpoint,
            model=self.model,
            id_path=self.id_path,
            schema=OutputSchema.parse(answer) if answer is not None else None,
            options=self.options,
        )


def openai_batch_input(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """
    Make a task that turns documents into batch input of a function that takes one document.

    :param python_callable: The function.
    :param kwargs: Those of :class:`OpenAIBatchFunctionInputOperator`.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        # The XCom is a list, whatever the function is annotated with.
        multiple_outputs=False,
        decorated_operator_class=OpenAIBatchFunctionInputOperator,
        **kwargs,
    )


def find_answer_type(function: Callable[..., Any]) -> type[BaseModel] | None:
    """
    Return the model that a function's return annotation has beside the text; ``None`` without any.

    :raises SpecError: the annotation is the model itself, which the function does not return.
    """
    returned = get_type_hints(function, include_extras=True).get("return")
    if isinstance(returned, type) and issubclass(returned, BaseModel):
        raise SpecError(
            f"The function returns a prompt and not a {returned.__name__}: annotate it with "
            f"Annotated[str, {returned.__name__}], or give output_type."
        )
    if get_origin(returned) is not Annotated:
        return None
    return next((one for one in get_args(returned)[1:] if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _call_with_document(
    function: Callable[..., Any], name: str, arguments: Mapping[str, Any], document: dict[str, Any]
) -> Any:
    return function(**{name: document, **arguments})
